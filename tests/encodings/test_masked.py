from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import (
    Dense,
    EncodingState,
    IntegerLevels,
    Masked,
    Quantized,
    encoding_from_state,
    masked,
    rebased,
    uniform_levels,
)
from bitwidth.errors import EncodingError

SHAPE = (3, 4)
values = hnp.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32))
masks = hnp.arrays(np.bool_, SHAPE)
GRID = Quantized(IntegerLevels(0, 15), np.full((1, 4), 0.25, np.float32), (3, 1), np.full((1, 4), 7, np.int32))


@settings(max_examples=60, deadline=None)
@given(values, masks)
def test_a_mask_overrides_what_is_below_it(x: NDArray[np.float32], keep: NDArray[np.bool_]) -> None:
    for base in (Dense(), Dense("float16"), GRID):
        projected = Masked(keep, base).project(x)
        assert np.array_equal(projected[keep], base.project(x)[keep])
        assert not projected[~keep].view(np.uint32).any()


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_masks_intersect(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
    both = masked(masked(GRID, first), second)
    assert np.array_equal(both.keep, first & second)
    assert both.base is GRID


def test_rebased_keeps_the_mask() -> None:
    keep = np.eye(3, 4) > 0
    assert rebased(Dense(), GRID) is GRID
    moved = rebased(Masked(keep, Dense("float16")), GRID)
    assert isinstance(moved, Masked)
    assert moved.base is GRID
    assert np.array_equal(moved.keep, keep)


def test_masked_nan_and_infinity_are_zero() -> None:
    x = np.array([np.nan, np.inf, 1.0], np.float32)
    assert Masked(np.array([False, False, True])).project(x).tolist() == [0.0, 0.0, 1.0]


def test_the_mask_is_a_copy() -> None:
    keep = np.array([True, False])
    encoding = Masked(keep)
    keep[:] = True
    assert encoding.keep.tolist() == [True, False]
    assert not encoding.keep.flags.writeable


@pytest.mark.parametrize("keep", [np.array([1, 0]), np.array([1.0, 0.0]), [1, 0], np.array(["a", "b"])])
def test_a_mask_of_anything_but_booleans_is_refused(keep: Any) -> None:
    with pytest.raises(EncodingError, match="booleans"):
        Masked(keep)


def test_a_mask_over_a_mask_is_refused() -> None:
    keep = np.ones(2, bool)
    with pytest.raises(EncodingError, match="mask over a mask"):
        Masked(keep, Masked(keep))


def test_a_mask_over_a_grid_of_another_shape_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"mask: shape \(2, 4\)|mask: shape"):
        Masked(np.ones((4, 4), bool), GRID)


def test_words() -> None:
    keep = np.array([True, False, False, False])
    assert Masked(keep).describe() == "75.0% zero, dense"
    base = Quantized(uniform_levels(4), np.ones(1, np.float32), (4,))
    assert Masked(keep, base).describe() == "75.0% zero, 4-bit x1"
    assert Masked(np.ones(0, bool)).describe() == "0.0% zero, dense"


def test_packed_bits_by_hand() -> None:
    """4 bits for the mask, 4 for each of the 2 that are kept, 16 for one scale that is a half."""
    base = Quantized(uniform_levels(4), np.array([0.5], np.float32), (4,))
    assert Masked(np.array([True, False, True, False]), base).packed_bits((4,)) == 4 + 2 * 4 + 16
    assert Masked(np.array([True, False, True, False]), Dense("bfloat16")).packed_bits((4,)) == 4 + 2 * 16


def test_states_that_make_no_sense_are_refused() -> None:
    dense = Dense().state()
    keep = np.ones(2, bool)
    inner = EncodingState("masked", {}, {"keep": keep}, {"base": dense})
    states = [
        EncodingState("masked", {}, {}, {"base": dense}),
        EncodingState("masked", {}, {"keep": keep}, {}),
        EncodingState("masked", {}, {"keep": keep}, {"base": inner}),
        EncodingState("masked", {}, {"keep": keep}, {"base": EncodingState("unknown")}),
        EncodingState("masked", {}, {"keep": np.ones((5, 5), bool)}, {"base": GRID.state()}),
    ]
    for state in states:
        with pytest.raises(EncodingError):
            encoding_from_state(state)
