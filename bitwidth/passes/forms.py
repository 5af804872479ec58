"""Forms: which kernels can become two factors, how, and what that takes at each rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol, final

import numpy as np

from bitwidth.analysis.cost import Cost
from bitwidth.context import Context
from bitwidth.errors import Refused
from bitwidth.graph import Graph, Norm, Op, Parameter, Where, Wiring
from bitwidth.graph.labels import Coupling, Group
from bitwidth.graph.ops import attribute, channels_first, spec
from bitwidth.graph.paths import forward
from bitwidth.graph.wiring import is_free

Axes = tuple[tuple[int, ...], tuple[int, ...]]
_KINDS = ("matmul", "einsum", "conv")
_KIND_REASONS = {
    "depthwise_conv": "a depthwise convolution has one input for each channel",
    "transposed_conv": "transposed convolutions are not factorized",
    "gather": "its rows are looked up",
}


@final
@dataclass(frozen=True)
class Form:
    """One way to make two factors of a kernel.

    Attributes:
        axes: which axes of the kernel each of them has.
        values: how many values each has for each unit of the rank.
        macs: how many multiply-accumulates each takes for each unit of the rank.
        full: the full rank.
        words: what becomes of the layer, with `{rank}` in it.
        separates: whether windows of two axes become windows of one axis each.
    """

    axes: Axes
    values: tuple[int, int]
    macs: tuple[int, int]
    full: int
    words: str
    separates: bool = False

    def costs(self, rank: int) -> tuple[int, int]:
        """Parameters and multiply-accumulates at a rank."""
        return rank * sum(self.values), rank * sum(self.macs)


@final
@dataclass(frozen=True)
class Candidate:
    """A kernel that can become two factors, or a pair of factors whose rank can fall.

    Attributes:
        kernel: the kernel; of a pair, the second one.
        parameters: how many values it has; both of a pair.
        macs: how many multiply-accumulates it takes; both of a pair.
        forms: the ways; the first is the usual one.
        first: the first kernel of a pair; None where there is one.
        group: the units between the kernels of a pair.
        windows: how many axes of the kernel are positions of the windows of a convolution.
    """

    kernel: Parameter
    parameters: int
    macs: int
    forms: tuple[Form, ...]
    first: Parameter | None = None
    group: Group | None = None
    windows: int = 0

    def saves(self, form: Form, rank: int) -> bool:
        """Whether it takes fewer parameters, and fewer multiply-accumulates, at a rank below the full one."""
        parameters, macs = form.costs(rank)
        return rank < form.full and parameters < self.parameters and macs < self.macs

    def most(self, form: Form) -> int:
        """The greatest rank at which it saves; 0 for none."""
        by_parameters = (self.parameters - 1) // sum(form.values)
        return max(0, min(form.full - 1, by_parameters, (self.macs - 1) // sum(form.macs)))


class Fixed(Protocol):
    """A rank that is known before the factors are."""

    def of(self, candidate: Candidate) -> int:
        """The rank of a candidate's usual form.

        Raises:
            Refused: it would not save anything.
        """


@final
class Candidates:
    """The kernels of a model that can be factorized, and why the others cannot.

    Args:
        graph: the model.
        context: of the pass.
        where: a selector.
        coupling: of the graph.
        cost: of the graph.
        separate: whether convolutions may become two along one axis each.
        fixed: says what rank a candidate is to have, where that is known before the factors are.
    """

    def __init__(
        self,
        graph: Graph,
        context: Context,
        where: Where,
        coupling: Coupling,
        cost: Cost,
        separate: bool,
        fixed: Fixed | None = None,
    ) -> None:
        """Look at the graph; see the class."""
        self._graph, self._separate, self._fixed = graph, separate, fixed
        self._macs = {layer.path: layer.macs for layer in cost.layers}
        self._fixed_layers = {layer.path: layer.fixed for layer in graph.structure.layers}
        self._inside = context.selection(graph, where).paths
        self._pairs = dict(_pairs(graph, coupling))
        self._firsts = {first.path: second for second, (first, _) in self._pairs.items()}
        self._found: dict[str, Candidate] = {}

    def of(self, parameters: Iterable[Parameter]) -> tuple[Candidate, ...]:
        """Those of kernels for which `unfit` gave no reason."""
        return tuple(self._found[parameter.path] for parameter in parameters)

    def unfit(self, parameter: Parameter) -> str | None:
        """Why a parameter is left alone; else it has a candidate from then on."""
        try:
            found = self._found[parameter.path] = self._candidate(parameter)
            if self._fixed is not None:
                self._fixed.of(found)
        except Refused as refusal:
            return refusal.reason
        return None

    def _candidate(self, parameter: Parameter) -> Candidate:
        path = parameter.path
        if parameter.role != "kernel":
            raise Refused(f"{parameter.role}: only kernels are factorized")
        if held := why_held(parameter):
            raise Refused(f"it is {held}")
        if path in self._firsts:
            raise Refused(f"it is a factor of {self._firsts[path]}, with which its rank falls")
        if path in self._pairs:
            first, group = self._pairs[path]
            if held := why_held(first):
                raise Refused(f"its other factor, {first.path}, is {held}")
            if first.path not in self._inside:
                raise Refused(f"its other factor, {first.path}, is not selected by `where`")
            found = self._pair(parameter, first, group)
        else:
            found = self._single(parameter, self._op(parameter))
        if not any(found.most(form) for form in found.forms):
            raise Refused(f"no rank saves both bytes and MACs: {taken(found, found.forms[0], 1)}")
        return found

    def _op(self, parameter: Parameter) -> Op:
        """One of the operations that read a kernel, which all do the same with it.

        Raises:
            Refused: nothing or something else reads it, or it is no plain linear map.
        """
        layers = sorted({use.layer for use in parameter.uses} - {parameter.layer})
        if not parameter.uses:
            raise Refused("no operation reads it")
        kinds = {use.kind for use in parameter.uses}
        if kinds - set(_KINDS) and not layers:
            raise Refused(_KIND_REASONS.get(min(kinds), f"a kernel of the kind {min(kinds)} is not factorized"))
        if why := self._fixed_layers.get(parameter.layer):
            raise Refused(why)
        if layers:
            raise Refused(f"it is tied: {', '.join(layers)} reads it too")
        first, *others = parameter.uses
        if any((use.channel_axes, use.input_axes) != (first.channel_axes, first.input_axes) for use in others):
            raise Refused("its uses sum over different axes")
        if sorted((*first.channel_axes, *first.input_axes)) != list(range(len(parameter.shape))):
            raise Refused("which axes it sums over is not known")
        op = self._wiring.ops[first.op]
        groups = self._groups(op, parameter)
        if groups != 1:
            raise Refused(f"it is {groups} matrices, one for each group of inputs")
        return op

    @cached_property
    def _wiring(self) -> Wiring:
        return Wiring(self._graph)

    def _groups(self, op: Op, parameter: Parameter) -> int:
        """How many matrices a kernel is, each with inputs of its own."""
        if op.kind == "conv":
            channels = self._wiring.shape(op.inputs[0])[1 if channels_first(op) else -1]
            return int(channels or 0) // parameter.shape[-2]
        held = self._wiring.shape(op.inputs[1]) if len(op.inputs) > 1 else parameter.shape
        if op.kind == "matmul":
            return prod(int(size or 0) for size in held[:-2])
        operands, _, result = str(attribute(op, "equation")).replace(" ", "").partition("->")
        taken, _, kernel = operands.partition(",")
        return prod(
            int(size or 0) for letter, size in zip(kernel, held, strict=True) if letter in taken and letter in result
        )

    def _single(self, parameter: Parameter, op: Op) -> Candidate:
        use, shape = parameter.uses[0], parameter.shape
        macs = self._macs.get(parameter.layer, 0) or parameter.size
        rows = macs / parameter.size
        inputs, outputs = (tuple(sorted(axes)) for axes in (use.input_axes, use.channel_axes))
        values = prod(shape[axis] for axis in inputs), prod(shape[axis] for axis in outputs)
        windows = len(shape) - 2 if op.kind == "conv" else 0
        words = f"to {{rank}}, then to {values[1]}"
        if windows:
            window = "x".join(map(str, shape[:windows]))
            words = f"{window} to {{rank}} channels, then {'x'.join('1' * windows)} to {shape[-1]}"
        forms = [
            Form((inputs, outputs), values, (round(values[0] * rows), round(values[1] * rows)), min(values), words)
        ]
        if windows == 2 and min(shape[:2]) > 1 and self._separate:
            forms += self._separated(parameter, rows)
        return Candidate(parameter, parameter.size, macs, tuple(forms), windows=windows)

    def _separated(self, parameter: Parameter, rows: float) -> Iterator[Form]:
        """A window along the height, then one along the width: the first is at every column of what it takes."""
        height, width, inputs, outputs = parameter.shape
        columns = self._columns(parameter)
        if columns is not None:
            values = height * inputs, width * outputs
            words = f"{height}x1 to {{rank}} channels, then 1x{width} to {outputs}"
            macs = round(values[0] * rows * columns), round(values[1] * rows)
            yield Form(((0, 2), (1, 3)), values, macs, min(values), words, separates=True)

    def _columns(self, parameter: Parameter) -> float | None:
        """How many columns a layer takes for each of its output; None where that is not known."""
        taken = given = 0
        layer = self._graph.layers[parameter.layer]
        place = 3 if channels_first(self._wiring.ops[parameter.uses[0].op]) else 2
        for call in layer.calls:
            sizes = [self._wiring.shape(name) for name in (*call.inputs[:1], *call.outputs[:1])]
            if len(sizes) != 2 or any(len(size) != 4 or None in size[1:] for size in sizes):
                return None
            rows = int(sizes[1][place - 1] or 0)
            taken += rows * int(sizes[0][place] or 0)
            given += rows * int(sizes[1][place] or 0)
        return taken / given if given else None

    def _pair(self, second: Parameter, first: Parameter, group: Group) -> Candidate:
        rank = group.size
        macs = [self._macs.get(item.layer, 0) or item.size for item in (first, second)]
        values = first.size // rank, second.size // rank
        words = f"{rank} to {{rank}} between {first.path} and it"
        form = Form(((), ()), values, (macs[0] // rank, macs[1] // rank), rank, words)
        return Candidate(second, first.size + second.size, sum(macs), (form,), first, group)


def taken(found: Candidate, form: Form, rank: int) -> str:
    """What a candidate takes at a rank, in words."""
    parameters, macs = form.costs(rank)
    return (
        f"rank {rank} takes {parameters:,} parameters in place of {found.parameters:,} and "
        f"{macs:,} MACs in place of {found.macs:,}"
    )


def why_held(parameter: Parameter) -> str:
    """Why no factors can be made of a parameter's values; empty where they can."""
    if parameter.dtype != "float32":
        return f"of {parameter.dtype}, and factors are float32"
    if parameter.encoding.mask is not None or not is_free(parameter):
        return "pruned or quantized already: factorize before that"
    return ""


