"""`Removal`: some units of a model, to be removed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ConfigError
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.labels.coupling import Coupling, Kept
from bitwidth.graph.labels.groups import Member
from bitwidth.graph.lineage import cut_graph


@final
@dataclass(frozen=True, eq=False)
class Removal:
    """What is left of a model when some units are removed.

    Attributes:
        coupling: the units of the model.
        kept: by the name of a group, the units that are left; groups that are not named are whole.

    Raises:
        ConfigError: as of `Coupling.cut`, when it is first asked.
    """

    coupling: Coupling
    kept: Kept

    @cached_property
    def cut(self) -> Cut:
        """What is left of the parameters."""
        return self.coupling.cut(self.kept)

    def left(self, tensor: str) -> tuple[NDArray[np.intp] | None, ...]:
        """For each axis of a tensor the indices that are left, None for all; empty where its axes are not known."""
        try:
            return self.coupling.kept(tensor, self.kept)
        except ConfigError:
            return ()

    @property
    def is_exact(self) -> bool:
        """Whether removing is the same as zeros: true of every group that is cut."""
        return all(self.coupling[name].exact for name in self.kept)

    @cached_property
    def consumed(self) -> tuple[str, ...]:
        """Paths of the parameters that sum over removed units, in the order of the groups."""
        found = [(name, member) for name in self.kept for member in self.coupling[name].consumers]
        return tuple(dict.fromkeys(member.path for name, member in found if not self._stays(name, member).all()))

    def alive(self, path: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which entries of a parameter meet inputs that are left, of its shape."""
        alive = np.ones(shape, np.bool_)
        for name in self.kept:
            for member in self.coupling[name].consumers:
                if member.path == path:
                    alive &= self._stays(name, member).reshape(
                        [-1 if axis == member.axis else 1 for axis in range(len(shape))]
                    )
        return alive

    def zeroed(self, graph: Graph) -> Graph:
        """The model as it was, with zeros where removed units are read: what the cut model has to agree with."""
        return graph.update(self.coupling.zeroed(graph, self.kept))

    def predicted(self, graph: Graph) -> Graph:
        """What the cut model will be, as far as that is known before it is built: for plans."""
        sizes = self.coupling.sizes(self.kept)
        tensors = tuple(
            replace(tensor, shape=sizes.get(tensor.name, tensor.shape)) for tensor in graph.structure.tensors
        )
        parameters = [replace(p, shape=self.cut.shape(p.path, p.shape)) for p in graph]
        plain = Graph(replace(graph.structure, tensors=tensors), parameters, {p.path: np.zeros(0) for p in parameters})
        return cut_graph(graph, self.cut, plain)

    def _stays(self, name: str, member: Member) -> NDArray[np.bool_]:
        """For each index of a member's axis whether it is left."""
        units = np.zeros(self.coupling[name].size, np.bool_)
        units[np.asarray(self.kept[name])] = True
        return (member.units < 0) | units[member.units]
