"""`read`: a model as a graph, to look at."""

from __future__ import annotations

from typing import Any

from bitwidth.backend import backend_for
from bitwidth.graph import Graph
from bitwidth.result import Result


def read(model: Any, data: Any = None) -> Graph:
    """The graph of a model: operations, layers, and parameters with their values. The model is not touched.

    Args:
        model: a built Keras 3 model, or a `Result`.
        data: data or inputs, only for a model that does not know its inputs.

    Raises:
        ModelError: the model cannot be read; the message says what to do.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> bw.read(model)["hidden/kernel"].role
        'kernel'
    """
    if isinstance(model, Result):
        return model.graph
    return backend_for(model).open(model, data).graph
