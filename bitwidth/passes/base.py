"""`Pass`: graph in, new graph out, with its promises checked and a record of what it did."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from typing_extensions import override

from bitwidth.backend import Objective, Steer
from bitwidth.context import Context, NothingHere
from bitwidth.encodings import Encoding
from bitwidth.errors import ConfigError, ContractError, PromiseError
from bitwidth.graph import Graph, cut_between, tensors_between
from bitwidth.graph.wiring import is_free
from bitwidth.passes.registry import plain, register_pass
from bitwidth.passes.remarks import narrowed
from bitwidth.passes.roles import is_matrix
from bitwidth.report import PassRecord, compare
from bitwidth.typing import Array, JsonDict

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass(ABC):
    """A step of compression: a frozen dataclass whose fields are its whole configuration.

    Write `apply`, and choose parameters with `context.select`, so that `Where` works. Everything else has a default: a
    pass that only changes values through `graph.update` is recorded, checked against the promises of the passes before
    it, and written to recipes (where it has a `name`) without more code.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> import bitwidth as bw
        >>> @dataclass(frozen=True)
        ... class RoundBiases(bw.Pass, name="docs.round_biases"):
        ...     digits: int = 2
        ...
        ...     def apply(self, graph, context):
        ...         biases = [p.path for p in context.select(graph) if p.role == "bias"]
        ...         return graph.update({path: np.round(graph.values[path], self.digits) for path in biases})
        >>> bw.PassManager([RoundBiases(digits=1)]).to_recipe()["passes"]
        [{'pass': 'docs.round_biases', 'digits': 1}]
    """

    name: ClassVar[str] = ""
    checks_parts: ClassVar[bool] = False
    """Whether the pass only runs others as calls, each of which is checked against the promises before it."""

    @override
    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = ""
        if name:
            cls.name = name
            register_pass(name, cls)

    @abstractmethod
    def apply(self, graph: Graph, context: Context) -> Graph:
        """The new graph. `context.skip` says what is left alone and why."""

    def check(self, graph: Graph, context: Context) -> None:  # noqa: B027 - nothing to check by default
        """Raise, before any work of the run starts, if the pass cannot work on this model in this context."""

    def requires(self, graph: Graph, context: Context) -> None:  # noqa: B027 - nothing required by default
        """Raise ContractError if the graph that the passes before have made is not what this pass needs."""

    def ensures(self, before: Graph, after: Graph, context: Context) -> None:  # noqa: B027 - likewise
        """Raise ContractError if `after` is not what this pass promises."""

    def preview(self, graph: Graph, context: Context) -> Graph:
        """What `apply` would return, found without data and without training: for `PassManager.plan`."""
        return self.apply(graph, context)

    def at(self, strength: float) -> Self:
        """The pass at a strength from 0 (mildest) to 1 (full strength), for `Ramp`.

        Raises:
            ConfigError: this pass cannot be ramped.
        """
        raise ConfigError(f"{self.label} cannot be ramped: it defines no `at(strength)`")

    @property
    def label(self) -> str:
        """Name of the class, for reports and errors."""
        return type(self).__name__

    @property
    def config(self) -> JsonDict:
        """The fields as plain data; what has no plain form is given as its `repr`."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}

    cuts: ClassVar[bool] = False  # whether it goes on with another model: `Session.move`

    def objective(self) -> Objective | None:
        """Loss and metrics that this pass brings, by which the model can be measured; None if it brings none."""
        return None

    def __call__(self, graph: Graph, context: Context, *, dry: bool = False) -> tuple[Graph, PassRecord]:
        """Run the pass between its checks.

        Args:
            graph: the model as the passes before left it.
            context: what the pass may ask.
            dry: run `preview` instead of `apply`.

        Raises:
            ContractError: the pass did not do what it promised.
            PromiseError: it would undo what an earlier pass promised.
        """
        if "__dataclass_params__" not in vars(type(self)):
            raise ContractError(f"{self.label} is not a frozen dataclass: decorate it with @dataclass(frozen=True)")
        context = context.fresh_notes()
        self.requires(graph, context)
        started = time.perf_counter()
        if not dry:
            _LOG.debug("%s: started", " > ".join(context.path) or self.label)
            context.watch.emit("pass_started", context.path)
        try:
            after = (self.preview if dry else self.apply)(graph, context)
        except NothingHere:
            return graph, self._record(graph, graph, context, time.perf_counter() - started)
        seconds = time.perf_counter() - started
        if not isinstance(after, Graph):
            raise ContractError(f"{self.label}.apply must return a Graph, got {type(after).__name__}")
        if dry or not self.checks_parts:  # a preview runs none of them as a call
            check_promises(graph, after, self.label)
        if not context.notes.inner:  # else the pass inside has said it
            context.notes.remarks += [f"{path}: every weight became zero" for path in emptied(graph, after)]
            context.notes.remarks += narrowed(graph, after)
        if not dry:
            self.ensures(graph, after, context)
        record = self._record(graph, after, context, seconds)
        if not dry:
            _LOG.info("%s: done in %.1f seconds", " > ".join(context.path) or self.label, seconds)
            context.watch.emit("pass_done", context.path, sparsity=record.sparsity, bytes=record.bytes_after)
        return after, record

    def _record(self, before: Graph, after: Graph, context: Context, seconds: float) -> PassRecord:
        notes = context.notes
        return PassRecord(
            name=self.label,
            config=self.config,
            seconds=seconds,
            parameters=compare(before, after, notes.skipped, notes.foreseen),
            history=dict(notes.history),
            remarks=tuple(dict.fromkeys(notes.remarks)),  # a pass that tries several ways says the same each time
            inner=tuple(notes.inner),
            refitted=tuple(sorted(notes.refitted)),
        )


