"""The context: all that a pass may ask while it runs, besides its own fields and the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwidth.backend import Objective, Session, Steer, Training
from bitwidth.errors import ConfigError, SelectionError
from bitwidth.graph import Graph, Parameter, Where
from bitwidth.report import PassRecord

Answer = TypeVar("Answer", covariant=True)


class Question(Protocol[Answer]):
    """A named question about a model.

    A frozen dataclass whose fields are all that its answer depends on besides the model.
    """

    def answer(self, graph: Graph, context: Context) -> Answer:
        """The answer, from the graph and a few primitives of the session."""


@dataclass
class Notes:
    """What a pass says while it runs, for the report.

    Attributes:
        skipped: reason by parameter path, for what the pass left alone.
        remarks: free lines.
        history: per epoch, loss and metrics of training.
        inner: records of passes inside the pass.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    inner: list[PassRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Context:
    """What a pass receives besides the graph.

    Attributes:
        session: the opened model.
        data: training data, or None.
        validation: data for measuring, or None.
        objective: loss and metrics by which the model is measured.
        seed: of everything random in the run.
        scope: selectors that are in force around the pass (`Where`), all of which must name a parameter for it to be
            touched.
        notes: where the pass writes skips and remarks.
        every_step: whether a pass that steers training is asked after every step of it.
        settles: fraction of the training at which constraints have reached their full strength. A ramp sets it.
        drift: by how much the weights may have moved, relative to their norm, for an answer that changes slowly
            (`holds_while_near`) to be taken again; 0 for not at all. A ramp sets it.
    """

    session: Session
    data: Any = None
    validation: Any = None
    objective: Objective = field(default_factory=Objective)
    seed: int = 0
    scope: tuple[Where, ...] = ()
    notes: Notes = field(default_factory=Notes)
    every_step: bool = False
    settles: float = 0.0
    drift: float = 0.0
    _answers: dict[Any, tuple[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)
    _near: dict[Any, tuple[Mapping[str, NDArray[Any]], Any]] = field(default_factory=dict, repr=False)

    def select(self, graph: Graph, where: Where = None) -> tuple[Parameter, ...]:
        """The parameters that `where` and every selector around the pass name; the others are noted as skipped.

        Raises:
            SelectionError: `where` names nothing in the model, or nothing within the selectors around it.
        """
        chosen = list(graph.select(where))
        for scope in self.scope:
            inside = {parameter.path for parameter in graph.select(scope)}
            chosen = [parameter for parameter in chosen if parameter.path in inside]
        if not chosen:
            raise SelectionError(f"where={where!r} names nothing within {', '.join(map(repr, self.scope))}")
        paths = {parameter.path for parameter in chosen}
        for parameter in graph:
            if parameter.path not in paths:
                self.skip(parameter, "not selected by `where`")
        return tuple(chosen)

    def choose(self, graph: Graph, where: Where, unfit: Callable[[Parameter], str | None]) -> tuple[Parameter, ...]:
        """The selected parameters for which `unfit` gives no reason.

        The others are noted as skipped with the reason.
        """
        chosen = []
        for parameter in self.select(graph, where):
            reason = unfit(parameter)
            if reason is None:
                chosen.append(parameter)
            else:
                self.skip(parameter, reason)
        return tuple(chosen)

    def need_some(self, graph: Graph, where: Where, unfit: Callable[[Parameter], str | None], owner: str) -> None:
        """Check before work starts that a selection holds something that fits.

        Raises:
            ConfigError: nothing does; with the reasons.
        """
        page = self.fresh_notes()
        if not page.choose(graph, where, unfit):
            reasons = dict.fromkeys(page.notes.skipped.values())
            raise ConfigError(f"{owner}: nothing to do for where={where!r}: {'; '.join(reasons)}")

    def skip(self, parameter: Parameter | str, reason: str) -> None:
        """Note that a parameter is left alone, and why."""
        self.notes.skipped[parameter if isinstance(parameter, str) else parameter.path] = reason

    def remark(self, line: str) -> None:
        """Add a line to the pass's part of the report."""
        self.notes.remarks.append(line)

    def ask(self, question: Question[Answer], graph: Graph) -> Answer:
        """The answer to a question about `graph`, cached until a value or a grid of activations changes."""
        state = (graph.structure, *(graph.values.value(path) for path in graph.values))
        for known, (held, _) in tuple(self._answers.items()):
            if any(old is not new for old, new in zip(held, state, strict=True)):
                del self._answers[known]  # answers are large, and a model rarely becomes again what it was
        if question not in self._answers:
            self._answers[question] = (state, self._answered(question, graph))
        answer: Answer = self._answers[question][1]
        return answer

    def _answered(self, question: Question[Answer], graph: Graph) -> Answer:
        """The answer, measured, or that of weights which were nearly the same where that will do."""
        if not self.drift or not getattr(question, "holds_while_near", False):
            return question.answer(graph, self)
        weights = {p.path: graph.values[p.path] for p in graph if p.is_float and len(p.shape) >= 2}
        if question not in self._near or distance(self._near[question][0], weights) > self.drift:
            self._near[question] = (weights, question.answer(graph, self))
        answer: Answer = self._near[question][1]
        return answer

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Graph:
        """Train under every encoding in force; the new snapshot. Parameters outside the scope are not trained."""
        if self.scope:
            training = replace(training, only=frozenset(parameter.path for parameter in self.select(graph)))
        training = replace(
            training,
            every_step=self.every_step or training.every_step,
            settles=self.settles or training.settles,
        )
        trained = self.session.train(graph, training, steer)
        for parameter in graph:
            if graph.values.value(parameter.path) is trained.graph.values.value(parameter.path):
                reason = "what its encoding holds did not change" if parameter.trainable else "not trainable"
                self.notes.skipped.setdefault(parameter.path, reason)
        for path, reason in trained.refused.items():
            self.skip(path, reason)
        self.notes.history.update(trained.history)
        if not trained.history:
            self.remark("nothing was trained: no parameter is trainable")
        return trained.graph

    def need_data(self, owner: str) -> Any:
        """The training data.

        Raises:
            ConfigError: there is none.
        """
        if self.data is None:
            raise ConfigError(f"{owner} needs data: give `data=` to run()")
        return self.data

    def within(self, where: Where) -> Context:
        """The context inside a further selector."""
        return replace(self, scope=(*self.scope, where))

    def fresh_notes(self) -> Context:
        """The context with an empty page of notes."""
        return replace(self, notes=Notes())


def distance(before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> float:
    """How far weights have moved: the norm of the change over that of the weights before; infinite for others.

    Example:
        >>> import numpy as np
        >>> round(distance({"kernel": np.array([3.0, 4.0])}, {"kernel": np.array([3.0, 4.5])}), 6)
        0.1
    """
    if before.keys() != after.keys() or any(before[path].shape != after[path].shape for path in before):
        return inf
    change = sum(float(np.square(after[path] - before[path], dtype=np.float64).sum()) for path in before)
    size = sum(float(np.square(array, dtype=np.float64).sum()) for array in before.values())
    return sqrt(change / size) if size else inf


def check_count(value: object, owner: str, field: str) -> None:
    """Raise ConfigError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{owner}: {field} must be a whole number of at least 1, got {value!r}")
