"""Criteria: what is lost with each weight, for `Prune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from bitwidth.analysis import Fisher
from bitwidth.analysis.unknown import filled, unknown, without
from bitwidth.context import Context
from bitwidth.errors import ConfigError
from bitwidth.fitting import Moments
from bitwidth.fitting.compensation import removal_costs
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.ranking import GONE, Mask, Scores
from bitwidth.passes.rounding import moments_of, used_parts

Parameters = tuple[Parameter, ...]
Function: TypeAlias = Callable[[Parameter, Graph, Context], object]
BY_MAGNITUDE = "pruned by magnitude, to the same share as others"


@dataclass(frozen=True, eq=False)
class Losses:
    """What is lost with each weight.

    Attributes:
        squares: the square of each weight, by path; float64 of the parameter's shape, `GONE` where it is masked.
        known: what the criterion says instead, likewise, for the parameters of which it can say anything.
        comparable: whether what it says can be compared between parameters.
    """

    squares: Mapping[str, Scores]
    known: Mapping[str, Scores] = field(default_factory=dict)
    comparable: bool = False


def by_magnitude(graph: Graph, chosen: Parameters) -> Losses:
    """The square of each weight, and nothing else."""
    squares = {p.path: living(p.encoding.mask, np.square(graph.values[p.path].astype(np.float64))) for p in chosen}
    return Losses(squares)


def by_fisher(graph: Graph, context: Context, chosen: Parameters, fisher: Fisher) -> Losses:
    """The square of each weight times the mean squared gradient of the log-likelihood."""
    curvature = context.ask(fisher, graph)
    context.remark(f"Fisher over at most {fisher.samples:,} samples, {fisher.describe(graph)}")
    silent = unknown(graph, curvature, chosen)
    for path, words in without(graph, curvature, chosen).items():
        context.remark(f"{path}: {words}; {'pruned by magnitude' if silent[path].all() else 'taken as the mean'}")
    losses, known = by_magnitude(graph, chosen), {}
    for parameter in chosen:
        path = parameter.path
        where = silent.get(path)
        if where is None or not where.all():
            held = curvature[path] if where is None else filled(curvature[path], where)
            known[path] = living(parameter.encoding.mask, np.maximum(losses.squares[path], 0.0) * held)
    return Losses(losses.squares, known, comparable=True)


def by_inputs(graph: Graph, context: Context, chosen: Parameters, samples: int, curved: bool = False) -> Losses:
    """The square of each weight times the mean square of its input: the change of its output.

    Args:
        graph: the model.
        context: of the run.
        chosen: the parameters.
        samples: how many samples are looked at, at most.
        curved: whether the change counts that is left when the other weights of the output have made up for it.
    """
    losses, known = by_magnitude(graph, chosen), {}
    for parameter, moments in moments_of(graph, context, chosen, samples):
        path, values = parameter.path, graph.values[parameter.path]
        costs, seen = np.zeros(values.shape), np.zeros(values.shape, np.bool_)
        for part in used_parts(moments):
            weights = part.arrangement.take(values)
            if curved:
                found = removal_costs(weights, part.gram, part.rows)
            else:
                found = np.square(weights.astype(np.float64)) * np.einsum("gkk->gk", part.gram)[:, :, None]
            part.arrangement.put(costs, found)
            part.arrangement.put(seen, np.ones(found.shape, np.bool_))
        if seen.any():
            costs = np.where(seen, costs, np.square(values, dtype=np.float64) * _mean_power(moments))
            known[path] = living(parameter.encoding.mask, costs)
        else:
            context.remark(f"{path}: no operation that can be watched sums over its inputs; {BY_MAGNITUDE}")
    return Losses(losses.squares, known)


def by_movement(graph: Graph, context: Context, chosen: Parameters) -> Losses:
    """How far training has moved each weight away from zero; negative where it has moved it towards zero."""
    losses, known = by_magnitude(graph, chosen), {}
    for parameter in chosen:
        path = parameter.path
        start = (context.origin or graph).values.value(path).start
        moved = np.square(graph.values[path], dtype=np.float64) - np.square(start, dtype=np.float64)
        if moved.any():
            known[path] = living(parameter.encoding.mask, moved)
        else:
            context.remark(f"{path}: training has not moved it; {BY_MAGNITUDE}")
    return Losses(losses.squares, known, comparable=True)


def by_function(graph: Graph, context: Context, chosen: Parameters, function: Function) -> Losses:
    """What a function of the user says.

    Raises:
        ConfigError: it does not return finite numbers of the parameter's shape.
    """
    losses, known = by_magnitude(graph, chosen), {}
    for parameter in chosen:
        found = np.asarray(function(parameter, graph, context))
        name = getattr(function, "__qualname__", repr(function))
        if found.shape != parameter.shape or found.dtype.kind not in "fiub":
            raise ConfigError(
                f"Prune: criterion {name} must return numbers of shape {parameter.shape} for {parameter.path}, "
                f"got {found.dtype} of shape {found.shape}"
            )
        if not np.isfinite(found).all():
            raise ConfigError(f"Prune: criterion {name} returned values that are not finite for {parameter.path}")
        known[parameter.path] = living(parameter.encoding.mask, found.astype(np.float64))
    return Losses(losses.squares, known, comparable=True)


def living(mask: Mask | None, scores: Scores) -> Scores:
    """`scores`, but `GONE` where a weight is masked already."""
    return scores if mask is None else np.where(mask, scores, GONE)


def _mean_power(moments: Sequence[Moments]) -> float:
    """The mean square of what a parameter meets, over all its parts."""
    return float(np.mean([np.einsum("gkk->gk", part.gram).mean() for part in moments]))
