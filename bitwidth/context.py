"""The context: all that a pass may ask while it runs, besides its own fields and the graph.

Here belongs what every pass receives: selection, notes for the report, questions, training. What only some passes share
belongs in `bitwidth.passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from bitwidth.answers import Answers, NearAnswers
from bitwidth.backend import Objective, Session, Steer, Training
from bitwidth.errors import BitwidthError, ConfigError, SelectionError
from bitwidth.events import Cancelled, Watch
from bitwidth.graph import Graph, Parameter, Selection, Where
from bitwidth.report import PassRecord
from bitwidth.typing import Data, is_integer

Answer = TypeVar("Answer", covariant=True)


class Question(Protocol[Answer]):
    """A named question about a model.

    A frozen dataclass whose fields are all that its answer depends on besides the model.
    """

    def answer(self, graph: Graph, context: Context) -> Answer:
        """The answer, from the graph and a few primitives of the session."""


_RAISED_IN = "bitwidth: raised in"
NOT_SELECTED = "not selected by `where`"


class NothingHere(SelectionError):  # noqa: N818 - an end, and no fault
    """There is nothing to do in the part of the model that a pass is confined to."""


class NoDataError(ConfigError):
    """A run needs data, and has none."""


@dataclass
class Notes:
    """What a pass says while it runs, for the report.

    Attributes:
        skipped: reason by parameter path, for what the pass left alone.
        remarks: free lines.
        history: per epoch, loss and metrics of training.
        inner: records of passes inside the pass.
        refitted: paths of the parameters that were solved again because of what is gone elsewhere, selected or not.
        foreseen: paths of the parameters that the pass would change, where only a run can tell how.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    inner: list[PassRecord] = field(default_factory=list)
    refitted: set[str] = field(default_factory=set)
    foreseen: set[str] = field(default_factory=set)

    def take_skips(self) -> None:
        """Take over what each of the passes inside left alone and none of them touched."""
        touched = {record.path for inner in self.inner for record in inner.touched}
        for inner in self.inner:
            self.skipped.update({path: why for path, why in inner.skipped.items() if path not in touched})

    def clear(self) -> None:
        """Begin an empty page."""
        for part in (self.skipped, self.remarks, self.history, self.inner, self.refitted):
            part.clear()

    def take(self, notes: Notes) -> None:
        """Take over what a pass said elsewhere, but not twice."""
        self.skipped.update(notes.skipped)
        self.remarks += [line for line in dict.fromkeys(notes.remarks) if line not in self.remarks]
        self.history.update(notes.history)
        self.inner += notes.inner
        self.refitted |= notes.refitted


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
        drift: by how much the weights may have moved, relative to their norm, for an answer that changes slowly
            (`holds_while_near`) to be taken again; 0 for not at all. A ramp sets it.
        settled: fraction of a training after which a pass that steers it changes nothing any more; what waits for the
            best model counts from then on.
        origin: the model that the training around this pass began with, where a ramp steers it; None elsewhere.
        path: the pass that receives this, within the passes around it: for errors and events.
        only: paths of the parameters that may be touched, besides `scope`; None for all. Unlike a selector that names
            nothing, a part in which there is nothing to do is no error: `NothingHere` ends the pass, unchanged.
        watch: what follows the run, and may end it.
        planned: whether nothing is really run, so that there may be no data where a run needs some.
        fidelity: compares the outputs of a graph with those of the model as it was given; nothing without data.
        answers: what is known about the model on this data with this seed.
        near: what is known about weights that were nearly the same, in this run.
    """

    session: Session
    data: Data = None
    validation: Data = None
    objective: Objective = field(default_factory=Objective)
    seed: int = 0
    scope: tuple[Where, ...] = ()
    notes: Notes = field(default_factory=Notes)
    every_step: bool = False
    drift: float = 0.0
    settled: float = 0.0
    origin: Graph | None = field(default=None, repr=False)
    path: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    planned: bool = False
    watch: Watch = field(default_factory=Watch, repr=False)
    fidelity: Callable[[Graph], Mapping[str, float]] = field(default=lambda graph: {}, repr=False)
    answers: Answers = field(default_factory=Answers, repr=False)
    near: NearAnswers = field(default_factory=NearAnswers, repr=False)

    def selection(
        self, graph: Graph, where: Where = None, unfit: Callable[[Parameter], str | None] | None = None
    ) -> Selection:
        """What `where` and every selector around the pass name, as a value: nothing is noted.

        Args:
            graph: the graph to choose from.
            where: a selector; None for all.
            unfit: the reason why a parameter is left alone, or None.

        Raises:
            SelectionError: `where` names nothing in the model, or nothing within the selectors around it.
        """
        found = Selection(tuple(graph)).within({p.path for p in graph.select(where)}, NOT_SELECTED)
        for scope in self.scope:
            found = found.within({parameter.path for parameter in graph.select(scope)}, NOT_SELECTED)
        if not found.chosen:
            raise SelectionError(f"where={where!r} names nothing within {', '.join(map(repr, self.scope))}")
        if self.only is not None:
            found = found.within(self.only, "in another part of a ramp")
        return found if unfit is None else found.fitting(unfit)

    def select(self, graph: Graph, where: Where = None) -> tuple[Parameter, ...]:
        """The parameters that `where` and every selector around the pass name; the others are noted as skipped.

        Raises:
            SelectionError: `where` names nothing in the model, or nothing within the selectors around it.
        """
        return self._noted(self.selection(graph, where))

    def choose(self, graph: Graph, where: Where, unfit: Callable[[Parameter], str | None]) -> tuple[Parameter, ...]:
        """The selected parameters for which `unfit` gives no reason.

        The others are noted as skipped with the reason.
        """
        return self._noted(self.selection(graph, where, unfit))

    def _noted(self, found: Selection) -> tuple[Parameter, ...]:
        self.notes.skipped.update(found.skipped)
        if self.only is not None and not found.chosen:
            raise NothingHere("nothing to do in this part of the model")
        return found.chosen

    def need_some(self, graph: Graph, where: Where, unfit: Callable[[Parameter], str | None], owner: str) -> None:
        """Check before work starts that a selection holds something that fits.

        Raises:
            ConfigError: nothing does; with the reasons.
        """
        found = self.selection(graph, where, unfit)
        if not found.chosen:
            reasons = "; ".join(dict.fromkeys(found.skipped.values()))
            raise ConfigError(f"{owner}: nothing to do for where={where!r}: {reasons}")

    def skip(self, parameter: Parameter | str, reason: str) -> None:
        """Note that a parameter is left alone, and why."""
        self.notes.skipped[parameter if isinstance(parameter, str) else parameter.path] = reason

    def remark(self, line: str) -> None:
        """Add a line to the pass's part of the report."""
        self.notes.remarks.append(line)

    def ask(self, question: Question[Answer], graph: Graph, once: bool = False) -> Answer:
        """The answer to a question about `graph`, kept until a value or a grid of activations changes.

        Args:
            question: what is asked.
            graph: what it is asked about.
            once: whether it is asked once in a run, so that a large answer need not be held through the run.
        """

        def find() -> Answer:
            return question.answer(graph, self)

        if self.drift and getattr(question, "holds_while_near", False):
            return self.near.get(question, graph, self.drift, find)
        return self.answers.get(question, graph, find, once)

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Graph:
        """Train under every encoding in force; the new snapshot. Parameters outside the scope are not trained."""
        if self.scope:
            inside = frozenset(parameter.path for parameter in self.select(graph))
            training = replace(training, only=inside if training.only is None else inside & training.only)
        training = replace(training, every_step=self.every_step, settled=self.settled)
        steps = self.watch.steps(self.path)
        if self.watch.is_active:
            training = replace(training, on_step=steps)
        trained = self.session.train(graph, training, steer)
        if steps.interrupted:
            raise Cancelled
        for parameter in graph:
            if graph.values.same(trained.graph.values, parameter.path):
                reason = "what its encoding holds did not change" if parameter.trainable else "not trainable"
                self.notes.skipped.setdefault(parameter.path, reason)
        for path, reason in trained.refused.items():
            self.skip(path, reason)
        self.notes.history.update(trained.history)
        self.notes.remarks += trained.remarks
        if not trained.history:
            self.remark("nothing was trained: no parameter is trainable")
        return trained.graph

    def need_data(self, owner: str) -> Any:
        """The training data.

        Raises:
            ConfigError: there is none.
        """
        if self.data is None:
            raise NoDataError(f"{owner} needs data: give `data=` to run()")
        return self.data

    def within(self, where: Where) -> Context:
        """The context inside a further selector."""
        return replace(self, scope=(*self.scope, where))

    def confined(self, paths: Collection[str]) -> Context:
        """The context in a part of the model, in which there may be nothing to do."""
        return replace(self, only=frozenset(paths) if self.only is None else self.only & frozenset(paths))

    @contextmanager
    def inside(self, place: str) -> Iterator[Context]:
        """The context of a pass within this one; what is raised under it says where it was raised.

        An error of the library keeps its class and gets a `pass_path`, any other a note (`add_note`).

        Args:
            place: the name of the pass, with its place where it is one of several: `"passes[1] Prune"`.
        """
        inner = replace(self, path=(*self.path, place))
        try:
            yield inner
        except BitwidthError as error:
            error.pass_path = error.pass_path or inner.path
            raise
        except Exception as error:
            if not any(note.startswith(_RAISED_IN) for note in getattr(error, "__notes__", ())):
                error.add_note(f"{_RAISED_IN} {' > '.join(inner.path)}")
            raise

    def fresh_notes(self) -> Context:
        """The context with an empty page of notes."""
        return replace(self, notes=Notes())


def check_count(value: object, owner: str, field: str) -> None:
    """Raise ConfigError unless `value` is an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise ConfigError(f"{owner}: {field} must be an integer of at least 1, got {value!r}")


def check_choice(value: object, allowed: Iterable[object], owner: str, field: str) -> None:
    """Raise ConfigError unless `value` is one of `allowed`, which are texts, None, True and False."""
    allowed = tuple(allowed)
    if any(value is item or (isinstance(value, str) and value == item) for item in allowed):
        return
    shown = " or ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in allowed)
    raise ConfigError(f"{owner}: {field} must be {shown}, got {value!r}")
