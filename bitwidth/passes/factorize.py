"""`Factorize`: layers as two with little between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Self

import numpy as np
from typing_extensions import override

from bitwidth.analysis import InputMoments
from bitwidth.analysis.cost import Cost, cost_of
from bitwidth.context import Context, check_choice, check_count
from bitwidth.errors import ConfigError, ContractError, ModelError
from bitwidth.graph import Chain, Chains, Graph, Stage, Where, check_where, frozen_where, with_chains
from bitwidth.graph.labels import Removal, couple
from bitwidth.passes.base import Pass, check_finite
from bitwidth.passes.forms import Candidates, why_held
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.lowrank import bond, options_of
from bitwidth.passes.ranks import Choice, Rank
from bitwidth.typing import Array


@keywords_from(1)
@dataclass(frozen=True)
class Factorize(Pass, name="factorize"):
    """Make two layers of one, with few units between them, where that saves both bytes and multiply-accumulates.

    A kernel W becomes a product A B of low rank: a Dense or EinsumDense layer two of its kind, a convolution one to few
    channels and one of a single position, or one along the height of its windows and one along their width, whichever
    errs less for what it costs. The first is new, called like the layer with `_factor` behind, and has no bias and no
    activation; the second is the layer itself, with those that it has. The result is a plain model. It is built and has
    to compute what the model computes with A B for W, or nothing is changed and the report has the reason.

    With data, A and B are the best ones for the inputs that the layer has (no labels are needed): they make E |x W -
    x A B|^2 least (see `bitwidth.fitting.factors`). Without, they are the singular value decomposition of W.

    Factors that a run before has made are one kernel still: a further pass lowers the rank between them. Kernels that
    are pruned or quantized are left alone, so this pass comes first.

    Attributes:
        keep: share of each kernel's full rank that stays, a float in (0, 1]: `max(1, floor(keep * full))`. Exactly one
            of `keep`, `rank`, `error`, `macs` and `parameters` is given. A square matrix is smaller below a half only.
        rank: the rank of each kernel.
        error: the most that the output of each layer may be off, as a share of it, both as norms over the data; each
            has the least rank that keeps to it.
        macs: share of the model's multiply-accumulates that stays, spread over the layers by what the rank of each
            costs and saves. With data, what an error costs goes by the Fisher information of the kernel (no labels are
            needed either).
        parameters: the same for parameters.
        where: parameters; kernels among them are factorized.
        separate: whether convolutions may become two along one axis of their windows each. With `keep` and `rank`, that
            is one of no greater cost.
        samples: how many samples of the data are looked at; the first ones.

    Raises:
        ConfigError: none or several of the widths, or one that is out of its range.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> stack = [keras.Input((64,)), keras.layers.Dense(48, "relu", name="hidden"), keras.layers.Dense(4)]
        >>> small = bw.PassManager([Factorize(rank=8)]).run(keras.Sequential(stack)).model
        >>> [(layer.name, layer.units) for layer in small.layers][:2]
        [('hidden_factor', 8), ('hidden', 48)]
    """

    cuts = True

    keep: float | None = None
    _: KW_ONLY
    rank: int | None = None
    error: float | None = None
    macs: float | None = None
    parameters: float | None = None
    where: Where = None
    separate: bool = True
    samples: int = 1024

    def __post_init__(self) -> None:
        self._rank.check(self.label)
        check_count(self.samples, self.label, "samples")
        check_choice(self.separate, (True, False), self.label, "separate")
        check_where(self.where, self.label)
        object.__setattr__(self, "where", frozen_where(self.where))

    @property
    def _rank(self) -> Rank:
        return Rank(self.keep, self.rank, self.error, self.macs, self.parameters)

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """A kernel can be factorized, and the budget can be kept."""
        found, cost = self._looked_at(graph, context)
        context.need_some(graph, self.where, found.unfit, self.label)
        if self._rank.is_budget:
            self._rank.check_room(found.of(context.selection(graph, self.where, found.unfit).chosen), cost, self.label)
        if context.data is not None:
            InputMoments(self.samples).check(graph, context)

    @override
    def requires(self, graph: Graph, context: Context) -> None:
        """The passes before have left a kernel that is neither pruned nor quantized."""
        kernels = [item for item in context.selection(graph, self.where).chosen if item.role == "kernel"]
        if kernels and all(why_held(item) for item in kernels):
            raise ContractError(f"{self.label}: every kernel is {why_held(kernels[0])}")

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Find factors, choose ranks, and go on with the model that has them."""
        choices, cost = self._chosen(graph, context)
        if not choices:
            context.remark("nothing factorized")
            return graph
        done: list[Choice] = []
        after = self._split(graph, context, [choice for choice in choices if choice.candidate.first is None], done)
        after = self._lowered(after, context, [choice for choice in choices if choice.candidate.first], done)
        self._say(context, [choice for choice in choices if choice in done], cost, cost_of(after))
        return after

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """The layers and ranks that plain singular value decompositions give."""
        choices, cost = self._chosen(graph, context, planned=True)
        if not choices:
            context.remark("nothing factorized")
            return graph
        single = [choice for choice in choices if choice.candidate.first is None]
        after = with_chains(graph, Chains(tuple(_chains(graph, single))))
        lowered = [choice for choice in choices if choice.candidate.first is not None]
        if lowered:
            values, removal = _removal(after, lowered)
            after = removal.predicted(after.update(values))
        self._say(context, choices, cost, cost_of(after))
        return after

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """All values are finite; what is computed was compared as the model was built."""
        check_finite(after, self.label)

    @override
    def at(self, strength: float) -> Self:
        raise ConfigError(
            f"{self.label} cannot be ramped: layers that are replaced do not come back. Lower ranks step by step with "
            f"Repeat(PassManager([{self.label}(...), Finetune(...)]), times=...)"
        )

    def _looked_at(self, graph: Graph, context: Context) -> tuple[Candidates, Cost]:
        coupling = couple(graph)
        cost = cost_of(graph, coupling)
        fixed = self._rank if self.keep is not None or self.rank is not None else None
        return Candidates(graph, context, self.where, coupling, cost, self.separate, fixed), cost

    def _chosen(self, graph: Graph, context: Context, planned: bool = False) -> tuple[list[Choice], Cost]:
        """What becomes of each kernel that is factorized, and what the model costs; of the others, why not."""
        looked_at, cost = self._looked_at(graph, context)
        found = looked_at.of(context.choose(graph, self.where, looked_at.unfit))
        chosen: list[Choice] = []
        if not found:
            return chosen, cost
        given = None if planned else context.data
        if given is None:
            context.remark("planned without looking at data" if planned else "factorized without data: there are none")
        samples = None if given is None else self.samples
        options = options_of(graph, context, found, samples, weighed=self._rank.is_budget)
        for option, choice in zip(options, self._rank.choices(options, cost, self.label), strict=True):
            if isinstance(choice, Choice):
                chosen.append(choice)
            else:
                context.skip(option.candidate.kernel, choice)
        return chosen, cost

    def _split(self, graph: Graph, context: Context, choices: list[Choice], done: list[Choice]) -> Graph:
        """Put chains in the place of layers: all, or those that can be replaced by themselves."""
        chains = _chains(graph, choices)
        if not chains:
            return graph
        try:
            after = context.session.rebuild(graph, Chains(tuple(chains)))
        except ModelError as error:
            possible = []
            for choice, chain in zip(choices, chains, strict=True):
                try:
                    context.session.check_rebuild(graph, Chains((chain,)))
                except ModelError as reason:
                    context.skip(chain.kernel, str(reason))
                else:
                    possible.append((choice, chain))
            if not possible:
                raise ModelError(f"{self.label}: nothing could be factorized: {error}") from error
            choices, chains = [choice for choice, _ in possible], [chain for _, chain in possible]
            after = context.session.rebuild(graph, Chains(tuple(chains)))
        done += choices
        return after

    def _lowered(self, graph: Graph, context: Context, choices: list[Choice], done: list[Choice]) -> Graph:
        """Lower the rank between factors, one pair after the other."""
        for choice in choices:
            values, removal = _removal(graph, [choice])
            try:
                graph = context.session.rebuild(graph.update(values), removal)
            except ModelError as error:
                context.skip(choice.candidate.kernel, str(error))
            else:
                done.append(choice)
        return graph

    def _say(self, context: Context, choices: Sequence[Choice], before: Cost, after: Cost) -> None:
        """Remark on each layer and on the model."""
        for choice in choices:
            candidate, (parameters, macs) = choice.candidate, choice.form.costs(choice.rank)
            words = choice.form.words.format(rank=choice.rank)
            context.remark(
                f"{candidate.kernel.layer}: {words}; rank {choice.rank} of {choice.form.full}, error "
                f"{choice.error:.3g}, parameters {candidate.parameters:,} to {parameters:,}, bytes "
                f"{4 * candidate.parameters:,} to {4 * parameters:,}, MACs {candidate.macs:,} to {macs:,}"
            )
        for name, was, now in (
            ("parameters", before.parameters, after.parameters),
            ("bytes", before.bytes or 0, after.bytes or 0),
            ("MACs", before.macs, after.macs),
        ):
            context.remark(f"{name}: {was:,} to {now:,} ({now / max(was, 1):.1%})")


