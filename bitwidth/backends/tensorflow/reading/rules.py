"""Rules: what an operation does with the axes of a parameter it reads.

`transformed` follows operations that only rearrange or recompute a parameter (reads, casts, reshapes, slices);
`use_rule` tells, for an operation that joins a parameter with features, which axes become channels and which are
summed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFOperation
from bitwidth.backends.tensorflow.reading.axes import Axes, fitted, origins, permuted, reshaped
from bitwidth.backends.tensorflow.reading.kinds import kind_of, spec_of, transposes
from bitwidth.graph.ops import Kind

Effect = Literal["contract", "look_up", "add", "multiply", "scale", "offset", "mean", "variance", "unknown"]


class Reading(NamedTuple):
    """What an operation does with a parameter: the effect, the axes that become channels and those summed over."""

    effect: Effect
    channel_axes: tuple[int, ...] = ()
    input_axes: tuple[int, ...] = ()


UseRule: TypeAlias = Callable[[Any, int, Axes], Reading]

_NORMALISED: dict[int, Effect] = {1: "scale", 2: "offset", 3: "mean", 4: "variance"}
_REPEATS: tuple[Kind, ...] = ("tile", "broadcast")
_RESIZES: tuple[Kind, ...] = (
    *("read", "slice", "strided_slice", "split", "concat", "pad", "mirror_pad"),
    *_REPEATS,
)


def use_rule(op: TFOperation) -> tuple[UseRule, bool]:
    """The rule for an operation, and whether it is a use even where it joins parameters with constants only.

    The rule takes the operation, the position of the input that carries the parameter, and its axes; it returns the
    effect, the parameter's channel axes and the axes summed over.
    """
    spec = spec_of(op)
    if spec.kind in _RULES:
        return _RULES[spec.kind], True
    return _elementwise if spec.effect in ("add", "multiply") else _unknown, False


def transformed(op: TFOperation, position: int, axes: Axes, output: int) -> Axes | None:
    """Axes of the parameter in one output of an operation over parameters and constants; None where not known."""
    shape = op.outputs[output].shape
    if not shape.is_fully_defined():
        return None
    sizes = shape.as_list()
    kind = kind_of(op)
    if spec_of(op).reshapes:
        return reshaped(axes, sizes)
    if kind == "transpose":
        order = tf.get_static_value(op.inputs[1])
        return None if order is None else permuted(axes, [int(axis) for axis in order])
    if kind == "unstack":
        axis = op.get_attr("axis") % len(axes)
        return axes[:axis] + axes[axis + 1 :]
    if kind == "stack":
        axis = op.get_attr("axis") % (len(axes) + 1)
        return (*axes[:axis], (), *axes[axis:])
    if kind == "strided_slice":
        return _sliced(op, axes, sizes)
    # What is left keeps the axes where its output has the shape of its inputs broadcast to each other.
    if kind in _RESIZES or tuple(sizes) == _broadcast(op):
        return fitted(axes, sizes, repeated=kind not in _RESIZES or kind in _REPEATS)
    return None


def _matmul(op: TFOperation, position: int, axes: Axes) -> Reading:
    transposed = transposes(op)[position]
    summed = len(axes) - (1 if (position == 0) != transposed else 2)
    return _contraction(axes, [axis for axis in range(len(axes)) if axis != summed])


def _einsum(op: TFOperation, position: int, axes: Axes) -> Reading:
    operands, _, result = op.get_attr("equation").decode().partition("->")
    labels = operands.split(",")[position]
    if "..." in labels:  # spell the broadcast axes out; they are in the result too
        before, _, after = labels.partition("...")
        labels = before + "." * (len(axes) - len(before) - len(after)) + after
    return _contraction(axes, [axis for axis, label in enumerate(labels) if label in result])


def _convolution(op: TFOperation, position: int, axes: Axes) -> Reading:
    if position != 1:
        return Reading("unknown")
    return _contraction(axes, [axis % len(axes) for axis in spec_of(op).kernel_channels])


def _contraction(axes: Axes, kept: list[int]) -> Reading:
    summed = [axis for axis in range(len(axes)) if axis not in kept]
    return Reading("contract", origins(axes, kept), origins(axes, summed))


def _look_up(op: TFOperation, position: int, axes: Axes) -> Reading:
    if position != 0:
        return Reading("unknown")
    axis = int(tf.get_static_value(op.inputs[2])) if op.type == "GatherV2" else 0
    return Reading("look_up", origins(axes, [axis]))


def _normalisation(op: TFOperation, position: int, axes: Axes) -> Reading:
    return Reading(_NORMALISED.get(position, "unknown"), origins(axes))


def _elementwise(op: TFOperation, position: int, axes: Axes) -> Reading:
    return Reading("add" if spec_of(op).effect == "add" else "multiply", origins(axes))


def _unknown(op: TFOperation, position: int, axes: Axes) -> Reading:
    return Reading("unknown")


_RULES: dict[Kind, UseRule] = {
    "matmul": _matmul,
    "einsum": _einsum,
    "conv": _convolution,
    "transposed_conv": _convolution,
    "depthwise_conv": _convolution,
    "gather": _look_up,
    "gather_nd": _look_up,
    "batch_norm": _normalisation,
}


def _broadcast(op: TFOperation) -> tuple[int | None, ...] | None:
    try:
        shape = tf.TensorShape([])
        for tensor in op.inputs:
            shape = tf.broadcast_static_shape(shape, tensor.shape)
    except ValueError:
        return None
    return tuple(shape.as_list()) if shape.rank is not None else None


def _sliced(op: TFOperation, axes: Axes, sizes: list[int]) -> Axes | None:
    """Axes after `tensor[..., 0, None, 1:3]`: dropped, made or cut as the masks of StridedSlice say."""
    count = op.inputs[1].shape[0]
    if count is None:
        return None
    bits = {name: op.get_attr(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis")}
    kept: list[tuple[Any, ...]] = []
    position = 0
    for place in range(count):
        if bits["ellipsis"] >> place & 1:
            later = sum(not bits["new_axis"] >> after & 1 for after in range(place + 1, count))
            kept.extend(axes[position : len(axes) - later])
            position = len(axes) - later
        elif bits["new_axis"] >> place & 1:
            kept.append(())
        else:
            if not bits["shrink_axis"] >> place & 1:
                kept.append(axes[position])
            position += 1
    return fitted((*kept, *axes[position:]), sizes)
