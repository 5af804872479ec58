"""The fuzzer of the reader: `python -m tests.artifact.fuzzing SEED FIRST COUNT`.

A case is what `case(seed, number)` gives, the same on every machine. It ends in an error of the library, or in content
that is written again and read as the same; soon, and in little memory. The process reports as JSON the cases that did
not, and how many of the others were read.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

from bitwidth.artifact import StoredModel, StoredParameter, inspect, open_file, pack, read_content
from bitwidth.artifact.format.states import arrays_of, config_of
from bitwidth.errors import FileError
from tests.artifact.honest import files
from tests.artifact.mutations import mutate

CLOCK = 0.001  # seconds below which a clock tells little
SECONDS = 5  # of the processor, for one case
BYTES = 3 << 29  # of address space, the interpreter with numpy included


class TooLong(BaseException):
    """A case took too long; no `except Exception` catches it."""


def case(seed: int, number: int) -> bytes:
    """The bytes of a case."""
    return _case(seed, number)[1]


def _case(seed: int, number: int) -> tuple[bytes, bytes]:
    """The honest file that a case was made of, and its bytes."""
    rng = random.Random(f"{seed}:{number}")
    honest = rng.choice(files())
    return honest, mutate(honest, rng)


def took(data: bytes, path: Path) -> float:
    """Seconds of the processor that reading a file takes, the least of three; whether it is refused does not matter."""
    path.write_bytes(data)
    least = math.inf
    for _ in range(3):
        start = time.process_time()
        tried(read_content, path)
        least = min(least, time.process_time() - start)
    return least


@cache
def _honest_seconds(data: bytes) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return took(data, Path(folder) / "m.bw")


def check_time(honest: bytes, data: bytes, path: Path) -> None:
    """Raise unless a file is read in ten times the time of the honest one and a millisecond for each kB of header.

    Files of earlier versions are not looked at: they are checked behind their streams only.
    """
    if data[8:10] != b"\3\0":
        return
    header = int.from_bytes(data[16:20], "little") if len(data) >= 20 else 0
    most = 10 * max(_honest_seconds(honest), CLOCK) + 1e-6 * header
    path.write_bytes(data)
    start = time.process_time()
    tried(read_content, path)
    if time.process_time() - start > most:
        found = took(data, path)
        assert found <= most, f"read in {1000 * found:.1f} ms, at most {1000 * most:.1f} expected"


def judged(data: bytes, path: Path) -> bool:
    """Whether a file is read; raises AssertionError unless it is refused, or what is read is written and read again."""
    path.write_bytes(data)
    shown, _ = tried(inspect, path)
    assert all(line.isprintable() for line in shown.split("\n"))
    shown, found = tried(read_content, path)
    assert shown.isprintable()
    _, model = tried(_opened, path)
    _, short = tried(partial(read_content, bits=2 + len(data) % 5), path)
    if found is None:
        assert model is None, "open_file gives what read_content refuses"
    else:
        _assert_kept(found, path)
        assert short is not None, "a file that is read whole is not read in part"
        assert [p.values.shape for p in short.parameters] == [p.values.shape for p in found.parameters]
    if short is not None and len(data) % 4 == 0:
        _assert_kept(short, path)
    return found is not None


def tried(read: Callable[[Path], Any], path: Path) -> tuple[str, Any]:
    """What is shown to a person, and what was read; None where the file was refused."""
    try:
        found = read(path)
    except FileError as error:
        return str(error), None
    return "" if isinstance(found, StoredModel) else str(found), found


def _opened(path: Path) -> StoredModel:
    with open_file(path) as file:
        return file.stored()


def _assert_kept(found: StoredModel, path: Path) -> None:
    again = path.with_suffix(".again")
    again.write_bytes(pack(found).data)
    assert_same(read_content(again), found)


def assert_same(left: StoredModel, right: StoredModel) -> None:
    """The same fields, encodings and values, to the bit."""
    assert left.name == right.name
    for name in ("framework", "config", "reason", "inputs", "variables", "layers"):
        one, other = getattr(left.architecture, name), getattr(right.architecture, name)
        assert json.dumps(one) == json.dumps(other), name
    assert list(left.architecture.assets.items()) == list(right.architecture.assets.items())
    assert described(left.activations) == described(right.activations)
    assert len(left.parameters) == len(right.parameters)
    for one, other in zip(left.parameters, right.parameters, strict=True):
        assert plain(one) == plain(other), one.path[:80]


def plain(parameter: StoredParameter) -> list[Any]:
    """A parameter as values that compare to the bit."""
    values, state = parameter.values, parameter.encoding.state()
    arrays = {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays_of(state)}
    named = [parameter.path, parameter.role, parameter.dtype, parameter.trainable]
    return [*named, json.dumps(config_of(state)), arrays, str(values.dtype), values.shape, values.tobytes()]


def described(activations: Any) -> Any:
    return {
        path: [None if grid is None else (grid.describe(), grid.scale.tobytes(), str(grid.zero_point)) for grid in held]
        for path, held in activations.items()
    }


def run(seed: int, first: int, count: int, folder: Path) -> dict[str, Any]:
    """Judge cases one after the other: how many were read, and what was wrong with which."""
    read, wrong = 0, {}
    for number in range(first, first + count):
        honest, data = _case(seed, number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            read += judged(data, folder / "m.bw")
            check_time(honest, data, folder / "m.bw")
        except (Exception, TooLong):
            wrong[number] = traceback.format_exc(limit=-6)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return {"read": read, "wrong": wrong}


def limit() -> None:
    """Less memory for this process; the alarm of a case."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGPROF, _too_long)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


if __name__ == "__main__":
    limit()
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as name:
        seed, first, count = map(int, sys.argv[1:])
        print(json.dumps(run(seed, first, count, Path(name))))
