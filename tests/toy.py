"""The smallest backend: a model is a dict of arrays, which can be pruned, quantized and saved. It does not train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import Architecture
from bitwidth.backend import BACKENDS, LayerInputs, Objective, Steer, Stored, Trained, Training
from bitwidth.encodings import Encoding
from bitwidth.errors import ConfigError, DataError, ModelError, UnsupportedModelError
from bitwidth.graph import Cut, Graph, Parameter, Structure, cut_graph
from bitwidth.probes import Answer, Probe


@dataclass
class Arrays:
    """A model: arrays by name. Those with two axes are kernels."""

    arrays: dict[str, NDArray[np.float32]]
    encodings: dict[str, Encoding] = field(default_factory=dict)  # how they are held, for a later run


@dataclass(frozen=True)
class Finished:
    model: Arrays
    remark: str = ""

    def changed(self, graph: Graph) -> str:
        odd = [name for name, array in self.model.arrays.items() if not np.array_equal(array, graph.values[name])]
        return f"{odd[0]} has other values" if odd else ""


class ToySession:
    def __init__(self, model: Arrays) -> None:
        if not all(np.isfinite(array).all() for array in model.arrays.values()):
            raise ModelError("the arrays hold values that are not finite")
        parameters = [
            Parameter(name, array.shape, "float32", "kernel" if array.ndim == 2 else "bias", name, index=index)
            for index, (name, array) in enumerate(model.arrays.items())
        ]
        structure = Structure("arrays", (), (), (), (), ())
        graph = Graph(structure, parameters, {name: array.copy() for name, array in model.arrays.items()})
        self.graph = graph.update(encodings=model.encodings)

    def finish(self, graph: Graph) -> Finished:
        arrays = {name: np.array(graph.values[name]) for name in graph.values}
        return Finished(Arrays(arrays, {parameter.path: parameter.encoding for parameter in graph}))

    def architecture(self, graph: Graph) -> Architecture:
        variables = [[p.path, list(p.shape), p.dtype] for p in graph]
        return Architecture("toy", {"names": list(graph.values)}, "", None, variables)

    def move(self, graph: Graph, model: Any, cut: Cut) -> Graph:
        self.graph = cut_graph(graph, cut, ToySession(model).graph)
        return self.graph

    def share(self) -> None:
        """Snapshots hold their own arrays anyway."""

    def resolve(self, given: Objective, brought: Objective) -> Objective:
        return given

    def can_measure(self, objective: Objective) -> bool:
        return False

    def measure(self, graph: Graph, objective: Objective, data: Any, batch_size: int = 256) -> Mapping[str, float]:
        return {}

    def check_measuring(self, objective: Objective, data: Any) -> None:
        raise DataError("arrays compute nothing: there is nothing to measure")

    def check_data(self, data: Any, name: str, targets: bool = False) -> None:
        raise DataError("arrays compute nothing: give no data")

    def check_training(self, training: Training) -> None:
        raise ConfigError("arrays cannot be trained")

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        raise ConfigError("arrays cannot be trained")

    def probe(self, graph: Graph, probe: Probe[Answer], data: Any) -> Answer:
        raise UnsupportedModelError(f"arrays compute nothing: no answer to {type(probe).__name__}")


class ToyBackend:
    def open(self, model: Any, data: Any = None, own: bool = False) -> ToySession:
        return ToySession(model)

    def build(
        self,
        architecture: Architecture,
        stored: Stored,
        inputs: LayerInputs,
        custom_objects: Mapping[str, Any] | None = None,
        model: Any = None,
    ) -> Any:
        built = Arrays({})
        for name, (values, encoding) in zip(architecture.config["names"], stored(), strict=True):
            built.arrays[name], built.encodings[name] = values, encoding
        return built


BACKEND = ToyBackend()
BACKENDS["toy"] = __name__
Arrays.__bitwidth_backend__ = BACKEND  # type: ignore[attr-defined]
