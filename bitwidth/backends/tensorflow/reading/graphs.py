"""Reading a model: one trace, turned into the framework-free records of `bitwidth.graph`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.layers import declared_inputs, is_own, layers_of
from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFOperation, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.attributes import dtype_name, plain_attributes, sizes
from bitwidth.backends.tensorflow.reading.fixed import UNTRACKED, fixed_layers
from bitwidth.backends.tensorflow.reading.flow import Flow, flow_of
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.kinds import kind_of, operands
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.backends.tensorflow.reading.notes import notes_on
from bitwidth.backends.tensorflow.reading.roles import role_of
from bitwidth.backends.tensorflow.reading.specs import input_specs, missing, retyped
from bitwidth.backends.tensorflow.reading.tracing import Call, FuncTrace, trace_function
from bitwidth.encodings import Dense
from bitwidth.errors import ModelError
from bitwidth.graph import Graph, Layer, LayerCall, Op, Parameter, Structure, Tensor, Values
from bitwidth.typing import Array, Model, Nest


def read_graph(model: Model, example: Nest = None) -> Graph:
    """Read `model` into a graph. The model is not changed; values are read when they are first asked for.

    Args:
        model: a built Keras 3 model that `check_model` accepts.
        example: a batch of its inputs, as a nest of arrays or tensors; needed for a subclassed model that does not
            know its own inputs.

    Raises:
        ModelError: the inputs are not known, a layer that the call reaches is not built, or the call fails.
    """
    return graph_of(model, traced(model, example))


def graph_of(model: Model, trace: FuncTrace) -> Graph:
    """The graph of `model` as `trace` shows it; nothing is traced again."""
    flow = flow_of(trace)
    frames = list(_in_order(trace.frame))
    parameters = _parameters(model, trace, flow)
    structure = Structure(
        name=model.name,
        ops=tuple(_op(trace, flow, frame, op) for frame, op in frames),
        tensors=tuple(_tensor(frame, tensor) for frame, op in frames for tensor in op.outputs),
        layers=_layers(model, trace),
        inputs=tuple(tensor.name for tensor in trace.arguments),
        outputs=tuple(dict.fromkeys(tensor.name for tensor in trace.frame.outputs)),
        notes=notes_on(trace, parameters),
        own_code=next((type(layer).__name__ for layer in layers_of(model) if is_own(layer)), ""),
    )
    return Graph(structure, parameters, Values(value_readers(trace)))


def traced(model: Model, example: Nest = None, names: Names | None = None) -> FuncTrace:
    """Trace `model` on its own inputs, or on such as `example`.

    A subclassed model without an example tells shapes but not dtypes: floating point is tried first, then integers,
    and what goes straight into an Embedding is taken for integers.

    Raises:
        ModelError: see `read_graph`.
    """
    specs = input_specs(model, example)
    if example is not None or declared_inputs(model) is not None:
        return trace_function(model, specs, names)
    errors = []
    for candidate in (specs, retyped(specs, "int32"), retyped(specs, "string")):
        try:
            trace = trace_function(model, candidate, names)
        except ModelError as error:
            errors.append(error)
            continue
        tokens = _looked_up(trace)
        if not tokens or candidate is not specs:
            return trace
        return trace_function(model, retyped(specs, "int32", tokens), names)
    raise ModelError(f"{missing(model)}; tried on the shapes it was built with: {errors[0]}") from errors[0]


def value_readers(trace: FuncTrace) -> dict[str, Callable[[], Array]]:
    """A function for each parameter that reads its present value, by path."""
    return {path: partial(value_of, variable) for path, variable, _ in trace.names.variables}


def value_of(variable: ModelVariable) -> Array:
    """The present value of a Keras variable, read-only.

    On the CPU it is the memory of the variable itself; TensorFlow leaves that alone while the array lives, and gives
    the variable other memory when it is assigned to.
    """
    tensor = tf_variable(variable).read_value()
    if tf_variable(variable).dtype in (tf.float32, tf.float64, tf.int32, tf.int64) and "CPU" in tensor.device:
        array = np.asarray(memoryview(tensor))
        array.setflags(write=False)
        return array
    return np.asarray(tensor.numpy())


def _looked_up(trace: FuncTrace) -> set[int]:
    """Places of the inputs that an Embedding takes."""
    tables = {path for path, layer, _ in trace.names.layers if isinstance(layer, keras.layers.Embedding)}
    calls = [call for call in trace.calls if call.layer in tables and call.graph is trace.frame.graph]
    taken = {tensor.name for call in calls for tensor in call.inputs}
    return {place for place, tensor in enumerate(trace.arguments) if tensor.name in taken}


def _in_order(frame: Frame) -> Iterator[tuple[Frame, TFOperation]]:
    """The live operations, those of a loop before the loop itself."""
    for op in frame.graph.get_operations():
        if op.name in frame.live:
            for inner in frame.inner.get(op.name, ()):
                yield from _in_order(inner)
            yield frame, op


def _op(trace: FuncTrace, flow: Flow, frame: Frame, op: TFOperation) -> Op:
    name, kind = frame.name(op), kind_of(op)
    inputs = tuple(frame.name(tensor) for tensor in operands(op))
    attributes = plain_attributes(op)
    if kind == "input" and frame.outer is not None:  # it takes what the loop or call is given
        source = frame.sources.get(op.outputs[0].name)
        inputs = () if source is None else (frame.outer.name(source),)
    for inner in frame.inner.get(op.name, ()):
        results = tuple(inner.name(tensor) for tensor in inner.outputs)
        attributes += ((f"{inner.prefix.removeprefix(name).strip('/')}_outputs", results),)
    outputs = tuple(frame.name(tensor) for tensor in op.outputs)
    read = flow.read_by.get(name, ())
    return Op(name, kind, trace.layer_of(frame, op), inputs, outputs, read, attributes, label=op.type)


def _tensor(frame: Frame, tensor: TFTensor) -> Tensor:
    return Tensor(frame.name(tensor), sizes(tensor.shape), dtype_name(tensor.dtype))


def _layers(model: Model, trace: FuncTrace) -> tuple[Layer, ...]:
    fixed = fixed_layers(model, trace.names)
    calls: dict[str, list[LayerCall]] = {}
    for frame in trace.frame.walk():
        for call in trace.calls:
            if call.graph is frame.graph and (record := _layer_call(frame, call)) is not None:
                calls.setdefault(call.layer, []).append(record)
    return tuple(
        Layer(
            path,
            type(layer).__name__,
            parent,
            bool(layer.trainable),
            tuple(calls.get(path, ())),
            tracked,
            fixed.get(path, "") if tracked else UNTRACKED,
        )
        for listed, tracked in ((trace.names.layers, True), (trace.untracked, False))
        for path, layer, parent in listed
    )


def _layer_call(frame: Frame, call: Call) -> LayerCall | None:
    """The record of a call; None where nothing needs its result, as of the step that shows a loop its shapes."""
    ends = [(holder, tensor) for tensor in call.outputs if (holder := frame.holder(tensor)) is not None]
    if ends and not any(tensor.op.name in holder.live for holder, tensor in ends):
        return None
    starts = [(holder, tensor) for tensor in call.inputs if (holder := frame.holder(tensor)) is not None]
    given = {id(tensor) for tensor in call.masks}
    return LayerCall(
        inputs=tuple(holder.name(tensor) for holder, tensor in starts),
        outputs=tuple(holder.name(tensor) for holder, tensor in ends),
        masks=tuple(holder.name(tensor) for holder, tensor in starts if id(tensor) in given),
    )


def _parameters(model: Model, trace: FuncTrace, flow: Flow) -> list[Parameter]:
    trainable = {id(variable) for variable in model.trainable_variables}
    parameters = []
    for index, (path, variable, owner) in enumerate(trace.names.variables):
        uses = flow.uses.get(path, {})
        effects = {reading.effect for reading in uses.values()}
        dtype = dtype_name(tf_variable(variable).dtype)
        parameters.append(
            Parameter(
                path=path,
                shape=tuple(variable.shape),
                dtype=dtype,
                role=role_of(variable.name, dtype, effects),
                layer=owner,
                trainable=id(variable) in trainable,
                uses=tuple(uses),
                aliases=trace.names.aliases.get(path, ()),
                index=index,
                encoding=Dense(width=8 * max(1, tf_variable(variable).dtype.size)),
            )
        )
    return parameters
