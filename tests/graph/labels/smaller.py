"""A cut model without its layers: the trace of the original, run on what a cut leaves.

Each operation runs as it was traced, on smaller parameters. What it was told about sizes (the target of a reshape,
where a slice begins) is recomputed from `Coupling.sizes` and `Coupling.kept`, as whoever rebuilds a model has to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.graph.labels import Coupling

_LISTS = ("TensorListReserve", "TensorListFromTensor", "TensorListGetItem", "TensorListStack")


class Smaller:
    """A model with some units removed.

    Args:
        model: the original.
        example: a batch of its inputs.
        coupling: of its graph.
        kept: see `Coupling.cut`.
        values: of the original's parameters, by path.
    """

    def __init__(
        self, model: Any, example: Any, coupling: Coupling, kept: Mapping[str, Any], values: Mapping[str, NDArray[Any]]
    ) -> None:
        self.trace = traced(model, example)
        self.coupling, self.kept, self.sizes = coupling, kept, coupling.sizes(kept)
        cut = coupling.cut(kept)
        self.parameters = {
            id(tf_variable(variable).handle): tf.constant(cut.take(path, values[path]))
            for path, variable, _ in self.trace.names.variables
        }

    def __call__(self, inputs: Any) -> NDArray[Any]:
        """The first output."""
        frame = self.trace.frame
        captured = [self.parameters.get(id(outer), outer) for outer, _ in frame.graph.captures]
        given = [tf.constant(inputs), *captured]
        return np.asarray(self._run(frame, given)[0])

    def _run(self, frame: Frame, given: list[Any]) -> list[Any]:
        known = {tensor.name: value for tensor, value in zip(frame.inputs, given, strict=True)}
        for op in frame.graph.get_operations():
            if op.name in frame.live and op.type != "Placeholder":
                found = self._outputs(frame, op, [known[tensor.name] for tensor in op.inputs])
                known.update((tensor.name, value) for tensor, value in zip(op.outputs, found, strict=True))
        return [known[tensor.name] for tensor in frame.outputs]

    def _outputs(self, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
        inner = frame.inner.get(op.name)
        if inner is not None:
            return self._inside(op, inner, operands)
        if op.type == "ReadVariableOp":
            return operands
        if op.type == "ResourceGather":
            return [tf.gather(operands[0], operands[1], batch_dims=op.get_attr("batch_dims"))]
        if op.type == "Const":
            return [self._constant(frame, op)]
        if op.type == "Squeeze":  # without axes it would take away those that have one index left too
            return [tf.reshape(operands[0], [-1 if size is None else size for size in self.size(frame, op.outputs[0])])]
        changed = _CHANGES[op.type](self, frame, op, operands) if op.type in _CHANGES else operands
        found = _raw(op, changed)
        return list(found) if isinstance(found, list | tuple) else [found] if op.outputs else []

    def _inside(self, op: Any, inner: list[Frame], operands: list[Any]) -> list[Any]:
        if op.type in ("While", "StatelessWhile"):
            cond, body = (next(f for f in inner if f.prefix.endswith(f"/{name}/")) for name in ("cond", "body"))
            while self._run(cond, operands)[0]:
                operands = self._run(body, operands)
            return operands
        if op.type in ("If", "StatelessIf"):
            chosen = next(f for f in inner if f.prefix.endswith("/then_branch/" if operands[0] else "/else_branch/"))
            return self._run(chosen, operands[1:])
        return self._run(inner[0], operands)

    def size(self, frame: Frame, tensor: Any) -> tuple[int | None, ...]:
        return self.sizes[frame.name(tensor)]

    def left(self, frame: Frame, tensor: Any) -> tuple[NDArray[np.intp] | None, ...]:
        return self.coupling.kept(frame.name(tensor), self.kept)

    def _constant(self, frame: Frame, op: Any) -> Any:
        value = tf.get_static_value(op.outputs[0])
        for axis, indices in enumerate(self.left(frame, op.outputs[0])):
            value = value if indices is None else np.take(value, indices, axis)
        return tf.constant(value, op.outputs[0].dtype)


def _raw(op: Any, operands: list[Any]) -> Any:
    """Run an operation of a trace on other operands."""
    function = getattr(tf.raw_ops, op.type)
    wanted = inspect.signature(function).parameters
    given: dict[str, Any] = {}
    left = list(operands)
    for argument in op.op_def.input_arg:
        name = argument.name if argument.name in wanted else "axis"  # Python's name of several others
        if argument.number_attr or argument.type_list_attr:
            count = op.get_attr(argument.number_attr or argument.type_list_attr)
            given[name] = [left.pop(0) for _ in (range(count) if argument.number_attr else count)]
        else:
            given[name] = left.pop(0)
    for attribute in op.op_def.attr:
        if attribute.name in wanted and attribute.name not in given:
            given[attribute.name] = op.get_attr(attribute.name)
    return function(**given)


def _target(place: int) -> Callable[..., list[Any]]:
    """The shape that an operation is given: what the sizes say, and what was computed where they are open."""

    def changed(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
        computed = np.asarray(operands[place]).tolist()
        sizes = self.size(frame, op.outputs[0])
        before = op.outputs[0].shape.as_list()
        new = [
            old if size is None or size == was else size for old, size, was in zip(computed, sizes, before, strict=True)
        ]
        return [*operands[:place], tf.constant(new, operands[place].dtype), *operands[place + 1 :]]

    return changed


def _slice(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
    begin, end = (np.array(operands[place]) for place in (1, 2))
    left, sizes = self.left(frame, op.inputs[0]), self.size(frame, op.outputs[0])
    bits = {name: op.get_attr(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis", "begin", "end")}
    source = made = 0
    for item in range(len(begin)):
        if bits["ellipsis"] >> item & 1:
            skipped = len(left) - source - sum(not bits["new_axis"] >> i & 1 for i in range(item + 1, len(begin)))
            source, made = source + skipped, made + skipped
        elif bits["new_axis"] >> item & 1:
            made += 1
        elif bits["shrink_axis"] >> item & 1:
            source += 1
        else:
            indices, size = left[source], sizes[made]
            if indices is not None and size is not None:
                start = 0 if bits["begin"] >> item & 1 else int(begin[item])
                start += (op.inputs[0].shape[source] or 0) if start < 0 else 0
                begin[item] = np.searchsorted(indices, start)
                end[item] = begin[item] + size if not bits["end"] >> item & 1 else end[item]
            source, made = source + 1, made + 1
    return [operands[0], tf.constant(begin), tf.constant(end), operands[3]]


def _split(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
    axis = int(operands[2])
    return [operands[0], tf.constant([self.size(frame, tensor)[axis] for tensor in op.outputs]), operands[2]]


def _pad(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
    pads = np.array(operands[1])
    for axis, indices in enumerate(self.left(frame, op.outputs[0])):
        if indices is not None:
            pads[axis, 0] = np.searchsorted(indices, pads[axis, 0])
            pads[axis, 1] = len(indices) - pads[axis, 0] - operands[0].shape[axis]
    return [operands[0], tf.constant(pads), *operands[2:]]


def _tile(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
    times = np.array(operands[1])
    for axis, size in enumerate(self.size(frame, op.outputs[0])):
        if size is not None:
            times[axis] = size // operands[0].shape[axis]
    return [operands[0], tf.constant(times)]


def _open(self: Smaller, frame: Frame, op: Any, operands: list[Any]) -> list[Any]:
    """Lists take elements of any size."""
    names = [argument.name for argument in op.op_def.input_arg]
    place = names.index("element_shape")
    return [*operands[:place], -tf.ones_like(operands[place]), *operands[place + 1 :]]


_CHANGES: dict[str, Callable[..., list[Any]]] = {
    "Reshape": _target(1),
    "Fill": _target(0),
    "BroadcastTo": _target(1),
    "Conv2DBackpropInput": _target(0),
    "Conv3DBackpropInputV2": _target(0),
    "StridedSlice": _slice,
    "SplitV": _split,
    "Pad": _pad,
    "PadV2": _pad,
    "Tile": _tile,
    **dict.fromkeys(_LISTS, _open),
}
