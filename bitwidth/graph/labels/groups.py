"""Groups: the units that a labelling found, what of each parameter belongs to them, and what stays and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph.graph import Graph
from bitwidth.graph.labels.axes import Labelled, Labels, spread
from bitwidth.graph.labels.components import components
from bitwidth.graph.labels.contractions import WINDOW
from bitwidth.graph.labels.labelling import Labelling, Role
from bitwidth.graph.model import Parameter

_ONE_CONFIGURATION = frozenset({"Bidirectional"})
"""Layers that make two layers of one configuration, which have the same widths therefore."""


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of a parameter with units of a group on it.

    Attributes:
        path: of the parameter.
        axis: of the parameter.
        units: for each index of the axis the unit of the group that it goes with, -1 for none.
        produces: whether units are made here: the output axis of a kernel, the columns of an embedding.
        consumes: whether units are summed over here. Neither is a vector along them: a bias, a scale, a mean.
    """

    path: str
    axis: int
    units: NDArray[np.intp]
    produces: bool
    consumes: bool

    @property
    def is_vector(self) -> bool:
        """Whether the parameter has one value, or one slice, for each unit and passes it on."""
        return not self.produces and not self.consumes

    def stays(self, units: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each index of the axis whether it is left, if of the group's units those are that `units` says.

        Example:
            >>> Member("out/kernel", 0, np.array([0, 0, 1, -1]), False, True).stays(np.array([False, True]))
            array([False, False,  True,  True])
        """
        return np.asarray((self.units < 0) | units[self.units])

    def along(self, values: NDArray[Any], rank: int) -> NDArray[Any]:
        """Values for each index of the axis, in a shape that broadcasts over a parameter of so many axes."""
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])


@dataclass(frozen=True, eq=False)
class Group:
    """Units that are removed in the same places: each index of every member goes with its unit.

    Attributes:
        name: the path of the layer that makes them first, with a number where it makes several groups.
        size: how many units there are.
        members: the axes of parameters with units on them, in the order of the model's variables.
        exact: whether removing a unit is the same as setting what consumes it to zero.
        reasons: the operations because of which it is not.
        joint: whether units meet in an operation without a parameter (the features of a query and a key): there,
            removing one is the same as setting all its members to zero.
        same_size: names of groups that have to keep as many units: their layers are made of one configuration.
        input: name of the input of the model whose features the units are; empty where they are made inside.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    exact: bool = True
    reasons: tuple[str, ...] = ()
    joint: bool = False
    same_size: tuple[str, ...] = ()
    input: str = ""

    @property
    def producers(self) -> tuple[Member, ...]:
        """The members that make the units."""
        return tuple(member for member in self.members if member.produces)

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The members that sum over the units."""
        return tuple(member for member in self.members if member.consumes)


@dataclass(frozen=True)
class Frozen:
    """An axis of a parameter from which nothing can be removed.

    Attributes:
        path: of the parameter.
        axis: of the parameter.
        reason: what holds it: the operation and its layer, or an input or output of the model.
    """

    path: str
    axis: int
    reason: str


@dataclass(frozen=True, eq=False)
class Grouped:
    """The groups of a labelling, and what each label belongs to.

    Attributes:
        groups: in the order of the parameters that make them.
        frozen: the axes of parameters without units.
        group_of: for each label the place of its group, -1 for none.
        unit_of: for each label its unit in that group, -1 for none.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    group_of: NDArray[np.intp]
    unit_of: NDArray[np.intp]


def grouped(state: Labelling) -> Grouped:
    """The groups of a labelling."""
    facts = _Facts(state)
    group_of, unit_of = facts.units()
    members: dict[int, list[Member]] = {}
    for parameter in state.graph:
        for place, member in facts.members(parameter, group_of, unit_of):
            members.setdefault(place, []).append(member)
    order = sorted(members, key=lambda place: not any(member.produces for member in members[place]))
    given = _on_inputs(state, group_of)
    names = _names(state.graph, [members[place] for place in order], [given.get(place) for place in order])
    renamed = np.full(max(members, default=-1) + 2, -1)
    groups = []
    for new, (place, name) in enumerate(zip(order, names, strict=True)):
        renamed[place] = new
        size = int(unit_of[group_of == place].max()) + 1
        reasons = facts.reasons(group_of == place)
        joint = bool(facts.joint[group_of == place].any())
        groups.append(Group(name, size, tuple(members[place]), not reasons, reasons, joint, input=given.get(place, "")))
    frozen = tuple(facts.frozen_axes(group_of))
    return Grouped(_constrained(state.graph, groups), frozen, renamed[group_of], unit_of)


class _Facts:
    """What a labelling says of each component: one entry for each label, the same for equal ones."""

    def __init__(self, state: Labelling) -> None:
        self.state = state
        self.root = components(state.count, state.pairs)
        self.why = np.full(state.count, len(state.frozen))
        for place, (labels, _) in enumerate(state.frozen):
            np.minimum.at(self.why, self.root[labels[labels > 0]], place)
        self.why = self.why[self.root]
        self.stays = self.why < len(state.frozen)
        self.stays[0] = True
        self.joint = self._spread(state.joint)
        company = components(state.count, state.companions)
        self.roles = np.zeros(state.count, np.int64)
        for labels, role in state.roles:
            self.roles[company[labels[labels > 0]]] |= role
        self.roles = self.roles[company]

    def _spread(self, notes: list[Labels]) -> NDArray[np.bool_]:
        found = np.zeros(self.state.count, bool)
        for labels in notes:
            found[self.root[labels[labels > 0]]] = True
        return found[self.root]

    def units(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The group and the unit of each label: units on exactly the same factors of parameters are one group."""
        signature = np.zeros(self.state.count, np.uint64)
        draws = np.random.default_rng(0)
        first = np.full(self.state.count, self.state.count)
        for axes in self.state.parameters.values():
            for factor in (factor for axis in axes for factor in axis):
                held = np.unique(self.root[factor])
                signature[held] += draws.integers(1, 2**63, dtype=np.uint64)
                np.minimum.at(first, self.root[factor], factor)
        roots = np.flatnonzero((signature > 0) & ~self.stays)
        roots = roots[np.argsort(first[roots], kind="stable")]
        _, place = np.unique(signature[roots], return_inverse=True)
        group = np.full(self.state.count, -1)
        unit = np.full(self.state.count, -1)
        group[roots] = place
        for which in np.unique(place):
            chosen = roots[place == which]
            unit[chosen] = np.arange(len(chosen))
        return group[self.root], unit[self.root]

    def members(
        self, parameter: Parameter, group_of: NDArray[np.intp], unit_of: NDArray[np.intp]
    ) -> Iterator[tuple[int, Member]]:
        """The members that a parameter is, each with the place of its group."""
        for axis, factors in enumerate(self.state.parameters[parameter.path]):
            for place, factor in enumerate(factors):
                whole = spread(factors, place)
                found, seen = np.unique(group_of[factor], return_index=True)
                for group in found[np.argsort(seen)]:
                    if group >= 0:
                        own = group_of[whole] == group
                        role = int(np.bitwise_or.reduce(self.roles[whole[own]]))
                        units = np.where(own, unit_of[whole], -1)
                        made, taken = bool(role & Role.PRODUCES), bool(role & Role.CONSUMES)
                        yield int(group), Member(parameter.path, axis, units, made, taken)

    def reasons(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        """The operations that make some labels inexact."""
        roots = np.unique(self.root[chosen])
        return tuple(
            dict.fromkeys(reason for labels, reason in self.state.inexact if np.isin(self.root[labels], roots).any())
        )

    def frozen_axes(self, group_of: NDArray[np.intp]) -> Iterator[Frozen]:
        """The axes of parameters of which no factor is a group's, each with why its largest factor stays."""
        for parameter in self.state.graph:
            for axis, factors in enumerate(self.state.parameters[parameter.path] if parameter.is_float else ()):
                if not factors or any((group_of[factor] >= 0).any() for factor in factors):
                    continue
                reason = self.state.frozen[int(self.why[max(reversed(factors), key=len)].min())][1]
                if reason != WINDOW:
                    yield Frozen(parameter.path, axis, reason)


def _on_inputs(state: Labelling, group_of: NDArray[np.intp]) -> dict[int, str]:
    """The places of the groups whose units the model takes, with the names of the inputs."""
    found: dict[int, str] = {}
    for name in state.graph.structure.inputs:
        held = state.tensors[name]
        for axis in held.axes if isinstance(held, Labelled) else ():
            for factor in axis:
                found |= {int(place): name.partition(":")[0] for place in np.unique(group_of[factor]) if place >= 0}
    return found


def _names(graph: Graph, members: list[list[Member]], inputs: list[str | None]) -> list[str]:
    """A name for each group: the layer that makes its units, or the input, numbered where it makes several groups."""
    makers = [next((member for member in group if member.produces), group[0]) for group in members]
    layers = [
        name if name is not None and not maker.produces else graph[maker.path].layer or maker.path
        for maker, name in zip(makers, inputs, strict=True)
    ]
    seen: dict[str, int] = {}
    names = []
    for layer in layers:
        seen[layer] = seen.get(layer, 0) + 1
        names.append(f"{layer}:{seen[layer]}" if layers.count(layer) > 1 else layer)
    return names


def _constrained(graph: Graph, groups: list[Group]) -> tuple[Group, ...]:
    """The groups, with those that have to keep as many units as another one."""
    pairs = [layer.path for layer in graph.structure.layers if layer.kind in _ONE_CONFIGURATION]
    found = list(groups)
    for parent in pairs:
        sides: dict[str, list[int]] = {}
        for place, group in enumerate(groups):
            own = [graph[member.path].layer for member in group.producers]
            if own and own[0].startswith(f"{parent}/"):
                sides.setdefault(own[0].removeprefix(f"{parent}/").split("/")[0], []).append(place)
        for places in zip(*sides.values(), strict=False) if len(sides) > 1 else ():
            for place in places:
                others = tuple(groups[other].name for other in places if other != place)
                old = found[place]
                found[place] = replace(old, same_size=others)
    return tuple(found)
