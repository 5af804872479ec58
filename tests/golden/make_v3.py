"""Make the third golden file, in groups and layers: `python -m tests.golden.make_v3`. Once made it stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel, StoredParameter, pack, write_file
from bitwidth.encodings import Dense, Encoding, Escaped, LevelRows, Masked, Quantized, TableLevels, uniform_levels
from tests.golden import make, make_v2
from tests.stored import rebuilt

FILE = Path(__file__).with_name("v3.bw")


def encodings() -> dict[str, tuple[Encoding, NDArray[Any]]]:
    """Those of version 2, escapes, rows of tables, floats of few bits, and a wide grid under a mask."""
    held = dict(make_v2.encodings())
    x = (make.numbers(50, 40) ** 3 / 9).astype(np.float32)
    plane = np.abs(x) > 2
    more: dict[str, Encoding] = {
        "plain/escaped": Escaped(
            plane, x[plane], Quantized(uniform_levels(3), np.full((1, 40), 0.5, np.float32), (50, 1))
        ),
        "plain/rows": Quantized(
            LevelRows((TableLevels((-1, 0, 1)), TableLevels((-1.5, -0.25, 0, 2)))),
            np.full((1, 40), 0.5, np.float32),
            (50, 1),
            row=(np.arange(40, dtype=np.int32) % 2)[None],
        ),
        "plain/few_bits": Dense("e8m3"),
        "masked/eight_bits": Masked(
            np.arange(2000).reshape(50, 40) % 3 > 0,
            Quantized(uniform_levels(8), np.full((1, 40), 0.03125, np.float32), (50, 1)),
        ),
    }
    return held | {path: (encoding, encoding.project(x)) for path, encoding in more.items()}


def content() -> StoredModel:
    """A model that does not exist, of a parameter for each encoding."""
    parameters = tuple(
        StoredParameter(path, "kernel", str(values.dtype), not path.startswith("masked"), encoding, values)
        for path, (encoding, values) in encodings().items()
    )
    variables = [[p.path.rpartition("/")[2], list(p.values.shape), p.dtype] for p in parameters]
    return replace(rebuilt(make.content(), variables=variables), parameters=parameters)


if __name__ == "__main__":
    write_file(FILE, pack(content(), layers=True).parts())
