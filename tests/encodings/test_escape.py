from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import Dense, Escaped, IntegerLevels, Masked, Quantized, masked, uniform_levels
from bitwidth.errors import EncodingError
from bitwidth.fitting import fit

GRID = Quantized(uniform_levels(3), np.array([[0.5, 1.0]], np.float32), (4, 1))
X = np.array([[0.6, 9.7], [-7.3, 1.2], [0.1, -0.2], [2.0, 30.0]], np.float32)
PLANE = np.array([[False, True], [True, False], [False, False], [False, True]])


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.bool_, (4, 2)), hnp.arrays(np.bool_, (4, 2)))
def test_a_mask_over_escapes_drops_what_it_hides(plane: NDArray[np.bool_], keep: NDArray[np.bool_]) -> None:
    held = Masked(keep, Escaped.of(X, plane, GRID))
    inner = held.base
    assert isinstance(inner, Escaped)
    assert np.array_equal(inner.plane, plane & keep)
    assert inner.values.tolist() == X[plane & keep].tolist()
    expected = np.where(keep, np.where(plane, X, GRID.project(X)), 0)
    assert np.array_equal(held.project(X), expected)
    assert np.array_equal(held.project(X * 3)[plane], expected[plane])
    less = masked(held, ~plane)
    assert isinstance(less.base, Escaped)
    assert not less.base.values.size
    assert held.broken_by(less) is None


def test_the_code_of_an_escaped_value_is_that_of_zero() -> None:
    grid = Quantized(IntegerLevels(3, 9), np.ones((1, 2), np.float32), (4, 1), np.array([[5, 9]], np.int32))
    held = Escaped.of(X, PLANE, grid)
    codes = held.encode(X)
    assert codes[PLANE].tolist() == [9, 5, 9]
    held.check_codes(codes)
    with pytest.raises(EncodingError, match="codes must be integers"):
        held.check_codes(codes + 9)


def test_what_is_stored_is_counted() -> None:
    sides = 8 + 2 * 16
    assert Escaped.of(X, PLANE, GRID).packed_bits(X.shape) == 5 * 3 + 3 * 32 + sides
    assert Escaped.of(X, PLANE, GRID, "float16").packed_bits(X.shape) == 5 * 3 + 3 * 16 + sides
    keep = np.array([[True, True], [True, False], [False, False], [True, False]])
    assert Masked(keep, Escaped.of(X, PLANE, GRID)).packed_bits(X.shape) == 8 + 2 * 3 + 2 * 32 + sides
    assert Escaped.of(X, PLANE, GRID).describe() == "3-bit x2, 3 as float32"
    assert Escaped.of(X, PLANE, GRID).bits == 3


def test_values_are_taken_from_another_tensor() -> None:
    held = Escaped.of(X, PLANE, GRID, "bfloat16").holding(X + 1)
    assert held.values.tolist() == Dense("bfloat16").project((X + 1)[PLANE]).tolist()
    with pytest.raises(EncodingError, match="expected the shape"):
        held.holding(X[0])


def test_a_selection_takes_its_escapes_along() -> None:
    taken = Escaped.of(X, PLANE, GRID).take(1, np.array([1, 0, 1]))
    assert taken.values.tolist() == X.take([1, 0, 1], 1)[PLANE.take([1, 0, 1], 1)].tolist()


THREE = np.ones(3, np.float32)
HIDDEN = Masked(np.ones((4, 2), bool), GRID)


@pytest.mark.parametrize(
    ("plane", "values", "base", "format", "words"),
    [
        (PLANE.astype(int), THREE, GRID, "float32", "holds booleans"),
        (PLANE, THREE[:2], GRID, "float32", "3 escaped values expected"),
        (PLANE, np.ones(3, int), GRID, "float32", "3 escaped values expected"),
        (PLANE, THREE * np.inf, GRID, "float32", "finite in float32"),
        (PLANE, THREE * 1e6, GRID, "float16", "finite in float16"),
        (PLANE[:, :1], THREE[:1], GRID, "float32", "plane of escapes"),
        (PLANE, THREE, HIDDEN, "float32", "a mask goes over them"),
        (PLANE, THREE, Escaped.of(X, PLANE, GRID), "float32", "escapes are one plane"),
        (PLANE, THREE, GRID, None, "have a format"),
        (PLANE, THREE, GRID, "float8", "have a format"),
    ],
)
def test_escapes_that_make_no_sense_are_refused(plane: Any, values: Any, base: Any, format: Any, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        Escaped(plane, values, base, format)


def test_a_few_escapes_make_the_grid_of_the_others_finer() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    x[rng.random(x.shape) < 0.01] *= 50
    plane = np.abs(x) > 5
    base = fit("uniform", 4, x, (200, 1), keep=~plane)
    alone = fit("uniform", 4, x, (200, 1))
    held = Escaped.of(x, plane, base)
    assert np.square(held.project(x) - x).sum() < 0.2 * np.square(alone.project(x) - x).sum()
