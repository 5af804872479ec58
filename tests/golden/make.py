"""What the golden file `v1.bw` holds; a file once made stays as it is.

A later version of the format has a file of its own beside `v1.bw` (`make_v2.py`), and every version is read for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel, StoredParameter
from bitwidth.encodings import Dense, Encoding, IntegerLevels, Masked, Quantized, TableLevels
from tests.stored import stored_model

FILE = Path(__file__).with_name("v1.bw")


def numbers(*shape: int) -> NDArray[np.float32]:
    """Fixed numbers between -3 and 3, multiples of 1/16."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 37 % 101 - 50) / 16).astype(np.float32).reshape(shape)


def encodings() -> dict[str, tuple[Encoding, NDArray[Any]]]:
    """By path, an encoding of each kind and the values that it holds."""
    steps = np.array([[0.25, 0.5, 0.1], [0.0, 1.0, 0.75]], np.float32)
    zero_point = np.array([[3, 0, 15], [7, 8, 1]], np.int32)
    grids: dict[str, Encoding] = {
        "four_bits": Quantized(IntegerLevels(-7, 7), steps, (3, 1)),
        "one_bit": Quantized(TableLevels((-1.0, 1.0)), steps[:1], (5, 1)),
        "asymmetric": Quantized(IntegerLevels(0, 15), steps, (4, 1), zero_point),
        "biased": Quantized(IntegerLevels(-1, 2), steps[:1], (5, 1), bias=steps[1:]),
        "unbounded": Quantized(IntegerLevels(), np.array([[0.0625]], np.float32), (5, 3)),
        "powers": Quantized(TableLevels((-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)), steps[:1], (5, 1)),
        "irregular": Quantized(TableLevels((-1.7, 0.1, 0.3)), steps[1:], (5, 1)),
        "float32": Dense("float32"),
        "float16": Dense("float16"),
        "bfloat16": Dense("bfloat16"),
        "dense": Dense(),
    }
    keep = np.arange(15).reshape(5, 3) % 4 != 0
    held: dict[str, tuple[Encoding, NDArray[Any]]] = {}
    for name, encoding in grids.items():
        held[f"plain/{name}"] = encoding, encoding.project(numbers(5, 3))
        over = Masked(keep, encoding)
        held[f"masked/{name}"] = over, over.project(numbers(5, 3))
    for dtype in ("float16", "float64", "int32", "int64", "uint8", "bool"):
        held[f"dtype/{dtype}"] = Dense(), numbers(4).astype(dtype)
    held["shape/scalar"] = Dense(), np.array(-1.5, np.float32)
    held["shape/empty"] = Dense(), np.zeros((0, 3), np.float32)
    return held


def content() -> StoredModel:
    """A model that does not exist, of a parameter for each encoding."""
    parameters = tuple(
        StoredParameter(path, "kernel", str(values.dtype), not path.startswith("masked"), encoding, values)
        for path, (encoding, values) in encodings().items()
    )
    return stored_model(
        name="golden ÿ",
        framework="keras",
        architecture={"class_name": "Sequential", "config": {"layers": [1, 2.5, None, "x"]}},
        reason="",
        inputs=[{"shape": [None, 5], "dtype": "float32"}],
        variables=[["kernel", [5, 3], "float32"]],
        parameters=parameters,
        assets={"words.txt": b"small\nmodels\n", "nothing": b""},
    )
