"""State: what a model keeps from one call to the next, put back after looking at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.typing import Model


def state_of(model: Model, trace: FuncTrace) -> list[ModelVariable]:
    """Every `tf.Variable` that a call of the model can read or move.

    Besides the model's own variables these are those that Keras does not track: the states of stateful recurrent
    layers, variables that layers hold in plain attributes, lists and dicts, and any other that the trace has read.
    """
    layers = [model, *(layer for _, layer, _ in trace.names.layers), *(layer for _, layer, _ in trace.untracked)]
    held = [leaf for layer in layers for value in vars(layer).values() for leaf in _variables(value)]
    found = [tf_variable(variable) for variable in (*model.variables, *held)]
    return list({id(variable): variable for variable in (*found, *trace.function.graph.variables)}.values())


def untracked_of(model: Model, trace: FuncTrace) -> list[ModelVariable]:
    """Those of `state_of` that are not among the model's variables."""
    tracked = {id(tf_variable(variable)) for variable in model.variables}
    return [variable for variable in state_of(model, trace) if id(variable) not in tracked]


@contextmanager
def undisturbed(variables: Iterable[ModelVariable]) -> Iterator[None]:
    """Within this context `tf.Variable`s may be assigned to: those that are have their values back afterwards."""
    before = [(variable, variable.read_value()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            if not np.array_equal(variable.read_value().numpy(), value.numpy()):
                variable.assign(value)


def _variables(value: ModelVariable) -> Iterator[ModelVariable]:
    if isinstance(value, keras.Variable | tf.Variable):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _variables(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _variables(item)
