"""Passes made of passes: `Where`, `Repeat`, `Ramp`. Each is a pass itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bitwidth.backend import Objective, Steer
from bitwidth.context import Context, check_count
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, check_where, frozen_where
from bitwidth.graph import Where as Selector
from bitwidth.passes.base import Pass, TrainingPass, check_kept

_DRIFT = 0.02  # of the norm of the weights: while a ramp runs, a Fisher holds that long (at 0.05 it cost accuracy)


@dataclass(frozen=True)
class Where(Pass, name="where"):
    """Run a pass on part of the model only; a training pass trains only that part.

    Attributes:
        of: the pass.
        where: the parameters, by path or layer.

    Example:
        >>> from bitwidth import Quantize
        >>> Where(Quantize(bits=8), "conv*").where
        'conv*'
    """

    of: Pass
    where: Selector

    def __post_init__(self) -> None:
        check_pass(self.of, "Where", "of")
        check_where(self.where, "Where")
        object.__setattr__(self, "where", frozen_where(self.where))

    def objective(self) -> Objective | None:
        """That of the pass inside."""
        return self.of.objective()

    def check(self, graph: Graph, context: Context) -> None:
        """The selection names something, and the pass can work on it."""
        self.of.check(graph, context.within(self.where))

    def requires(self, graph: Graph, context: Context) -> None:
        """What the pass inside requires."""
        self.of.requires(graph, context.within(self.where))

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass inside."""
        return self.of.apply(graph, context.within(self.where))

    def preview(self, graph: Graph, context: Context) -> Graph:
        """Preview the pass inside."""
        return self.of.preview(graph, context.within(self.where))

    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """The pass inside kept its promise, and nothing outside the selection has changed."""
        self.of.ensures(before, after, context.within(self.where))
        inside = {parameter.path for parameter in before.select(self.where)}
        for parameter in after:
            path = parameter.path
            if path not in inside and parameter.is_float and parameter.trainable:
                same = (
                    before.values.value(path) is after.values.value(path)
                    or (before.values[path] == after.values[path]).all()
                )
                if not same or before.parameters[path].encoding is not parameter.encoding:
                    raise ContractError(
                        f"{self.label}: {self.of.label} changed {path}, which {self.where!r} leaves out; "
                        "a pass chooses parameters with `context.select(graph, where)`"
                    )

    def at(self, strength: float) -> Where:
        """The pass inside at that strength."""
        return Where(self.of.at(strength), self.where)

    @property
    def label(self) -> str:
        """The pass inside, and where."""
        return f"Where({self.of.label}, {self.where!r})"


@dataclass(frozen=True)
class Repeat(Pass, name="repeat"):
    """Run a pass several times, each time on what the time before has made.

    Attributes:
        of: the pass, often a `PassManager`.
        times: how often, at least 1.

    Example:
        >>> from bitwidth import Finetune
        >>> Repeat(Finetune(epochs=1, loss="mse"), times=3).times
        3
    """

    of: Pass
    times: int

    def __post_init__(self) -> None:
        check_pass(self.of, "Repeat", "of")
        check_count(self.times, "Repeat", "times")

    def objective(self) -> Objective | None:
        """That of the pass inside."""
        return self.of.objective()

    def check(self, graph: Graph, context: Context) -> None:
        """The pass inside can work."""
        self.of.check(graph, context)

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass that many times, each between its checks."""
        for _ in range(self.times):
            graph, record = self.of(graph, context)
            context.notes.inner.append(record)
        return _with_skips(graph, context)

    def preview(self, graph: Graph, context: Context) -> Graph:
        """Preview the pass once."""
        return self.of.preview(graph, context)


@dataclass(frozen=True)
class Ramp(TrainingPass, name="ramp"):
    """Let a pass's strength grow from mild to full while another trains.

    The strength rises along `1 - (1 - t)^3` (Zhu and Gupta 2017, "To prune, or not to prune", section 3) or a straight
    line, reaches full at the fraction `end` of the training and stays there. Each step looks at the weights as training
    has left them, so what was masked may come back while the ramp runs; promises of passes before the ramp hold
    throughout, and after it nothing comes back.

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

    of: Pass
    during: TrainingPass
    steps: int = 12
    end: float = 0.75
    shape: Literal["cubic", "linear"] = "cubic"

    def __post_init__(self) -> None:
        check_pass(self.of, "Ramp", "of")
        if not isinstance(self.during, TrainingPass):
            raise ConfigError(f"Ramp: during must be a training pass such as Finetune, got {self.during!r}")
        if isinstance(self.during, Ramp):
            raise ConfigError("Ramp: a ramp cannot run during another ramp")
        check_count(self.steps, "Ramp", "steps")
        if not 0 < self.end <= 1:
            raise ConfigError(f"Ramp: end must be above 0 and at most 1, got {self.end!r}")
        if self.shape not in ("cubic", "linear"):
            raise ConfigError(f'Ramp: shape must be "cubic" or "linear", got {self.shape!r}')
        self.of.at(1.0)

    def strength(self, fraction: float) -> float:
        """The strength at a fraction of the training, both from 0 to 1; in `steps` equal steps of time."""
        time = min(1.0, fraction / self.end)
        time = int(time * self.steps + 1e-9) / self.steps
        return time if self.shape == "linear" else 1 - (1 - time) ** 3

    def objective(self) -> Objective | None:
        """That of the training."""
        return self.during.objective()

    def check(self, graph: Graph, context: Context) -> None:
        """Both passes can work."""
        self.of.check(graph, context)
        self.during.check(graph, context)

    def train(self, graph: Graph, context: Context, steer: Steer | None) -> Graph:
        """Train, with the strength growing; then once more at full strength, so that its promise holds."""
        last = self.strength(0.0)
        quiet = replace(context.fresh_notes(), validation=None, drift=_DRIFT)
        started = self.of.at(last).apply(graph, quiet)
        check_kept(graph, started, self.label)

        def grow(fraction: float, masters: Graph) -> Graph:
            nonlocal last, started
            strength = self.strength(fraction)
            if strength != last:
                last = strength
                before = graph.update(dict(masters.values))
                started = self.of.at(strength).apply(before, quiet)
                check_kept(graph, started, self.label)
            return started

        trained = self.during.train(started, replace(context, settles=self.end), grow)
        if last != 1.0:
            context.remark(f"training ended at strength {last:.2f}: full strength was applied at its end, untrained")
            trained = self.of.apply(trained, context)
        self.of.ensures(graph, trained, context.fresh_notes())
        return trained

    def preview(self, graph: Graph, context: Context) -> Graph:
        """The pass at full strength."""
        return self.of.preview(graph, context)

    @property
    def label(self) -> str:
        """Both passes."""
        return f"Ramp({self.of.label}, {self.during.label})"


def check_pass(value: object, owner: str, field: str) -> None:
    """Raise ConfigError unless `value` is a pass."""
    if isinstance(value, type) and issubclass(value, Pass):
        raise ConfigError(f"{owner}: {field} is the class {value.__name__}; give a pass: {value.__name__}(...)")
    if not isinstance(value, Pass):
        raise ConfigError(f"{owner}: {field} must be a pass, got {value!r}")


def _with_skips(graph: Graph, context: Context) -> Graph:
    for record in context.notes.inner:
        for path, reason in record.skipped.items():
            context.skip(path, reason)
    return graph
