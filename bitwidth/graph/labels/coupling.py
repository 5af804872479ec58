"""`Coupling`: which units of a model can be removed, and what is left of everything when some are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from bitwidth.errors import ConfigError
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.labels.axes import Axis, Labelled, is_open, spread
from bitwidth.graph.labels.groups import Frozen, Group, grouped
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.labels.walk import labelling_of
from bitwidth.text import table
from bitwidth.typing import Array

Kept = Mapping[str, ArrayLike]
"""By the name of a group, the units of it that are left; those that are not named are whole."""


def couple(graph: Graph, inputs: bool = False) -> Coupling:
    """Find the units of a model: what can be removed from it as a whole, with all that goes with each.

    Every axis of every tensor and parameter has labels, one for each index; the operations say which are equal. What
    stays equal is removed together. Nothing is computed with values.

    Args:
        graph: the model.
        inputs: whether the features of flat inputs, of shape (batch, features), are units too.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> stack = [keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4, name="out")]
        >>> coupling = couple(bw.read(keras.Sequential(stack)))
        >>> (group,) = coupling.groups
        >>> group.name, group.size, group.exact, [(member.path, member.axis) for member in group.members]
        ('hidden', 16, True, [('hidden/kernel', 1), ('hidden/bias', 0), ('out/kernel', 0)])
        >>> coupling.parameters({"hidden": range(4)})
        56
    """
    return Coupling(labelling_of(graph, inputs))


class Coupling:
    """The units of a model in groups, and what follows from removing some.

    Args:
        state: the labels of the model; `couple` makes them.

    Attributes:
        groups: the groups of units.
        frozen: the axes of parameters from which nothing can be removed, with the reason. Positions of the windows of
            convolutions, and axes of one index, are not listed.
    """

    def __init__(self, state: Labelling) -> None:
        found = grouped(state)
        self.groups: tuple[Group, ...] = found.groups
        self.frozen: tuple[Frozen, ...] = found.frozen
        self._by_name = {group.name: group for group in self.groups}
        self._group_of, self._unit_of = found.group_of, found.unit_of
        self._shapes = {parameter.path: parameter.shape for parameter in state.graph}
        self._floats = {parameter.path for parameter in state.graph if parameter.is_float}
        self._tensors: dict[str, tuple[Axis, ...]] = {
            name: held.axes
            for name, held in state.tensors.items()
            if isinstance(held, Labelled) and len(held.axes) == len(state.shape(name))
        }

    def __getitem__(self, name: str) -> Group:
        if name in self._by_name:
            return self._by_name[name]
        known = ", ".join(self._by_name) or "none"
        raise ConfigError(f"the model has no group {name!r}; it has: {known}")

    def cut(self, kept: Kept) -> Cut:
        """What is left of the parameters.

        Args:
            kept: by the name of a group, the units that are left, in any order.

        Raises:
            ConfigError: a group that the model does not have, no unit left, a unit that a group does not have, or
                another number of units than a group has to have in common with this one.
        """
        left: dict[str, dict[int, NDArray[np.bool_]]] = {}
        for name, units in self.chosen(kept).items():
            for member in self[name].members:
                stays = member.stays(units)
                axes = left.setdefault(member.path, {})
                axes[member.axis] = axes[member.axis] & stays if member.axis in axes else stays
        return Cut(
            {
                path: {axis: np.flatnonzero(stays) for axis, stays in axes.items() if not stays.all()}
                for path, axes in left.items()
            }
        )

    def shapes(self, kept: Kept) -> dict[str, tuple[int, ...]]:
        """The shapes that are left of the parameters, by path; errors as of `cut`."""
        cut = self.cut(kept)
        return {path: cut.shape(path, shape) for path, shape in self._shapes.items()}

    def parameters(self, kept: Kept) -> int:
        """How many floating point values are left in all parameters; errors as of `cut`."""
        return sum(prod(shape) for path, shape in self.shapes(kept).items() if path in self._floats)

    def sizes(self, kept: Kept, batch: int | None = None) -> dict[str, tuple[int | None, ...]]:
        """The shapes that are left of the tensors, by name; errors as of `cut`.

        Tensors of unknown rank and lists of tensors are left out.

        Args:
            kept: see `cut`.
            batch: what to take for a size that is only known when the model runs; None leaves it open, as None.
        """
        alive = self.alive(kept)
        counts: dict[int, int] = {}

        def size(axis: Axis) -> int | None:
            if batch is None and is_open(axis):
                return None
            for factor in axis:
                if id(factor) not in counts:
                    counts[id(factor)] = int(np.count_nonzero(alive[factor])) if len(factor) else batch or 0
            return prod(counts[id(factor)] for factor in axis)

        return {name: tuple(size(axis) for axis in axes) for name, axes in self._tensors.items()}

    def kept(self, tensor: str, kept: Kept) -> tuple[NDArray[np.intp] | None, ...]:
        """For each axis of a tensor the indices that are left, None for all; errors as of `cut` and `units_on`."""
        return self.left_on(tensor, self.alive(kept))

    def left_on(self, tensor: str, alive: NDArray[np.bool_]) -> tuple[NDArray[np.intp] | None, ...]:
        """What `kept` returns, from what `alive` returned, which need not be found again for each tensor."""
        found: list[NDArray[np.intp] | None] = []
        for axis in self._axes(tensor):
            stays = np.ones(1, bool)
            for factor in axis:
                stays = np.outer(stays, alive[factor]).ravel()
            found.append(None if is_open(axis) or stays.all() else np.flatnonzero(stays))
        return tuple(found)

    def units_on(self, tensor: str) -> tuple[Mapping[str, NDArray[np.intp]], ...]:
        """For each axis of a tensor and each group on it, the unit that each index goes with, -1 for none.

        An axis of unknown size has none.

        Raises:
            ConfigError: the model has no tensor of this name, or its rank is not known.
        """
        found: list[Mapping[str, NDArray[np.intp]]] = []
        for axis in self._axes(tensor):
            own: dict[str, NDArray[np.intp]] = {}
            for place in range(0 if is_open(axis) else len(axis)):
                whole = spread(axis, place)
                for group in np.unique(self._group_of[whole]):
                    if group >= 0:
                        units = np.where(self._group_of[whole] == group, self._unit_of[whole], -1)
                        own[self.groups[group].name] = units
            found.append(own)
        return tuple(found)

    def _axes(self, tensor: str) -> tuple[Axis, ...]:
        if tensor not in self._tensors:
            raise ConfigError(f"the model has no tensor {tensor!r} with known axes")
        return self._tensors[tensor]

    def zeroed(self, graph: Graph, kept: Kept) -> dict[str, Array]:
        """The values of the original in which what consumes removed units is zero: what a cut model has to agree with.

        Of groups whose units meet without a parameter (`Group.joint`) everything is zero.

        Args:
            graph: the model that was coupled, with any values.
            kept: see `cut`; errors as there.

        Returns:
            New arrays by path, for the parameters that change.
        """
        changed: dict[str, Array] = {}
        for name, units in self.chosen(kept).items():
            group = self[name]
            for member in group.members if group.joint else group.consumers:
                gone = ~member.stays(units)
                if gone.any():
                    values = changed.setdefault(member.path, np.array(graph.values[member.path]))
                    np.moveaxis(values, member.axis, 0)[gone] = 0
        return changed

    def chosen(self, kept: Kept) -> dict[str, NDArray[np.bool_]]:
        """For each group that is named, which of its units are left; errors as of `cut`."""
        found = {name: _mask(self[name], units) for name, units in kept.items()}
        for name, units in found.items():
            for other in self[name].same_size:
                count = int(found[other].sum()) if other in found else self[other].size
                if count != units.sum():
                    raise ConfigError(
                        f"{name} keeps {units.sum()} units and {other} {count}: their layers are made of one "
                        "configuration, so both have to keep as many"
                    )
        return found

    def alive(self, kept: Kept) -> NDArray[np.bool_]:
        """For each label of the model whether it is left; errors as of `cut`."""
        chosen = self.chosen(kept)
        units = [chosen.get(group.name, np.ones(group.size, bool)) for group in self.groups]
        starts = np.cumsum([0, *map(len, units)])  # labels of no group read what is appended
        places = np.where(self._group_of < 0, starts[-1], starts[self._group_of] + self._unit_of)
        return np.concatenate([*units, np.ones(1, bool)])[places]

    @override
    def __repr__(self) -> str:
        units = sum(group.size for group in self.groups)
        return f"<Coupling: {len(self.groups)} groups of {units} units, {len(self.frozen)} frozen axes>"

    @override
    def __str__(self) -> str:
        rows = [
            [group.name, str(group.size), _paths(group.producers), _paths(group.consumers), _exactness(group)]
            for group in self.groups
        ]
        frozen = [[item.path, str(item.axis), item.reason] for item in self.frozen]
        parts = [table(["group", "units", "made by", "taken by", "exact"], rows)]
        if frozen:
            parts.append(table(["frozen", "axis", "reason"], frozen))
        return "\n\n".join(parts)


def _mask(group: Group, units: ArrayLike) -> NDArray[np.bool_]:
    indices = np.asarray(list(units) if isinstance(units, range) else units)
    whole = indices.ndim == 1 and indices.size and indices.dtype.kind in "iu"
    if not whole or indices.min() < 0 or indices.max() >= group.size:
        raise ConfigError(
            f"{group.name}: expected the indices of units to keep, one at least, from 0 to {group.size - 1}; got "
            f"{indices.tolist()}"
        )
    found = np.zeros(group.size, bool)
    found[indices] = True
    return found


def _paths(members: Sequence[object]) -> str:
    paths = list(dict.fromkeys(getattr(member, "path", "") for member in members))
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _exactness(group: Group) -> str:
    return "yes" if group.exact else f"no: {group.reasons[0]}"
