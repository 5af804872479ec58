"""`Removal`: some units of a model, to be removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ConfigError, ModelError
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.inputs import KeptInputs
from bitwidth.graph.labels.coupling import Coupling, Kept
from bitwidth.graph.labels.groups import Member
from bitwidth.graph.lineage import cut_graph, with_kept_inputs
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute


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

    def kept_inputs(self, graph: Graph) -> KeptInputs | None:
        """Which features of the inputs of a model are left, of those that it had before its first cut.

        Raises:
            ModelError: features of two inputs were removed.
        """
        found = graph.structure.kept_inputs
        for place, name in enumerate(graph.structure.inputs):
            left = next((kept for kept in self.left(name)[1:] if kept is not None), None)
            if left is None:
                continue
            if found is not None and found.place != place:
                raise ModelError(f"inputs {found.place} and {place} are cut: features of one input can be removed")
            shape = next(tensor.shape for tensor in graph.structure.tensors if tensor.name == name) or ()
            columns = tuple(map(int, left))
            found = KeptInputs(place, int(shape[1] or 0), (columns,)) if found is None else found.then(columns)
        return found

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
        ops = tuple(self._cut_constant(op) if op.kind == "constant" else op for op in graph.structure.ops)
        structure = replace(graph.structure, tensors=tensors, ops=ops)
        made = {path: self.cut.take(path, graph.values[path]) for path in self.made}
        plain = Graph(structure, parameters, {p.path: made.get(p.path, np.zeros(0)) for p in parameters})
        return with_kept_inputs(cut_graph(graph, self.cut, plain), self.kept_inputs(graph))

    def _cut_constant(self, op: Op) -> Op:
        """A constant with what is left of its value."""
        value = np.asarray(attribute(op, "value"))
        left = self.left(op.outputs[0]) if value.ndim else ()
        if all(kept is None for kept in left):
            return op
        for axis, kept in enumerate(left):
            value = value if kept is None else value.take(kept, axis)
        attributes = {**dict(op.attributes), "value": value.tolist()}
        return replace(op, attributes=tuple(attributes.items()))

    @cached_property
    def _alive(self) -> NDArray[np.bool_]:
        return self.coupling.alive(self.kept)

    def _consumers(self) -> Iterator[tuple[Member, NDArray[np.bool_]]]:
        """What sums over units of the groups, with which indices of its axis are left."""
        for name, units in self.coupling.chosen(self.kept).items():
            for member in self.coupling[name].consumers:
                yield member, member.stays(units)
