"""Replay: run a traced model operation by operation, and show what flows through it.

The graph of a trace is interpreted eagerly, loops, branches and calls included, so that an operation inside the loop of
a recurrent layer is seen at each of its steps, under the name that it has in `Graph.ops`. Nothing is added to the
model. What no later operation reads is dropped at once, so memory is that of an ordinary inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.graphs import execute_operation
from bitwidth.backends.tensorflow.internals.types import TFOperation, TFTensor
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.kinds import kind_of
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import UnsupportedModelError

Watcher = Callable[[Any, list[Any], list[Any]], None]
Edit = Callable[[Any], Any]


@final
class Replay:
    """A traced model, ready to be run and watched.

    Args:
        trace: the trace; the variables that it reads are those of its model, with the values of the moment.
        exchanged: TensorFlow variables to read in the place of those of the model, by `id` of the handle of these.
    """

    def __init__(self, trace: FuncTrace, exchanged: Mapping[int, Any] | None = None) -> None:
        self._trace = trace
        self._plans: dict[int, _Plan] = {}
        other = {key: variable.handle for key, variable in (exchanged or {}).items()}
        self._captured = {inner.name: other.get(id(outer), outer) for outer, inner in trace.frame.graph.captures}

    def run(
        self, inputs: TFTensor, watch: Mapping[str, Watcher] | None = None, edit: Mapping[str, Edit] | None = None
    ) -> list[TFTensor]:
        """Run the model on a batch.

        Args:
            inputs: a nest like the one that the model was traced with.
            watch: by name of an operation (as in `Graph.ops`): called each time it has run, with TensorFlow's
                operation, the tensors that it took and those that it gave.
            edit: by name of a tensor (as in `Graph.structure.tensors`): returns what is used in its place.

        Returns:
            The model's outputs, in order.

        Raises:
            UnsupportedModelError: an operation runs a graph in a way that is not known here.
        """
        frame = self._trace.frame
        flat = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(inputs, expand_composites=True)]
        flat = [
            leaf if leaf.dtype == spec.dtype else tf.cast(leaf, spec.dtype)
            for leaf, spec in zip(flat, frame.inputs, strict=False)
        ]
        given = {tensor.name: leaf for tensor, leaf in zip(frame.inputs, flat, strict=False)}
        return self._frame(frame, {**self._captured, **given}, watch or {}, edit or {})

    def _frame(
        self, frame: Frame, given: Mapping[str, Any], watch: Mapping[str, Watcher], edit: Mapping[str, Edit]
    ) -> list[TFTensor]:
        plan = self._plans.setdefault(id(frame), _Plan(frame))
        held: dict[str, Any] = {}
        for op, drops in plan.steps:
            inputs = [held[tensor.name] for tensor in op.inputs]
            if kind_of(op) == "input":
                outputs = [given[op.outputs[0].name]]
            elif op.name in frame.inner:
                outputs = self._inner(frame, op, inputs, watch, edit)
            else:
                outputs = plan.execute(op, inputs)
            name = frame.name(op)
            if name in watch:
                watch[name](op, inputs, outputs)
            for tensor, output in zip(op.outputs, outputs, strict=True):
                change = edit.get(frame.name(tensor)) if edit else None
                held[tensor.name] = output if change is None else change(output)
            for tensor_name in drops:
                del held[tensor_name]
        return [held[tensor.name] for tensor in frame.outputs]

    def _inner(
        self,
        frame: Frame,
        op: TFOperation,
        inputs: list[TFTensor],
        watch: Mapping[str, Watcher],
        edit: Mapping[str, Edit],
    ) -> list[TFTensor]:
        def run(inner: Frame, values: list[TFTensor]) -> list[TFTensor]:
            values = values[len(values) - len(inner.inputs) :]
            names = [tensor.name for tensor in inner.inputs]
            return self._frame(inner, dict(zip(names, values, strict=True)), watch, edit)

        inner = frame.inner[op.name]
        if kind_of(op) == "loop":
            condition = next(item for item in inner if item.prefix.endswith("/cond/"))
            body = next(item for item in inner if item.prefix.endswith("/body/"))
            values = inputs
            while bool(run(condition, values)[0]):
                values = run(body, values)
            return values
        if kind_of(op) == "branch":
            chosen = int(inputs[0])
            if op.type.endswith("If"):
                chosen = 0 if chosen else 1
            return run(inner[min(chosen, len(inner) - 1)], inputs[1:])
        if kind_of(op) == "call":
            return run(inner[0], inputs)
        raise UnsupportedModelError(f"{frame.name(op)}: an operation {op.type} cannot be replayed step by step")


@final
class _Plan:
    """The live operations of a graph in order, with the tensors that are not needed after each."""

    def __init__(self, frame: Frame) -> None:
        self._attributes: dict[str, tuple[TFTensor, ...]] = {}
        self._constants: dict[str, Any] = {}
        live = [op for op in frame.graph.get_operations() if op.name in frame.live]
        needed = {tensor.name for tensor in frame.outputs}
        last: dict[str, str] = {}
        for op in live:
            last.update({tensor.name: op.name for tensor in op.outputs})
            last.update({tensor.name: op.name for tensor in op.inputs})
        drops: dict[str, list[str]] = {}
        for tensor_name, op_name in last.items():
            if tensor_name not in needed:
                drops.setdefault(op_name, []).append(tensor_name)
        self.steps = [(op, drops.get(op.name, [])) for op in live]

    def execute(self, op: TFOperation, inputs: list[TFTensor]) -> list[TFTensor]:
        """Run one operation on eager tensors."""
        if kind_of(op) == "constant":
            if op.name not in self._constants:
                self._constants[op.name] = tf.constant(tf.make_ndarray(op.get_attr("value")))
            return [self._constants[op.name]]
        if op.name not in self._attributes:
            self._attributes[op.name] = _attributes(op)
        return execute_operation(op.type, len(op.outputs), inputs, self._attributes[op.name])


def rerun(op: TFOperation, inputs: list[TFTensor]) -> TFTensor:
    """The first output of a traced operation on other inputs, run eagerly with its own attributes."""
    return execute_operation(op.type, len(op.outputs), inputs, _attributes(op))[0]


def _attributes(op: TFOperation) -> tuple[TFTensor, ...]:
    flat: list[TFTensor] = []
    for definition in op.op_def.attr:
        if definition.type == "func" or definition.name.startswith("_"):
            continue
        value = op.get_attr(definition.name)
        flat += [definition.name, _plain(value, definition.type)]
    return tuple(flat)


def _plain(value: TFTensor, kind: str) -> TFTensor:
    if kind.startswith("list("):
        return [_plain(item, kind[5:-1]) for item in value]
    if kind == "type":
        return tf.as_dtype(value).as_datatype_enum
    if kind == "shape":
        shape = tf.TensorShape(value)
        return None if shape.rank is None else [-1 if size is None else size for size in shape.as_list()]
    if isinstance(value, np.generic):
        return value.item()
    return value
