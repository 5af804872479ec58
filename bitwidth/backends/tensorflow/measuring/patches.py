"""Patches: of a convolution with very many windows, those that are looked at, chosen before any patch is made."""

from __future__ import annotations

from math import prod
from typing import final

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFOperation, TFTensor
from bitwidth.backends.tensorflow.measuring.operands import regathered
from bitwidth.backends.tensorflow.reading.kinds import kind_of, spec_of


@final
class Unpadded:
    """A convolution over features that are padded already; it is like the traced operation in everything else."""

    def __init__(self, op: TFOperation) -> None:
        self._op = op

    def __getattr__(self, name: str) -> TFTensor:
        return getattr(self._op, name)

    def get_attr(self, name: str) -> TFTensor:
        """See `tf.Operation.get_attr`."""
        changed = {"padding": b"VALID", "explicit_paddings": []}
        return changed[name] if name in changed else self._op.get_attr(name)


def thinned(op: TFOperation, inputs: list[TFTensor], rows: int, turn: int) -> tuple[TFTensor, list[TFTensor]]:
    """An operation and its inputs with about `rows` windows, where it has more than twice as many.

    A convolution keeps a run of positions along its longest axis, the same for all samples and another one each time;
    where one position of that axis is still too much it keeps some of the samples, and so does every other operation.

    Args:
        op: a convolution, as it was traced.
        inputs: its input tensors.
        rows: how many windows are wanted.
        turn: how often this has been asked before.
    """
    if not spec_of(op).is_convolution:
        return op, inputs
    place = 2 if _is_transposed(op) else 0
    gathered = regathered(op)
    if not _is_transposed(op) and gathered is None:
        op, inputs = _cropped(op, inputs, rows, turn)
    blocks = 1 if gathered is None else int(prod(gathered[0]))
    x = inputs[place]
    windows = int(prod(positions_of(op, inputs))) * x.shape[0] // blocks
    step = min(windows * blocks // max(rows, 1), x.shape[0] // blocks)
    if step < 2:
        return op, inputs
    x = tf.reshape(tf.reshape(x, [blocks, -1, *x.shape[1:]])[:, ::step], [-1, *x.shape[1:]])
    return op, with_features(op, inputs, x)


def with_features(op: TFOperation, inputs: list[TFTensor], x: TFTensor) -> list[TFTensor]:
    """The inputs of a convolution with other features in the place of its own, of another number of samples."""
    if not _is_transposed(op):
        return [x, *inputs[1:]]
    sizes = tf.tensor_scatter_nd_update(inputs[0], [[0]], [tf.cast(x.shape[0], inputs[0].dtype)])
    return [sizes, inputs[1], x]


def positions_of(op: TFOperation, inputs: list[TFTensor]) -> list[int]:
    """How many positions the windows of a convolution have along each axis, on these inputs."""
    if _is_transposed(op):
        sizes = [int(size) for size in inputs[0]]
        return sizes[2:] if _axes(op)[0] == 2 else sizes[1:-1]
    return [_axis(op, inputs, axis)[0] for axis in _axes(op)]


def _is_transposed(op: TFOperation) -> bool:
    return kind_of(op) == "transposed_conv"


def _axes(op: TFOperation) -> list[int]:
    first = 2 if op.get_attr("data_format").decode().startswith("NC") else 1
    return list(range(first, first + op.inputs[0].shape.rank - 2)) if not _is_transposed(op) else [first]


def _axis(op: TFOperation, inputs: list[TFTensor], axis: int) -> tuple[int, int, int, int]:
    """Along one axis: the number of positions, the step from one to the next, the window's extent, the padding."""
    x, kernel = inputs[:2]
    step, dilation = op.get_attr("strides")[axis], op.get_attr("dilations")[axis]
    extent = (kernel.shape[axis - _axes(op)[0]] - 1) * dilation + 1
    length, padding = x.shape[axis], op.get_attr("padding").decode()
    if padding == "SAME":
        count = -(-length // step)
        return count, step, extent, max((count - 1) * step + extent - length, 0) // 2
    before, after = (0, 0) if padding == "VALID" else op.get_attr("explicit_paddings")[2 * axis : 2 * axis + 2]
    return (length + before + after - extent) // step + 1, step, extent, before


def _cropped(op: TFOperation, inputs: list[TFTensor], rows: int, turn: int) -> tuple[TFTensor, list[TFTensor]]:
    """The windows of a run of positions along the longest axis."""
    x, axes = inputs[0], _axes(op)
    sides = {axis: _axis(op, inputs, axis) for axis in axes}
    positions = prod(side[0] for side in sides.values())
    if x.shape[0] * positions <= 2 * rows:
        return op, inputs
    longest = max(axes, key=lambda axis: sides[axis][0])
    count = sides[longest][0]
    kept = min(count, max(1, rows // max(1, x.shape[0] * (positions // count))))
    first = min(turn % -(-count // kept) * kept, count - kept)
    begin, size, pads = [0] * x.shape.rank, list(x.shape), [[0, 0] for _ in x.shape]
    for axis, (number, step, extent, before) in sides.items():
        start, number = (first, kept) if axis == longest else (0, number)
        low = start * step - before
        high = low + (number - 1) * step + extent
        begin[axis] = max(low, 0)
        size[axis] = min(high, x.shape[axis]) - begin[axis]
        pads[axis] = [begin[axis] - low, max(high - x.shape[axis], 0)]
    return Unpadded(op), [tf.pad(tf.slice(x, begin, size), pads), *inputs[1:]]
