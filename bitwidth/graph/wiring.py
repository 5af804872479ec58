"""Wiring: who makes a tensor, who reads it, and what stands between a kernel and its bias or its normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings import Dense
from bitwidth.graph.channels import CONTRACTIONS, einsum_in_order
from bitwidth.graph.graph import Graph
from bitwidth.graph.model import Layer, Op, Parameter, Use

ADDITIONS = ("BiasAdd", "AddV2", "Add")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_SHAPE_ONLY = ("Shape", "ShapeN", "Size", "Rank")
_RANK_ONLY = ("Reshape", "Squeeze", "ExpandDims")
_SAME = ("Identity", "StopGradient", "Cast", "CheckNumerics", "BatchToSpaceND")
_FEATURES = {"Conv2DBackpropInput": 2, "Conv3DBackpropInputV2": 2}  # place of the features among the inputs, if not 0
_PLAIN = ("ReadVariableOp", "Placeholder", "Transpose", *_RANK_ONLY, *_SAME)


@dataclass(frozen=True)
class Contraction:
    """An operation that sums features over a kernel which nothing else reads.

    Attributes:
        op: the operation.
        kernel: the parameter.
        use: its only use.
    """

    op: Op
    kernel: Parameter
    use: Use


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization layer.

    Attributes:
        layer: the layer.
        source: name of the tensor that it takes, None where it is called several times or never.
        result: name of the tensor that it gives.
        scale, offset, mean, variance: its parameters; None for one that it does not have.
        epsilon: what is added to the variance, None where that is not seen.
        is_last: whether it normalises the last axis.
    """

    layer: Layer
    source: str | None
    result: str | None
    scale: Parameter | None
    offset: Parameter | None
    mean: Parameter | None
    variance: Parameter | None
    epsilon: float | None
    is_last: bool

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those that it has."""
        return tuple(p for p in (self.scale, self.offset, self.mean, self.variance) if p is not None)


@dataclass(frozen=True)
class Target:
    """Where a constant that is added to the output of a contraction goes.

    Attributes:
        parameter: a bias, or the mean of a batch normalisation, which is subtracted.
        sign: 1, or -1 for a mean.
        row: of a bias of several rows, each added to another kernel's output (a GRU's), the one that counts; else None.
    """

    parameter: Parameter
    sign: int = 1
    row: int | None = None

    def add(self, total: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        """Add a shift of the output, one value for each channel, to `total`, of the parameter's shape."""
        part = total if self.row is None else total[self.row]
        part += self.sign * shift.reshape(part.shape)


