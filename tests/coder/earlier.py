"""Arrays that streams of the released encoder hold (`tests/coder/golden`); integer arithmetic, the same everywhere.

The streams were made with the coders of commit ac3824d, the last whose lanes are all there from the start:
`PYTHONPATH=<a checkout of it>:<this one> python tests/coder/earlier.py tests/coder/golden/streams.json`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def uniform(seed: int, count: int, below: int) -> Integers:
    """Integers of 0 to `below` - 1, evenly (splitmix64)."""
    state = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)
    state *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(16)).astype(np.int64) % below


def heap(seed: int, count: int, spread: int) -> Integers:
    """Integers around zero, most of them close by."""
    draws = [uniform(seed + 100 * index, count, 2 * spread + 1) for index in range(4)]
    return np.asarray(sum(draws), np.int64) - 4 * spread


def rare(seed: int, count: int, one_in: int, values: int) -> Integers:
    """Zeros and, of one in so many, integers from 1 to `values`."""
    return np.where(uniform(seed, count, one_in) == 0, 1 + heap(seed, count, values) % values, 0)


def places(count: int) -> Integers:
    return np.arange(count, dtype=np.int64) * 7 // 5 % 5


def in_contexts(symbols: Integers) -> Integers:
    """Symbols that depend on `places`; one context has one symbol only."""
    context = places(symbols.size)
    return np.where(context == 2, 9, (symbols + context * (symbols > 0)) % 9)


SYMBOLS: dict[str, Integers] = {
    "few": heap(1, 200, 2) + 8,
    "of 16 bits, few": heap(2, 300, 700) + 2800,
    "constant": np.full(1000, 9),
    "bits, few": rare(3, 900, 5, 1),
    "lanes": rare(4, 135_000, 24, 3),
    "lanes, two joined": rare(5, 300_000, 120, 12),
    "lanes, four joined": rare(6, 600_000, 300, 3),
    "lanes, eight joined": rare(7, 1_200_000, 600, 1),
    "lanes, of 16 bits": rare(8, 150_000, 400, 5000),
}
CONTEXTS: dict[str, Integers] = {
    "few": in_contexts(rare(9, 400, 3, 4)),
    "lanes": in_contexts(rare(10, 220_000, 60, 4)),
    "lanes, of 16 bits": in_contexts(rare(11, 220_000, 300, 6)) * 40,
}
INTEGERS: dict[str, Integers] = {
    "constant": np.full(1000, -77),
    "constant beyond 32 bits": np.full(9, 1 << 40),
    "packed": heap(12, 5, 1 << 20),
    "direct": heap(13, 300, 3),
    "direct, lanes": rare(14, 160_000, 200, 9) - 4,
    "direct, far": heap(15, 300, 3) - (1 << 35),
    "tokens": heap(16, 700, 9000),
    "tokens of 64 bits": heap(17, 300, 3) * 10**14,
    "tokens, lanes": rare(18, 150_000, 500, 1 << 20) * (1 - 2 * uniform(18, 150_000, 2)),
}
MASKS: dict[str, NDArray[np.bool_]] = {
    "small": (heap(19, 12, 3) > 0).reshape(3, 4),
    "none": np.zeros((9, 9), bool),
    "all": np.ones((9, 9), bool),
    "plain": (heap(20, 600, 9) > -3).reshape(20, 30),
    "lanes": (rare(21, 300_000, 60, 1) == 0).reshape(600, 500),
    "gaps": (rare(22, 300_000, 500, 1) > 0).reshape(600, 500),
    "gaps between what is not set": (rare(23, 300_000, 500, 1) == 0).reshape(600, 500),
    "rows": ((heap(24, 18_000, 9) > -20).reshape(120, 150)) & (np.arange(120) % 3 > 0)[:, None],
    "columns": heap(25, 10_800, 9).reshape(120, 90) > (np.arange(90) % 4 * 20 - 20),
    "rows and columns, lanes": (rare(26, 270_000, 30, 1).reshape(600, 450) == 0)
    & (np.arange(600) % 3 > 0)[:, None]
    & (np.arange(450) % 2 > 0),
}
PLANES: dict[str, Integers] = {"few": heap(27, 200, 8), "lanes": rare(28, 200_000, 300, 7) * 3 - 5}
ARRAYS: dict[str, NDArray[Any]] = {
    "halves": (heap(29, 900, 40) / np.float64(64)).astype(np.float16),
    "floats": (heap(30, 500, 40) / np.float64(64)).astype(np.float32),
    "lanes": (rare(31, 150_000, 300, 40) / np.float64(64)).astype(np.float16),
    "lanes, a plane above": np.where(rare(32, 150_000, 200, 2) > 0, 0x3C01, 0x4000).astype(np.uint16),
}
PLANES_OF = 6


def golden() -> dict[str, list[bytes]]:
    """The streams as stored."""
    text = (Path(__file__).parent / "golden" / "streams.json").read_text()
    return {name: [base64.b85decode(part) for part in parts] for name, parts in json.loads(text).items()}


def _main(path: str) -> None:
    from bitwidth import coder

    def several(kind: str, cases: dict[str, Any], encode: Callable[[Any], Any]) -> None:
        for name, values in cases.items():
            parts = encode(values)
            parts = parts if isinstance(parts, list) else [parts]
            out[f"{kind}, {name}"] = [base64.b85encode(part).decode() for part in parts]
            print(f"{kind}, {name}:", sum(map(len, parts)), parts[0][0] & 15, parts[0][0] >> 6)

    out: dict[str, list[str]] = {}
    several("symbols", SYMBOLS, coder.encode_symbols)
    several("contexts", CONTEXTS, lambda values: coder.encode_symbols(values, places(values.size)))
    several("integers", INTEGERS, coder.encode_integers)
    several("mask", MASKS, coder.encode_mask)
    several("planes", PLANES, lambda values: coder.encode_planes(values, PLANES_OF))  # type: ignore[attr-defined]
    several("array", ARRAYS, coder.encode_array)
    Path(path).write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
