"""Mutations of every part of a file, with checksums that fit, through the reader; see `fuzzing` for what is asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bitwidth.artifact import pack, read_content
from tests.artifact import fuzzing
from tests.artifact.files import taken_apart
from tests.artifact.honest import before, files, update
from tests.artifact.mutations import GENERAL, GROUPS, PARAMETERS, Mutation, mutate, mutations_of

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs limits on memory and time")
SEED, CASES, CHUNK = 8, 400, 1_000
ALL = int(os.environ.get("BITWIDTH_FUZZ_CASES", "30_000"))  # of the slow test; 100,000 take 17 minutes

# Cases that once went wrong, as (seed, number). They are the same cases only while honest files and mutations are: what
# each of them showed has a test of its own beside it.
REGRESSIONS: list[tuple[int, int]] = []


def chunks(count: int) -> Iterator[dict[str, Any]]:
    """Reports on the first cases, two processes at a time."""

    def report(first: int) -> dict[str, Any]:
        size = min(CHUNK, count - first)
        command = [sys.executable, "-m", "tests.artifact.fuzzing", str(SEED), str(first), str(size)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=900, cwd=Path(__file__).parents[2]
        )
        assert done.returncode == 0, f"cases {first} and following ended the process: {done.stderr[-2000:]}"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(report, range(0, count, CHUNK))


def judge(count: int) -> None:
    reports = list(chunks(count))
    wrong = {number: text for report in reports for number, text in report["wrong"].items()}
    shown = [f"case({SEED}, {number}): {text}" for number, text in list(wrong.items())[:5]]
    assert not wrong, f"{len(wrong)} of {count} cases went wrong\n" + "\n".join(shown)
    read = sum(report["read"] for report in reports)
    assert 0.1 < read / count < 0.5, "most mutations should be refused, and many read"


@needs_linux
def test_a_few_mutations() -> None:
    judge(CASES)


@needs_linux
@pytest.mark.slow
def test_many_mutations() -> None:
    judge(ALL)


@pytest.mark.parametrize(("seed", "number"), REGRESSIONS)
def test_what_once_went_wrong(seed: int, number: int, tmp_path: Path) -> None:
    fuzzing.judged(fuzzing.case(seed, number), tmp_path / "m.bw")


@pytest.mark.parametrize("index", range(len(files())))
def test_honest_files_are_read_and_written_again(index: int, tmp_path: Path) -> None:
    assert fuzzing.judged(files()[index], tmp_path / "m.bw")
    parts = taken_apart(files()[index])
    assert fuzzing.judged(parts.file(), tmp_path / "m.bw")


def test_a_case_is_the_same_each_time() -> None:
    assert [fuzzing.case(3, number) for number in range(20)] == [fuzzing.case(3, number) for number in range(20)]


@pytest.mark.parametrize(
    "mutation", dict.fromkeys([*GENERAL, *PARAMETERS, *GROUPS]), ids=lambda mutation: mutation.__name__
)
def test_every_mutation_changes_something(mutation: Mutation) -> None:
    rng = random.Random(8)
    fitting = [data for data in files() if mutation in mutations_of(taken_apart(data))]
    changed = [mutate(data, rng, [mutation]) != taken_apart(data).file() for data in fitting * 4]
    assert sum(changed) > len(changed) / 4


@pytest.mark.parametrize("seed", range(300))
def test_mutations_of_an_update(seed: int, tmp_path: Path) -> None:
    """It ends in an error of the library, or in a model that is written again and read as it was."""
    base, path = tmp_path / "old.bw", tmp_path / "new.bw"
    base.write_bytes(before())
    path.write_bytes(mutate(update(), random.Random(seed)) if seed else update())
    shown, found = fuzzing.tried(partial(read_content, base=base), path)
    assert shown.isprintable()
    if found is not None:
        path.write_bytes(pack(found).data)
        fuzzing.assert_same(read_content(path), found)
    assert seed or found is not None


def test_a_judge_that_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were what is written again something else, it would say so."""
    monkeypatch.setattr(fuzzing, "pack", lambda content: pack(replace(content, name="other")))
    with pytest.raises(AssertionError):
        fuzzing.judged(files()[0], tmp_path / "m.bw")
