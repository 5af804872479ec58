"""Blocks: which elements of a tensor share a scale.

A block is one length per axis: `(4, 1)` over a (8, 3) kernel makes a (2, 3) array of scales. One scale for the whole
tensor, one per channel, one per group of n inputs of a channel are all of this form, and it slices with the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitwidth.errors import ConfigError, EncodingError
from bitwidth.typing import Array, Integers

Granularity = str | int


def check_granularity(granularity: object, owner: str) -> None:
    """Raise ConfigError unless `granularity` is "tensor", "channel" or a group size of at least 1."""
    if isinstance(granularity, str) and granularity in ("tensor", "channel"):
        return
    if isinstance(granularity, int) and not isinstance(granularity, bool) and granularity >= 1:
        return
    raise ConfigError(
        f'{owner}: granularity must be "tensor", "channel" or the number of inputs in a group, got {granularity!r}'
    )


def block_of(
    shape: Sequence[int], granularity: Granularity, channel_axes: Sequence[int], input_axes: Sequence[int]
) -> tuple[int, ...]:
    """The block of a granularity.

    Args:
        shape: the tensor's shape.
        granularity: `"tensor"`, `"channel"`, or n: each output channel is cut into groups of n inputs along its last
            input axis (all kernel positions of a convolution together).
        channel_axes: axes that are output channels.
        input_axes: axes that are summed over.

    Example:
        >>> block_of((3, 3, 64, 32), "channel", channel_axes=(3,), input_axes=(0, 1, 2))
        (3, 3, 64, 1)
        >>> block_of((3, 3, 64, 32), 16, channel_axes=(3,), input_axes=(0, 1, 2))
        (3, 3, 16, 1)
    """
    block = [max(length, 1) for length in shape]
    if granularity == "tensor":
        return tuple(block)
    for axis in channel_axes:
        block[axis] = 1
    if isinstance(granularity, int) and input_axes:
        group_axis = max(input_axes)
        block[group_axis] = min(granularity, block[group_axis])
    return tuple(block)


def grid_shape(shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Shape of the array with one entry per block."""
    return tuple(-(-length // size) for length, size in zip(shape, block, strict=True))


def check_blocks(shape: Sequence[int], block: Sequence[int], grid: Sequence[int], name: str) -> None:
    """Raise EncodingError unless `grid` has one entry for each block of `shape`.

    A grid and block without axes are one block of any shape.
    """
    if not len(block) and not len(grid):
        return
    if len(shape) != len(block) or tuple(grid) != grid_shape(shape, block):
        expected = grid_shape(shape, block) if len(shape) == len(block) else f"{len(shape)} axes"
        raise EncodingError(
            f"{name}: shape {tuple(shape)} in blocks of {tuple(block)} needs scales of shape {expected}, "
            f"got {tuple(grid)}"
        )


def spread(grid: Array, block: Sequence[int], shape: Sequence[int]) -> Array:
    """`grid` so that it broadcasts against a tensor of `shape`.

    Only axes with several blocks of several elements are repeated.
    """
    if not grid.ndim:
        return grid
    for axis, (count, size, length) in enumerate(zip(grid.shape, block, shape, strict=True)):
        if count > 1 and size > 1:
            grid = np.repeat(grid, size, axis=axis).take(range(length), axis=axis)
    return grid


def block_reduce(values: Array, block: Sequence[int], function: np.ufunc, dtype: Any = None) -> Array:
    """Reduce each block of `values` with `function` (`np.add`, `np.maximum`): one entry per block."""
    for axis, size in enumerate(block):
        length = values.shape[axis]
        if not length:
            continue
        if size >= length:
            values = function.reduce(values, axis=axis, keepdims=True, dtype=dtype)
        elif size > 1:
            values = function.reduceat(values, np.arange(0, length, size), axis=axis, dtype=dtype)
    return values


def take_blocks(grid: Array, block: Sequence[int], axis: int, indices: Integers) -> tuple[Array, tuple[int, ...]]:
    """The grid and block of `values.take(indices, axis)`.

    Raises:
        EncodingError: the axis has several blocks of several elements, and the selection does not keep whole blocks in
            line.
    """
    size, indices = block[axis], np.asarray(indices)
    if not indices.size:
        return grid.take(indices.astype(np.intp), axis=axis), tuple(block)
    if indices.min() < 0:
        raise EncodingError(f"indices along axis {axis} count from the front, got {indices.min()}")
    if grid.shape[axis] == 1:
        return grid, (*block[:axis], max(len(indices), 1), *block[axis + 1 :])
    if size == 1:
        return grid.take(indices, axis=axis), tuple(block)
    kept = indices // size
    starts = np.arange(0, len(kept), size)
    whole = indices % size == np.arange(len(kept)) % size
    if not (whole.all() and all((kept[start : start + size] == kept[start]).all() for start in starts)):
        raise EncodingError(f"the selection along axis {axis} cuts through groups of {size} that share a scale")
    return grid.take(kept[starts], axis=axis), tuple(block)
