"""Which units of a group are missed least: a ranking by each criterion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import Fisher
from bitwidth.context import Context
from bitwidth.fitting import Moments
from bitwidth.fitting.removal import Consumer, remove
from bitwidth.graph import Graph
from bitwidth.graph.labels import Group, Member
from bitwidth.passes.rounding import moments_of
from bitwidth.typing import Array

Criterion = Literal["magnitude", "activation", "fisher", "reconstruction"]
_MOST_INPUTS = 1 << 12  # of a consumer whose covariance is inverted; a wider one is judged by its diagonal


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of one group, those that are missed least first.

    Attributes:
        order: units; all, or as many as are to go.
        costs: what each costs in that order, as a share of what the group's consumers put out, or of all scores.
    """

    order: NDArray[np.intp]
    costs: NDArray[np.float64]


def rankings(
    graph: Graph,
    context: Context,
    groups: Sequence[Group],
    criterion: Criterion,
    samples: int,
    gone: Mapping[str, int] | None,
) -> dict[str, Ranking]:
    """Rank the units of groups.

    Args:
        graph: the model.
        context: with data, for all criteria but `"magnitude"`.
        groups: the groups.
        criterion: `"magnitude"`: the norm of the weights that make a unit; `"activation"`: the power that its input
            contributes to what reads it, E[x^2] |w|^2; `"fisher"`: the sum of w^2 F over all its weights;
            `"reconstruction"`: see `bitwidth.fitting.removal`.
        samples: how many are looked at.
        gone: how many units of each group will go, by name; None where that is not known.
    """
    if criterion == "magnitude":
        return {group.name: _by_score(_norms(graph, group)) for group in groups}
    if criterion == "fisher":
        curvature = context.ask(Fisher(samples), graph)
        return {group.name: _by_score(_losses(graph, group, curvature)) for group in groups}
    read = {member.path for group in groups for member in group.consumers}
    moments = dict[str, tuple[Moments, ...]]()
    for parameter, found in moments_of(graph, context, tuple(p for p in graph if p.path in read), samples):
        moments[parameter.path] = found
    made = {}
    for group in groups:
        consumers = list(_consumers(graph, group, moments))
        if not consumers:
            context.remark(f"{group.name}: nothing that reads it can be watched; its units are ranked by magnitude")
            made[group.name] = _by_score(_norms(graph, group))
        elif criterion == "activation" or any(len(one.units) > _MOST_INPUTS for one in consumers):
            made[group.name] = _by_score(_powers(group, consumers))
        else:
            count = group.size - 1 if gone is None else gone[group.name]
            found_ = remove(consumers, group.size, count, swaps=gone is not None)
            made[group.name] = Ranking(np.array(found_.order, np.intp), np.array(found_.costs))
    return made


def _by_score(scores: NDArray[np.float64]) -> Ranking:
    order = np.argsort(scores, kind="stable")
    return Ranking(order, scores[order] / max(float(scores.sum()), 1e-300))


def _per_unit(group: Group, member: Member, values: Array) -> NDArray[np.float64]:
    """The sum over each unit's part of an array of the member's shape."""
    others = tuple(axis for axis in range(values.ndim) if axis != member.axis)
    sums = values.sum(axis=others, dtype=np.float64)
    held = member.units >= 0
    return np.asarray(np.bincount(member.units[held], weights=sums[held], minlength=group.size), np.float64)


def _norms(graph: Graph, group: Group) -> NDArray[np.float64]:
    members = group.producers or group.members
    total = np.zeros(group.size)
    for member in members:
        squares = _per_unit(group, member, np.square(graph.values[member.path].astype(np.float64)))
        total += squares / max(float(squares.mean()), 1e-300)
    return total


def _losses(graph: Graph, group: Group, curvature: Mapping[str, Array]) -> NDArray[np.float64]:
    total = np.zeros(group.size)
    for member in group.members:
        if member.path in curvature:
            weights = graph.values[member.path].astype(np.float64)
            total += _per_unit(group, member, np.square(weights) * curvature[member.path])
    return total


def _powers(group: Group, consumers: Sequence[Consumer]) -> NDArray[np.float64]:
    total = np.zeros(group.size)
    for one in consumers:
        power = np.diagonal(one.covariance) * np.square(one.matrix).sum(axis=1)
        held = one.units >= 0
        total += np.bincount(one.units[held], weights=power[held], minlength=group.size) / max(
            float(power.sum()), 1e-300
        )
    return total


def _consumers(graph: Graph, group: Group, moments: Mapping[str, tuple[Moments, ...]]) -> Iterator[Consumer]:
    """The linear maps that read the units of a group."""
    for member in group.consumers:
        path, shape = member.path, graph[member.path].shape
        units = np.broadcast_to(member.along(member.units, len(shape)), shape)
        for part in moments.get(path, ()):
            matrices = part.arrangement.take(graph.values[path].astype(np.float64))
            of_inputs = part.arrangement.take(np.ascontiguousarray(units))[:, :, 0]
            for gram, mean, matrix, own in zip(part.gram, part.mean, matrices, of_inputs, strict=True):
                if len(own) > 1 and (own >= 0).any():
                    mean_ = mean.astype(np.float64)
                    yield Consumer(gram.astype(np.float64) - np.outer(mean_, mean_), matrix, own)