class TrainingPass(Pass):
    """A pass whose content is an objective: it trains the model under the encodings in force."""

    @abstractmethod
    def train(self, graph: Graph, context: Context, steer: Steer | None) -> Graph:
        """Train.

        `steer` is called periodically with the progress and changes the encodings (see `Session.train`).
        """

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Train without changing any encoding."""
        return self.train(graph, context, None)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Training changes values only, and only a run can tell how: the graph unchanged."""
        fixed = context.selection(graph, None, lambda parameter: None if parameter.trainable else "not trainable")
        context.notes.skipped.update(fixed.skipped)
        context.notes.foreseen.update(fixed.paths)
        context.remark(f"trains {len(fixed.chosen)} parameters")
        return graph


def check_finite(graph: Graph, owner: str) -> None:
    """Check that all values are finite.

    Raises:
        ContractError: naming the parameter whose values are not.
    """
    for parameter in graph:
        if parameter.is_float and not np.isfinite(graph.values[parameter.path]).all():
            raise ContractError(f"{owner} left values of {parameter.path} that are not finite")


def check_promises(before: Graph, after: Graph, owner: str) -> None:
    """Check that every promise about a parameter still holds, and that values are what their encodings can hold.

    Raises:
        PromiseError: a pruned value would come back, a code would need more bits, or a value lies off its grid.
    """
    check_kept(before, after, owner)
    for parameter in after:
        path, encoding = parameter.path, parameter.encoding
        same = path in before.parameters and before.same(after, path)
        if not parameter.is_float or same or after.values.value(path).is_on(encoding):
            continue
        off = off_grid(encoding, after.values[path])
        if off:
            raise PromiseError(
                f"{owner} leaves {off:,} values of {path} that its encoding ({encoding.describe()}) cannot hold; "
                "project them with `parameter.encoding.project`, or pass a new encoding to `graph.update`"
            )


def emptied(before: Graph, after: Graph) -> list[str]:
    """Paths of the kernels and embeddings that had values other than zero, and have none now."""
    return [
        parameter.path
        for parameter in after
        if is_matrix(parameter)
        and parameter.is_float
        and parameter.path in before.parameters
        and not before.same(after, parameter.path)
        and not after.values[parameter.path].any()
        and before.values[parameter.path].any()
    ]


def check_kept(before: Graph, after: Graph, owner: str) -> None:
    """Check that no encoding drops what the one before it promised.

    Raises:
        PromiseError: naming the parameter and what would be lost.
    """
    cut = cut_between(before, after)
    for parameter in after:
        if parameter.path in cut.made:
            origin = before[cut.made[parameter.path][0]]
            if not is_free(origin) or origin.encoding.mask is not None:
                words = origin.encoding.describe()
                raise PromiseError(f"{owner} would break a promise about {origin.path}: it would not stay {words}")
            continue
        if parameter.path not in before.parameters:
            raise PromiseError(f"{owner} added a parameter {parameter.path!r} that the model does not have")
        old = cut.encoding(parameter.path, before.parameters[parameter.path].encoding)
        reason = None if old is parameter.encoding else old.broken_by(parameter.encoding)
        if reason is not None:
            raise PromiseError(f"{owner} would break a promise about {parameter.path}: {reason}")
    if before.structure is after.structure:
        return
    held, names = after.activations, tensors_between(before.structure, after.structure)
    for name, encoding in before.activations.items():
        found = held.get(names.get(name, name))
        reason = "it would be held on no grid" if found is None else encoding.broken_by(found)
        if reason is not None:
            raise PromiseError(f"{owner} would break a promise about the tensor {name}: {reason}")


def off_grid(encoding: Encoding, values: Array) -> int:
    """How many values the encoding cannot represent."""
    return int(np.count_nonzero(encoding.project(values) != values))