def _pairs(graph: Graph, coupling: Coupling) -> Iterator[tuple[str, tuple[Parameter, Group]]]:
    """By path of a kernel whose inputs are another kernel's outputs as they are: that kernel, and the units between."""
    wiring = Wiring(graph)
    for group in coupling.groups:
        members = {(member.produces, member.consumes): member for member in group.members}
        first, second = members.get((True, False)), members.get((False, True))
        if len(group.members) != 2 or first is None or second is None or not group.exact:
            continue
        whole = np.arange(group.size)
        one, other = graph[first.path], graph[second.path]
        is_last = first.axis == len(one.shape) - 1
        if {one.role, other.role} != {"kernel"} or not is_last or not _are_kinds(one, other):
            continue
        if all(np.array_equal(member.units, whole) for member in (first, second)) and _is_linear(wiring, one, other):
            yield other.path, (one, group)


def _are_kinds(*parameters: Parameter) -> bool:
    return all({use.kind for use in parameter.uses} <= set(_KINDS) for parameter in parameters)


def _is_linear(wiring: Wiring, first: Parameter, second: Parameter) -> bool:
    """Whether all that the one kernel makes goes to the other one, unchanged."""
    ends = {use.op for use in second.uses}
    try:
        for use in first.uses:
            for _, taker in forward(wiring, wiring.ops[use.op].outputs[0]):
                if isinstance(taker, Norm) or taker.name in ends:
                    break
                if not spec(taker).moves and taker.kind != "space_to_batch":
                    return False
            if isinstance(taker, Norm):
                return False
    except Refused:
        return False
    return True
