"""`PassManager`: a chain of passes, and itself a pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Self

from typing_extensions import override

from bitwidth.analysis import fidelity_to
from bitwidth.answers import Answers
from bitwidth.backend import Objective, Session
from bitwidth.context import Context
from bitwidth.errors import ConfigError, DataError
from bitwidth.events import Cancelled, Event, Watch
from bitwidth.graph import Graph
from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.recipe import from_data, to_data
from bitwidth.passes.wrapping import Composite, check_pass, walk
from bitwidth.progress import Bar, is_terminal
from bitwidth.reading import Opened, opened_session
from bitwidth.report import PassRecord, Report
from bitwidth.result import Result
from bitwidth.typing import Data, JsonDict, JsonMapping, Loss, Model, is_integer, is_number

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassManager(Composite, name="chain"):
    """Run passes one after another, each checked before and after.

    Attributes:
        passes: the passes, in order.

    Raises:
        ConfigError: something in the list is not a pass.

    Example:
        >>> from bitwidth import Prune, Quantize
        >>> manager = PassManager([Prune(sparsity=0.5), Quantize(bits=8)])
        >>> PassManager.from_recipe(manager.to_recipe()) == manager
        True
    """

    checks_parts: ClassVar[bool] = True
    passes: Sequence[Pass]

    def __post_init__(self) -> None:
        if isinstance(self.passes, Pass | str | bytes) or not isinstance(self.passes, Sequence):
            raise ConfigError(f"PassManager: give a list of passes, got {self.passes!r}")
        object.__setattr__(self, "passes", tuple(self.passes))
        for position, item in enumerate(self.passes):
            check_pass(item, "PassManager", f"passes[{position}]")

    def run(
        self,
        model: Model,
        data: Data = None,
        validation: Data = None,
        *,
        loss: Loss = None,
        metrics: Any = None,
        seed: int = 0,
        on_event: Callable[[Event], Any] | None = None,
        progress: bool | None = None,
        deadline: float | None = None,
    ) -> Result:
        """Compress a model. The model itself is not touched.

        Args:
            model: a built Keras 3 model, a `Result` of an earlier run, or a model from `bitwidth.load`; the last two
                keep what the passes before have promised. Or what `bitwidth.open` returned: runs on it share what was
                measured, and those from several threads wait for each other.
            data: training data as `model.fit` takes it: `(inputs, targets)`, `(inputs, targets, weights)`, a
                `tf.data.Dataset`, a `keras.utils.PyDataset`; or inputs alone, for passes that need no labels.
            validation: data of the same form, on which the model is measured after each pass.
            loss: for measuring; None for the compiled loss, else the first one that a pass brings.
            metrics: likewise, each by itself.
            seed: of everything random. Same seed, machine, versions and data: same bytes.
            on_event: called with a `bw.Event` at the start and the end of each pass, when a ramp changes its strength,
                and after each step of training. `event.cancel()` ends the run.
            progress: whether what takes more than a few seconds is drawn as Keras draws it; None: on a terminal only.
            deadline: seconds after which the run ends, at the next step of training or pass; above 0.

        Returns:
            The result. Where the run was cancelled or its deadline passed, `result.complete` is False: it is the model
            as the last pass left it that was finished and verified, and the report's first line says so.

        Raises:
            ModelError: the model is not built, holds values that are not finite, or is of a kind that cannot be
                compressed.
            ConfigError: a pass cannot work on this model, or has no data or loss; raised before work starts.
            DataError: the data is empty or not finite; raised before work starts.
            ContractError: a pass broke its own promise or an earlier one.
        """
        watch = _watch(on_event, progress, deadline)
        turn = model.turn if isinstance(model, Opened) else nullcontext()
        with turn:
            context, graph = self._open(model, data, validation, Objective(loss, None, metrics), seed)
            return self._run(graph, replace(context, watch=watch), turn)

    def _run(self, graph: Graph, context: Context, turn: AbstractContextManager[Any]) -> Result:
        """Run the passes; where the run is cancelled, the result is what the last verified pass left."""
        initial, (fidelity, unknown) = _measured(graph, context), _fidelity(graph, context)
        context = replace(context, fidelity=fidelity)
        after, watch = graph, context.watch
        with suppress(Cancelled):  # before the first pass was done
            after = self.apply(graph, context)
        stopped = f"{watch.reason} before {' > '.join(watch.cut)} was done" if watch.cut else ""
        if stopped:
            _LOG.warning("%s: not complete: %s", graph.name, stopped)
            watch.emit("cancelled", watch.cut)
        notes = (*_notes(context, initial), *unknown)
        report = Report(graph.name, tuple(context.notes.inner), initial, notes=notes, stopped=stopped)
        return Result(after, context.session, report, turn)

    def plan(self, model: Model, data: Data = None) -> Report:
        """A dry run: what each pass would touch and skip, and the sizes that would come out.

        Nothing is trained or measured.

        Args:
            model: as in `run`.
            data: an example of the inputs, only for a model that does not know them.
        """
        if isinstance(model, Opened):
            with model.turn:
                return self._planned(model.session, model.graph)
        return self._planned(*opened_session(model, data))

    def _planned(self, session: Session, graph: Graph) -> Report:
        records = self._foreseen(graph, Context(session, planned=True), range(len(self.passes)))
        return Report(graph.name, records, planned=True, notes=session.graph.structure.notes)

    @property
    @override
    def parts(self) -> tuple[Pass, ...]:
        return tuple(self.passes)

    @override
    def place(self, index: int) -> str:
        return f"passes[{index}] {type(self.passes[index]).__name__}"

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the passes, each between its checks, measuring after each where there is validation data."""
        for index in range(len(self.passes)):
            done = self.run_part(index, graph, context)
            if done is None:
                break
            graph = done
        context.notes.take_skips()
        return graph

    @override
    def measured(self, graph: Graph, context: Context) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return _measured(graph, context), context.fidelity(graph)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Preview the passes."""
        for index in range(len(self.passes)):
            with self.part(index, context) as (item, inner):
                graph, record = item(graph, inner, dry=True)
            context.notes.inner.append(record)
        context.notes.take_skips()
        return graph

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """Every pass can work.

        Where training would be lost, each is tried on what the passes before it would leave, as far as a preview tells.
        """
        ahead = 0
        if len(self.passes) > 1 and any(isinstance(item, TrainingPass) for item in walk(self)):
            ahead = next((i for i, item in enumerate(self.passes) if not _tells(item)), len(self.passes))
        self._foreseen(graph, context, range(ahead))

    def _foreseen(self, graph: Graph, context: Context, previewed: range) -> tuple[PassRecord, ...]:
        """Check each pass on the graph as far as it is known; the records of those that are previewed."""
        records = []
        for index in range(len(self.passes)):
            self.check_part(index, graph, context)
            if index in previewed:
                with self.part(index, replace(context, planned=True)) as (item, inner):
                    graph, record = item(graph, inner, dry=True)
                records.append(record)
        return tuple(records)

    @override
    def at(self, strength: float) -> Self:
        """Every pass at that strength."""
        return type(self)([item.at(strength) for item in self.passes])

    def to_recipe(self) -> JsonDict:
        """The chain as plain data, ready for `json.dumps`.

        Raises:
            ConfigError: a pass or function in it is not registered; the message names the field.
        """
        return to_data(self)

    @classmethod
    def from_recipe(cls, recipe: JsonMapping | str) -> PassManager:
        """The chain of a recipe: what `to_recipe` gave, or its JSON text.

        Only registered names are looked up; nothing is imported.

        Raises:
            ConfigError: the recipe is not valid, or names a pass or function that is not registered.
        """
        made = from_data(recipe)
        return made if isinstance(made, PassManager) else PassManager([made])

    def _open(
        self, model: Model, data: Data, validation: Data, objective: Objective, seed: int
    ) -> tuple[Context, Graph]:
        if not is_integer(seed) or seed < 0:
            raise ConfigError(f"seed must be an integer of at least 0, got {seed!r}")
        answers = Answers()
        if not isinstance(model, Opened):
            session, graph = opened_session(model, data if data is not None else validation)
        else:
            data = model.data if data is None else data
            if any(item.cuts for item in walk(self)):
                session, graph = model.apart()  # it goes on with another model
            else:
                session, graph, answers = model.session, model.graph, model.answers(data, seed)
        objective = session.resolve(objective, self.objective() or Objective())
        context = Context(session, data, validation, objective, seed, answers=answers)
        for given, name in ((data, "data"), (validation, "validation")):
            if given is not None:
                session.check_data(given, name)
        if validation is not None:
            session.check_measuring(objective, validation)
        self.check(graph, context)
        return context, graph


def _watch(on_event: Callable[[Event], Any] | None, progress: bool | None, deadline: float | None) -> Watch:
    if on_event is not None and not callable(on_event):
        raise ConfigError(f"on_event must be a function of an event, got {on_event!r}")
    if progress not in (None, True, False):
        raise ConfigError(f"progress must be True, False or None, got {progress!r}")
    if deadline is not None and not (is_number(deadline) and 0 < deadline < inf):
        raise ConfigError(f"deadline must be a number of seconds above 0, got {deadline!r}")
    drawn = is_terminal() if progress is None else progress
    return Watch(on_event, deadline, Bar() if drawn else None)


def _tells(item: Pass) -> bool:
    """Whether a preview of a pass tells what it does, without doing it."""
    leaves = [part for part in walk(item) if not isinstance(part, Composite)]
    return all(type(leaf).preview is not Pass.preview for leaf in leaves)


def _notes(context: Context, initial: Mapping[str, float]) -> tuple[str, ...]:
    notes = context.session.graph.structure.notes
    if context.validation is not None and not initial:
        notes = (*notes, "nothing was measured on the validation data: there is no loss, or it has no targets")
    return notes


def _fidelity(graph: Graph, context: Context) -> tuple[Callable[[Graph], Mapping[str, float]], tuple[str, ...]]:
    """What compares a graph with the one given, and what there is to say where nothing can be compared."""
    if context.data is None and context.validation is None:
        return context.fidelity, ()
    try:
        return fidelity_to(graph, context), ()
    except DataError as error:
        return context.fidelity, (f"the outputs are not compared with those of the model as given: {error}",)


def _measured(graph: Graph, context: Context) -> Mapping[str, float]:
    if context.validation is None or not context.session.can_measure(context.objective):
        return {}
    return context.session.measure(graph, context.objective, context.validation)
