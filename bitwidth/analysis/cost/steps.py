"""How often each operation runs: the steps of loops, and the branch that costs most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from bitwidth.graph import Graph, Op
from bitwidth.graph.integers import Integers


class Steps:
    """How often the operations of a graph run.

    Args:
        graph: the model.

    Attributes:
        unknown: layers with loops whose number of steps is only known when the model runs; one step is counted.
    """

    def __init__(self, graph: Graph) -> None:
        self._makers = {name: op for op in graph.ops for name in op.outputs}
        self._integers = Integers({tensor.name: tensor.shape for tensor in graph.structure.tensors}, self._makers)
        self._ops = graph.ops
        self._parts = [op for op in graph.ops if op.kind in ("loop", "branch")]
        self.unknown: list[str] = []

    def counts(self, macs: Mapping[str, int]) -> dict[str, int]:
        """How often each operation runs, by name.

        Args:
            macs: what one run of an operation costs, by name: of several branches the dearest is taken.
        """
        found = {op.name: 1 for op in self._ops}
        for part in self._parts:  # inner ones first
            inside = [op for op in self._ops if op.name.startswith(f"{part.name}/")]
            if part.kind == "loop":
                times = self._trips(part, inside)
                if times is None and any(macs[op.name] for op in inside):
                    self.unknown.append(part.layer)
                for op in inside:
                    found[op.name] *= 1 if times is None else times
            else:
                self._choose(part, inside, macs, found)
        return found

    def _choose(self, part: Op, inside: Sequence[Op], macs: Mapping[str, int], found: dict[str, int]) -> None:
        """Count the operations of the dearest branch only."""
        costs: dict[str, int] = {}
        for op in inside:
            branch = op.name.removeprefix(f"{part.name}/").split("/")[0]
            costs[branch] = costs.get(branch, 0) + macs[op.name] * found[op.name]
        dearest = max(costs, key=lambda branch: costs[branch], default="")
        for op in inside:
            if not op.name.startswith(f"{part.name}/{dearest}/"):
                found[op.name] = 0

    def _trips(self, loop: Op, inside: Sequence[Op]) -> int | None:
        """Steps of a loop that counts up to a known number: the least of the conditions that it checks."""
        after = dict(zip(loop.inputs, dict(loop.attributes).get("body_outputs", ()), strict=False))
        found = []
        for op in inside:
            if op.kind == "compare" and op.name.startswith(f"{loop.name}/cond/"):
                counter, limit = (self._outer(loop, name) for name in op.inputs[:2])
                start, stop, step = self._number(counter), self._number(limit), self._step(after.get(counter))
                if start is not None and stop is not None and step:
                    found.append(max(0, ceil((stop - start) / step)))
        return min(found, default=None)

    def _outer(self, loop: Op, tensor: str) -> str:
        """The tensor that a loop is given for one of its inputs; itself where it is not one."""
        maker = self._makers.get(tensor)
        inner = maker is not None and maker.kind == "input" and maker.name.startswith(f"{loop.name}/")
        return maker.inputs[0] if inner and maker is not None and maker.inputs else tensor

    def _number(self, tensor: str) -> float | None:
        value = self._integers.of(tensor)
        return None if value is None or value.size != 1 or value != value else float(value.ravel()[0])

    def _step(self, tensor: str | None) -> float | None:
        """What a step adds to a counter; None where it does something else."""
        maker = self._makers.get(tensor or "")
        while maker is not None and maker.kind == "identity":
            maker = self._makers.get(maker.inputs[0])
        if maker is None or maker.kind != "add":
            return None
        known = [self._number(name) for name in maker.inputs if self._makers[name].kind == "constant"]
        return known[0] if len(known) == 1 else None
