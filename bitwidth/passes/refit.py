"""Refit: what reads removed units is solved again for the units that are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bitwidth.context import Context
from bitwidth.encodings import Dense, Quantized
from bitwidth.fitting.compensation import conjugate
from bitwidth.graph import Graph, Parameter, Refused, Wiring
from bitwidth.graph.labels import Removal
from bitwidth.graph.neighbours import Target, target
from bitwidth.graph.wiring import is_free
from bitwidth.passes.rounding import fed_back
from bitwidth.probes import Paired, PairedMomentsProbe
from bitwidth.typing import Array

_DAMPING = 0.02  # of the mean of a covariance's diagonal: how much the old weights count
_ROUNDS = 24  # runs of the data at most: of more consumers, those that follow each other are solved together
_STEPS = 60  # of conjugate gradients, where a mask leaves weights out


def refitted(graph: Graph, context: Context, removal: Removal, samples: int) -> dict[str, Array]:
    """New values for what reads removed units, and for the biases behind it, of the model as it is before the cut.

    Each consumer's weights are the least-squares solution for what the model gave: inputs are those that the model
    without the units really has, with the consumers before it solved already; no labels are needed. Masks stay. On a
    grid, the solution is rounded with feedback.

    Args:
        graph: the model with all its units.
        context: with data.
        removal: the units that go.
        samples: how many samples of the data are looked at; the first ones.

    Returns:
        By path. Reasons why a consumer is not among them are remarks.
    """
    order = {op.name: place for place, op in enumerate(graph.ops)}
    paths = [path for path in removal.consumed if graph[path].uses]
    paths.sort(key=lambda path: min(order[use.op] for use in graph[path].uses))
    wiring, done = Wiring(graph), dict[str, Array]()
    current = zeroed = removal.zeroed(graph)
    for together in _rounds([path for path in paths if _can(graph[path], context)]):
        teacher = {path: graph.values[path] for path in graph.parameters if not graph.same(current, path)}
        probe = PairedMomentsProbe(samples, tuple(together), teacher)
        for path, parts in context.session.probe(current, probe, context.need_data("Shrink")).items():
            if not parts:
                context.remark(f"{path}: not refitted, no operation that can be watched sums over its inputs")
                continue
            done |= _solved(graph, done, wiring, graph[path], parts, removal.alive(path, graph[path].shape))
        current = zeroed.update(done)
    return done


def _rounds(paths: list[str]) -> Iterator[list[str]]:
    size = -(-len(paths) // _ROUNDS) or 1
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _can(parameter: Parameter, context: Context) -> bool:
    held = parameter.encoding.unmasked
    if is_free(parameter) or isinstance(held, Quantized):
        return True
    shown = parameter.dtype if isinstance(held, Dense) and held.format is None else parameter.encoding.describe()
    context.remark(f"{parameter.path}: not refitted, it is held as {shown}")
    return False


def _solved(
    graph: Graph,
    done: Mapping[str, Array],
    wiring: Wiring,
    parameter: Parameter,
    parts: tuple[Paired, ...],
    alive: NDArray[np.bool_],
) -> dict[str, Array]:
    """The new values of one consumer, and of the bias behind it where there is one."""
    path = parameter.path
    old = graph.values[path].astype(np.float64)
    new = np.where(alive, old, 0.0)
    place = _bias(wiring, parameter, parts)
    for part in parts:
        arrangement = part.moments.arrangement
        matrices = arrangement.take(new).copy()
        weights, living = arrangement.take(old), arrangement.take(alive)[:, :, 0]
        mask = None if parameter.encoding.mask is None else arrangement.take(parameter.encoding.mask)
        for group in range(len(matrices)):
            held = None if mask is None else mask[group]
            matrices[group] = _least_squares(part, group, weights[group], living[group], held, place is not None)
        arrangement.put(new, matrices)
    values = new.astype(np.float32)
    if not is_free(parameter):
        values = fed_back(values, parameter.encoding, tuple(part.moments for part in parts))
    found: dict[str, Array] = {path: values}
    if place is not None:
        part = parts[0]
        arrangement = part.moments.arrangement
        shift = np.einsum("gi,gio->go", part.mean.astype(np.float64), arrangement.take(old))
        shift -= np.einsum(
            "gi,gio->go", part.moments.mean.astype(np.float64), arrangement.take(values.astype(np.float64))
        )
        bias = place.parameter.path
        total = np.zeros(place.parameter.shape)
        place.add(total, shift.reshape(-1))
        found[bias] = (done.get(bias, graph.values[bias]) + total).astype(np.float32)
    return found


def _bias(wiring: Wiring, parameter: Parameter, parts: tuple[Paired, ...]) -> Target | None:
    """Where a shift of a consumer's output can go."""
    if len(parts) != 1 or parts[0].moments.arrangement.index is not None or len(parameter.uses) != 1:
        return None
    groups, _, outputs = parts[0].moments.arrangement.matrix
    try:
        found = target(wiring, parameter.uses[0].op, groups * outputs)
    except Refused:
        return None
    return found if is_free(found.parameter) else None


def _least_squares(
    part: Paired,
    group: int,
    weights: NDArray[np.float64],
    alive: NDArray[np.bool_],
    mask: NDArray[np.bool_] | None,
    centred: bool,
) -> NDArray[np.float64]:
    """The weights (inputs, outputs) for the inputs that are alive that make the old output best."""
    gram, cross = part.moments.gram[group].astype(np.float64), part.cross[group].astype(np.float64)
    if centred:
        mean = part.moments.mean[group].astype(np.float64)
        gram = gram - np.outer(mean, mean)
        cross = cross - np.outer(mean, part.mean[group].astype(np.float64))
    rows = np.flatnonzero(alive)
    inner = gram[np.ix_(rows, rows)]
    damping = _DAMPING * max(float(np.trace(inner)) / max(len(rows), 1), 1e-12)
    inner[np.diag_indices_from(inner)] += damping
    right = cross[rows] @ weights + damping * weights[rows]
    out = np.zeros_like(weights)
    best = np.linalg.solve(inner, right)
    out[rows] = best if mask is None else conjugate(inner, best, mask[rows], weights[rows], _STEPS, enough=0.0)
    return out