class Wiring:
    """The operations of a graph, to be followed from tensor to tensor.

    Questions that may have no answer give a reason in words in its place.

    Args:
        graph: the graph.

    Example:
        >>> from bitwidth.graph import Structure
        >>> ops = (Op("a", "Relu", "", ("x",), ("y",)), Op("b", "Tanh", "", ("y",), ("z",)))
        >>> wiring = Wiring(Graph(Structure("net", ops, (), (), ("x",), ("z",)), [], {}))
        >>> wiring.only_reader("y").name
        'b'
        >>> wiring.only_reader("z")
        'the model gives it out'
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops = {op.name: op for op in graph.ops}
        self.makers = {name: op for op in graph.ops for name in op.outputs}
        self.readers: dict[str, list[Op]] = {}
        self.uses: dict[str, list[tuple[Parameter, Use]]] = {}
        self._given = set(graph.structure.outputs)
        self._static: set[str] = set()
        for op in graph.ops:
            ends = [names for key, names in op.attributes if key.endswith("_outputs")]
            if op.kind in _CALLS and len(ends) == 1:
                self._join(op, ends[0])
                continue
            self._given.update(*ends)
            for name in dict.fromkeys(op.inputs):
                if op.kind not in _SHAPE_ONLY:
                    self.readers.setdefault(name, []).append(op)
            if self._is_static(op):
                self._static.update(op.outputs)
        for parameter in graph:
            for use in parameter.uses:
                self.uses.setdefault(use.op, []).append((parameter, use))
        self._shapes = {t.name: t.shape for t in graph.structure.tensors if t.shape}
        self._held = set(graph.activations)

    def _join(self, op: Op, ends: tuple[str, ...]) -> None:
        """Take what a call gives for what the called operations give; they read the call's inputs themselves."""
        for inner, outer in zip(ends, op.outputs, strict=True):
            link = Op(f"{op.name}/{inner}", "Identity", op.layer, (inner,), (outer,))
            self.makers[outer] = link
            self.readers.setdefault(inner, []).append(link)

    def _is_static(self, op: Op) -> bool:
        if op.kind == "Placeholder":
            return bool(op.parameters)
        return op.kind == "Const" or (bool(op.inputs) and all(name in self._static for name in op.inputs))

    def features(self, op: Op) -> tuple[str, ...]:
        """Names of the inputs of `op` that are computed from the model's inputs."""
        return tuple(name for name in op.inputs if name not in self._static)

    def width(self, tensor: str) -> int | None:
        """Size of a tensor's last axis; None where it has none or it is not known."""
        return self.shape(tensor)[-1] if self.shape(tensor) else None

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """Sizes of a tensor's axes, None where one is not known; empty where it has none or its rank is not known."""
        return self._shapes.get(tensor, ())

    def only_reader(self, tensor: str) -> Op | str:
        """The one operation that reads the values of a tensor."""
        readers = self.readers.get(tensor, [])
        if tensor in self._given:
            return "the model gives it out"
        if tensor in self._held:
            return "what it gives is held on a grid"
        if not readers:
            return "nothing reads what it gives"
        if len(readers) > 1:
            return f"{len(readers)} operations read what it gives"
        return readers[0]

    def keeps_last_axis(self, op: Op) -> bool:
        """Whether `op` hands a tensor on with its last axis as it is: a cast, a reshape in front of it, an identity."""
        if op.kind in _SAME or (op.kind == "Placeholder" and op.inputs):
            return True
        features = self.features(op)
        if op.kind not in _RANK_ONLY or not features:
            return False
        before = self.width(features[0])
        return before is not None and before == self.width(op.outputs[0])

    def added(self, op: Op) -> tuple[Parameter, Use] | None:
        """The one parameter that an addition adds to features, as it is, and nothing else reads."""
        found = [(p, use) for p, use in self.uses.get(op.name, []) if len(p.uses) == 1]
        if op.kind not in ADDITIONS or len(found) != 1 or len(self.uses[op.name]) != 1 or len(self.features(op)) > 1:
            return None
        return found[0] if self.is_plain(op, found[0][0]) else None

    def contraction(self, op: Op) -> Contraction | str:
        """`op` as a contraction over one kernel."""
        if op.kind not in CONTRACTIONS:
            return f"{_named(op)}, which has no kernel"
        found = [(p, use) for p, use in self.uses.get(op.name, []) if p.role in ("kernel", "recurrent_kernel")]
        if len(found) != 1 or len(self.uses[op.name]) != 1:
            return f"{_named(op)}, which does not multiply with one kernel"
        kernel, use = found[0]
        if self.features(op)[-1:] != op.inputs[_FEATURES.get(op.kind, 0) :][:1]:
            return f"{_named(op)}, whose features do not come first"
        if len(kernel.uses) > 1:
            return f"{kernel.path} is used {len(kernel.uses)} times"
        if not self.is_plain(op, kernel):
            return f"{kernel.path} is not used as it is: the kernel is computed from it"
        return Contraction(op, kernel, use)

    def contractions(self) -> Iterator[Contraction | tuple[Parameter, str]]:
        """Each contraction of the graph, in order; for a kernel that is in none, the kernel and the reason."""
        for op in self.graph.ops:
            if op.kind not in CONTRACTIONS:
                continue
            found = self.contraction(op)
            if isinstance(found, Contraction):
                yield found
            else:
                yield from ((parameter, found) for parameter, _ in self.uses.get(op.name, []))

    def target(self, op_name: str, count: int) -> Target | str:
        """Where a shift of the output of a contraction, one value for each of `count` channels, can be added.

        That is a bias that is added further on in the same layer, or the mean of the batch normalisation that follows.
        """
        start = self.ops.get(op_name)
        if start is None or start.kind not in CONTRACTIONS:
            return "it is looked up"
        if start.kind == "Einsum" and not einsum_in_order(start):
            return "its outputs are transposed"
        tensor = start.outputs[0]
        means = {norm.source: norm.mean for norm in self.norms if norm.source is not None and norm.is_last}
        while True:
            mean = means.get(tensor)
            if mean is not None and mean.size == count == self.width(tensor):
                alone = all(self.is_alone(norm) for norm in self.norms if norm.source == tensor)
                return Target(mean, -1) if alone else "a normalisation and something else follow it"
            reader = self.only_reader(tensor)
            if isinstance(reader, str):
                return f"no bias: {reader}"
            if reader.kind in ADDITIONS and reader.layer == start.layer:
                found = self._bias(reader, count) or self._bias_beside(reader, tensor, count)
                if found is not None:
                    return found
            elif not self.keeps_last_axis(reader) and not self._keeps_tail(reader, count):
                return f"no bias, but {_named(reader)} follows it"
            tensor = reader.outputs[0]

    def _keeps_tail(self, op: Op, count: int) -> bool:
        """Whether a reshape leaves the last `count` elements together, as one axis or several."""
        shapes = [self.shape(op.inputs[0]), self.shape(op.outputs[0])] if op.kind == "Reshape" else [()]
        return all(any(prod(d or 0 for d in shape[start:]) == count for start in range(len(shape))) for shape in shapes)

    def _bias(self, op: Op, count: int) -> Target | None:
        """The bias of `count` values that an addition adds; a row of it where it is taken apart into rows first."""
        for parameter, _ in self.uses.get(op.name, []):
            if parameter.size == count and self.is_plain(op, parameter):
                return Target(parameter)
            rows = parameter.shape[0] if len(parameter.shape) == 2 else 0
            row = self._row(op, parameter, rows)
            if row is not None and parameter.size == rows * count:
                return Target(parameter, 1, row)
        return None

    def _bias_beside(self, op: Op, tensor: str, count: int) -> Target | None:
        """The bias in what an addition adds to a tensor, where that is the output of an addition in the same layer."""
        for name in self.features(op):
            maker = self.makers.get(name)
            if name != tensor and maker is not None and maker.layer == op.layer and self.only_reader(name) is op:
                return self._bias(maker, count) if maker.kind in ADDITIONS else None
        return None

    def _row(self, op: Op, parameter: Parameter, rows: int) -> int | None:
        """Which row of a parameter an operation reads, where the trace takes it apart along its first axis."""
        for name in op.inputs:
            if name not in self._static or parameter.path not in self.makers[name].parameters:
                continue
            while self.makers[name].kind in (*_RANK_ONLY, *_SAME):
                name = self.makers[name].inputs[0]
            maker = self.makers[name]
            axis = dict(self.makers[maker.inputs[0]].attributes).get("value") if maker.kind == "Split" else None
            apart = axis == 0 or (maker.kind == "Unpack" and dict(maker.attributes).get("axis") == 0)
            if apart and len(maker.outputs) == rows:
                return maker.outputs.index(name)
        return None

    def is_plain(self, op: Op, parameter: Parameter) -> bool:
        """Whether `op` reads the parameter as it is: not computed further, only cast and reshaped on the way."""
        for name in op.inputs:
            maker = self.makers.get(name)
            if maker is None or parameter.path not in maker.parameters or name not in self._static:
                continue
            while maker.kind != "Placeholder" or maker.inputs:
                if maker.kind not in _PLAIN or (maker.kind == "Transpose" and len(parameter.shape) > 2):
                    return False
                maker = self.makers[maker.inputs[0]]
        return True

    @cached_property
    def norms(self) -> tuple[Norm, ...]:
        """The BatchNormalization layers, in the order of the structure."""
        layers = [layer for layer in self.graph.structure.layers if layer.kind == "BatchNormalization"]
        ops: dict[str, list[Op]] = {layer.path: [] for layer in layers}
        for op in self.graph.ops:
            if op.layer in ops:
                ops[op.layer].append(op)
        return tuple(self._norm(layer, ops[layer.path]) for layer in layers)

    def _norm(self, layer: Layer, ops: list[Op]) -> Norm:
        own = {p.role: p for p in self.graph if p.layer == layer.path}
        variance = own.get("variance")
        epsilon = None
        is_last = variance is not None
        for op in ops:
            static = [name for name in op.inputs if name in self._static]
            if variance is not None and op.parameters == (variance.path,) and op.kind in ADDITIONS:
                values = [dict(self.makers[name].attributes).get("value") for name in static]
                epsilon = next((value for value in values if isinstance(value, float)), epsilon)
            if variance is not None and self.features(op) and op.kind not in _SHAPE_ONLY:
                shapes = [self.shape(name) for name in static if self.makers[name].parameters]
                is_last = is_last and all(shape[-1:] == (variance.size,) for shape in shapes)
        call = layer.calls[0] if len(layer.calls) == 1 else None
        source = call.inputs[0] if call is not None and len(call.inputs) == 1 else None
        result = call.outputs[0] if call is not None and len(call.outputs) == 1 else None
        scale, offset, mean = (own.get(role) for role in ("scale", "offset", "mean"))
        return Norm(layer, source, result, scale, offset, mean, variance, epsilon, is_last)

    def is_alone(self, norm: Norm) -> bool:
        """Whether a normalisation is all that reads the tensor that it takes."""
        tensor = norm.source or ""
        layers = {op.layer for op in self.readers.get(tensor, [])}
        return layers == {norm.layer.path} and tensor not in self._given and tensor not in self._held

    def in_front(self, norm: Norm) -> tuple[Contraction, Parameter | None] | str:
        """The contraction whose output, plus at most one bias, is all that a normalisation takes; with that bias."""
        if norm.source is None or norm.result is None:
            return f"it is called {len(norm.layer.calls)} times" if len(norm.layer.calls) != 1 else "it has a mask"
        if not norm.is_last:
            return "it does not normalise the last axis"
        if norm.source in self._held:
            return "its input is held on a grid"
        if not self.is_alone(norm):
            return "something else reads its input too"
        tensor, bias = norm.source, None
        while tensor in self.makers:
            op = self.makers[tensor]
            shared = next((p for p, _ in self.uses.get(op.name, []) if len(p.uses) > 1), None)
            if shared is not None:
                return f"{shared.path} is used {len(shared.uses)} times"
            found = self.added(op)
            if found is not None and bias is None:
                bias = found[0]
            elif op.kind in CONTRACTIONS:
                contraction = self.contraction(op)
                return contraction if isinstance(contraction, str) else (contraction, bias)
            elif not self.keeps_last_axis(op):
                break
            tensor = self.features(op)[0]
            reader = self.only_reader(tensor)
            if isinstance(reader, str):
                return f"{_named(self.makers[tensor])}: {reader}" if tensor in self.makers else "the model's input"
        return f"no kernel in front of it, but {_named(self.makers[tensor]) if tensor in self.makers else 'an input'}"


def is_free(parameter: Parameter) -> bool:
    """Whether a parameter can take any float32 value where no mask hides it: it is on no grid and in no format."""
    held = parameter.encoding.unmasked
    return parameter.dtype == "float32" and isinstance(held, Dense) and held.format is None


def bound(parameters: tuple[Parameter, ...]) -> str | None:
    """Why some of the parameters cannot take any value, or None if all can."""
    for parameter in parameters:
        if not is_free(parameter):
            return f"{parameter.path} is held already: {parameter.encoding.describe()}"
    return None


def _named(op: Op) -> str:
    return f"{op.kind} in {op.layer}" if op.layer else op.kind
