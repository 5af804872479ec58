"""Custom gradients that do not outlive the run that traced them.

In a graph, `tf.custom_gradient` registers a gradient function under a new name in a registry of TensorFlow's that lasts
as long as the process; optimizers do it at each trace of a training step, and so do our views and grids. The function
holds the graph, and with it every variable and constant that the graph captured. What a run has traced is forgotten
when the run ends, so its entries can go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.graphs import gradient_registry
from bitwidth.backends.tensorflow.internals.types import ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable

_NAMES = "CustomGradient-"  # what the names that TensorFlow makes up begin with


def forget_gradients(variables: Iterable[ModelVariable]) -> None:
    """Let go of the custom gradients in graphs that captured one of these variables.

    Args:
        variables: variables whose graphs nobody will differentiate any more.
    """
    handles = {id(tf_variable(variable).handle) for variable in variables}
    registry = gradient_registry()
    for name, entry in list(registry.items()):
        if name.startswith(_NAMES) and any(id(found) in handles for found in _captured(entry["type"])):
            registry.pop(name, None)


def _captured(registered: Any) -> Iterator[Any]:
    """What was captured, from outside of all graphs, by the graph of a registered gradient."""
    graph = next(_graphs(registered), None)
    while graph is not None:
        yield from (outer for outer, _ in getattr(graph, "captures", ()))
        graph = getattr(graph, "outer_graph", None)


def _graphs(registered: Any) -> Iterator[Any]:
    """The graph of the tensors that a registered gradient works on: in the closure of the function that it wraps."""
    for inner in _inside(registered):
        for value in _inside(inner):
            for item in value if isinstance(value, list | tuple) else (value,):
                if tf.is_symbolic_tensor(item):
                    yield item.graph


def _inside(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty cell
            continue
