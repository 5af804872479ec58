"""Pruning in rounds: weights go where others can make up for them, and those that stay are fitted to their inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwidth.context import Context
from bitwidth.encodings import masked
from bitwidth.fitting import Moments
from bitwidth.fitting.compensation import power_left, refit
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.choosing import Choosing, Masks
from bitwidth.passes.criteria import Losses, by_inputs, living
from bitwidth.passes.ranking import Mask, Scores
from bitwidth.passes.rounding import fed_back, moments_of, used_parts

_ROUNDS = 8
_BETWEEN, _AT_LAST = 12, 40  # steps of conjugate gradients in a round, and in the last one, at most
Array = NDArray[np.float32]


def compensated(graph: Graph, context: Context, chosen: tuple[Parameter, ...], rule: Choosing, samples: int) -> Graph:
    """`graph` with weights pruned by what their removal costs, and the weights that stay made up for it.

    The share that each parameter loses is chosen first, by the cost of each weight alone. Then each is pruned in
    rounds, along a cubic: the weights that cost least at present go, and all that stay of an output are fitted to what
    the output was. A parameter on a grid ends on it, rounded with its errors fed back.

    Args:
        graph: the model.
        context: of the run.
        chosen: the parameters.
        rule: how many weights go, and which may.
        samples: how many samples are looked at, at most.
    """
    losses = by_inputs(graph, context, chosen, samples, curved=True)
    masks = rule.masks(chosen, losses)
    values, encodings = {}, {p.path: masked(p.encoding, masks[p.path], rule.pattern_name) for p in chosen}
    for parameter, moments in moments_of(graph, context, chosen, samples):
        path = parameter.path
        if path not in losses.known:
            continue
        kept, found = _in_rounds(graph, parameter, moments, rule, masks)
        encodings[path] = masked(parameter.encoding, kept, rule.pattern_name)
        if parameter.encoding.grid is None:
            values[path] = encodings[path].project(found)
        else:
            values[path] = fed_back(found, encodings[path], moments)
    fitted = f"the weights that stay of {len(values)} tensors fitted to"
    context.remark(f"{fitted} the inputs of at most {samples:,} samples")
    return graph.update(values, encodings)


def _in_rounds(
    graph: Graph, parameter: Parameter, moments: tuple[Moments, ...], rule: Choosing, masks: Masks
) -> tuple[Mask, Array]:
    """The mask of one parameter, with as many zeros as that of `masks`, and the weights that stay, fitted."""
    path, given = parameter.path, graph.values[parameter.path]
    parts = used_parts(moments)
    power = np.ones(given.shape)
    for part in parts:
        found = power_left(part.gram, part.rows)[:, :, None]
        part.arrangement.put(power, np.broadcast_to(found, part.arrangement.matrix))
    before = np.ones(given.shape, np.bool_) if parameter.encoding.mask is None else parameter.encoding.mask
    start, end = 1 - before.mean(), 1 - (masks[path] & before).mean()
    kept, values = before, given.copy()
    for number in range(1, _ROUNDS + 1):
        last = number == _ROUNDS
        share = end if last else start + (end - start) * (1 - (1 - number / _ROUNDS) ** 3)
        kept = kept & _mask(parameter, np.square(values, dtype=np.float64) * power, kept, rule, share)
        for part in parts:
            _fit(values, given, kept, part, _AT_LAST if last else _BETWEEN)
    return kept, np.where(kept, values, np.float32(0))


def _mask(parameter: Parameter, costs: Scores, kept: Mask, rule: Choosing, sparsity: float) -> Mask:
    """The mask of one parameter at a sparsity of its own."""
    losses = Losses({parameter.path: living(kept, costs)})
    return replace(rule, sparsity=sparsity).masks((parameter,), losses)[parameter.path]


def _fit(values: Array, given: Array, kept: Mask, part: Moments, steps: int) -> None:
    """Fit what is kept of a part of a parameter, in place."""
    take = part.arrangement.take
    held = refit(take(given), take(kept), part.gram, take(values), part.rows, steps=steps)
    part.arrangement.put(values, held)
