"""Factors of kernels at every rank, by what the kernels meet, and what an error of each layer costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import Fisher
from bitwidth.analysis.unknown import unknown
from bitwidth.context import Context
from bitwidth.fitting import Moments
from bitwidth.fitting.compensation import damped
from bitwidth.fitting.factors import LowRank, decompose, separate
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.forms import Candidate, Form
from bitwidth.passes.ranks import Option
from bitwidth.passes.rounding import moments_of

Reals = NDArray[np.float64]
_GRADIENTS = 256  # samples whose gradients are looked at, at most


def options_of(
    graph: Graph, context: Context, found: Sequence[Candidate], samples: int | None, weighed: bool
) -> list[Option]:
    """The factors of each candidate at every rank.

    Args:
        graph: the model.
        context: of the pass.
        found: the candidates.
        samples: how many samples of the data are looked at; None for no data, and factors of the kernels by themselves.
        weighed: whether errors of several layers are to be compared. With data, they are weighed by what they cost: the
            Fisher information of the kernel says how strongly the output of the model depends on that of the layer.
    """
    if samples is None:
        return [Option(candidate, _ways(graph, candidate, None)) for candidate in found]
    by_path = {candidate.kernel.path: candidate for candidate in found}
    kernels = tuple(candidate.kernel for candidate in found)
    fisher = context.ask(Fisher(min(samples, _GRADIENTS)), graph) if weighed else {}
    silent = unknown(graph, fisher, kernels) if weighed else {}
    options: dict[str, Option] = {}
    for kernel, moments in moments_of(graph, context, kernels, samples):
        gram = _gram(kernel, moments)
        if gram is None:
            context.remark(f"{kernel.path}: factorized without data, its inputs cannot be watched")
        known = weighed and gram is not None and kernel.path not in silent
        weight = _weight(graph, kernel, gram, fisher[kernel.path]) if known and gram is not None else None
        options[kernel.path] = Option(by_path[kernel.path], _ways(graph, by_path[kernel.path], gram), weight)
    return [options[kernel.path] for kernel in kernels]


def _weight(graph: Graph, kernel: Parameter, gram: Reals, fisher: NDArray[np.float64]) -> float:
    """What an error costs that is as great as the output of a layer.

    The Fisher information of a weight is the mean square of its input times that of the gradient at its output (Martens
    and Grosse 2015, "Optimizing neural networks with Kronecker-factored approximate curvature", section 2), so that the
    gradient is known from both; times the power of the output it is the loss at an error of that power.
    """
    gradient = float(fisher.sum()) / max(float(np.trace(gram)) * kernel.size / len(gram), 1e-300)
    use = kernel.uses[0]
    axes = (*sorted(use.input_axes), *sorted(use.channel_axes))
    matrix = graph.values[kernel.path].astype(np.float64).transpose(axes).reshape(len(gram), -1)
    return gradient * float(np.einsum("io,io->", matrix, gram @ matrix))


def _ways(graph: Graph, candidate: Candidate, gram: Reals | None) -> tuple[LowRank, ...]:
    return tuple(_way(graph, candidate, form, gram) for form in candidate.forms)


def _gram(kernel: Parameter, moments: tuple[Moments, ...]) -> Reals | None:
    """Mean of x xT over what a kernel meets, its input axes in the kernel's order; None where that is not known."""
    if len(moments) != 1:
        return None
    (part,) = moments
    use = kernel.uses[0]
    order = np.arange(kernel.size).reshape(kernel.shape)
    wanted = order.transpose(*sorted(use.input_axes), *sorted(use.channel_axes))
    found = part.arrangement.take(order)
    if len(found) != 1 or not np.array_equal(found[0], wanted.reshape(found.shape[1:])):
        return None
    return damped(part.gram[0], part.rows).astype(np.float64)


def _way(graph: Graph, candidate: Candidate, form: Form, gram: Reals | None) -> LowRank:
    kernel = graph.values[candidate.kernel.path].astype(np.float64)
    if candidate.first is not None:
        return _between(graph, candidate, kernel, gram)
    if form.separates:
        return separate(kernel, gram, candidate.most(form) or 1)
    first, second = form.axes
    return decompose(kernel.transpose(*first, *second).reshape(form.values), gram)


def _between(graph: Graph, candidate: Candidate, kernel: Reals, gram: Reals | None) -> LowRank:
    """A pair: the second kernel as few rows, by the outputs of the first one."""
    assert candidate.first is not None
    axis, rank = bond(candidate), candidate.forms[0].full
    matrix = np.moveaxis(kernel, axis, 0).reshape(rank, -1)
    if gram is None:
        first = graph.values[candidate.first.path].astype(np.float64).reshape(-1, rank)
        return decompose(matrix, first.T @ first)
    inputs = sorted(candidate.kernel.uses[0].input_axes)
    before = int(np.prod([kernel.shape[other] for other in inputs if other < axis]))
    behind = int(np.prod([kernel.shape[other] for other in inputs if other > axis]))
    held = gram.reshape(before, rank, behind, before, rank, behind)
    return decompose(matrix, np.einsum("arbasb->rs", held) / (before * behind))


def bond(candidate: Candidate) -> int:
    """The axis of the second kernel of a pair that meets the first one."""
    assert candidate.group is not None
    (member,) = candidate.group.consumers
    return member.axis
