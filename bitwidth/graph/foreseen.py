"""The graph of a model with chains in the place of layers, as far as it is known before that is built: for plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self, final

from bitwidth.encodings import Dense
from bitwidth.graph.chains import Chain, Chains, Stage
from bitwidth.graph.graph import Graph
from bitwidth.graph.lineage import cut_graph
from bitwidth.graph.model import Layer, LayerCall, Op, Parameter, Structure, Tensor, Use
from bitwidth.graph.ops import attribute, channels_first
from bitwidth.graph.values import Value

Sizes = tuple[int | None, ...]
_LETTERS = "rstuvwxyzabcdefghijklmnopqRSTUVWXYZ"  # for the rank, the first that is free


def with_chains(graph: Graph, chains: Chains) -> Graph:
    """The model with chains in the place of layers.

    Each operation that reads the kernel of a layer becomes two, which read a factor each. Layers, parameters, shapes
    and the kinds of operations are those that a backend will find; names of operations and tensors are not.

    Args:
        graph: the model.
        chains: of layers whose kernels are read by products, einsums and convolutions only.
    """
    for chain in chains.chains:
        graph = cut_graph(graph, chain.cut, _Replacing(graph, chain).graph())
    return graph


@final
class _Replacing:
    """One layer of a graph, replaced."""

    def __init__(self, graph: Graph, chain: Chain) -> None:
        self._graph, self._chain = graph, chain
        self._kernel = graph[chain.kernel]
        self._used = {use.op: place for place, use in enumerate(self._kernel.uses)}
        self._shapes = {tensor.name: tensor.shape or () for tensor in graph.structure.tensors}
        self._dtypes = {tensor.name: tensor.dtype for tensor in graph.structure.tensors}
        self._added: list[Tensor] = []
        self._between: list[str] = []  # what the first stage puts out, by use

    def graph(self) -> Graph:
        """The graph; its values are those of the graph before, but for the chain."""
        structure = self._graph.structure
        ops: list[Op] = []
        for op in structure.ops:
            if op.name in self._used:
                ops += self._pair(op)
            elif op.parameters != (self._chain.kernel,):  # else it hands the whole kernel on
                ops.append(op)
        made = {name for op in ops for name in op.outputs} | set(structure.inputs)
        tensors = (*(tensor for tensor in structure.tensors if tensor.name in made), *self._added)
        changed = replace(structure, ops=tuple(ops), tensors=tensors, layers=tuple(self._layers(structure)))
        values: dict[str, Any] = {path: self._graph.values.value(path) for path in self._graph.values}
        values |= {path: Value(kernel) for path, kernel in self._chain.kernels.items()}
        return Graph(changed, self._parameters(), values)

    def _parameters(self) -> list[Parameter]:
        found: list[Parameter] = []
        for parameter in sorted(self._graph, key=lambda item: item.index):
            if parameter.path != self._chain.kernel:
                found.append(parameter)
                continue
            for place, stage in enumerate(self._chain.stages):
                path, rank = self._chain.path(stage), self._chain.kernels[self._chain.path(stage)].ndim
                inputs = tuple(range(rank - 1)) if place == 0 or self._chain.windows else (0,)
                outputs = tuple(axis for axis in range(rank) if axis not in inputs)
                uses = tuple(
                    Use(self._name(use.op, place), use.kind, stage.layer, outputs, inputs, use.label)
                    for use in self._kernel.uses
                )
                shape = self._chain.kernels[path].shape
                made = replace(parameter, path=path, shape=shape, layer=stage.layer, uses=uses, encoding=Dense())
                found.append(made)
        return [replace(parameter, index=index) for index, parameter in enumerate(found)]

    def _layers(self, structure: Structure) -> Iterable[Layer]:
        first = self._chain.stages[0].layer
        for layer in structure.layers:
            if layer.path != self._chain.layer:
                yield layer
                continue
            pairs = list(zip(layer.calls, self._between, strict=False))
            yield replace(layer, path=first, calls=tuple(LayerCall(call.inputs, (name,)) for call, name in pairs))
            yield replace(layer, calls=tuple(LayerCall((name,), call.outputs) for call, name in pairs))

    def _name(self, op: str, place: int) -> str:
        return op if place else f"{self._chain.stages[place].layer}/{self._used[op]}"

    def _pair(self, op: Op) -> Iterable[Op]:
        """The operations in the place of one."""
        one, other = self._chain.stages
        between = f"{self._name(op.name, 0)}:0"
        self._between.append(between)
        shapes, attributes, sizes = _forms(op, self._chain, self._shapes)
        self._tensor(between, sizes, op)
        reads: list[list[Op]] = [[], []]
        if len(op.inputs) > 1:  # else the kernel is no tensor there
            reads = [list(self._read(op, stage, shape)) for stage, shape in zip((one, other), shapes, strict=True)]
        tensors = [tuple(name for last in read[-1:] for name in last.outputs) for read in reads]
        first = replace(
            op,
            name=self._name(op.name, 0),
            layer=one.layer,
            inputs=(op.inputs[0], *tensors[0]),
            outputs=(between,),
            parameters=(self._chain.path(one),),
            attributes=attributes[0],
        )
        last = replace(op, inputs=(between, *tensors[1]), attributes=attributes[1])
        return [*reads[0], first, *reads[1], last]

    def _read(self, op: Op, stage: Stage, shape: tuple[int, ...]) -> Iterable[Op]:
        """The operations that read a kernel, and give it the shape in which it is used."""
        path = self._chain.path(stage)
        held = self._chain.kernels[path].shape
        start = f"{stage.layer}/{self._used[op.name]}/{path.rpartition('/')[2]}"
        names = [f"{start}/{word}" for word in ("resource", "read", "reshape")]
        self._tensor(f"{names[0]}:0", (), op, "resource")
        yield Op(names[0], "input", stage.layer, (), (f"{names[0]}:0",), (path,))
        self._tensor(f"{names[1]}:0", held, op)
        yield Op(names[1], "read", stage.layer, (f"{names[0]}:0",), (f"{names[1]}:0",), (path,))
        if shape != held:
            sizes = f"{names[2]}/shape"
            self._tensor(f"{sizes}:0", (len(shape),), op, "int32")
            yield Op(sizes, "constant", stage.layer, (), (f"{sizes}:0",), (), (("value", list(shape)),))
            self._tensor(f"{names[2]}:0", shape, op)
            taken = (f"{names[1]}:0", f"{sizes}:0")
            yield Op(names[2], "reshape", stage.layer, taken, (f"{names[2]}:0",), (path,))

    def _tensor(self, name: str, shape: Sizes, op: Op, dtype: str = "") -> None:
        self._added.append(Tensor(name, shape, dtype or self._dtypes.get(op.outputs[0], "float32")))


def _forms(op: Op, chain: Chain, shapes: dict[str, Sizes]) -> tuple[list[tuple[int, ...]], list[Any], Sizes]:
    """For each of two operations the shape of its kernel and its attributes; the sizes of what is between them."""
    held = [kernel.shape for kernel in chain.kernels.values()]
    given, result, rank = shapes[op.inputs[0]], shapes[op.outputs[0]], chain.rank
    plain = dict(op.attributes)
    if op.kind == "matmul":
        plain |= {"transpose_b": False}
        matrices: list[tuple[int, ...]] = [(prod(held[0][:-1]), rank), (rank, prod(held[1][1:]))]
        return matrices, [tuple(plain.items())] * 2, (*given[:-1], rank)
    if op.kind == "einsum":
        equations, sizes = _equations(str(attribute(op, "equation")), chain, given)
        return held, [tuple({**plain, "equation": equation}.items()) for equation in equations], sizes
    more = len(given) - 2 - chain.windows  # a convolution along one axis is one along two
    attributes = [tuple(_steps(op, stage, chain.windows, more).items()) for stage in chain.stages]
    first, channel = 2 if channels_first(op) else 1, 1 if channels_first(op) else -1
    between = list(given)
    for axis in chain.stages[0].axes:
        if axis < chain.windows:
            between[first + more + axis] = result[first + more + axis]
    between[channel] = rank
    return [(*(1,) * more, *shape) for shape in held], attributes, tuple(between)


def _equations(equation: str, chain: Chain, given: Sizes) -> tuple[list[str], Sizes]:
    """The equations of the two, and the sizes of what is between them."""
    split = Equations.of(equation, chain)
    dots = "0123456789"[: len(given) - len(split.taken.replace("...", ""))]
    spelt = split.taken.replace("...", dots)
    lengths = {**dict(zip(spelt, given, strict=True)), split.spare: chain.rank}
    sizes = tuple(lengths[letter] for letter in in_place(spelt, split.one, split.spare))
    return [split.first, split.last], sizes


@final
@dataclass(frozen=True)
class Equations:
    """The equations of the two layers of a chain, from that of the layer.

    Attributes:
        taken: letters of the input.
        one: those of the kernel's axes that the first layer has.
        other: those that the last one has.
        result: letters of the output.
        spare: the letter of the rank.
    """

    taken: str
    one: str
    other: str
    result: str
    spare: str

    @classmethod
    def of(cls, equation: str, chain: Chain) -> Self:
        """Those of an equation of an input and a kernel, `"ab,bc->ac"` say."""
        operands, _, result = equation.replace(" ", "").partition("->")
        taken, _, kernel = operands.partition(",")
        spare = next(letter for letter in _LETTERS if letter not in equation)
        one, other = ("".join(kernel[axis] for axis in stage.axes) for stage in chain.stages)
        return cls(taken, one, other, result, spare)

    @property
    def between(self) -> str:
        """Letters of what is between them."""
        return in_place(self.taken, self.one, self.spare)

    @property
    def first(self) -> str:
        """The equation of the first layer."""
        return f"{self.taken},{self.one}{self.spare}->{self.between}"

    @property
    def last(self) -> str:
        """The equation of the last layer."""
        return f"{self.between},{self.spare}{self.other}->{self.result}"


def in_place(taken: str, summed: str, letter: str) -> str:
    """The letters of features with one letter in the place of those that are summed over.

    Example:
        >>> in_place("abcd", "cd", "r"), in_place("...x", "x", "r")
        ('abr', '...r')
    """
    first = min(taken.index(one) for one in summed)
    left = "".join(one for one in taken[first:] if one not in summed)
    return taken[:first] + letter + left


def _steps(op: Op, stage: Stage, windows: int, more: int) -> dict[str, Any]:
    """The attributes of a convolution of which a stage has some axes of positions only."""
    found, first = dict(op.attributes), 2 if channels_first(op) else 1
    for name in ("strides", "dilations"):
        held = list(found.get(name) or ())
        for axis in range(windows if held else 0):
            if axis not in stage.axes:
                held[first + more + axis] = 1
        if held:
            found[name] = tuple(held)
    return found
