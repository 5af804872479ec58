"""TensorFlow's graphs and functions: what runs inside operations, single operations run eagerly, registries."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import ops
from tensorflow.python.ops.control_flow_v2_func_graphs import (
    CondBranchFuncGraph,
    WhileBodyFuncGraph,
    WhileCondFuncGraph,
)

FUNCTION = type(tf.function(lambda: None))  # the class of a `tf.function`
_BODIES = (WhileBodyFuncGraph, WhileCondFuncGraph, CondBranchFuncGraph)
_SETTINGS = ("autograph", "jit_compile", "reduce_retracing")


def outside_loops(graph: tf.Graph) -> tf.Graph:
    """The innermost graph around this one, or this one, that is no part of a loop or a branch.

    Since TensorFlow 2.0 (`control_flow_v2_func_graphs`).
    """
    while isinstance(graph, _BODIES):
        graph = graph.outer_graph
    return graph


def graph_named(graph: tf.Graph, name: str) -> tf.Graph | None:
    """The graph of a function that operations of `graph` call by name, found in it or in a graph around it.

    Since TensorFlow 2.0 (`Graph._get_function`).
    """
    while graph is not None:
        function = graph._get_function(name) if name else None
        if function is not None:
            return function.graph
        graph = getattr(graph, "outer_graph", None)
    return None


def execute_operation(kind: str, count: int, inputs: Sequence[tf.Tensor], attributes: tuple[Any, ...]) -> list[Any]:
    """Run one operation eagerly.

    Since TensorFlow 2.0 (`tensorflow.python.eager.execute`).

    Args:
        kind: its type.
        count: of its outputs.
        inputs: eager tensors.
        attributes: names and values, flat, in the order of its definition.

    Returns:
        Its outputs.
    """
    return list(execute.execute(kind.encode(), count, inputs=inputs, attrs=attributes, ctx=context.context()))


def gradient_registry() -> MutableMapping[str, Any]:
    """The registry of gradient functions by name, as long as the process lives: what is taken out of it is gone.

    Tried with TensorFlow 2.18 to 2.21 (`ops.gradient_registry`); empty where it is held otherwise.
    """
    return getattr(ops.gradient_registry, "_registry", {})


def forget_trace(function: Any, layer: keras.Layer) -> None:
    """Let a `tf.function` among the methods of a layer's class be traced again for this layer.

    Since TensorFlow 2.0 (`Function._descriptor_cache`).
    """
    getattr(function, "_descriptor_cache", {}).pop(layer, None)


def untraced(function: Any) -> Any:
    """A `tf.function` like this one that has not traced anything.

    Since TensorFlow 2.11 (`Function._autograph`, `_jit_compile`, `_reduce_retracing`).
    """
    settings = {key: getattr(function, f"_{key}") for key in _SETTINGS if hasattr(function, f"_{key}")}
    return tf.function(function.python_function, input_signature=function.input_signature, **settings)


def clone_of(function: Any, python_function: Any) -> Any:
    """A `tf.function` with all settings of this one, of another Python function.

    Since TensorFlow 2.3 (`Function._clone`).
    """
    return function._clone(python_function)
