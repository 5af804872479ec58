"""Notes: what a reader of the graph should know about a model that its records do not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.graph import Parameter


def notes_on(trace: FuncTrace, parameters: Sequence[Parameter]) -> tuple[str, ...]:
    """One line for each thing that a pass cannot see or that the trace could not show."""
    return tuple(dict.fromkeys((*_unreached(trace, parameters), *_unclear(parameters), *_outside(trace))))


def _unreached(trace: FuncTrace, parameters: Iterable[Parameter]) -> Iterator[str]:
    unread = [parameter for parameter in parameters if parameter.is_float and not parameter.uses]
    called = {call.layer for call in trace.calls}
    for path, layer, parent in trace.names.layers if unread else ():
        held = {id(variable) for variable in layer.variables}
        paths = {name for name, variable, _ in trace.names.variables if id(variable) in held}
        missed = [parameter for parameter in unread if parameter.path in paths]
        if path not in called and parent in called | {""} and missed and len(missed) == len(paths):
            yield f"the layer {path} is not reached when the model is called for inference"
            unread = [parameter for parameter in unread if parameter not in missed]
    for parameter in unread:
        yield f"{parameter.path} is read by nothing when the model is called for inference"


def _unclear(parameters: Iterable[Parameter]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.role == "other" and parameter.uses:
            kinds = ", ".join(dict.fromkeys(use.label or use.kind for use in parameter.uses))
            yield f"{parameter.path}: nothing shows what it does (read by {kinds})"


def _outside(trace: FuncTrace) -> Iterator[str]:
    """Variables and constants that the trace captured and that are not among the model's variables."""
    graph = trace.frame.graph
    known = {id(tf_variable(variable).handle) for _, variable, _ in trace.names.variables}
    named = {id(variable.handle): variable.name for variable in graph.variables}
    for outer, inner in graph.captures:
        if id(outer) in known or inner.op.name not in trace.frame.live:
            continue
        layers = _reading_layers(trace, inner)
        if id(outer) in named:
            yield (
                f"the variable {named[id(outer)]!r}, read in {layers}, is not among the model's variables and stays as "
                "it is; make it a keras.Variable attribute of a layer to have it seen"
            )
        elif inner.dtype not in (tf.resource, tf.variant) and inner.shape.num_elements() != 1:
            yield f"a constant of shape {tuple(inner.shape)}, computed outside the call, is read in {layers}"


def _reading_layers(trace: FuncTrace, tensor: TFTensor) -> str:
    readers = dict.fromkeys(trace.layer_of(trace.frame, op) for op in tensor.consumers())
    return ", ".join(path or "the model itself" for path in readers) or "nothing"
