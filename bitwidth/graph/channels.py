"""Channels: where the input and output features of an operation stand in its kernel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from bitwidth.errors import Refused
from bitwidth.graph.model import Op, Parameter, Use
from bitwidth.graph.ops import attribute, channels_first
from bitwidth.typing import Array


@dataclass(frozen=True)
class Channels:
    """The axes of a parameter that, in this order, are the last axis of a tensor of features.

    Attributes:
        path: of the parameter.
        shape: of the parameter, with axes split where that is needed.
        axes: axes of `shape`; their elements in row-major order are the features.

    Example:
        >>> depthwise = Channels("kernel", (3, 3, 4, 2), (2, 3))
        >>> depthwise.count
        8
        >>> depthwise.magnitudes(np.ones((3, 3, 4, 2))).shape
        (8,)
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many features there are."""
        return prod(self.shape[axis] for axis in self.axes)

    def scaled(self, values: Array, factors: Array) -> Array:
        """The parameter's values, each times the factor of its feature.

        Args:
            values: of the parameter's shape (or any shape that holds as many).
            factors: one for each feature, `(count,)`.

        Returns:
            An array of the shape of `values`, in the wider of both dtypes.
        """
        lengths = [self.shape[axis] for axis in self.axes]
        spread = factors.reshape(lengths).transpose(np.argsort(self.axes))
        kept = [length if axis in self.axes else 1 for axis, length in enumerate(self.shape)]
        return np.asarray((values.reshape(self.shape) * spread.reshape(kept)).reshape(values.shape))

    def magnitudes(self, values: Array) -> Array:
        """The greatest magnitude among the values of each feature, `(count,)`."""
        others = tuple(axis for axis in range(len(self.shape)) if axis not in self.axes)
        greatest = np.abs(values.reshape(self.shape)).max(axis=others)
        return np.asarray(greatest.transpose(np.argsort(np.argsort(self.axes)))).reshape(-1)


def channels_made(op: Op, parameter: Parameter, use: Use) -> Channels:
    """Where the output channels of `op`, the last axis of its output, stand in its kernel.

    Args:
        op: a contraction.
        parameter: its kernel.
        use: the kernel's use there.

    Raises:
        Refused: they are another axis of its output, or it is not known which axes of the kernel they are.
    """
    if channels_first(op):
        raise Refused("channels come first there")
    if op.kind == "einsum":
        kernel, _, result = einsum_labels(op)
        axes = tuple(axis for axis, label in enumerate(kernel) if result.endswith(label))
    elif op.kind == "matmul" and attribute(op, "transpose_a"):
        axes = ()
    else:
        axes = use.channel_axes
    if not axes:
        raise Refused("which axes of its kernel become channels is not known")
    return Channels(parameter.path, parameter.shape, axes)


def channels_taken(op: Op, parameter: Parameter, use: Use, count: int) -> Channels:
    """Where the `count` features that `op` takes, as the last axis of its input, stand in its kernel.

    Of a grouped convolution the outputs are split into groups, each of which takes features of its own.

    Args:
        op: a contraction.
        parameter: its kernel.
        use: the kernel's use there.
        count: size of the last axis of its input.

    Raises:
        Refused: features are another axis of its input, or it is not known which axes of the kernel meet them.
    """
    if channels_first(op):
        raise Refused("channels come first there")
    shape, last = parameter.shape, len(parameter.shape) - 1
    found = Channels(parameter.path, shape, use.input_axes)
    if op.kind == "conv":
        groups = max(1, count // shape[-2])
        found = Channels(parameter.path, (*shape[:-1], groups, shape[-1] // groups), (last, last - 1))
    elif op.kind == "depthwise_conv":
        found = Channels(parameter.path, shape, (last - 1,))
    elif op.kind == "transposed_conv":
        found = Channels(parameter.path, shape, (last,))
    elif op.kind == "einsum":
        kernel, features, result = einsum_labels(op)
        summed = features[-1:] not in result
        found = Channels(parameter.path, shape, (kernel.find(features[-1:]),) if summed else ())
    if not found.axes or min(found.axes) < 0 or found.count != count:
        raise Refused("which axes of its kernel meet the features is not known")
    return found


def einsum_labels(op: Op) -> tuple[str, str, str]:
    """Labels of an Einsum's kernel, features and result, from `features,kernel->result`; empty for another form."""
    operands, _, result = str(attribute(op, "equation") or "").partition("->")
    features, comma, kernel = operands.partition(",")
    if not comma or "," in kernel or "." in kernel:
        return "", "", ""
    return kernel, features, result


def einsum_in_order(op: Op) -> bool:
    """Whether the axes that an Einsum's result has from its kernel come in the kernel's order, shared ones first."""
    kernel, features, result = einsum_labels(op)
    kept = [label for label in kernel if label in result]
    sorted_ = sorted(kept, key=lambda label: label not in features)
    return bool(kept) and kept == sorted_ == [label for label in result if label in kernel]
