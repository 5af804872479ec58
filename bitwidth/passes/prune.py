"""`Prune`: set the least important weights to zero, for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.analysis import Fisher
from bitwidth.analysis.unknown import filled, unknown, without
from bitwidth.context import Context, check_choice
from bitwidth.encodings import masked
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, Parameter, Where, check_where, frozen_where
from bitwidth.passes.base import Pass
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.ranking import GONE, Mask, Scores, alike, guard, keep_most_important, lamp, output_channels
from bitwidth.passes.roles import is_matrix
from bitwidth.typing import is_number

_LITTLE = 0.2  # of what an even share of the sparsity would leave
Curvature = Mapping[str, NDArray[np.float64]]


@keywords_from(1)
@dataclass(frozen=True)
class Prune(Pass, name="prune"):
    """Mask the weights of least importance. What is masked stays zero in every later pass.

    Attributes:
        sparsity: share of the chosen weights to be zero, 0 up to but not including 1; weights that are masked already
            count.
        scope: `"global"` ranks all chosen weights together, so that layers with little to lose lose more; `"local"`
            takes the same share of every tensor.
        criterion: `"magnitude"` is |w|, and with `scope="global"` its layer-adaptive form, which can be compared
            between layers (Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv
            2010.07611, section 3); `"fisher"` is w^2 times the mean squared gradient of the log-likelihood, the
            second-order loss increase under a diagonal Fisher (Theis et al. 2018, "Faster gaze prediction with dense
            networks and Fisher pruning", section 2), which unlike the magnitude also sees weights of inputs that are
            always zero; `bw.Fisher(...)` sets how it is measured. A tensor at which no gradient arrives is pruned by
            magnitude, to the same share as the others, and a remark says so.
        where: the parameters, by path or layer; None for all kernels and embeddings.
        floor: what every tensor keeps, as a share of what `scope="local"` would leave it; where it is above 0, each
            output channel of the kernels in front of the model's outputs keeps a weight too. The total is `sparsity`
            all the same: other tensors lose more. At least one weight of a tensor always stays.

    Raises:
        ConfigError: a field is out of its range; the floors leave no room for the sparsity.

    Example:
        >>> Prune(0.9).at(0.5).sparsity
        0.45
    """

    sparsity: float
    _: KW_ONLY
    scope: Literal["global", "local"] = "global"
    criterion: Literal["magnitude", "fisher"] | Fisher = "magnitude"
    where: Where = None
    floor: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (("sparsity", "0 up to 1"), ("floor", "0 to 1")):
            value = getattr(self, name)
            if not is_number(value):
                raise ConfigError(f"Prune: {name} must be a number from {least}, got {value!r}")
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"Prune: sparsity must be at least 0 and below 1, got {self.sparsity}")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"Prune: floor must be from 0 to 1, got {self.floor}")
        check_choice(self.scope, ("global", "local"), "Prune", "scope")
        named = isinstance(self.criterion, str) and self.criterion in ("magnitude", "fisher")
        if not named and not isinstance(self.criterion, Fisher):
            raise ConfigError(f'Prune: criterion must be "magnitude", "fisher" or Fisher(...), got {self.criterion!r}')
        check_where(self.where, "Prune")
        object.__setattr__(self, "where", frozen_where(self.where))

    @property
    def fisher(self) -> Fisher | None:
        """The question that the criterion asks, or None for magnitude."""
        if isinstance(self.criterion, Fisher):
            return self.criterion
        return Fisher() if self.criterion == "fisher" else None

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There is something to prune, the floors leave room for it, and data where the criterion needs it."""
        context.need_some(graph, self.where, _unfit, "Prune")
        chosen = context.selection(graph, self.where, _unfit).chosen
        self._check_room(graph, chosen)
        if self.fisher is not None:
            self.fisher.check(graph, context)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Mask the weights of least importance."""
        fisher = self.fisher if self.sparsity else None  # at a ramp's start nothing goes, by whatever criterion
        curvature = None if fisher is None else context.ask(fisher, graph)
        if curvature is not None and fisher is not None:
            context.remark(f"Fisher over at most {fisher.samples:,} samples, {fisher.describe(graph)}")
        return self._pruned(graph, context, curvature)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Magnitude in place of Fisher: as many weights, but others."""
        self._check_room(graph, context.selection(graph, self.where, _unfit).chosen)
        if self.fisher is not None:
            context.remark("planned by magnitude: as many weights, but a run by Fisher takes others, of other layers")
        return self._pruned(graph, context, None)

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """The masks hide at least the share that was asked for, up to one weight per tensor."""
        chosen = context.selection(after, self.where, _unfit).chosen
        total = sum(parameter.size for parameter in chosen)
        masks = [parameter.encoding.mask for parameter in chosen]
        hidden = sum(mask.size - int(mask.sum()) for mask in masks if mask is not None)
        if hidden < int(self.sparsity * total) - len(chosen):
            raise ContractError(f"Prune({self.sparsity}) masked {hidden:,} of {total:,} weights")

    @override
    def at(self, strength: float) -> Prune:
        """A share of the sparsity."""
        return replace(self, sparsity=self.sparsity * strength)

    def _pruned(self, graph: Graph, context: Context, curvature: Curvature | None) -> Graph:
        chosen = context.choose(graph, self.where, _unfit)
        scores = self._scores(graph, context, chosen, curvature)
        encodings = {}
        for group in self._groups(chosen):
            guards = self._guards(graph, group, scores)
            keeps = keep_most_important([scores[p.path] for p in group], self.sparsity, guards)
            for parameter, keep in zip(group, keeps, strict=True):
                encodings[parameter.path] = masked(parameter.encoding, keep)
                self._say_little(context, parameter, keep)
        return graph.update(encodings=encodings)

    def _groups(self, chosen: tuple[Parameter, ...]) -> list[tuple[Parameter, ...]]:
        """The parameters whose weights compete."""
        return [chosen] if self.scope == "global" else [(parameter,) for parameter in chosen]

    def _scores(
        self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], curvature: Curvature | None
    ) -> dict[str, Scores]:
        """How important each weight is, by path: of what can be compared within a group."""
        magnitudes = {p.path: _living(p, np.abs(graph.values[p.path].astype(np.float64))) for p in chosen}
        if curvature is None:
            return magnitudes if self.scope == "local" else {path: lamp(score) for path, score in magnitudes.items()}
        silent = unknown(graph, curvature, chosen)
        for path, words in without(graph, curvature, chosen).items():
            context.remark(f"{path}: {words}; {'pruned by magnitude' if silent[path].all() else 'taken as the mean'}")
        scores, blind = {}, []
        for parameter in chosen:
            path = parameter.path
            where = silent.get(path)
            if where is not None and where.all():
                blind.append(path)
                continue
            known = curvature[path] if where is None else filled(curvature[path], where)
            scores[path] = _living(parameter, magnitudes[path] ** 2 * known)
        if not scores:
            return {path: lamp(score) for path, score in magnitudes.items()}
        others = list(scores.values())
        return scores | {path: alike(magnitudes[path], others) for path in blind}

    def _guards(self, graph: Graph, group: tuple[Parameter, ...], scores: Mapping[str, Scores]) -> list[Mask]:
        """Which weights stay in any case: the floor of each tensor, and one in each channel that the model outputs."""
        if self.scope == "local" or not self.floor:
            return [guard(scores[p.path], 1) for p in group]
        channels = output_channels(graph)
        share = self.floor * (1 - self.sparsity)
        least = {p.path: max(1, ceil(share * p.size - 1e-9)) for p in group}
        return [guard(scores[p.path], least[p.path], channels.get(p.path, ())) for p in group]

    def _check_room(self, graph: Graph, chosen: tuple[Parameter, ...]) -> None:
        """Refuse a sparsity that the floors forbid."""
        if self.scope == "local" or not self.floor:
            return
        scores = {p.path: _living(p, np.abs(graph.values[p.path].astype(np.float64))) for p in chosen}
        kept = sum(int(guarded.sum()) for guarded in self._guards(graph, chosen, scores))
        total = sum(parameter.size for parameter in chosen)
        if int(self.sparsity * total) > total - kept:
            names = chosen[0].path if len(chosen) == 1 else f"{len(chosen)} tensors"
            raise ConfigError(
                f"Prune: sparsity={self.sparsity:g} is too much for the {total:,} weights of {names}; {kept:,} of them "
                f"stay in any case: give sparsity={_rounded_down(1 - kept / total):g} at most, or a lower floor"
            )

    def _say_little(self, context: Context, parameter: Parameter, keep: Mask) -> None:
        left = int(keep.sum())
        if not keep.all() and left <= ceil(_LITTLE * (1 - self.sparsity) * keep.size):
            context.remark(f"{parameter.path}: nearly emptied, {left:,} of {keep.size:,} weights stay")


def _rounded_down(share: float) -> float:
    return int(share * 1e4) / 1e4


def _living(parameter: Parameter, scores: Scores) -> Scores:
    mask = parameter.encoding.mask
    return scores if mask is None else np.where(mask, scores, GONE)


def _unfit(parameter: Parameter) -> str | None:
    if not is_matrix(parameter):
        return f"{parameter.role}: only kernels and embeddings are pruned"
    if parameter.dtype != "float32":
        return f"{parameter.dtype}: only float32 values are pruned"
    return None if parameter.size else "it has no values"
