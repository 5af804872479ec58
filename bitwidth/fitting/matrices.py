"""Matrices: a tensor as what it does to features, `groups` matrices of `inputs` x `outputs`.

A dense kernel is one such matrix, a grouped or depthwise convolution one for each group, a kernel of attention one for
all heads together. An `Arrangement` says where each element of a tensor stands; parts of a tensor that are used by
themselves (the gates of a recurrent cell) have one each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import EncodingError
from bitwidth.typing import Array


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Where the elements of a tensor stand in (groups, inputs, outputs).

    Attributes:
        shape: the tensor's shape with axes split, where that is needed; its product is the tensor's size.
        order: the axes of `shape` in the order groups, inputs, outputs.
        matrix: (groups, inputs, outputs).
        index: positions in the flattened tensor, of shape `matrix`, where no order of axes tells them (the operation
            reads a part of the tensor only); else None.

    Example:
        >>> grouped = Arrangement(shape=(3, 3, 4, 2, 5), order=(3, 0, 1, 2, 4), matrix=(2, 36, 5))
        >>> grouped.take(np.zeros((3, 3, 4, 10))).shape
        (2, 36, 5)
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    matrix: tuple[int, int, int]
    index: NDArray[np.int64] | None = field(default=None, repr=False)

    def take(self, tensor: Array) -> Array:
        """The tensor's elements as (groups, inputs, outputs); a view where that is possible."""
        if self.index is not None:
            return tensor.reshape(-1)[self.index]
        self._check(tensor)
        return tensor.reshape(self.shape).transpose(self.order).reshape(self.matrix)

    def put(self, tensor: Array, matrix: Array) -> None:
        """Write (groups, inputs, outputs) into their places in `tensor`, which is C-contiguous and writeable."""
        if self.index is not None:
            tensor.reshape(-1)[self.index] = matrix
            return
        self._check(tensor)
        lengths = tuple(self.shape[axis] for axis in self.order)
        back = np.argsort(self.order)
        tensor.reshape(self.shape)[...] = matrix.reshape(lengths).transpose(back)

    def _check(self, tensor: Array) -> None:
        if tensor.size != prod(self.shape):
            raise EncodingError(f"an arrangement of {self.shape} does not fit a tensor of shape {tensor.shape}")


@dataclass(frozen=True, eq=False)
class Moments:
    """What one use of a parameter multiplies it by: moments of its input features, over the samples of the data.

    Attributes:
        arrangement: where the parameter's elements stand in (groups, inputs, outputs).
        gram: float32, (groups, inputs, inputs): mean of x xT over all positions at which the parameter is applied.
        mean: float32, (groups, inputs): mean of x.
        rows: how many x were looked at.
        op: name of the operation.
    """

    arrangement: Arrangement
    gram: NDArray[np.float32]
    mean: NDArray[np.float32]
    rows: int
    op: str


def plain_matrix(shape: tuple[int, ...], channel_axes: tuple[int, ...]) -> Arrangement:
    """One matrix: the axes that are no channel axes, against the channel axes.

    Example:
        >>> plain_matrix((3, 3, 8, 16), (3,)).matrix
        (1, 72, 16)
    """
    inputs = tuple(axis for axis in range(len(shape)) if axis not in channel_axes)
    order = inputs + tuple(channel_axes)
    return Arrangement(
        shape, order, (1, prod(shape[axis] for axis in inputs), prod(shape[axis] for axis in channel_axes))
    )
