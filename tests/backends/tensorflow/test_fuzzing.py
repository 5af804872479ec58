"""Mutations of files and of Keras configurations in them, through `bitwidth.load`; see `fuzzing` for what is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import bitwidth as bw
from tests.backends.tensorflow import fuzzing

SEED, CASES, ALL, CHUNK = 8, 150, 5_000, 500

# Cases that once went wrong, as (seed, number).
REGRESSIONS = [
    (1, 19),  # a layer where a class of the user's own holds its dtype policy
]


def judge(count: int) -> None:
    """Judge the first cases, two processes at a time."""

    def report(first: int) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.backends.tensorflow.fuzzing", str(SEED), str(first)]
        done = subprocess.run(
            [*command, str(min(CHUNK, count - first))],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
            cwd=Path(__file__).parents[3],
        )
        assert done.returncode == 0, f"cases {first} and following ended the process: {done.stderr[-2000:]}"
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(report, range(0, count, CHUNK)))
    wrong = {number: text for found in reports for number, text in found["wrong"].items()}
    shown = [f"case({SEED}, {number}): {text}" for number, text in list(wrong.items())[:5]]
    assert not wrong, f"{len(wrong)} of {count} cases went wrong\n" + "\n".join(shown)
    assert 0.05 < sum(found["read"] for found in reports) / count < 0.5, "most should be refused, and some give a model"
    assert max(found["grown"] for found in reports) < fuzzing.MEMORY


def test_a_few_mutations() -> None:
    judge(CASES)


@pytest.mark.slow
def test_many_mutations() -> None:
    judge(ALL)


@pytest.mark.parametrize(("seed", "number"), REGRESSIONS)
def test_what_once_went_wrong(seed: int, number: int, tmp_path: Path) -> None:
    fuzzing.judged(fuzzing.case(seed, number), tmp_path)


@pytest.mark.parametrize("index", range(len(fuzzing.NAMES)))
def test_honest_files_give_models(index: int, tmp_path: Path) -> None:
    assert fuzzing.judged(fuzzing.honest()[index], tmp_path)


def test_a_judge_that_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Had a variable another value, it would say so."""
    original = bw.load

    def altered(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        model.variables[0].assign(model.variables[0].numpy() + 1)
        return model

    monkeypatch.setattr(bw, "load", altered)
    with pytest.raises(AssertionError, match="has other values"):
        fuzzing.judged(fuzzing.honest()[0], tmp_path)
