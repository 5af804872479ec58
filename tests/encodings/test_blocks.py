from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.encodings import block_of, block_reduce, check_granularity, grid_shape, spread
from bitwidth.encodings.blocks import check_blocks, take_blocks
from bitwidth.errors import ConfigError, EncodingError


@st.composite
def blocked(draw: st.DrawFn, min_side: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape and a block, which may be longer than an axis."""
    shape = draw(st.lists(st.integers(min_side, 7), min_size=1, max_size=3))
    return tuple(shape), tuple(draw(st.integers(1, 9)) for _ in shape)


@settings(max_examples=150, deadline=None)
@given(blocked())
def test_spread_gives_each_element_the_entry_of_its_block(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, block = case
    grid = np.arange(int(np.prod(grid_shape(shape, block)))).reshape(grid_shape(shape, block))
    check_blocks(shape, block, grid.shape, "kernel")
    wide = np.broadcast_to(spread(grid, block, shape), shape)
    for place in np.ndindex(shape):
        assert wide[place] == grid[tuple(index // size for index, size in zip(place, block, strict=True))]


@settings(max_examples=150, deadline=None)
@given(blocked(min_side=1), st.sampled_from([np.add, np.maximum, np.minimum]))
def test_block_reduce_is_a_loop_over_blocks(case: tuple[tuple[int, ...], tuple[int, ...]], function: Any) -> None:
    shape, block = case
    values = np.random.default_rng(0).integers(-50, 50, shape)
    reduced = block_reduce(values, block, function)
    assert reduced.shape == grid_shape(shape, block)
    for place in np.ndindex(reduced.shape):
        part = values[tuple(slice(i * size, (i + 1) * size) for i, size in zip(place, block, strict=True))]
        assert reduced[place] == function.reduce(part, axis=None)


def test_block_reduce_sums_in_the_dtype_it_is_given() -> None:
    values = np.full((300,), 200, np.uint8)
    assert block_reduce(values, (300,), np.add, np.int64).tolist() == [60000]
    assert block_reduce(values, (150,), np.add, np.int64).tolist() == [30000, 30000]


@pytest.mark.parametrize(
    ("shape", "granularity", "channels", "inputs", "block"),
    [
        ((64, 32), "tensor", (1,), (0,), (64, 32)),
        ((64, 32), "channel", (1,), (0,), (64, 1)),
        ((64, 32), 16, (1,), (0,), (16, 1)),
        ((10, 32), 16, (1,), (0,), (10, 1)),  # a group is no longer than its axis
        ((3, 3, 64, 32), 16, (3,), (0, 1, 2), (3, 3, 16, 1)),
        ((8, 4, 6), "channel", (1, 2), (0,), (8, 1, 1)),  # einsum: heads and their width
        ((4, 6, 8), 2, (2,), (0, 1), (4, 2, 1)),
        ((100, 16), "channel", (0,), (1,), (1, 16)),  # an embedding
        ((7,), "channel", (0,), (), (1,)),
        ((7,), 4, (0,), (), (1,)),  # nothing to cut into groups
        ((0, 5), "tensor", (1,), (0,), (1, 5)),
        ((), "tensor", (), (), ()),
        ((), "channel", (), (), ()),
    ],
)
def test_block_of_a_granularity(
    shape: tuple[int, ...], granularity: str | int, channels: tuple[int, ...], inputs: tuple[int, ...], block: Any
) -> None:
    assert block_of(shape, granularity, channels, inputs) == block


@pytest.mark.parametrize("granularity", ["tensor", "channel", 1, 64])
def test_a_granularity(granularity: object) -> None:
    check_granularity(granularity, "Quantize")


@pytest.mark.parametrize("granularity", ["row", "", 0, -4, True, 2.0, None, [4]])
def test_what_is_no_granularity_is_refused(granularity: object) -> None:
    with pytest.raises(ConfigError, match="Quantize: granularity must be"):
        check_granularity(granularity, "Quantize")


@pytest.mark.parametrize(
    ("shape", "block", "grid", "words"),
    [
        ((4, 4), (4, 1), (1, 3), r"kernel: .*needs scales of shape \(1, 4\), got \(1, 3\)"),
        ((5,), (4,), (1,), r"shape \(2,\)"),
        ((4, 4), (4,), (1,), "2 axes"),
        ((4,), (4,), (1, 1), r"shape \(1,\)"),
    ],
)
def test_scales_that_do_not_fit_are_refused(shape: Any, block: Any, grid: Any, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        check_blocks(shape, block, grid, "kernel")


@settings(max_examples=300, deadline=None)
@given(blocked(min_side=1), st.data())
def test_take_blocks_is_the_grid_of_the_selection_or_a_refusal(
    case: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    shape, block = case
    axis = data.draw(st.integers(0, len(shape) - 1))
    indices = np.array(data.draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=10)), np.intp)
    grid = np.arange(int(np.prod(grid_shape(shape, block)))).reshape(grid_shape(shape, block))
    wide = np.broadcast_to(spread(grid, block, shape), shape).take(indices, axis=axis)
    try:
        taken, smaller = take_blocks(grid, block, axis, indices)
    except EncodingError:
        kept = indices // block[axis]
        assert block[axis] > 1
        assert grid.shape[axis] > 1
        # whole groups in a row are what it must not refuse
        whole = [part for group in dict.fromkeys(kept.tolist()) for part in _group(group, block[axis], shape[axis])]
        assert indices.tolist() != whole or any(len(_group(g, block[axis], shape[axis])) < block[axis] for g in kept)
        return
    check_blocks(wide.shape, smaller, taken.shape, "selection")
    assert np.array_equal(np.broadcast_to(spread(taken, smaller, wide.shape), wide.shape), wide)


def _group(group: int, size: int, length: int) -> list[int]:
    return list(range(group * size, min((group + 1) * size, length)))


@pytest.mark.parametrize("block", [(4, 1), (4, 3), (1, 1)])
@pytest.mark.parametrize("axis", [0, 1])
def test_take_of_nothing_is_a_grid_of_nothing(block: tuple[int, int], axis: int) -> None:
    grid = np.ones(grid_shape((4, 3), block))
    taken, smaller = take_blocks(grid, block, axis, np.array([], np.intp))
    shape = (0, 3) if axis == 0 else (4, 0)
    check_blocks(shape, smaller, taken.shape, "selection")


def test_negative_indices_count_from_the_end_or_are_refused() -> None:
    """Elements 6 to 9 of 10 in groups of 4 lie in two groups, whichever way they are named."""
    grid = np.array([0.0, 1.0, 2.0])
    with pytest.raises(EncodingError):
        take_blocks(grid, (4,), 0, np.array([6, 7, 8, 9]))
    with pytest.raises(EncodingError):
        take_blocks(grid, (4,), 0, np.array([-4, -3, -2, -1]))