# ---- what a choice becomes


def _chains(graph: Graph, choices: Sequence[Choice]) -> list[Chain]:
    taken = set(graph.layers)
    chains = []
    for choice in choices:
        kernel = choice.candidate.kernel
        name = _name(f"{kernel.layer}_factor", taken)
        first, last = (factor.astype(np.float32) for factor in choice.way.factors(choice.rank))
        shapes = [[kernel.shape[axis] for axis in axes] for axes in choice.form.axes]
        if choice.form.separates:
            last = last.transpose(1, 0, 2)
        stages = (
            Stage(name, choice.form.axes[0], first.reshape(*shapes[0], choice.rank)),
            Stage(kernel.layer, choice.form.axes[1], last.reshape(choice.rank, *shapes[1])),
        )
        chains.append(Chain(kernel.path, stages, choice.candidate.windows))
    return chains


def _name(name: str, taken: set[str]) -> str:
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


def _removal(graph: Graph, choices: Sequence[Choice]) -> tuple[dict[str, Array], Removal]:
    """New kernels of pairs, with all that they have between them in the first units, and the removal of the others."""
    coupling = couple(graph)
    values: dict[str, Array] = {}
    kept = {}
    for choice in choices:
        candidate, rank = choice.candidate, choice.rank
        assert candidate.first is not None
        first, second = candidate.first, candidate.kernel
        axis, full = bond(candidate), choice.form.full
        turn, rest = choice.way.factors(rank)
        one = graph.values[first.path].astype(np.float64) @ turn
        other = rest.reshape(rank, *(size for place, size in enumerate(second.shape) if place != axis))
        empty = np.zeros(first.shape), np.zeros(second.shape)
        empty[0][..., :rank] = one
        np.moveaxis(empty[1], axis, 0)[:rank] = other
        values |= {first.path: empty[0].astype(np.float32), second.path: empty[1].astype(np.float32)}
        group = next(item for item in coupling.groups if {m.path for m in item.members} == {first.path, second.path})
        assert group.size == full
        kept[group.name] = range(rank)
    return values, Removal(coupling, kept, tuple(values))
