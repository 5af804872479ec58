"""Passes made of passes: every hook is forwarded in one place, and whatever fails says in which part."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

from typing_extensions import override

from bitwidth.backend import Objective
from bitwidth.context import Context, NoDataError
from bitwidth.errors import ConfigError
from bitwidth.events import Cancelled
from bitwidth.graph import Graph
from bitwidth.passes.base import Pass


class Composite(Pass):
    """A pass made of passes, its parts.

    `check` and `objective` are those of the parts. A part is entered through `part`, which gives it the context it has
    to have and names it in errors. Parts that are run as calls (`part(graph, context)`) check themselves, so that a
    composite that does so has no `requires` and `ensures` of its own: nothing is checked twice.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[Pass, ...]:
        """The passes inside, in order."""

    def around(self, context: Context) -> Context:
        """The context for the parts: by default the same."""
        return context

    def place(self, index: int) -> str:
        """What a part is called in errors and events: by default the name of its class."""
        return type(self.parts[index]).__name__

    @contextmanager
    def part(self, index: int, context: Context) -> Iterator[tuple[Pass, Context]]:
        """A part and its context; what is raised under it names the part."""
        with self.around(context).inside(self.place(index)) as inner:
            yield self.parts[index], inner

    @override
    def check(self, graph: Graph, context: Context) -> None:
        for index in range(len(self.parts)):
            self.check_part(index, graph, context)

    def run_part(self, index: int, graph: Graph, context: Context) -> Graph | None:
        """Run one part between its checks, and take its record down.

        Returns:
            The graph as it leaves it, measured where there is validation data; None where the run was cancelled, and
            `graph` is the last verified state.

        Raises:
            Cancelled: nothing was done yet that could be kept.
        """
        try:
            if context.watch.stops:
                raise Cancelled
            with self.part(index, context) as (part, inner):
                after, record = part(graph, inner)
                metrics, fidelity = self.measured(after, inner)
                record = replace(record, metrics=metrics, fidelity=fidelity)
        except Cancelled:
            context.watch.cut = context.watch.cut or (*context.path, self.place(index))
            if not context.notes.inner:
                raise
            return None
        context.notes.inner.append(record)
        context.notes.refitted.update(record.refitted)
        return after

    def measured(self, graph: Graph, context: Context) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Loss and metrics, and the fidelity, to be reported after a part: by default none."""
        return {}, {}

    def check_part(self, index: int, graph: Graph, context: Context) -> None:
        """Check one part. A plan without data goes on without what needs data."""
        try:
            with self.part(index, context) as (part, inner):
                part.check(graph, inner)
        except NoDataError:
            if not context.planned:
                raise

    @override
    def objective(self) -> Objective | None:
        return next((found for part in self.parts if (found := part.objective()) is not None), None)


@dataclass(frozen=True)
class Wrapping(Composite):
    """A pass around one other: every hook is that of the pass inside, so that a subclass writes only what differs.

    Attributes:
        of: the pass inside.
    """

    of: Pass

    def __post_init__(self) -> None:
        check_pass(self.of, type(self).__name__, "of")

    @property
    @override
    def parts(self) -> tuple[Pass, ...]:
        return (self.of,)

    @override
    def requires(self, graph: Graph, context: Context) -> None:
        for index in range(len(self.parts)):
            with self.part(index, context) as (part, inner):
                part.requires(graph, inner)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        with self.part(0, context) as (part, inner):
            return part.apply(graph, inner)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        with self.part(0, context) as (part, inner):
            return part.preview(graph, inner)

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        for index in range(len(self.parts)):
            with self.part(index, context) as (part, inner):
                part.ensures(before, after, inner)

    @override
    def at(self, strength: float) -> Self:
        return replace(self, of=self.of.at(strength))

    @property
    @override
    def label(self) -> str:
        return f"{type(self).__name__}({self.of.label})"


def walk(item: Pass) -> Iterator[Pass]:
    """Yield a pass, and all passes that it is made of."""
    yield item
    if isinstance(item, Composite):
        for part in item.parts:
            yield from walk(part)


def check_pass(value: object, owner: str, field: str) -> None:
    """Raise ConfigError unless `value` is a pass."""
    if isinstance(value, type) and issubclass(value, Pass):
        raise ConfigError(f"{owner}: {field} is the class {value.__name__}; give a pass: {value.__name__}(...)")
    if not isinstance(value, Pass):
        raise ConfigError(f"{owner}: {field} must be a pass, got {value!r}")
