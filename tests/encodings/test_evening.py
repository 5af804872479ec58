"""Codes of blocks over their steps: what is rounded to the other side, and that it is the best of what could be."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings.evening import MEAN, divided

Ints = NDArray[np.int32]


def plainly(codes: Ints, step: Ints, top: int) -> Ints:
    """Halves away from zero, clipped."""
    level = np.minimum((np.abs(codes.astype(np.int64)) + step // 2) // step, top)
    found: Ints = (np.sign(codes) * level).astype(np.int32)
    return found


def measure(short: Ints, codes: Ints, step: int) -> float:
    """What evening out makes small, of one block."""
    off = short.astype(np.int64) * step - codes
    return float(np.square(off).sum() + MEAN * np.square(off.sum()))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-40, 40), min_size=2, max_size=9),
    st.integers(2, 12),
    st.integers(1, 7),
)
def test_no_other_rounding_of_a_block_is_better(codes: list[int], step: int, top: int) -> None:
    """Of all that round codes towards what is owed to the block's sum; a brute force over them."""
    column = np.array(codes, np.int32)[:, None]
    found = divided(column, np.array([[step]], np.int32), (len(codes), 1), top)
    plain = plainly(column, np.array(step), top)
    off = plain * step - column
    side = -1 if off.sum() < 0 else 1
    free = np.flatnonzero((off * side > 0) & (plain * side != -top))
    least = measure(plain, column, step)
    for choice in product((0, 1), repeat=len(free)):
        other = plain.copy()
        other[free, 0] -= side * np.array(choice, np.int32)
        least = min(least, measure(other, column, step))
    assert measure(found, column, step) == pytest.approx(least)


CASES = [
    ((40, 30), (40, 1), 127),
    ((3, 3, 20, 16), (3, 3, 20, 1), 127),  # columns of a view
    ((3, 3, 20, 16), (3, 3, 8, 1), 127),  # groups, the last one shorter
    ((5, 40), (1, 40), 127),
    ((3000, 300), (3000, 1), 127),  # more than are kept at a time
    ((700, 3), (700, 1), 32_767),
    ((700, 3), (700, 1), 1 << 30),  # beyond what 32-bit floats hold
    ((50,), (7,), 127),
    ((6, 6), (1, 1), 127),
]


@pytest.mark.parametrize(("shape", "block", "most"), CASES)
@pytest.mark.parametrize("top", [1, 7, 127])
def test_blocks_of_every_layout(shape: tuple[int, ...], block: tuple[int, ...], most: int, top: int) -> None:
    """Each block is divided as by itself, whatever is beside it."""
    rng = np.random.default_rng(0)
    codes = np.clip(rng.laplace(size=shape) * most / 8, -most, most).astype(np.int32)
    counts = [-(-length // size) for size, length in zip(block, shape, strict=True)]
    step = rng.integers(1, max(2, most // top), counts).astype(np.int32)
    found = divided(codes, step, block, top)
    assert found.dtype == np.int32
    assert np.abs(found).max() <= top
    assert np.array_equal(found, divided(codes, step, block, top))
    better = 0
    for place in list(np.ndindex(*counts))[:40]:
        part = tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, block, strict=True))
        alone = divided(codes[part].reshape(-1, 1).copy(), step[place].reshape(1, 1), (codes[part].size, 1), top)
        whole, plain = found[part], plainly(codes[part], step[place], top)
        one = measure(whole, codes[part], int(step[place]))
        assert one == pytest.approx(measure(alone.reshape(whole.shape), codes[part], int(step[place])))
        assert one <= measure(plain, codes[part], int(step[place]))
        better += one < measure(plain, codes[part], int(step[place]))
    assert better or max(block) < 8 or step.max() == 1


def test_steps_of_one_and_long_blocks_are_only_rounded() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (70_000, 2)).astype(np.int32)
    step = np.array([[18, 7]], np.int32)
    assert np.array_equal(divided(codes, step, (70_000, 1), 7), plainly(codes, step, 7))
    ones = np.ones((1, 2), np.int32)
    assert np.array_equal(divided(codes[:50], ones, (50, 1), 200), codes[:50])


def test_halves_go_away_from_zero_at_every_size() -> None:
    for most in (100, 1 << 17, 1 << 30):
        step = np.array([2, 6, 10, most // 4 * 2], np.int32)
        codes = np.array([[1, 3, 5, most // 4], [-1, -3, -5, -(most // 4)], [0, 2, 4, most // 4 - 1]], np.int32)
        alone = np.concatenate([divided(row[None], step, (1, 1), 7) for row in codes])
        assert alone.tolist() == [[1] * 4, [-1] * 4, [0] * 4], most


def test_nothing() -> None:
    assert divided(np.zeros((0, 3), np.int32), np.ones((0, 3), np.int32), (1, 1), 7).shape == (0, 3)
