"""Landing: the last bytes that a file is too long by, taken off where they cost the outputs least."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from bitwidth.context import Context
from bitwidth.fitting import Moments, plain_matrix
from bitwidth.fitting.rounding import DAMPING, EntropyPrice
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.filesize import Sizes
from bitwidth.passes.rounding import fed_back, moments_of
from bitwidth.typing import Array

SAMPLES = 2048
_LEAST, _MOST = 1e-4, 1e6  # prices between which one is looked for, see `EntropyPrice.weight`
_NEAR = 0.995  # of the size: near enough
_TRIES = 14
_HELD = 1 << 29  # bytes of input moments that are held together


def landed(graph: Graph, context: Context, paths: frozenset[str], size: int, sizes: Sizes) -> Graph:
    """The graph with codes moved towards zero, as few and as cheap as make the file at most so long.

    Codes are chosen again for the least sum of error and code length, at a price found by bisection, with errors fed
    back by the covariance of the inputs (`bitwidth.fitting.rounding`). At a price of 0 all codes stay.

    Args:
        graph: the model, on its grids.
        context: with data.
        paths: parameters on uniform grids.
        size: bytes of the file.
        sizes: measures files.
    """
    before = sizes.of(graph).total
    if before <= size:
        return graph
    chosen = tuple(parameter for parameter in graph if parameter.path in paths)
    moments = _moments(graph, context, chosen)
    found = graph.update({path: np.zeros(graph[path].shape, np.float32) for path in paths})
    low, high = _LEAST, _MOST
    for _ in range(_TRIES):
        price = float(np.sqrt(low * high))
        tried = graph.update(_rounded(graph, chosen, moments, price))
        total = sizes.of(tried).total
        if total > size:
            low = price
            continue
        found, high = tried, price
        if total >= _NEAR * size:
            break
    codes = sum(int(np.count_nonzero(found.values[path] != graph.values[path])) for path in paths)
    context.remark(f"{codes:,} codes were rounded again for their length, from a file of {before:,} bytes")
    return found


def _moments(graph: Graph, context: Context, chosen: tuple[Parameter, ...]) -> dict[str, tuple[Moments, ...]]:
    """The input moments of each parameter, as far as they can be seen and are not too large to be held together."""
    found: dict[str, tuple[Moments, ...]] = {parameter.path: (_alike(parameter),) for parameter in chosen}
    held, watched = 0, []
    for parameter in sorted(chosen, key=lambda parameter: _gram_bytes(parameter)):
        held += _gram_bytes(parameter)
        if held <= _HELD:
            watched.append(parameter)
    found |= {p.path: parts for p, parts in moments_of(graph, context, tuple(watched), SAMPLES) if parts}
    return found


def _gram_bytes(parameter: Parameter) -> int:
    return 4 * prod(parameter.shape[axis] for axis in parameter.input_axes) ** 2


def _rounded(
    graph: Graph, chosen: tuple[Parameter, ...], moments: Mapping[str, tuple[Moments, ...]], price: float
) -> dict[str, Array]:
    held = {}
    for parameter in chosen:
        path = parameter.path
        held[path] = fed_back(graph.values[path], parameter.encoding, moments[path], DAMPING, EntropyPrice(price))
    return held


def _alike(parameter: Parameter) -> Moments:
    """Moments that know nothing: all inputs alike, so that no error is fed back."""
    shape = parameter.shape
    arrangement = plain_matrix((prod(shape[:1]), prod(shape[1:])), (0, 1))
    return Moments(arrangement, np.ones((1, 1, 1), np.float32), np.zeros((1, 1), np.float32), 1, "")
