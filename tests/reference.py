"""A numpy backend that fulfils the protocol: a small network of dense layers, trained by plain gradient descent.

It shows that nothing above the backend needs TensorFlow, and it runs the conformance suite in a second.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.backend import (
    BACKENDS,
    Architecture,
    Change,
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
    Chains,
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
    """Dense layers with ReLU between them; its list of kernels and biases is all its state.

    Layers that are named in `plain` have a kernel only: no bias, and no ReLU behind them.
    """

    __bitwidth_backend__: Any = None

    def __init__(
        self, widths: list[int], seed: int = 0, names: Sequence[str] | None = None, plain: Sequence[str] = ()
    ) -> None:
        rng = np.random.default_rng(seed)
        self.widths = list(widths)
        self.names = list(names or (f"layer{i}" for i in range(len(widths) - 1)))
        self.plain = list(plain)
        self.weights: list[Array] = []
        for name, (fan_in, fan_out) in zip(self.names, itertools.pairwise(widths), strict=True):
            self.weights.append((rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)).astype(np.float32))
            if name not in self.plain:
                self.weights.append((rng.standard_normal(fan_out) * 0.1).astype(np.float32))
        self.encodings: dict[str, Encoding] = {}
        self.grids: LayerInputs = {}
        self.kept: KeptInputs | None = None

    def copy(self) -> Network:
        """Another network of the same values."""
        found = Network(self.widths, names=self.names, plain=self.plain)
        found.weights, found.grids, found.kept = [array.copy() for array in self.weights], self.grids, self.kept
        return found

    def parts(self, weights: list[Array]) -> list[tuple[str, Array, Array | None]]:
        """Name, kernel and bias of each layer."""
        rest = iter(weights)
        return [(name, next(rest), None if name in self.plain else next(rest)) for name in self.names]

    def bends(self, layer: int) -> bool:
        """Whether a ReLU stands behind a layer."""
        return layer < len(self.names) - 1 and self.names[layer] not in self.plain

    def forward(self, inputs: Array, weights: list[Array], grids: LayerInputs | None = None) -> list[Array]:
        """The activations in front of each layer, and the output last; each layer takes its own through its grid."""
        activations = [inputs]
        for layer, (name, kernel, bias) in enumerate(self.parts(weights)):
            (grid,) = (grids or {}).get(name, (None,))
            taken = activations[-1] if grid is None else grid.project(activations[-1])
            x = taken @ kernel if bias is None else taken @ kernel + bias
            activations.append(np.maximum(x, 0) if self.bends(layer) else x)
        return activations

    def gradients(self, inputs: Array, weights: list[Array], upstream: Array) -> list[Array]:
        """Gradients of `sum(upstream * output)` with respect to the weights."""
        activations = self.forward(inputs, weights)
        found: list[Array] = []
        for layer, (_, kernel, bias) in reversed(list(enumerate(self.parts(weights)))):
            own = [activations[layer].T @ upstream, *([] if bias is None else [upstream.sum(0)])]
            found = [*own, *found]
            upstream = upstream @ kernel.T
            if layer and self.bends(layer - 1):
                upstream = upstream * (activations[layer] > 0)
        return found


def paths(network: Network) -> list[str]:
    """Paths of the weights, in order."""
    return [
        f"{name}/{role}" for name in network.names for role in ("kernel", "bias")[: 1 if name in network.plain else 2]
    ]


def graph_of(network: Network) -> Graph:
    """The network as a graph."""
    ops, tensors, layers = [], [Tensor("input", (None, network.widths[0]), "float32")], []
    last = "input"
    for layer, width in zip(network.names, network.widths[1:], strict=True):
        is_plain = layer in network.plain
        product, output = f"{layer}/product", f"{layer}/{'product' if is_plain else 'output'}"
        ops.append(Op(product, "matmul", layer, (last,), (product,), (f"{layer}/kernel",)))
        if not is_plain:
            ops.append(Op(f"{layer}/sum", "bias_add", layer, (product,), (output,), (f"{layer}/bias",)))
        tensors += [Tensor(name, (None, width), "float32") for name in dict.fromkeys((product, output))]
        layers.append(Layer(layer, "Dense", calls=(LayerCall((last,), (output,)),)))
        last = output
    parameters = []
    for index, (path, array) in enumerate(zip(paths(network), network.weights, strict=True)):
        layer, _, name = path.partition("/")
        use = (
            Use(f"{layer}/product", "matmul", layer, (1,), (0,))
            if name == "kernel"
            else Use(f"{layer}/sum", "bias_add", layer, (0,))
        )
        role: Any = name
        parameters.append(Parameter(path, array.shape, "float32", role, layer, uses=(use,), index=index))
    structure = Structure("network", tuple(ops), tuple(tensors), tuple(layers), ("input",), (last,))
    graph = Graph(structure, parameters, {p: a.copy() for p, a in zip(paths(network), network.weights, strict=True)})
    taken = {layer.path: layer.calls[0].inputs[0] for layer in layers}
    held = {taken[path]: grid for path, (grid,) in network.grids.items() if grid is not None}
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
        if training.pricing is not None:
            raise ConfigError("the reference network does not pay for code length: leave price and size out")
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
            x = activations[self.network.names.index(path.split("/")[0])]
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
            place = self.network.names.index(path.split("/")[0])
            x, y = of_own[place], of_other[place]
            found[path] = (Paired(moments[0], (x.T @ y / np.float32(len(x)))[None], y.mean(0, keepdims=True)),)
        return found

    def rebuild(self, graph: Graph, change: Change) -> Graph:
        kept = change.kept_inputs(graph)
        after = with_kept_inputs(self.move(graph, self._rebuilt(graph, change), change.cut), kept)
        self.network.kept = kept
        return after

    def check_rebuild(self, graph: Graph, change: Change) -> None:
        self._rebuilt(graph, change)

    def _rebuilt(self, graph: Graph, change: Change) -> Network:
        return self._smaller(graph, change) if isinstance(change, Removal) else self._chained(graph, change)

    def _smaller(self, graph: Graph, removal: Removal) -> Network:
        left = [removal.cut.take(path, graph.values[path]) for path in paths(self.network)]
        widths = [kernel.shape[1] for _, kernel, _ in self.network.parts(left)]
        smaller = Network([left[0].shape[0], *widths], 0, self.network.names, self.network.plain)
        smaller.weights = left
        self._check_same(removal.zeroed(graph), smaller, removal.left("input")[1])
        return smaller

    def _check_same(self, graph: Graph, other: Network, columns: Any = None) -> None:
        x = np.random.default_rng(0).standard_normal((8, self.network.widths[0])).astype(np.float32)
        expected = self.network.forward(x, self._weights(graph))[-1]
        found = other.forward(x if columns is None else x[:, columns], other.weights)[-1]
        if not np.allclose(expected, found, atol=1e-5):
            raise ModelError("the network that was made computes something else")

    def _chained(self, graph: Graph, chains: Chains) -> Network:
        names, plain = list(self.network.names), list(self.network.plain)
        values = {path: graph.values[path] for path in graph.values}
        for chain in chains.chains:
            if chain.windows or chain.layer not in names:
                raise ModelError(f"{chain.kernel}: the network has no such layer")
            names.insert(names.index(chain.layer), chain.stages[0].layer)
            plain.append(chain.stages[0].layer)
            values |= chain.kernels
        widths = [values[f"{name}/kernel"].shape for name in names]
        if any(one[1] != other[0] for one, other in itertools.pairwise(widths)):
            raise ModelError("the layers of the network that was made do not fit each other")
        made = Network([self.network.widths[0], *(width for _, width in widths)], 0, names, plain)
        made.weights = [values[path] for path in paths(made)]
        self._check_same(chains.joined(graph), made)
        return made

    def move(self, graph: Graph, model: Any, cut: Cut) -> Graph:
        fresh = ReferenceSession(model)
        self.network, self.graph = fresh.network, fresh.graph
        return cut_graph(graph, cut, fresh.graph)

    def share(self) -> None:
        """Nothing is lent."""

    def finish(self, graph: Graph) -> FinishedNetwork:
        network = Network(self.network.widths, 0, self.network.names, self.network.plain)
        network.weights = [array.copy() for array in self._weights(graph)]
        network.encodings = {parameter.path: parameter.encoding for parameter in graph}
        network.grids, network.kept = layer_inputs(graph.structure), graph.structure.kept_inputs
        return FinishedNetwork(network)

    def architecture(self, graph: Graph) -> Architecture:
        variables = [
            [path, list(a.shape), "float32"] for path, a in zip(paths(self.network), self.network.weights, strict=True)
        ]
        config = {"widths": self.network.widths, "names": self.network.names, "plain": self.network.plain}
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
        config = architecture.config
        network = model or Network(config["widths"], 0, config["names"], config["plain"])
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
