"""Layouts: which axes of a kernel are its inputs, its outputs and the positions of its window, of every kind of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph import Graph, Parameter, Use, spec
from bitwidth.graph.ops import channels_first

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Layout:
    """Where the inputs and outputs of a kernel stand.

    Dense and recurrent kernels have inputs and outputs; convolutions positions of a window too; depthwise convolutions
    have no inputs besides the window, since each output sums over one channel. In a grouped convolution an output meets
    the inputs of its group only. The rows of a table that is looked up are its inputs, its features the outputs; a
    table that is multiplied with too (tied to the logits) is taken as the kernel that it is there.

    Attributes:
        shape: of the parameter, with the outputs of a grouped convolution split into groups and the rest.
        groups: axes of `shape` that tell matrices apart which share neither inputs nor outputs.
        window: axes of positions.
        inputs: axes of input features.
        outputs: axes of output features.
        looked_up: whether rows are looked up, and nothing is summed over.

    Example:
        >>> Layout((3, 3, 8, 16), (), (0, 1), (2,), (3,)).numbers((2,)).max()
        np.int64(7)
    """

    shape: tuple[int, ...]
    groups: tuple[int, ...]
    window: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    looked_up: bool = False

    def count(self, axes: Iterable[int]) -> int:
        """How many entries there are along axes."""
        return prod(self.shape[axis] for axis in axes)

    def numbers(self, axes: tuple[int, ...]) -> NDArray[np.intp]:
        """For each weight its number along `axes` in row-major order, of the shape `shape` or broadcast to it."""
        found = np.zeros((1,) * len(self.shape), np.intp)
        for axis in axes:
            place = np.arange(self.shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
            found = found * self.shape[axis] + place
        return found

    def lines(self, values: NDArray[Scalar], length: int) -> NDArray[Scalar]:
        """Runs of `length` consecutive inputs, (runs, length), of an array of the parameter's shape; a copy.

        The runs of one output at one position of the window are beside each other.
        """
        return values.reshape(self.shape).transpose(self._inputs_last).reshape(-1, length)

    def from_lines(self, lines: NDArray[Scalar], shape: tuple[int, ...]) -> NDArray[Scalar]:
        """The array of the parameter's shape whose `lines` these are."""
        order = self._inputs_last
        moved = lines.reshape([self.shape[axis] for axis in order])
        return np.ascontiguousarray(moved.transpose(np.argsort(order))).reshape(shape)

    @property
    def _inputs_last(self) -> tuple[int, ...]:
        return (*(axis for axis in range(len(self.shape)) if axis not in self.inputs), *self.inputs)


def layout_of(graph: Graph, parameter: Parameter) -> Layout:
    """The layout of a kernel or an embedding, by the first of its uses that sums over inputs."""
    uses = [use for use in parameter.uses if use.channel_axes]
    use = next((use for use in uses if spec(use).is_contraction), uses[0] if uses else None)
    shape, axes = parameter.shape, tuple(range(len(parameter.shape)))
    if use is None or not spec(use).is_contraction:
        if parameter.role == "embedding":
            return Layout(shape, (), (), axes[:1], axes[1:], looked_up=True)
        return Layout(shape, (), (), parameter.input_axes, parameter.channel_axes)
    rest = tuple(axis for axis in axes if axis not in (*use.input_axes, *use.channel_axes))
    if not spec(use).is_convolution:
        return Layout(shape, rest, (), use.input_axes, use.channel_axes)
    if use.kind == "depthwise_conv":
        return Layout(shape, rest, use.input_axes, (), use.channel_axes)
    window, inputs = use.input_axes[:-1], use.input_axes[-1:]
    count = _groups(graph, use, shape[inputs[0]]) if use.kind == "conv" else 1
    if count == 1:
        return Layout(shape, rest, window, inputs, use.channel_axes)
    last = len(shape) - 1
    return Layout((*shape[:-1], count, shape[-1] // count), (last,), window, inputs, (last + 1,))


def _groups(graph: Graph, use: Use, inputs: int) -> int:
    """How many groups a convolution has whose filters see `inputs` channels each; 1 where that is not known."""
    op: Any = next((op for op in graph.ops if op.name == use.op), None)
    taken = next((t.shape for t in graph.structure.tensors if op is not None and t.name == op.inputs[0]), None)
    channels = None if not taken else taken[1 if channels_first(op) else -1]
    return max(1, channels // inputs) if channels and inputs else 1
