"""What a model was when it was handed to its owner, to tell what the owner has changed since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwidth.backends.tensorflow.naming import names_of
from bitwidth.backends.tensorflow.trace import value_of
from bitwidth.graph import Graph


@dataclass(frozen=True, eq=False)
class Handed:
    """The layers and variables of a model at one moment.

    Attributes:
        layers: the layers, outer ones first.
        variables: the variables, by the path of the parameter.
    """

    layers: tuple[Any, ...]
    variables: dict[str, Any]

    @classmethod
    def of(cls, model: Any, graph: Graph) -> Handed:
        """The model as it is now, with the values of `graph`."""
        variables = {parameter.path: model.variables[parameter.index] for parameter in graph}
        return cls(tuple(layer for _, layer, _ in names_of(model).layers), variables)

    def difference(self, model: Any, graph: Graph) -> str:
        """What is another now: layers, variables, or values of floating point; empty where nothing is.

        Seeds and the states of recurrent layers move with every call, and do not count.
        """
        names = names_of(model)
        for path, layer, _ in names.layers:
            if getattr(layer, "lora_enabled", False):
                return f"LoRA was enabled on {path}"
        layers = [layer for _, layer, _ in names.layers]
        if len(layers) != len(self.layers) or any(a is not b for a, b in zip(layers, self.layers, strict=True)):
            return f"layers were added, removed or exchanged: it has {len(layers)}, and had {len(self.layers)}"
        if {id(v) for v in model.variables} != {id(v) for v in self.variables.values()}:
            return "it has other variables"
        for parameter in graph:
            if parameter.is_float and not np.array_equal(
                value_of(self.variables[parameter.path]), graph.values[parameter.path]
            ):
                return f"{parameter.path} has other values"
        return ""
