"""The walk through a graph: each operation in turn, by the rule of its kind."""

from __future__ import annotations

from dataclasses import replace

from bitwidth.graph.graph import Graph
from bitwidth.graph.labels.axes import Labelled, Listed, size_of
from bitwidth.graph.labels.contractions import unknown
from bitwidth.graph.labels.control import constant, ends
from bitwidth.graph.labels.labelling import Labelling, Site, folded_into
from bitwidth.graph.labels.rules import RULES
from bitwidth.graph.model import Op

INPUT = "model input"
OUTPUT = "model output"
_LISTS = ("list_new", "list_from_tensor", "list_get", "list_set", "list_stack", "identity", "identity_n")
_PARTS = ("call", "loop", "branch")


def labelling_of(graph: Graph, inputs: bool = False) -> Labelling:
    """The labels of every axis of a graph.

    Args:
        graph: the model.
        inputs: whether the features of flat inputs are units too, which may be removed.
    """
    splits: dict[Site, tuple[int, ...]] = {}
    folded = folded_into(graph)
    while True:  # each round splits another site; a site has no more splits than its size has factors
        state = Labelling(graph, splits, folded)
        _Walk(state, inputs).run()
        if not state.asked:
            return state


class _Walk:
    def __init__(self, state: Labelling, inputs: bool) -> None:
        self.state, self.inputs, self.graph = state, inputs, state.graph
        self.carried = _carried(state)

    def run(self) -> None:
        state, structure = self.state, self.graph.structure
        for parameter in self.graph:
            axes = tuple(state.fresh((parameter.path, axis), size) for axis, size in enumerate(parameter.shape))
            state.parameters[parameter.path] = axes
            for axis in axes if not parameter.uses and parameter.path not in state.folded.values() else ():
                state.freeze(axis, "nothing reads it")
        for name in structure.inputs:
            state.tensors[name] = self._given(name)
        for op in self.graph.ops:
            for name, found in zip(op.outputs, self._outputs(op), strict=True):
                state.tensors.setdefault(name, found)
        for name in structure.outputs:
            held = state.tensors.get(name)
            for axis in held.axes if isinstance(held, Labelled) else ():
                state.freeze(axis, OUTPUT)

    def _given(self, name: str) -> Labelled:
        """An input of the model."""
        shape = self.state.shape(name)
        free = 1 if self.inputs and len(shape) == 2 else None
        axes = [
            self.state.fresh((name, axis), size) if axis == free else self.state.fixed((name, axis), size, INPUT)
            for axis, size in enumerate(shape)
        ]
        return Labelled(tuple(axes), (False,) * len(axes))

    def _outputs(self, op: Op) -> list[Labelled | Listed]:
        if op.kind == "input":
            return [self._entering(op)]
        if op.kind == "constant":
            return [constant(self.state, op)]
        operands = [self.state.tensors[name] for name in op.inputs if name in self.state.tensors]
        operands += self._direct(op)
        rule = RULES.get(op.kind)
        named = (*op.outputs, *op.inputs)
        known = len(operands) >= len(op.inputs) and all(self.state.shapes.get(name) is not None for name in named)
        lists = any(isinstance(operand, Listed) for operand in operands)
        if rule is None or not known or (lists and op.kind not in (*_LISTS, *_PARTS)):
            return self._unknown(op, operands)
        before = len(self.state.pairs)
        found = list(rule(self.state, op, operands))
        if all(isinstance(operand, Labelled) and operand.static for operand in operands):
            self.state.companions += self.state.pairs[before:]
        return found if self._fits(op, found) else self._unknown(op, operands)

    def _entering(self, op: Op) -> Labelled | Listed:
        """A parameter, an input of the model, what a loop, branch or call is given, or a constant from outside."""
        state, name = self.state, op.outputs[0]
        if op.inputs and op.inputs[0] in state.tensors:
            given = state.tensors[op.inputs[0]]
            if name in self.carried and isinstance(given, Labelled):
                return replace(given, zero=(False,) * len(given.zero), static=False)
            return given
        if op.parameters:
            return self._parameter(op.parameters[0])
        if name in state.tensors:
            return state.tensors[name]
        reason = f"a constant made outside of the call, read in {op.layer}" if op.layer else "a constant from outside"
        axes = [state.fixed((name, axis), size, reason) for axis, size in enumerate(state.shape(name))]
        return Labelled(tuple(axes), (False,) * len(axes), static=True)

    def _parameter(self, path: str) -> Labelled:
        axes = self.state.parameters[path]
        return Labelled(axes, (True,) * len(axes), static=True)

    def _direct(self, op: Op) -> list[Labelled]:
        """The parameters that an operation reads without an operation that hands them on."""
        if op.kind in _PARTS or not op.parameters:
            return []
        makers = [self.state.makers[name] for name in op.inputs if name in self.state.makers]
        handed = {path for maker in makers for path in maker.parameters if self._is_static(maker)}
        return [self._parameter(path) for path in op.parameters if path not in handed]

    def _is_static(self, maker: Op) -> bool:
        held = self.state.tensors.get(maker.outputs[0])
        return isinstance(held, Listed) or held is None or held.static

    def _unknown(self, op: Op, operands: list[Labelled | Listed]) -> list[Labelled | Listed]:
        inside = [self.state.tensors[name] for names in ends(op) for name in names]
        held = [item.root().element if isinstance(item, Listed) else item for item in (*operands, *inside)]
        return list(unknown(self.state, op, [operand for operand in held if operand is not None]))

    def _fits(self, op: Op, found: list[Labelled | Listed]) -> bool:
        """Whether what a rule made has the shapes that the graph has."""
        for name, item in zip(op.outputs, found, strict=True):
            if isinstance(item, Listed) or op.kind in _PARTS:
                continue
            shape = self.state.shape(name)
            pairs = zip(item.axes, shape, strict=False)
            is_read = op.kind == "read"
            if len(item.axes) != len(shape) and not is_read:
                return False
            if any(None not in (size_of(axis), size) and size_of(axis) != size for axis, size in pairs):
                return False
        return True


def _carried(state: Labelling) -> set[str]:
    """What loops are given for the first step only: their inputs that a step returns changed."""
    found: set[str] = set()
    for op in state.graph.ops:
        if op.kind != "loop":
            continue
        inside = [item for item in state.graph.ops if item.kind == "input" and item.name.startswith(f"{op.name}/")]
        stays = {_source(state, name) for name in ends(op)[0]}
        names = {item.outputs[0] for item in inside if item.inputs and item.inputs[0] in op.inputs}
        found |= names - stays
    return found


def _source(state: Labelling, tensor: str) -> str:
    while (maker := state.makers.get(tensor)) is not None and maker.kind == "identity":
        tensor = maker.inputs[0]
    return tensor
