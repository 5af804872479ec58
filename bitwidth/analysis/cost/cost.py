"""`Cost`: multiply-accumulates, parameters, bytes and peak memory of a model, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isinf, prod

from typing_extensions import override

from bitwidth.analysis.cost.counting import macs_of
from bitwidth.analysis.cost.memory import peak_of
from bitwidth.analysis.cost.steps import Steps
from bitwidth.errors import EncodingError
from bitwidth.graph import Cut, Graph, Op, Parameter
from bitwidth.graph.labels import Coupling, couple
from bitwidth.graph.labels.coupling import Kept
from bitwidth.text import bytes_text, table
from bitwidth.typing import JsonDict


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs, without the layers inside of it.

    Attributes:
        path: of the layer, `""` for what the model does itself.
        kind: name of its class.
        macs: multiply-accumulates for one input.
        parameters: how many floating point values it holds.
        bytes: what all of its values take, packed as their encodings hold them, without entropy coding; None where
            codes have no bound.
    """

    path: str
    kind: str
    macs: int
    parameters: int
    bytes: int | None


@dataclass(frozen=True)
class Cost:
    """What a model costs for one input.

    Multiply-accumulates are those of products, convolutions and einsums; element-wise operations, pools and
    normalisations are not counted.

    Attributes:
        name: of the model.
        layers: what each layer costs that computes or holds something, in the order of the model.
        peak: greatest bytes of activations alive at once, in the order of the trace, nothing computed in place.
        peak_layer: path of the layer that runs where that is.
        notes: what could not be counted, and what was taken for it.
    """

    name: str
    layers: tuple[LayerCost, ...]
    peak: int
    peak_layer: str
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one input."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """How many floating point values the model holds."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def bytes(self) -> int | None:
        """What the values take, as they are held; None where codes have no bound."""
        known = [layer.bytes for layer in self.layers if layer.bytes is not None]
        return sum(known) if len(known) == len(self.layers) else None

    def to_dict(self) -> JsonDict:
        """All numbers as plain data."""
        totals = {"macs": self.macs, "parameters": self.parameters, "bytes": self.bytes}
        return {**totals, **asdict(self), "layers": [asdict(layer) for layer in self.layers], "notes": [*self.notes]}

    @override
    def __str__(self) -> str:
        rows = [
            [item.path or "(the model itself)", item.kind, *map(_shown, (item.macs, item.parameters, item.bytes))]
            for item in self.layers
        ]
        rows.append(["total", "", *map(_shown, (self.macs, self.parameters, self.bytes))])
        where = f", in {self.peak_layer}" if self.peak_layer else ""
        lines = [
            f"{self.name}: one input, activations of {bytes_text(self.peak)} bytes at most{where}",
            table(["layer", "kind", "MACs", "parameters", "bytes"], rows),
        ]
        return "\n".join([*lines, *self.notes])


def cost_of(graph: Graph, coupling: Coupling | None = None, kept: Kept | None = None) -> Cost:
    """What a model costs, or would cost with units removed.

    Args:
        graph: the model.
        coupling: of the graph, where it is known; see `bitwidth.graph.labels.couple`.
        kept: by the name of a group the units that are left; None for all.

    Raises:
        ConfigError: as of `Coupling.cut`.
    """
    coupling, kept = coupling or couple(graph), kept or {}
    sizes = coupling.sizes(kept, batch=1)
    counter = _Counter(graph, coupling.cut(kept), sizes)
    peak = peak_of(graph, sizes)
    return Cost(graph.name, tuple(counter.layers()), peak.bytes, peak.layer, tuple(counter.notes()))


class _Counter:
    def __init__(self, graph: Graph, cut: Cut, sizes: dict[str, tuple[int | None, ...]]) -> None:
        self.graph, self.cut, self.sizes = graph, cut, sizes
        self.skipped: list[str] = []
        once = {op.name: self._macs(op) for op in graph.ops}
        self.steps = Steps(graph)
        times = self.steps.counts(once)
        self.macs = {name: count * times[name] for name, count in once.items()}

    def _macs(self, op: Op) -> int:
        operands = [self._shape(name) for name in op.inputs]
        result = self._shape(op.outputs[0]) if op.outputs else None
        if len(operands) == 1 and op.parameters:  # a kernel that nothing hands on
            path = op.parameters[0]
            operands.append(self.cut.shape(path, self.graph[path].shape))
        known = [shape for shape in operands if shape is not None]
        if result is None or len(known) < len(operands):
            if op.kind in ("matmul", "einsum", "conv", "transposed_conv", "depthwise_conv"):
                self.skipped.append(op.shown)
            return 0
        return macs_of(op, known, result)

    def _shape(self, tensor: str) -> tuple[int, ...] | None:
        shape = self.sizes.get(tensor)
        return None if shape is None else tuple(size or 0 for size in shape)

    def layers(self) -> Iterator[LayerCost]:
        macs: dict[str, int] = {}
        for op in self.graph.ops:
            macs[op.layer] = macs.get(op.layer, 0) + self.macs[op.name]
        held: dict[str, list[Parameter]] = {}
        for parameter in self.graph:
            held.setdefault(parameter.layer, []).append(parameter)
        kinds = {layer.path: layer.kind for layer in self.graph.structure.layers}
        for path in dict.fromkeys(["", *kinds, *held, *macs]):
            own = held.get(path, [])
            if macs.get(path) or own:
                count = sum(prod(self.cut.shape(item.path, item.shape)) for item in own if item.is_float)
                sizes = [self._bytes(item) for item in own]
                known = [size for size in sizes if size is not None]
                total = sum(known) if len(known) == len(sizes) else None
                yield LayerCost(path, kinds.get(path, ""), macs.get(path, 0), count, total)

    def _bytes(self, parameter: Parameter) -> int | None:
        """Packed bytes; after a cut that its encoding cannot be taken through, the share that is left of them."""
        encoding, shape = parameter.encoding, self.cut.shape(parameter.path, parameter.shape)
        if isinf(encoding.bits):
            return None
        if shape == parameter.shape:
            return -(-encoding.packed_bits(shape) // 8)
        try:
            return -(-self.cut.encoding(parameter.path, encoding).packed_bits(shape) // 8)
        except EncodingError:
            return -(-encoding.packed_bits(parameter.shape) * prod(shape) // (8 * parameter.size))

    def notes(self) -> Iterator[str]:
        shapes = {tensor.name: tensor.shape or () for tensor in self.graph.structure.tensors}
        for name in self.graph.structure.inputs:
            if None in shapes.get(name, ())[1:]:
                yield f"the input {name} has axes of unknown size besides its batch: counted for one index of each"
        for layer in dict.fromkeys(self.steps.unknown):
            yield f"how many steps the loop in {layer or 'the model'} takes is not known: counted for one"
        for shown in dict.fromkeys(self.skipped):
            yield f"{shown} is not counted: the shape of what it takes is not known"


def _shown(count: int | None) -> str:
    return "-" if count is None else bytes_text(count)
