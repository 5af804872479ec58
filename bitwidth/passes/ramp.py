"""`Ramp`: a pass whose strength grows while another one trains."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal, Self

from typing_extensions import override

from bitwidth.backend import Progress, Steer
from bitwidth.context import Context, Notes, NothingHere, check_choice, check_count
from bitwidth.errors import ConfigError
from bitwidth.events import Watch
from bitwidth.graph import Graph, moved
from bitwidth.passes.base import Pass, TrainingPass, check_kept
from bitwidth.passes.compose import Where
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.stages import alike, frozen_apart, kept
from bitwidth.passes.wrapping import Wrapping

_LOG = logging.getLogger(__name__)
_DRIFT = 0.02  # of the norm of the weights: while a ramp runs, a Fisher holds that long (at 0.05 it cost accuracy)


@keywords_from(2)
@dataclass(frozen=True)
class Ramp(Wrapping, TrainingPass, name="ramp"):
    """Let a pass's strength grow from mild to full while another trains.

    The strength rises along `1 - (1 - t)^3` (Zhu and Gupta 2017, "To prune, or not to prune", section 3) or a straight
    line, reaches full at the fraction `end` of the training and stays there. Each step looks at the weights as training
    has left them, so what was masked may come back while the ramp runs; promises of passes before the ramp hold
    throughout, and after it nothing comes back.

    What does not train (frozen layers, the statistics of normalisations) is constrained at once, as far as the pass
    would constrain it by itself; strength grows over the rest. A strength that is milder than what an earlier pass
    promised leaves that unchanged. Values that the pass moves itself, beyond putting them into an encoding, are what
    training goes on from, and full strength is applied once more when the training has ended.

    `Ramp(Where(p, w), during)` is `Where(Ramp(p, during), w)`: only that part trains. `EarlyStopping` counts from the
    first epoch at full strength on. Where another callback ends the training by putting back weights from before that,
    those of the last step are kept, and a remark says so.

    Attributes:
        of: the pass whose strength grows; it defines `at(strength)`.
        during: the training pass.
        steps: how often the strength changes, at least 1.
        end: fraction of the training at which full strength is reached, above 0 and at most 1.
        shape: `"cubic"` or `"linear"`.

    Example:
        >>> from bitwidth import Finetune, Prune
        >>> ramp = Ramp(Prune(0.9), during=Finetune(epochs=4, loss="mse"))
        >>> [round(ramp.strength(t), 2) for t in (0.0, 0.2, 0.8)]
        [0.0, 0.58, 1.0]
    """

    during: TrainingPass
    _: KW_ONLY
    steps: int = 12
    end: float = 0.75
    shape: Literal["cubic", "linear"] = "cubic"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.during, TrainingPass):
            raise ConfigError(f"Ramp: during must be a training pass such as Finetune, got {self.during!r}")
        if isinstance(self.during, Ramp):
            raise ConfigError("Ramp: a ramp cannot run during another ramp")
        check_count(self.steps, "Ramp", "steps")
        if isinstance(self.end, bool) or not isinstance(self.end, int | float) or not 0 < self.end <= 1:
            raise ConfigError(f"Ramp: end must be a number above 0 and at most 1, got {self.end!r}")
        check_choice(self.shape, ("cubic", "linear"), "Ramp", "shape")
        self.of.at(1.0)

    def strength(self, fraction: float) -> float:
        """The strength at a fraction of the training, both from 0 to 1; in `steps` equal steps of time."""
        time = min(1.0, fraction / self.end)
        time = int(time * self.steps + 1e-9) / self.steps
        return time if self.shape == "linear" else 1 - (1 - time) ** 3

    @property
    @override
    def parts(self) -> tuple[Pass, ...]:
        return (self.of, self.during)

    @override
    def around(self, context: Context) -> Context:
        """The context within the selectors that stand around the pass inside: training keeps to them too."""
        item = self.of
        while isinstance(item, Where):
            context, item = context.within(item.where), item.of
        return replace(context, settled=self.end)

    @override
    def at(self, strength: float) -> Self:
        raise ConfigError("Ramp cannot be ramped: put both passes into one ramp, Ramp(PassManager([...]), during=...)")

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """Both passes can work, and the mildest strength constrains what full strength does."""
        super().check(graph, replace(context, origin=graph))
        self._check_stages(graph, context)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        return self.train(graph, context, None)

    @override
    def train(self, graph: Graph, context: Context, steer: Steer | None) -> Graph:
        """Train, with the strength growing; then once more at full strength where its promise would not hold."""
        ramped = frozen_apart(graph, self.around(context))
        page = Notes()
        context = replace(context, origin=graph)
        held = self._rest_at_once(graph, ramped, context, page)
        context.notes.take(Notes(remarks=list(page.remarks)))
        start = self._stage(0.0, held, ramped, context, page)
        reached, moves = 0.0, bool(moved(held, start))

        def grow(progress: Progress, masters: Graph) -> Graph:
            nonlocal reached, moves
            reached = progress.fraction
            if self.strength(progress.fraction) == self.strength(progress.before):
                return masters
            before = held.update(dict(masters.values))
            after = self._stage(progress.fraction, before, ramped, context, page)
            self._tell(progress.fraction, context)
            moves = moves or bool(moved(before, after))
            return after

        self._tell(0.0, context)
        with self.part(1, context) as (during, inner):
            assert isinstance(during, TrainingPass)
            trained = during.train(start, inner, grow)
        context.watch.strength = None
        if self.strength(reached) != 1.0:
            last = self.strength(reached)
            context.remark(f"training ended at strength {last:.2f}: full strength was applied at its end, untrained")
        if moves or self.strength(reached) != 1.0:
            trained = self._stage(1.0, trained, ramped, context, page)
        context.notes.take(Notes(remarks=page.remarks))
        return trained

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """The pass at full strength."""
        after = super().preview(graph, context)
        with self.part(1, context) as (during, inner):
            during.preview(after, replace(inner, notes=Notes(foreseen=context.notes.foreseen)))
        return after

    @property
    @override
    def label(self) -> str:
        return f"Ramp({self.of.label}, {self.during.label})"

    @contextmanager
    def _quiet(self, context: Context, page: Notes) -> Iterator[Context]:
        with self.part(0, replace(context, validation=None, notes=page, watch=Watch(), drift=_DRIFT)) as (_, inner):
            yield inner

    def _stage(self, fraction: float, before: Graph, ramped: frozenset[str], context: Context, page: Notes) -> Graph:
        """The graph under the strength that belongs to a fraction of the training; a function of both."""
        strength = self.strength(fraction)
        page.clear()
        with self._quiet(context, page) as inner:
            try:
                after = self.of.at(strength).apply(before, inner.confined(ramped))
            except NothingHere:
                return before
            return kept(before, after, strength, self.label)

    def _tell(self, fraction: float, context: Context) -> None:
        context.watch.strength = self.strength(fraction)
        _LOG.debug("%s: strength %.3f", self.label, context.watch.strength)
        context.watch.emit("strength", (*context.path, self.place(0)))

    def _rest_at_once(self, graph: Graph, ramped: frozenset[str], context: Context, page: Notes) -> Graph:
        """`graph` with what does not train under full strength."""
        rest = frozenset(graph.parameters) - ramped
        with self._quiet(context, page) as inner:
            try:
                after = self.of.apply(graph, inner.confined(rest))
            except NothingHere:
                return graph
            check_kept(graph, after, self.label)
        changed = [path for path in rest if not graph.same(after, path) and graph[path].trainable is False]
        if changed:
            context.remark(f"not trainable, so at full strength from the start: {', '.join(sorted(changed))}")
        return after

    def _check_stages(self, graph: Graph, context: Context) -> None:
        """Check, by previews, that training can go from the mildest strength to full.

        Raises:
            ConfigError: what is constrained at full strength is not, or otherwise, at the mildest.
        """
        ramped = frozen_apart(graph, self.around(context))
        quiet = replace(context, planned=True)
        stages = []
        for strength in (self.strength(0.0), 1.0):
            with self._quiet(quiet, Notes()) as inner:
                try:
                    after = self.of.at(strength).preview(graph, inner.confined(ramped))
                except NothingHere:
                    return
                stages.append(kept(graph, after, strength, self.label))
        alike(graph, stages[0], stages[1], ramped, self.of.label)
