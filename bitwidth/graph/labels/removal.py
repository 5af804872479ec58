"""`Removal`: some units of a model, to be removed."""

from __future__ import annotations

from collections.abc import Iterator
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
        made: paths of parameters that were given other values for it: what the cut leaves is of those, and nothing of
            what was there before.

    Raises:
        ConfigError: as of `Coupling.cut`, when it is first asked.
    """

    coupling: Coupling
    kept: Kept
    made: tuple[str, ...] = ()

    @cached_property
    def cut(self) -> Cut:
        """What is left of the parameters."""
        kept = self.coupling.cut(self.kept).kept
        return Cut(kept, {path: (path,) for path in self.made})

    def left(self, tensor: str) -> tuple[NDArray[np.intp] | None, ...]:
        """For each axis of a tensor the indices that are left, None for all; empty where its axes are not known."""
        try:
            return self.coupling.left_on(tensor, self._alive)
        except ConfigError:
            return ()

    @property
    def is_exact(self) -> bool:
        """Whether removing is the same as zeros: true of every group that is cut."""
        return all(self.coupling[name].exact for name in self.kept)

    @cached_property
    def consumed(self) -> tuple[str, ...]:
        """Paths of the parameters that sum over removed units, in the order of the groups."""
        return tuple(dict.fromkeys(member.path for member, stays in self._consumers() if not stays.all()))

    def alive(self, path: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which entries of a parameter meet inputs that are left, of its shape."""
        alive = np.ones(shape, np.bool_)
        for member, stays in self._consumers():
            if member.path == path:
                alive &= member.along(stays, len(shape))
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
        values = {path: self.cut.take(path, graph.values[path]) for path in self.made}
        empty = {p.path: np.zeros(0) for p in parameters if p.path not in values}
        plain = Graph(replace(graph.structure, tensors=tensors), parameters, {**empty, **values})
        return cut_graph(graph, self.cut, plain)

    @cached_property
    def _alive(self) -> NDArray[np.bool_]:
        return self.coupling.alive(self.kept)

    def _consumers(self) -> Iterator[tuple[Member, NDArray[np.bool_]]]:
        """What sums over units of the groups, with which indices of its axis are left."""
        for name, units in self.coupling.chosen(self.kept).items():
            for member in self.coupling[name].consumers:
                yield member, member.stays(units)
