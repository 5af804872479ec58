"""What a model was when it was handed to its owner, to tell what the owner has changed since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np

from bitwidth.backends.tensorflow.internals.types import KerasLayer, ModelVariable
from bitwidth.backends.tensorflow.reading.graphs import value_of
from bitwidth.backends.tensorflow.reading.naming import names_of
from bitwidth.graph import Graph
from bitwidth.typing import Model


@final
class Handed:
    """A model for its owner, and the layers and variables that it had.

    Args:
        graph: what the model is made of.
        make: makes it, when it is first asked for.
        remark: see `bitwidth.backend.Finished.remark`.
    """

    def __init__(self, graph: Graph, make: Callable[[], Any], remark: str) -> None:
        self.remark = remark
        self._make: Callable[[], Any] | None = make
        self._model: Model = None
        self._paths = {parameter.path: parameter.index for parameter in graph}
        self._layers: tuple[KerasLayer, ...] = ()
        self._variables: dict[str, ModelVariable] = {}

    @property
    def model(self) -> Model:
        """See `Finished.model`."""
        if self._make is not None:
            self._model, self._make = self._make(), None
            self._layers = tuple(layer for _, layer, _ in names_of(self._model).layers)
            variables = self._model.variables  # Keras gathers them anew each time
            self._variables = {path: variables[index] for path, index in self._paths.items()}
        return self._model

    def changed(self, graph: Graph) -> str:
        """See `Finished.changed`."""
        if self._make is not None:
            return ""
        names = names_of(self._model)
        for path, layer, _ in names.layers:
            if getattr(layer, "lora_enabled", False):
                return f"LoRA was enabled on {path}"
        layers = [layer for _, layer, _ in names.layers]
        if len(layers) != len(self._layers) or any(a is not b for a, b in zip(layers, self._layers, strict=True)):
            return f"layers were added, removed or exchanged: it has {len(layers)}, and had {len(self._layers)}"
        if {id(v) for v in self._model.variables} != {id(v) for v in self._variables.values()}:
            return "it has other variables"
        for parameter in graph:
            if parameter.is_float and not np.array_equal(
                value_of(self._variables[parameter.path]), graph.values[parameter.path]
            ):
                return f"{parameter.path} has other values"
        return ""
