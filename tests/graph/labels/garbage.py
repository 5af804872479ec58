"""What removed units hold must not matter: the outputs of a model with garbage in them.

Of an exact group, the model whose consumers' slices are zero computes the same whatever the slices of the removed units
hold elsewhere. This needs no smaller model, and a wrong unit anywhere shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.reading.naming import names_of
from bitwidth.graph import Graph
from bitwidth.graph.labels import Group, Member

Values = dict[str, NDArray[Any]]


def places_of(group: Group) -> list[Member]:
    """The members that may hold garbage."""
    places = [member for member in group.members if not member.consumes]
    if not group.joint:
        return places
    return places[:1] if len(group.producers) > 1 and not group.consumers else []


def half(groups: tuple[Group, ...], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Half of the units of each group, at random; as many of groups that have to keep as many."""
    rng = np.random.default_rng(seed)
    return {group.name: np.sort(rng.permutation(group.size)[: max(1, group.size // 2)]) for group in groups}


def filled(graph: Graph, groups: tuple[Group, ...], kept: Mapping[str, NDArray[Any]], seed: int = 1) -> Values:
    """Garbage in place of the removed units, wherever they are not consumed.

    Where units meet each other, as those of a query and a key, only one of both may hold garbage, and neither where one
    kernel makes both.
    """
    rng = np.random.default_rng(seed)
    changed: Values = {}
    for group in groups:
        for member in places_of(group):
            values = changed.setdefault(member.path, np.array(graph.values[member.path]))
            gone = (member.units >= 0) & ~np.isin(member.units, kept[group.name])
            slices = np.moveaxis(values, member.axis, 0)
            noise = rng.normal(0, 1, slices[gone].shape)
            slices[gone] = np.abs(noise) if graph[member.path].role == "variance" else noise
    return changed


def zeroed_in(groups: tuple[Group, ...], kept: Mapping[str, NDArray[Any]], values: Values, graph: Graph) -> Values:
    """`values` with zeros where removed units are consumed; for joint groups everywhere but in their first member."""
    changed = dict(values)
    for group in groups:
        places = places_of(group)
        for member in group.members:
            if member.consumes or (group.joint and member not in places):
                array = changed.setdefault(member.path, np.array(graph.values[member.path]))
                gone = (member.units >= 0) & ~np.isin(member.units, kept[group.name])
                np.moveaxis(array, member.axis, 0)[gone] = 0
    return changed


def outputs(model: Any, graph: Graph, values: Mapping[str, NDArray[Any]], inputs: Any) -> NDArray[Any]:
    """What the model computes with some values exchanged; it is put back afterwards."""
    variables = {path: variable for path, variable, _ in names_of(model).variables}
    for path, array in values.items():
        variables[path].assign(array)
    found = np.asarray(model(inputs, training=False))
    for path in values:
        variables[path].assign(graph.values[path])
    return found


def error(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference, in units of the root mean square of the second."""
    return float(np.abs(one - other).max() / np.sqrt(np.square(other).mean()))


def shifted(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """A mutant: what consumes a unit is taken for what consumes its neighbour."""

    def moved(member: Member, size: int) -> Member:
        units = np.where(member.units >= 0, (member.units + 1) % size, -1)
        return replace(member, units=units) if member.consumes else member

    return tuple(replace(group, members=tuple(moved(m, group.size) for m in group.members)) for group in groups)
