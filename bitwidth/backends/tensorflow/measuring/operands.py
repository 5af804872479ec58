"""Operands: which operand of an operation is a parameter, how it stands there, and what features it meets.

For every kind of operation that sums over inputs there is one rule here, which returns the parameter's operand as
(groups, inputs, outputs) and the features it meets as rows of (groups, inputs). The features of a convolution are read
off by the operation itself: with an identity for a kernel it returns the patches that it sees, whatever its strides,
padding, dilation and groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFOperation, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.measuring.interpreter import rerun
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.kinds import kind_of, operands, spec_of, transposes
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.fitting import Arrangement
from bitwidth.graph.ops import Kind
from bitwidth.typing import Array

Lengths = tuple[int, ...]
Split = tuple[Lengths, Lengths, Lengths, Lengths]  # a shape, and its axes that are groups, inputs and outputs
_EXACT = 1 << 24  # positions up to here are exact as float32


@final
@dataclass(frozen=True, eq=False)
class Operand:
    """A parameter as the operand of an operation that sums over inputs.

    Attributes:
        position: which input of the operation it is.
        index: for each element of the operand its position in the flattened parameter; None where the operand is the
            parameter reshaped.
        shape: of the operand.
    """

    position: int
    index: NDArray[np.int64] | None
    shape: tuple[int, ...]


def operand_of(trace: FuncTrace, frame: Frame, op: TFOperation, variable: ModelVariable) -> Operand | None:
    """The operand of `op` that is `variable`, moved and reshaped only; None where there is no such operand."""
    size = prod(variable.shape)
    for position, tensor in enumerate(op.inputs):
        if tensor.dtype == tf.resource:
            if op.type == "ResourceGather" and _is_handle(trace, frame, tensor, variable):
                return Operand(position, None, tuple(variable.shape))
            continue
        index = _follow(trace, frame, tensor, variable)
        if index is None:
            continue
        flat = index.reshape(-1)
        plain = flat.size == size and bool((flat == np.arange(size, dtype=flat.dtype)).all())
        return Operand(position, None if plain else np.rint(index).astype(np.int64), index.shape)
    return None


def _is_handle(trace: FuncTrace, frame: Frame, tensor: TFTensor, variable: ModelVariable) -> bool:
    source = frame.root_source(tensor)
    captures = trace.frame.graph.captures
    return any(inner is source and outer is tf_variable(variable).handle for outer, inner in captures)


def _follow(trace: FuncTrace, frame: Frame, tensor: TFTensor, variable: ModelVariable) -> Array | None:
    """Positions in `variable` that each element of `tensor` has, or None where it is something else."""
    op = tensor.op
    if kind_of(op) == "input":
        outer = frame.sources.get(tensor.name)
        return None if outer is None or frame.outer is None else _follow(trace, frame.outer, outer, variable)
    if kind_of(op) == "read":
        if not _is_handle(trace, frame, op.inputs[0], variable) or prod(variable.shape) > 1 << 31:
            return None
        kind = np.float32 if prod(variable.shape) <= _EXACT else np.float64
        return np.arange(prod(variable.shape), dtype=kind).reshape(tuple(variable.shape))
    if kind_of(op) in ("identity", "cast", "stop_gradient"):
        return _follow(trace, frame, op.inputs[0], variable)
    if op.type in _MOVED or spec_of(op).reshapes:
        return _moved(trace, frame, op, tensor, variable)
    return None


def _moved(trace: FuncTrace, frame: Frame, op: TFOperation, tensor: TFTensor, variable: ModelVariable) -> Array | None:
    data, *rest = operands(op)
    held = _follow(trace, frame, data, variable)
    if held is None:
        return None
    shape = tensor.shape
    if spec_of(op).reshapes:
        return held.reshape(shape.as_list()) if shape.is_fully_defined() else None
    others = [tf.get_static_value(given) for given in rest]
    if any(other is None for other in others):
        return None
    return np.asarray(_MOVED[op.type](op, held, others)[tensor.value_index])  # `==` of tensors is an operation


def _strided_slice(op: TFOperation, held: TFTensor, others: list[TFTensor]) -> list[TFTensor]:
    masks = {
        f"{name}_mask": op.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    return [tf.strided_slice(held, *others, **masks)]


_MOVED: dict[str, Callable[[Any, Any, list[TFTensor]], list[TFTensor]]] = {
    "Transpose": lambda op, held, others: [np.transpose(held, others[0])],
    "Slice": lambda op, held, others: [tf.slice(held, *others)],
    "StridedSlice": _strided_slice,
    "Split": lambda op, held, others: np.split(held, len(op.outputs), int(others[0])),
    "SplitV": lambda op, held, others: tf.split(held, others[0], int(others[1])),
    "Unpack": lambda op, held, others: list(np.moveaxis(held, op.get_attr("axis"), 0)),
}


@final
@dataclass(frozen=True)
class Contraction:
    """How one kind of operation sums over inputs.

    Attributes:
        arrange: from the operation, the operand's place and shape: the shape with axes split, and the axes that are
            groups, inputs and outputs.
        features: from the operation, its input tensors, and the operand's place: rows of (groups, inputs).
    """

    arrange: Callable[[Any, int, Lengths], Split]
    features: Callable[[Any, list[TFTensor], int], Any]


def arrangement_of(op: TFOperation, operand: Operand, size: int) -> Arrangement:
    """Where the elements of a parameter of `size` elements stand in the matrices of `op`."""
    shape, groups, inputs, outputs = CONTRACTIONS[kind_of(op)].arrange(op, operand.position, operand.shape)
    order = groups + inputs + outputs
    matrix = (
        prod(shape[axis] for axis in groups),
        prod(shape[axis] for axis in inputs),
        prod(shape[axis] for axis in outputs),
    )
    if operand.index is None:
        return Arrangement(shape, order, matrix)
    index = operand.index.reshape(shape).transpose(order).reshape(matrix)
    return Arrangement((size,), (0,), matrix, index)


def features_of(op: TFOperation, inputs: list[TFTensor], operand: Operand) -> TFTensor:
    """What the parameter meets: a float32 tensor (rows, groups, inputs)."""
    return tf.cast(CONTRACTIONS[kind_of(op)].features(op, inputs, operand.position), tf.float32)


def _matmul_axes(op: TFOperation, position: int, shape: Lengths) -> Split:
    flipped = transposes(op)[position]
    last = len(shape) - 1
    summed = last if (position == 0) != flipped else last - 1
    other = last + last - 1 - summed
    return shape, tuple(range(last - 1)), (summed,), (other,)


def _matmul_features(op: TFOperation, inputs: list[TFTensor], position: int) -> TFTensor:
    other = 1 - position
    x, kernel = inputs[other], inputs[position]
    if (other == 1) != transposes(op)[other]:
        x = tf.linalg.matrix_transpose(x)
    if kernel.shape.rank == 2:
        return tf.reshape(x, [-1, 1, x.shape[-1]])
    groups = kernel.shape[:-2].as_list()
    batch = [1] * (kernel.shape.rank - x.shape.rank) + x.shape[:-2].as_list()
    x = tf.reshape(x, [*batch, *x.shape[-2:]])
    outer = len(batch) - len(groups)
    x = tf.broadcast_to(x, [*batch[:outer], *groups, *x.shape[-2:]])
    order = [*range(outer), len(batch), *range(outer, len(batch)), len(batch) + 1]
    return tf.reshape(tf.transpose(x, order), [-1, prod(groups), x.shape[-1]])


def _conv_axes(op: TFOperation, position: int, shape: Lengths) -> Split:
    """A filter (positions..., inputs of a group, outputs); groups are cut from the outputs."""
    groups = op.inputs[0].shape[_channel_axis(op)] // shape[-2]
    split = (*shape[:-1], groups, shape[-1] // groups)
    last = len(split) - 1
    return split, (last - 1,), tuple(range(last - 1)), (last,)


def _conv_features(op: TFOperation, inputs: list[TFTensor], position: int) -> TFTensor:
    x, kernel = inputs
    count = prod(kernel.shape[:-1])
    groups = x.shape[_channel_axis(op)] // kernel.shape[-2]
    eye = tf.reshape(tf.eye(count, dtype=x.dtype), [*kernel.shape[:-1], count])
    patches = _channels_last(op, rerun(op, [x, tf.tile(eye, [1] * (kernel.shape.rank - 1) + [groups])]))
    gathered = regathered(op)
    if gathered is not None:
        patches = tf.batch_to_space(patches, *gathered)
    return tf.reshape(patches, [-1, groups, count])


def regathered(op: TFOperation) -> tuple[TFTensor, TFTensor] | None:
    """Block shape and crops by which the outputs of a convolution are put together again; None where they are not.

    A dilated convolution on the CPU is one over interleaved parts of its input, which are padded to equal size.
    """
    for consumer in op.outputs[0].consumers():
        if kind_of(consumer) == "batch_to_space":
            block, crops = (tf.get_static_value(given) for given in consumer.inputs[1:])
            if block is not None and crops is not None:
                return block, crops
    return None


def _depthwise_axes(op: TFOperation, position: int, shape: Lengths) -> Split:
    return shape, (2,), (0, 1), (3,)


def _depthwise_features(op: TFOperation, inputs: list[TFTensor], position: int) -> TFTensor:
    x, kernel = inputs
    count, channels = prod(kernel.shape[:2]), kernel.shape[2]
    eye = tf.reshape(tf.eye(count, dtype=x.dtype), [*kernel.shape[:2], 1, count])
    patches = _channels_last(op, rerun(op, [x, tf.tile(eye, [1, 1, channels, 1])]))
    return tf.reshape(patches, [-1, channels, count])


def _transposed_axes(op: TFOperation, position: int, shape: Lengths) -> Split:
    """A filter (positions..., outputs, inputs), applied backwards."""
    last = len(shape) - 1
    return shape, (), (*range(last - 1), last), (last - 1,)


def _transposed_features(op: TFOperation, inputs: list[TFTensor], position: int) -> TFTensor:
    sizes, kernel, x = inputs
    window, channels = kernel.shape[:-2].as_list(), kernel.shape[-1]
    count = prod(window) * channels
    eye = tf.reshape(tf.eye(count, dtype=x.dtype), [*window, channels, count])
    order = [*range(len(window)), len(window) + 1, len(window)]
    axis = _channel_axis(op)
    sizes = tf.tensor_scatter_nd_update(sizes, [[axis % int(sizes.shape[0])]], [tf.cast(count, sizes.dtype)])
    patches = _channels_last(op, rerun(op, [sizes, tf.transpose(eye, order), x]))
    return tf.reshape(patches, [-1, 1, count])


def _channel_axis(op: TFOperation) -> int:
    return 1 if op.get_attr("data_format").decode().startswith("NC") else -1


def _channels_last(op: TFOperation, x: TFTensor) -> TFTensor:
    return x if _channel_axis(op) == -1 else tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def _einsum_labels(op: TFOperation, position: int, ranks: list[int]) -> tuple[str, str, str]:
    """Labels of the operand, of the features and of the result, with broadcast axes spelt out."""
    operands, _, result = op.get_attr("equation").decode().partition("->")
    labels = operands.split(",")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in operands]
    widest = (
        max(rank - len(text.replace("...", "")) for text, rank in zip(labels, ranks, strict=True) if "..." in text)
        if "..." in operands
        else 0
    )
    spelt = []
    for text, rank in zip(labels, ranks, strict=True):
        count = rank - len(text.replace("...", ""))
        spelt.append(text.replace("...", "".join(spare[widest - count : widest])))
    return spelt[position], spelt[1 - position], result.replace("...", "".join(spare[:widest]))


def _einsum_axes(op: TFOperation, position: int, shape: Lengths) -> Split:
    ranks = [tensor.shape.rank for tensor in op.inputs]
    mine, other, result = _einsum_labels(op, position, ranks)
    groups = tuple(axis for axis, label in enumerate(mine) if label in other and label in result)
    inputs = tuple(axis for axis, label in enumerate(mine) if label not in result)
    outputs = tuple(axis for axis, label in enumerate(mine) if label not in other and label in result)
    return shape, groups, inputs, outputs


def _einsum_features(op: TFOperation, inputs: list[TFTensor], position: int) -> TFTensor:
    mine, other, result = _einsum_labels(op, position, [tensor.shape.rank for tensor in inputs])
    groups = [label for label in mine if label in other and label in result]
    summed = [label for label in mine if label not in result]
    rows = [label for label in other if label not in mine]
    x = inputs[1 - position]
    lengths = dict(zip(other, x.shape.as_list(), strict=True))
    present = [label for label in summed if label in other]
    order = [other.index(label) for label in (*rows, *groups, *present)]
    x = tf.transpose(x, order)
    return tf.reshape(x, [-1, prod(lengths[label] for label in groups), prod(lengths[label] for label in present)])


CONTRACTIONS: dict[Kind, Contraction] = {
    "matmul": Contraction(_matmul_axes, _matmul_features),
    "einsum": Contraction(_einsum_axes, _einsum_features),
    "conv": Contraction(_conv_axes, _conv_features),
    "transposed_conv": Contraction(_transposed_axes, _transposed_features),
    "depthwise_conv": Contraction(_depthwise_axes, _depthwise_features),
}
