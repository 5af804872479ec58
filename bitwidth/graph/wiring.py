"""Wiring: who makes a tensor, who reads it, and which operations are contractions and normalisations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from bitwidth.encodings import Dense
from bitwidth.errors import Refused
from bitwidth.graph.graph import Graph
from bitwidth.graph.model import Layer, Op, Parameter, Use
from bitwidth.graph.ops import attribute, spec
from bitwidth.graph.paths import backward


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
        result: name of its output tensor.
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


class Wiring:
    """The operations of a graph, to be followed from tensor to tensor.

    Args:
        graph: the graph.

    Example:
        >>> from bitwidth.graph import Structure
        >>> ops = (Op("a", "relu", "", ("x",), ("y",)), Op("b", "sigmoid", "", ("y",), ("z",)))
        >>> wiring = Wiring(Graph(Structure("net", ops, (), (), ("x",), ("z",)), [], {}))
        >>> wiring.only_reader("y").name
        'b'
        >>> wiring.only_reader("z")
        Traceback (most recent call last):
        bitwidth.errors.Refused: its output is a model output
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
            if op.kind == "call" and len(ends) == 1:
                self._join(op, ends[0])
                continue
            self._given.update(*ends)
            for name in dict.fromkeys(op.inputs):
                if not spec(op).shape_only:
                    self.readers.setdefault(name, []).append(op)
            if self._is_static(op):
                self._static.update(op.outputs)
        for parameter in graph:
            for use in parameter.uses:
                self.uses.setdefault(use.op, []).append((parameter, use))
        self._shapes = {t.name: t.shape for t in graph.structure.tensors if t.shape}
        self._held = set(graph.activations)

    def _join(self, op: Op, ends: tuple[str, ...]) -> None:
        """Take the outputs of a call for those of the called operations; they read the call's inputs themselves."""
        for inner, outer in zip(ends, op.outputs, strict=True):
            link = Op(f"{op.name}/{inner}", "identity", op.layer, (inner,), (outer,))
            self.makers[outer] = link
            self.readers.setdefault(inner, []).append(link)

    def _is_static(self, op: Op) -> bool:
        if op.kind == "input":
            return bool(op.parameters)
        return op.kind == "constant" or (bool(op.inputs) and all(name in self._static for name in op.inputs))

    def features(self, op: Op) -> tuple[str, ...]:
        """Names of the inputs of `op` that are computed from the model's inputs."""
        return tuple(name for name in op.inputs if name not in self._static)

    def width(self, tensor: str) -> int | None:
        """Size of a tensor's last axis; None where it has none or it is not known."""
        return self.shape(tensor)[-1] if self.shape(tensor) else None

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """Sizes of a tensor's axes, None where one is not known; empty where it has none or its rank is not known."""
        return self._shapes.get(tensor, ())

    def is_held(self, tensor: str) -> bool:
        """Whether a tensor is held on a grid."""
        return tensor in self._held

    def only_reader(self, tensor: str) -> Op:
        """The one operation that reads the values of a tensor.

        Raises:
            Refused: there is none or more than one, the tensor is an output of the model, or it is held on a grid.
        """
        readers = self.readers.get(tensor, [])
        if tensor in self._given:
            raise Refused("its output is a model output")
        if tensor in self._held:
            raise Refused("its output is quantized")
        if not readers:
            raise Refused("nothing reads its output")
        if len(readers) > 1:
            raise Refused(f"{len(readers)} operations read its output")
        return readers[0]

    def is_only_reader(self, op: Op, tensor: str) -> bool:
        """Whether `op` is all that reads a tensor, which is neither an output of the model nor held on a grid."""
        return self.readers.get(tensor) == [op] and tensor not in self._given and tensor not in self._held

    def keeps_last_axis(self, op: Op) -> bool:
        """Whether `op` keeps the last axis of a tensor: a cast, a reshape in front of it, an identity."""
        if spec(op).keeps_last_axis or (op.kind == "input" and op.inputs):
            return True
        features = self.features(op)
        if not spec(op).reshapes or not features:
            return False
        before = self.width(features[0])
        return before is not None and before == self.width(op.outputs[0])

    def added(self, op: Op) -> tuple[Parameter, Use] | None:
        """The one parameter that an addition adds to features, unchanged, and nothing else reads."""
        found = [(p, use) for p, use in self.uses.get(op.name, []) if len(p.uses) == 1]
        if not spec(op).is_addition or len(found) != 1 or len(self.uses[op.name]) != 1 or len(self.features(op)) > 1:
            return None
        return found[0] if self.is_plain(op, found[0][0]) else None

    def contraction(self, op: Op) -> Contraction:
        """`op` as a contraction over one kernel.

        Raises:
            Refused: it is not a normalisation, or its kernel is computed, or used elsewhere too.
        """
        if not spec(op).is_contraction:
            raise Refused(f"{op.shown}, which has no kernel")
        found = [(p, use) for p, use in self.uses.get(op.name, []) if p.role in ("kernel", "recurrent_kernel")]
        if len(found) != 1 or len(self.uses[op.name]) != 1:
            raise Refused(f"{op.shown}, which does not multiply with one kernel")
        kernel, use = found[0]
        joined = op.inputs if op.kind != "transposed_conv" else op.inputs[:2]  # the shape comes from features too
        if tuple(name for name in joined if name in self.features(op)) != op.inputs[:1]:
            raise Refused(f"{op.shown}, whose features do not come first")
        if len(kernel.uses) > 1:
            raise Refused(f"{kernel.path} is used {len(kernel.uses)} times")
        if not self.is_plain(op, kernel):
            raise Refused(f"{kernel.path} is not used directly: the kernel is computed from it")
        return Contraction(op, kernel, use)

    def contractions(self) -> Iterator[tuple[Op, tuple[Parameter, ...]]]:
        """Each operation that sums over features and reads parameters, in order, with these; see `contraction`."""
        for op in self.graph.ops:
            if spec(op).is_contraction and op.name in self.uses:
                yield op, tuple(parameter for parameter, _ in self.uses[op.name])

    def reads_statically(self, tensor: str, parameter: Parameter) -> bool:
        """Whether a tensor is computed from a parameter, and from nothing but parameters and constants."""
        return tensor in self._static and tensor in self.makers and parameter.path in self.makers[tensor].parameters

    def is_plain(self, op: Op, parameter: Parameter) -> bool:
        """Whether `op` reads the parameter directly: not computed further, only cast and reshaped on the way."""
        for name in op.inputs:
            for _, maker in backward(self, name) if self.reads_statically(name, parameter) else ():
                turned = maker.kind == "transpose" and len(parameter.shape) > 2
                plain = spec(maker).is_transparent or maker.kind in ("input", "read", "transpose")
                if turned or not plain:
                    return False
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
            if variance is not None and op.parameters == (variance.path,) and spec(op).is_addition:
                values = [attribute(self.makers[name], "value") for name in static]
                epsilon = next((value for value in values if isinstance(value, float)), epsilon)
            if variance is not None and self.features(op) and not spec(op).shape_only:
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


def is_free(parameter: Parameter) -> bool:
    """Whether a parameter can take any float32 value where no mask hides it: it is on no grid and in no format."""
    held = parameter.encoding.unmasked
    return parameter.dtype == "float32" and isinstance(held, Dense) and held.format is None


def need_free(parameters: tuple[Parameter, ...]) -> None:
    """Check that all of the parameters can take any value.

    Raises:
        Refused: one of them is on a grid or in a format.
    """
    for parameter in parameters:
        if not is_free(parameter):
            raise Refused(f"{parameter.path} is held already: {parameter.encoding.describe()}")
