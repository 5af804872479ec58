"""Integers that are computed from shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwidth.graph import Kind, Op
from bitwidth.graph.integers import Integers

SHAPES: dict[str, tuple[int | None, ...] | None] = {"x": (None, 9, 24), "y": (None,), "z": None}


def value(kind: Kind, given: list[Any], shape: tuple[int, ...], **attributes: Any) -> Any:
    """What an operation on the shape of `x` and on constants makes."""
    ops = [Op("s", "shape", "", ("x",), ("s",))]
    ops += [Op(f"c{i}", "constant", "", (), (f"c{i}",), attributes=(("value", item),)) for i, item in enumerate(given)]
    inputs = ("s", *(f"c{i}" for i in range(len(given))))
    ops.append(Op("r", kind, "", inputs, ("r",), attributes=tuple(attributes.items())))
    shapes = {**SHAPES, "s": (3,), "r": shape, **{f"c{i}": np.shape(item) for i, item in enumerate(given)}}
    found = Integers(shapes, {op.outputs[0]: op for op in ops}).of("r")
    return None if found is None else [None if np.isnan(item) else int(item) for item in found.ravel()]


@pytest.mark.parametrize(
    ("kind", "given", "shape", "attributes", "expected"),
    [
        ("gather", [[1, 2]], (2,), {}, [9, 24]),
        ("gather", [[0]], (1,), {}, [None]),
        ("reduce_product", [[0]], (), {}, [None]),
        ("concat", [[5]], (4,), {}, [None, 9, 24, 5]),
        ("multiply", [2], (3,), {}, [None, 18, 48]),
        ("subtract", [1], (3,), {}, [None, 8, 23]),
        ("maximum", [10], (3,), {}, [None, 10, 24]),
        ("integer_divide", [2], (3,), {}, [None, 4, 12]),
        ("strided_slice", [[1], [2], [1]], (), {"shrink_axis_mask": 1}, [9]),
        ("strided_slice", [[-1], [0], [1]], (), {"shrink_axis_mask": 1}, [24]),
        ("strided_slice", [[1], [0], [1]], (2,), {"end_mask": 1}, [9, 24]),
        ("strided_slice", [[0], [2], [1]], (2,), {"begin_mask": 1}, [None, 9]),
        ("identity", [], (3,), {}, [None, 9, 24]),
        ("relu", [], (3,), {}, None),
        ("add", [[1, 2, 3]], (4,), {}, None),
    ],
)
def test_what_is_computed(kind: Kind, given: list[Any], shape: tuple[int, ...], attributes: Any, expected: Any) -> None:
    assert value(kind, given, shape, **attributes) == expected


def test_what_is_not_known() -> None:
    ops = [Op("s", "shape", "", ("z",), ("s",)), Op("t", "constant", "", (), ("t",), attributes=(("value", "text"),))]
    integers = Integers({**SHAPES, "s": (3,), "t": (), "u": (None,)}, {op.outputs[0]: op for op in ops})
    assert [integers.of(name) for name in ("s", "t", "u", "x")] == [None] * 4
