"""Passes around a pass: `Where` and `Repeat`. Each is a pass itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from bitwidth.context import Context, check_count
from bitwidth.errors import ContractError
from bitwidth.graph import Cut, Graph, check_where, cut_between, frozen_where
from bitwidth.graph import Where as Selector
from bitwidth.passes.wrapping import Wrapping


@dataclass(frozen=True)
class Where(Wrapping, name="where"):
    """Run a pass on part of the model only; a training pass trains only that part.

    Attributes:
        of: the pass.
        where: the parameters, by path or layer.

    Example:
        >>> from bitwidth import Quantize
        >>> Where(Quantize(bits=8), "conv*").where
        'conv*'
    """

    where: Selector

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_where(self.where, "Where")
        object.__setattr__(self, "where", frozen_where(self.where))

    @override
    def around(self, context: Context) -> Context:
        return context.within(self.where)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass inside, and check that nothing outside of the selection has changed but what it refitted.

        Raises:
            ContractError: something has; the pass inside does not choose parameters with `context.select`.
        """
        after = super().apply(graph, context)
        self._check_outside(graph, after, context.notes.refitted)
        return after

    def _check_outside(self, before: Graph, after: Graph, refitted: Collection[str]) -> None:
        inside = {parameter.path for parameter in before.select(self.where)}.union(refitted)
        cut = cut_between(before, after)
        for parameter in after:
            path = parameter.path
            if cut.made.get(path, (path,))[0] in inside or not (parameter.is_float and parameter.trainable):
                continue
            if path in cut.made or not _is_left(before, after, cut, path):
                raise ContractError(
                    f"{self.label}: {self.of.label} changed {path}, which {self.where!r} leaves out; "
                    "a pass chooses parameters with `context.select(graph, where)`"
                )

    @property
    @override
    def label(self) -> str:
        return f"Where({self.of.label}, {self.where!r})"


def _is_left(before: Graph, after: Graph, cut: Cut, path: str) -> bool:
    """Whether a parameter is what a cut leaves of the one before, held as that was."""
    if before.same(after, path):
        return True
    if before[path].encoding is not after[path].encoding and path not in cut.kept:
        return False
    left = cut.take(path, before.values[path])
    return before.values.same(after.values, path) or np.array_equal(left, after.values[path])


@dataclass(frozen=True)
class Repeat(Wrapping, name="repeat"):
    """Run a pass several times, each time on what the time before has made.

    Attributes:
        of: the pass, often a `PassManager`.
        times: how often, at least 1.

    Example:
        >>> from bitwidth import Finetune
        >>> Repeat(Finetune(epochs=1, loss="mse"), times=3).times
        3
    """

    checks_parts: ClassVar[bool] = True
    times: int

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.times, "Repeat", "times")

    @override
    def requires(self, graph: Graph, context: Context) -> None:
        """Nothing: the pass is checked each time that it runs."""

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """Nothing: the pass is checked each time that it runs."""

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass that many times, each between its checks."""
        for _ in range(self.times):
            done = self.run_part(0, graph, context)
            if done is None:
                break
            graph = done
        context.notes.take_skips()
        return graph

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Preview the pass that many times, each on what the time before would leave."""
        for _ in range(self.times):
            with self.part(0, context) as (part, inner):
                graph, record = part(graph, inner, dry=True)
            context.notes.inner.append(record)
            context.notes.foreseen.update(touched.path for touched in record.touched)
        context.notes.take_skips()
        return graph

    @property
    @override
    def label(self) -> str:
        return type(self).__name__
