"""A numpy backend that fulfils the protocol: a small network of dense layers, trained by plain gradient descent.

It shows that nothing above the backend needs TensorFlow, and it runs the conformance suite in a second.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.backend import (
    BACKENDS,
    Architecture,
    LayerInputs,
    Objective,
    Progress,
    Session,
    Steer,
    Stored,
    Teaching,
    Trained,
    Training,
)
from bitwidth.encodings import Encoding
from bitwidth.errors import ConfigError, DataError, ModelError
from bitwidth.fitting import Moments, plain_matrix
from bitwidth.graph import (
    Cut,
    Graph,
    KeptInputs,
    Layer,
    LayerCall,
    Op,
    Parameter,
    Structure,
    Tensor,
    Use,
    Value,
    cut_graph,
    layer_inputs,
    moved,
    with_kept_inputs,
)
from bitwidth.graph.labels import Removal
from bitwidth.probes import (
    Answer,
    GradientProbe,
    MomentsProbe,
    Observed,
    OutputProbe,
    Paired,
    PairedMomentsProbe,
    Probe,
    RangeProbe,
    StatisticsProbe,
)

Array = NDArray[np.float32]


class Network:
    """Dense layers with ReLU between them; its list of kernels and biases is all its state."""

    __bitwidth_backend__: Any = None

    def __init__(self, widths: list[int], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.widths = list(widths)
        self.weights: list[Array] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            self.weights.append((rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)).astype(np.float32))
            self.weights.append((rng.standard_normal(fan_out) * 0.1).astype(np.float32))
        self.encodings: dict[str, Encoding] = {}
        self.grids: LayerInputs = {}
        self.kept: KeptInputs | None = None

    def copy(self) -> Network:
        """Another network of the same values."""
        found = Network(self.widths)
        found.weights, found.grids, found.kept = [array.copy() for array in self.weights], self.grids, self.kept
        return found

    def forward(self, inputs: Array, weights: list[Array], grids: LayerInputs | None = None) -> list[Array]:
        """The activations in front of each layer, and the output last; each layer takes its own through its grid."""
        activations = [inputs]
        for layer in range(len(weights) // 2):
            (grid,) = (grids or {}).get(f"layer{layer}", (None,))
            taken = activations[-1] if grid is None else grid.project(activations[-1])
            x = taken @ weights[2 * layer] + weights[2 * layer + 1]
            activations.append(x if layer == len(weights) // 2 - 1 else np.maximum(x, 0))
        return activations

    def gradients(self, inputs: Array, weights: list[Array], upstream: Array) -> list[Array]:
        """Gradients of `sum(upstream * output)` with respect to the weights."""
        activations = self.forward(inputs, weights)
        found: list[Array] = []
        for layer in reversed(range(len(weights) // 2)):
            found = [activations[layer].T @ upstream, upstream.sum(0), *found]
            upstream = (upstream @ weights[2 * layer].T) * (activations[layer] > 0)
        return found


def paths(network: Network) -> list[str]:
    """Paths of the weights, in order."""
    return [f"layer{i // 2}/{'bias' if i % 2 else 'kernel'}" for i in range(len(network.weights))]


def graph_of(network: Network) -> Graph:
    """The network as a graph."""
    count = len(network.weights) // 2
    ops, tensors, layers = [], [Tensor("input", (None, network.widths[0]), "float32")], []
    last = "input"
    for i in range(count):
        product, output = f"layer{i}/product", f"layer{i}/output"
        ops.append(Op(f"layer{i}/product", "matmul", f"layer{i}", (last,), (product,), (f"layer{i}/kernel",)))
        ops.append(Op(f"layer{i}/sum", "bias_add", f"layer{i}", (product,), (output,), (f"layer{i}/bias",)))
        tensors += [Tensor(name, (None, network.widths[i + 1]), "float32") for name in (product, output)]
        layers.append(Layer(f"layer{i}", "Dense", calls=(LayerCall((last,), (output,)),)))
        last = output
    parameters = []
    for index, (path, array) in enumerate(zip(paths(network), network.weights, strict=True)):
        layer = path.partition("/")[0]
        use = (
            Use(f"{layer}/product", "matmul", layer, (1,), (0,))
            if index % 2 == 0
            else Use(f"{layer}/sum", "bias_add", layer, (0,))
        )
        role: Any = "kernel" if index % 2 == 0 else "bias"
        parameters.append(Parameter(path, array.shape, "float32", role, layer, uses=(use,), index=index))
    structure = Structure("network", tuple(ops), tuple(tensors), tuple(layers), ("input",), (last,))
    graph = Graph(structure, parameters, {p: a.copy() for p, a in zip(paths(network), network.weights, strict=True)})
    held = {
        layers[int(path[5:])].calls[0].inputs[0]: grid for path, (grid,) in network.grids.items() if grid is not None
    }
    return with_kept_inputs(graph.update(encodings=network.encodings, activations=held), network.kept)


class ReferenceSession:
    """A copy of a network, opened."""

    def __init__(self, network: Network) -> None:
        if not all(np.isfinite(array).all() for array in network.weights):
            raise ModelError("the network holds values that are not finite")
        self.network = network
        self.graph = graph_of(network)
        self.first = network.copy()

    def _weights(self, graph: Graph) -> list[Array]:
        return [graph.values[path] for path in paths(self.network)]

    def _columns(self, inputs: Array) -> Array:
        """The inputs that the network takes, of those that have all columns."""
        columns = None if self.network.kept is None else self.network.kept.of(inputs.shape[1])
        return inputs if columns is None else inputs[:, list(columns)]

    def check_data(self, data: Any, name: str, targets: bool = False) -> None:
        inputs = data[0] if isinstance(data, tuple) else data
        if not len(inputs):
            raise DataError(f"{name} is empty")
        if not np.isfinite(inputs).all():
            raise DataError(f"{name} is not finite")
        if targets and not (isinstance(data, tuple) and len(data) > 1):
            raise DataError(f"{name} has no targets")

    def check_training(self, training: Training) -> None:
        teaching = training.teaching
        if teaching is not None and not (teaching.teacher is None and not teaching.features and not teaching.attention):
            raise ConfigError("the reference network learns from the outputs of the network that was opened only")
        if (teaching is None or teaching.alpha) and training.objective.loss != "mse":
            raise ConfigError('no loss: the reference network knows "mse"')
        if training.data is not None:
            self.check_data(training.data, "data", targets=teaching is None or bool(teaching.alpha))

    def check_measuring(self, objective: Objective, data: Any) -> None:
        self.check_data(data, "validation")

    def resolve(self, given: Objective, brought: Objective) -> Objective:
        return given if given.loss is not None else brought

    def can_measure(self, objective: Objective) -> bool:
        return bool(objective.loss == "mse")

    def measure(self, graph: Graph, objective: Objective, data: Any, batch_size: int = 256) -> Mapping[str, float]:
        output = self.network.forward(self._columns(data[0]), self._weights(graph), layer_inputs(graph.structure))[-1]
        return {"loss": float(np.square(output - data[1]).mean())}

    def probe(self, graph: Graph, probe: Probe[Answer], data: Any) -> Answer:
        inputs = self._columns((data[0] if isinstance(data, tuple) else data)[: probe.samples])
        answers: dict[type[Any], Any] = {
            GradientProbe: self._squared_gradients,
            MomentsProbe: self._moments,
            PairedMomentsProbe: self._paired,
            RangeProbe: self._ranges,
            StatisticsProbe: lambda *_: {},
            OutputProbe: lambda *_: (self.network.forward(inputs, self._weights(graph))[-1],),
        }
        found: Answer = answers[type(probe)](graph, probe, inputs)
        return found

    def _squared_gradients(self, graph: Graph, probe: GradientProbe, inputs: Array) -> Mapping[str, NDArray[Any]]:
        rng, weights = np.random.default_rng(probe.seed), self._weights(graph)
        total = [np.zeros(array.shape) for array in weights]
        for row in inputs:
            output = self.network.forward(row[None], weights)[-1]
            noise = rng.standard_normal(output.shape).astype(np.float32)
            for sum_, gradient in zip(total, self.network.gradients(row[None], weights, noise), strict=True):
                sum_ += gradient.astype(np.float64) ** 2
        return {path: sum_ / len(inputs) for path, sum_ in zip(paths(self.network), total, strict=True)}

    def _moments(self, graph: Graph, probe: MomentsProbe, inputs: Array) -> Mapping[str, tuple[Moments, ...]]:
        activations = self.network.forward(inputs, self._weights(graph))
        found: dict[str, tuple[Moments, ...]] = {}
        for path in probe.paths:
            x = activations[int(path.split("/")[0].removeprefix("layer"))]
            gram = (x.T @ x / len(x)).astype(np.float32)[None]
            arrangement = plain_matrix(graph[path].shape, (1,))
            found[path] = (Moments(arrangement, gram, x.mean(0, keepdims=True), len(x), path),)
        return found

    def _ranges(self, graph: Graph, probe: RangeProbe, inputs: Array) -> Mapping[str, Observed]:
        activations = self.network.forward(inputs, self._weights(graph))
        names = [*graph.structure.inputs, *(layer.calls[0].outputs[0] for layer in graph.structure.layers)]
        seen = {name: activations[place] for place, name in enumerate(names)}
        return {
            name: Observed(float(seen[name].min()), float(seen[name].max()), seen[name].ravel())
            for name in probe.tensors
        }

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        given, targets = training.data if isinstance(training.data, tuple) else (training.data, None)
        inputs, teaching = self._columns(given), training.teaching
        taught = None if teaching is None else self.first.forward(given, self.first.weights, self.first.grids)[-1]
        masters = {path: graph.values.value(path).start.copy() for path in graph.values}
        order = np.random.default_rng(training.seed)
        current, losses = graph, []
        rate = training.learning_rate if isinstance(training.learning_rate, float) else 1e-2
        size = training.batch_size
        steps = max(1, len(inputs) // size)
        total = training.epochs * steps

        def ask(done: int) -> None:
            nonlocal current
            if steer is not None:
                given = current.update(masters)
                new = steer(Progress(done, total, max(0, done - 1)), given)
                if not all(new.values.same(current.values, path) for path in new.values):
                    masters.update({path: array.copy() for path, array in moved(given, new).items()})
                current = new

        ask(0)
        for epoch in range(training.epochs):
            chosen = order.permutation(len(inputs))
            for step in range(steps):
                rows = chosen[step * size : (step + 1) * size]
                read = [current[path].encoding.project(masters[path]) for path in paths(self.network)]
                output = self.network.forward(inputs[rows], read, layer_inputs(graph.structure))[-1]
                loss, slope = _objective(output, None if targets is None else targets[rows], taught, rows, teaching)
                losses.append(loss)
                gradients = self.network.gradients(inputs[rows], read, slope)
                for path, gradient in zip(paths(self.network), gradients, strict=True):
                    if training.only is None or path in training.only:
                        mask = current[path].encoding.mask
                        masters[path] = masters[path] - np.float32(rate) * (
                            gradient if mask is None else gradient * mask
                        )
                ask(epoch * steps + step + 1)
                if training.on_step is not None and training.on_step(epoch * steps + step + 1, total):
                    return self._trained(graph, current, masters, losses)
        return self._trained(graph, current, masters, losses)

    def _trained(self, graph: Graph, current: Graph, masters: dict[str, Array], losses: list[float]) -> Trained:
        changed = {path: _snapped(graph, current, path, master) for path, master in masters.items()}
        after = Graph(current.structure, tuple(current), graph.values.replace(changed))
        return Trained(after, {"loss": losses})

    def _paired(self, graph: Graph, probe: PairedMomentsProbe, inputs: Array) -> Mapping[str, tuple[Paired, ...]]:
        other = graph.update(dict(probe.values))
        of_other = self.network.forward(inputs, self._weights(other))
        of_own = self.network.forward(inputs, self._weights(graph))
        found: dict[str, tuple[Paired, ...]] = {}
        for path, moments in self._moments(graph, MomentsProbe(probe.samples, probe.paths), inputs).items():
            place = int(path.split("/")[0].removeprefix("layer"))
            x, y = of_own[place], of_other[place]
            found[path] = (Paired(moments[0], (x.T @ y / np.float32(len(x)))[None], y.mean(0, keepdims=True)),)
        return found

    def remove(self, graph: Graph, removal: Removal) -> Graph:
        kept = removal.kept_inputs(graph)
        after = with_kept_inputs(self.move(graph, self._smaller(graph, removal), removal.cut), kept)
        self.network.kept = kept
        return after

    def check_removal(self, graph: Graph, removal: Removal) -> None:
        self._smaller(graph, removal)

    def _smaller(self, graph: Graph, removal: Removal) -> Network:
        left = [removal.cut.take(path, graph.values[path]) for path in paths(self.network)]
        smaller = Network([left[0].shape[0], *(bias.size for bias in left[1::2])])
        x = np.random.default_rng(0).standard_normal((8, self.network.widths[0])).astype(np.float32)
        expected = self.network.forward(x, self._weights(removal.zeroed(graph)))[-1]
        columns = removal.left("input")[1]
        if not np.allclose(expected, smaller.forward(x if columns is None else x[:, columns], left)[-1], atol=1e-5):
            raise ModelError("the smaller network computes something else")
        return smaller

    def move(self, graph: Graph, model: Any, cut: Cut) -> Graph:
        fresh = ReferenceSession(model)
        self.network, self.graph = fresh.network, fresh.graph
        return cut_graph(graph, cut, fresh.graph)

    def share(self) -> None:
        """Nothing is lent."""

    def finish(self, graph: Graph) -> FinishedNetwork:
        network = Network(self.network.widths)
        network.weights = [array.copy() for array in self._weights(graph)]
        network.encodings = {parameter.path: parameter.encoding for parameter in graph}
        network.grids, network.kept = layer_inputs(graph.structure), graph.structure.kept_inputs
        return FinishedNetwork(network)

    def architecture(self, graph: Graph) -> Architecture:
        variables = [
            [path, list(a.shape), "float32"] for path, a in zip(paths(self.network), self.network.weights, strict=True)
        ]
        config = {"widths": self.network.widths}
        return Architecture("reference", config, "", None, variables, {}, kept_inputs=graph.structure.kept_inputs)


@dataclass(frozen=True)
class FinishedNetwork:
    """A network that was handed to its owner."""

    model: Network
    remark: str = ""

    def changed(self, graph: Graph) -> str:
        named = zip(paths(self.model), self.model.weights, strict=True)
        return next((f"{path} has other values" for path, w in named if not np.array_equal(w, graph.values[path])), "")


def _objective(output: Array, targets: Any, taught: Any, rows: Any, teaching: Teaching | None) -> tuple[float, Array]:
    """A loss and its slope: the squared error on targets, and the divergence from what was taught."""
    loss, slope = 0.0, np.zeros(output.shape)
    share = 1.0 if teaching is None else teaching.alpha
    if share:
        error = output - targets
        loss, slope = share * float(np.square(error).mean()), share * 2 * error / error.size
    if teaching is not None:
        t = teaching.temperature
        wanted, now = _softmax(taught[rows] / t), _softmax(output / t)
        apart = float((wanted * np.log(wanted / now)).sum(axis=1).mean())
        loss, slope = loss + (1 - share) * t * t * apart, slope + (1 - share) * t * (now - wanted) / len(output)
    return loss, slope.astype(np.float32)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _snapped(before: Graph, after: Graph, path: str, master: Array) -> Value:
    """What the encoding at the end of training holds of a master."""
    held, old = after[path].encoding.project(master), before.values.value(path)
    return old.with_master(master) if np.array_equal(held, old.read()) else Value(held, master)


class ReferenceBackend:
    """Networks of the class above."""

    def open(self, model: Any, data: Any = None, own: bool = False) -> Session:
        return ReferenceSession(model)

    def build(
        self,
        architecture: Architecture,
        stored: Stored,
        inputs: LayerInputs,
        custom_objects: Mapping[str, Any] | None = None,
        model: Any = None,
    ) -> Any:
        network = model or Network(architecture.config["widths"])
        held = list(stored())
        network.weights = [values for values, _ in held]
        network.encodings = {path: encoding for path, (_, encoding) in zip(paths(network), held, strict=True)}
        network.grids, network.kept = inputs, architecture.kept_inputs
        return network


BACKEND = ReferenceBackend()
Network.__bitwidth_backend__ = BACKEND
BACKENDS["reference"] = __name__


def regression(samples: int = 64, seed: int = 3) -> tuple[Array, Array]:
    """Inputs [n, 6] and targets [n, 2] of a smooth function."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((samples, 6)).astype(np.float32)
    targets = np.stack([np.sin(inputs[:, 0]) + inputs[:, 1], inputs[:, 2] * 0.5], axis=1).astype(np.float32)
    return inputs, targets


def checksum(network: Network) -> int:
    """A checksum of the weights."""
    return zlib.crc32(b"".join(array.tobytes() for array in network.weights))
