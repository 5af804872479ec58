"""Make the second golden file, with bit planes: `python -m tests.golden.make_v2`. Once made it stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel, StoredParameter, write_file
from bitwidth.encodings import Encoding, IntegerLevels, Masked, PrefixLevels, Quantized
from tests.artifact import earlier
from tests.golden import make

FILE = Path(__file__).with_name("v2.bw")


def encodings() -> dict[str, tuple[Encoding, NDArray[Any]]]:
    """Those of version 1, prefixes of grids, and a grid of eight bits with enough values to fill its planes."""
    held = dict(make.encodings())
    steps = np.array([[0.25, 0.5, 0.1]], np.float32)
    prefixes = Quantized(PrefixLevels(127, 4), steps / np.float32(16), (5, 1))
    held["plain/prefix"] = prefixes, prefixes.project(make.numbers(5, 3))
    over = Masked(np.arange(15).reshape(5, 3) % 4 != 0, prefixes)
    held["masked/prefix"] = over, over.project(make.numbers(5, 3))
    wide = Quantized(IntegerLevels(-127, 127), np.full((1, 40), 0.03125, np.float32), (50, 1))
    held["plain/eight_bits"] = wide, wide.project(make.numbers(50, 40) ** 3 / 9)
    return held


def content() -> StoredModel:
    """A model that does not exist, of a parameter for each encoding."""
    parameters = tuple(
        StoredParameter(path, "kernel", str(values.dtype), not path.startswith("masked"), encoding, values)
        for path, (encoding, values) in encodings().items()
    )
    return replace(make.content(), parameters=parameters)


if __name__ == "__main__":
    write_file(FILE, earlier.pack(content(), planes=True))
