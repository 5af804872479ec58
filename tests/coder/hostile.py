"""Damaged and forged streams, and what decoding them may cost."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import CorruptFileError

Arrays = Sequence[NDArray[Any]]
Decode = Callable[[bytes], Arrays]
Forms = list[tuple[np.dtype[Any], tuple[int, ...]]]


def damaged(data: bytes, changes: int = 300) -> Iterator[bytes]:
    """Truncations (of long streams, those near both ends), bytes left over, and random changes."""
    size = len(data)
    ends = range(size) if size < 400 else [*range(200), *range(200, size, size // 50), size - 2, size - 1]
    yield from (data[:end] for end in ends)
    yield from (data + extra for extra in (b"\0", b"\0\0", b"\xff"))
    rng = np.random.default_rng(size)
    for index in range(changes if size else 0):
        bad = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(0, size if index % 2 else min(size, 40)))] = int(rng.integers(0, 256))
        yield bytes(bad)


def attack(data: bytes, decode: Decode, forms: Forms, changes: int = 300) -> None:
    """Every damaged stream is refused, or decodes to arrays of the right form."""
    for bad in damaged(data, changes):
        with contextlib.suppress(CorruptFileError):
            assert [(array.dtype, array.shape) for array in decode(bad)] == forms


def cost(decode: Callable[[], object]) -> tuple[float, int]:
    """The seconds that it takes and the most bytes that it holds, refused or not; the result counts."""
    decode_once = contextlib.suppress(CorruptFileError)
    start = time.process_time()
    with decode_once:
        decode()
    seconds = time.process_time() - start
    tracemalloc.start()
    try:
        with decode_once:
            decode()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
