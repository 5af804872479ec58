"""Peak memory of activations: which tensors are alive at each operation, in the order of the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from bitwidth.graph import Graph, Op
from bitwidth.graph.ops import spec

_WIDTHS = {"bfloat16": 2, "string": 0, "resource": 0, "variant": 0}
_IN_PLACE = frozenset({"identity", "stop_gradient", "read", "list_from_tensor", "list_set", "list_stack"})


@dataclass(frozen=True)
class Peak:
    """The greatest memory that activations take at once.

    Attributes:
        bytes: of all tensors alive there.
        layer: path of the layer that runs there.
    """

    bytes: int
    layer: str


def peak_of(graph: Graph, sizes: Mapping[str, tuple[int | None, ...]]) -> Peak:
    """The peak of the memory of activations.

    A tensor is alive from the operation that makes it to the last one that reads it; the model's outputs until the end.
    What only looks at a tensor in another shape, or hands it on, takes no memory of its own; everything else does, also
    where a runtime could compute in place or fuse operations. Parameters and what is computed from them alone are not
    activations. Of a loop one step counts, and the list of what the steps return as a whole.

    Args:
        graph: the model.
        sizes: shapes by the name of a tensor, for a batch of one.
    """
    life = _Life(graph)
    widths = {tensor.name: _width(tensor.dtype) for tensor in graph.structure.tensors}
    held: dict[str, int] = {}
    for name, owner in life.owners.items():
        count = prod(size or 0 for size in sizes[name]) if name in sizes else 0
        held[owner] = max(held.get(owner, 0), count * widths.get(name, 0))
    change = np.zeros(len(graph.ops) + 2, np.int64)
    for owner, (first, last) in life.spans().items():
        change[first] += held[owner]
        change[last + 1] -= held[owner]
    alive = np.cumsum(change)
    place = int(alive.argmax())
    return Peak(int(alive[place]), graph.ops[place].layer if place < len(graph.ops) else "")


def _width(dtype: str) -> int:
    """Bytes of one element."""
    return _WIDTHS[dtype] if dtype in _WIDTHS else int(np.dtype(dtype).itemsize)


class _Life:
    """Which tensors share memory, and when each is made and read last."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.owners: dict[str, str] = {}
        self._static: set[str] = set()
        for name in graph.structure.inputs:
            self.owners[name] = name
        for op in graph.ops:
            self._follow(op)

    def _follow(self, op: Op) -> None:
        static = op.kind == "constant" or (op.kind == "input" and not op.inputs and bool(op.parameters))
        given = (
            bool(op.inputs) and all(name in self._static for name in op.inputs) and op.kind not in ("fill", "list_new")
        )
        if static or (given and op.kind != "input") or spec(op).shape_only:
            self._static.update(op.outputs)
            return
        for place, name in enumerate(op.outputs):
            source = self._source(op, place)
            if name not in self.owners:
                self.owners[name] = self.owners.get(source, name) if source else name

    def _source(self, op: Op, place: int) -> str:
        """The tensor whose memory an output shares; empty where it has its own."""
        if op.kind == "call":
            ends = [names for key, names in op.attributes if key.endswith("_outputs")]
            return str(ends[0][place])
        if op.kind in ("loop", "identity_n") and place < len(op.inputs):
            return op.inputs[place]
        shares = op.kind in _IN_PLACE or op.kind == "input" or spec(op).reshapes
        return op.inputs[0] if shares and op.inputs else ""

    def spans(self) -> dict[str, tuple[int, int]]:
        """For each piece of memory the places of the operations between which it is alive."""
        found: dict[str, tuple[int, int]] = {}

        def touch(name: str, place: int) -> None:
            owner = self.owners.get(name)
            if owner is not None:
                first, last = found.get(owner, (place, place))
                found[owner] = min(first, place), max(last, place)

        for name in self.graph.structure.inputs:
            touch(name, 0)
        for place, op in enumerate(self.graph.ops):
            for name in (*op.outputs, *op.inputs) if not spec(op).shape_only else ():
                touch(name, place)
            for key, names in op.attributes:
                for name in names if key.endswith("_outputs") else ():
                    touch(name, place)
        for name in self.graph.structure.outputs:
            touch(name, len(self.graph.ops))
        return found
