"""Which features of a flat input are missed least: those of all that reads the input, ranked together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.graph.labels import Coupling, Group
from bitwidth.graph.labels.walk import OUTPUT
from bitwidth.passes.units import Ranking


@dataclass(frozen=True, eq=False)
class Features:
    """The features of the flat input of a model.

    Attributes:
        name: of the input.
        size: how many features it has.
        units: by the name of a group, for each feature the unit that it is, -1 for none.
    """

    name: str
    size: int
    units: Mapping[str, NDArray[np.intp]]

    def groups(self, coupling: Coupling) -> list[Group]:
        """The groups that features are units of."""
        return [group for group in coupling.groups if group.name in self.units]

    def count(self, kept: Mapping[str, list[int]]) -> int:
        """How many features are left with these units of groups; those of other groups all are."""
        gone = np.zeros(self.size, np.bool_)
        for name, units in kept.items():
            gone |= (self.units[name] >= 0) & ~np.isin(self.units[name], units)
        return self.size - int(gone.sum())

    def left(self, rankings: Mapping[str, Ranking], count: int) -> dict[str, list[int]]:
        """The units that stay of each group, so that `count` features are left, or the fewest above.

        What is missed least goes first, by its share of what its group gives; one unit of each group stays.

        Example:
            >>> found = Ranking(np.array([2, 0, 1]), np.array([0.1, 0.3, 0.6]))
            >>> Features("inputs", 3, {"inputs": np.arange(3)}).left({"inputs": found}, 2)
            {'inputs': [0, 1]}
        """
        queue = sorted(
            (cost, place, name, int(unit))
            for name, found in rankings.items()
            for place, (unit, cost) in enumerate(zip(found.order, np.maximum.accumulate(found.costs), strict=True))
        )
        gone: dict[str, set[int]] = {name: set() for name in rankings}
        extra = self.size - count
        for _, _, name, unit in queue:
            weight = int(np.count_nonzero(self.units[name] == unit))
            if weight <= extra and len(gone[name]) + 1 < len(np.unique(self.units[name][self.units[name] >= 0])):
                gone[name].add(unit)
                extra -= weight
        return {
            name: [unit for unit in np.unique(self.units[name]).tolist() if unit >= 0 and unit not in gone[name]]
            for name in rankings
            if gone[name]
        }


def features_of(graph: Graph, coupling: Coupling, count: int, owner: str) -> Features:
    """The flat input of a model whose features are units.

    Args:
        graph: the model.
        coupling: its units, those of inputs too.
        count: how many features are to be left.
        owner: the pass, for messages.

    Raises:
        ConfigError: the model has no flat input whose features can be removed, or several, or one of fewer features.
    """
    found = list(_flat(graph, coupling))
    if not found:
        reasons = dict.fromkeys(item.reason for item in coupling.frozen if item.reason != OUTPUT)
        raise ConfigError(
            f"{owner}: inputs={count} is for a flat input, of shape (batch, features), whose features dense layers "
            f"read; the model has none: {'; '.join(reasons) or 'no input is flat'}"
        )
    if len(found) > 1:
        names = ", ".join(features.name for features in found)
        raise ConfigError(f"{owner}: inputs={count} is for one flat input, and the model has several: {names}")
    if found[0].size < count:
        raise ConfigError(f"{owner}: inputs={count}, and {found[0].name} has {found[0].size} features")
    return found[0]


def _flat(graph: Graph, coupling: Coupling) -> Iterator[Features]:
    shapes = {tensor.name: tensor.shape for tensor in graph.structure.tensors}
    for name in graph.structure.inputs:
        shape = shapes.get(name)
        if shape is None or len(shape) != 2 or not shape[1]:
            continue
        units = coupling.units_on(name)[1]
        if units:
            yield Features(name.partition(":")[0], shape[1], units)
