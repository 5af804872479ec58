"""`Prune`: set the least important weights to zero, for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import Fisher
from bitwidth.context import Context
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, Parameter, Where, check_where, frozen_where
from bitwidth.passes.base import Pass
from bitwidth.passes.roles import is_matrix
from bitwidth.tensors import masked


@dataclass(frozen=True)
class Prune(Pass, name="prune"):
    """Mask the weights of least importance. What is masked stays zero in every later pass.

    Attributes:
        sparsity: share of the chosen weights to be zero, 0 up to but not including 1; weights that are masked already
            count.
        scope: `"global"` ranks all chosen weights together, so that layers with little to lose lose more; `"local"`
            takes the same share of every tensor. At least one weight of a tensor always stays.
        criterion: `"magnitude"` is |w|; `"fisher"` is w^2 times the mean squared gradient of the log-likelihood, the
            second-order loss increase under a diagonal Fisher (Theis et al. 2018, "Faster gaze prediction with dense
            networks and Fisher pruning", section 2), which unlike the magnitude also sees weights of inputs that are
            always zero; `bw.Fisher(...)` sets how it is measured.
        where: the parameters, by path or layer; None for all kernels and embeddings.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> Prune(0.9).at(0.5).sparsity
        0.45
    """

    sparsity: float
    scope: Literal["global", "local"] = "global"
    criterion: Literal["magnitude", "fisher"] | Fisher = "magnitude"
    where: Where = None

    def __post_init__(self) -> None:
        if isinstance(self.sparsity, bool) or not isinstance(self.sparsity, int | float):
            raise ConfigError(f"Prune: sparsity must be a number from 0 up to 1, got {self.sparsity!r}")
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"Prune: sparsity must be at least 0 and below 1, got {self.sparsity}")
        if self.scope not in ("global", "local"):
            raise ConfigError(f'Prune: scope must be "global" or "local", got {self.scope!r}')
        if self.criterion not in ("magnitude", "fisher") and not isinstance(self.criterion, Fisher):
            raise ConfigError(f'Prune: criterion must be "magnitude", "fisher" or Fisher(...), got {self.criterion!r}')
        check_where(self.where, "Prune")
        object.__setattr__(self, "where", frozen_where(self.where))

    @property
    def fisher(self) -> Fisher | None:
        """The question that the criterion asks, or None for magnitude."""
        if isinstance(self.criterion, Fisher):
            return self.criterion
        return Fisher() if self.criterion == "fisher" else None

    def check(self, graph: Graph, context: Context) -> None:
        """There is something to prune, and data where the criterion needs it."""
        context.need_some(graph, self.where, _unfit, "Prune")
        if self.fisher is not None:
            self.fisher.check(graph, context)

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Mask the weights of least importance."""
        fisher = self.fisher
        curvature = None if fisher is None else context.ask(fisher, graph)
        if curvature is not None and fisher is not None:
            context.remark(f"Fisher over {fisher.samples:,} samples, {fisher.describe(graph)}")
        return self._pruned(graph, context, curvature)

    def preview(self, graph: Graph, context: Context) -> Graph:
        """Magnitude in place of Fisher: as many weights, but others."""
        if self.fisher is not None:
            context.remark("planned by magnitude: as many weights, but a run by Fisher takes others, of other layers")
        return self._pruned(graph, context, None)

    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """The masks hide at least the share that was asked for, up to one weight per tensor."""
        chosen = context.selection(after, self.where, _unfit).chosen
        total = sum(parameter.size for parameter in chosen)
        masks = [parameter.encoding.mask for parameter in chosen]
        hidden = sum(mask.size - int(mask.sum()) for mask in masks if mask is not None)
        if hidden < int(self.sparsity * total) - len(chosen):
            raise ContractError(f"Prune({self.sparsity}) masked {hidden:,} of {total:,} weights")

    def at(self, strength: float) -> Prune:
        """A share of the sparsity."""
        return replace(self, sparsity=self.sparsity * strength)

    def _pruned(self, graph: Graph, context: Context, curvature: Mapping[str, NDArray[Any]] | None) -> Graph:
        chosen = context.choose(graph, self.where, _unfit)
        scores = {p.path: importance(graph.values[p.path], p, curvature) for p in chosen}
        groups = [chosen] if self.scope == "global" else [(parameter,) for parameter in chosen]
        encodings = {}
        for group in groups:
            keeps = keep_most_important([scores[p.path] for p in group], self.sparsity)
            for parameter, keep in zip(group, keeps, strict=True):
                encodings[parameter.path] = masked(parameter.encoding, keep)
        return graph.update(encodings=encodings)


def importance(
    values: NDArray[Any], parameter: Parameter, curvature: Mapping[str, NDArray[Any]] | None
) -> NDArray[np.float64]:
    """Score of each weight, the shape of `values`; -1 where it is masked already, so that it stays so."""
    weights = values.astype(np.float64)
    score = np.abs(weights) if curvature is None else weights**2 * curvature[parameter.path]
    mask = parameter.encoding.mask
    return score if mask is None else np.where(mask, score, -1.0)


def keep_most_important(scores: list[NDArray[np.float64]], sparsity: float) -> list[NDArray[np.bool_]]:
    """Masks that drop the share `sparsity` of all scores together.

    The least go first, and of equals the earlier; one of each tensor stays.

    Example:
        >>> keep_most_important([np.array([3.0, 1.0]), np.array([2.0, 0.5])], 0.5)
        [array([ True, False]), array([ True, False])]
    """
    flat = np.concatenate([score.ravel() for score in scores])
    keep = np.ones(flat.size, np.bool_)
    keep[np.argsort(flat, kind="stable")[: round(sparsity * flat.size)]] = False
    ends = np.cumsum([score.size for score in scores])[:-1]
    masks = [part.reshape(score.shape) for part, score in zip(np.split(keep, ends), scores, strict=True)]
    for mask, score in zip(masks, scores, strict=True):
        if mask.size and not mask.any():
            mask.flat[int(score.argmax())] = True
    return masks


def _unfit(parameter: Parameter) -> str | None:
    if not is_matrix(parameter):
        return f"{parameter.role}: only kernels and embeddings are pruned"
    if parameter.dtype != "float32":
        return f"{parameter.dtype}: only float32 values are pruned"
    return None if parameter.size else "it has no values"
