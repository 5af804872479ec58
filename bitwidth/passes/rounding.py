"""Round parameters onto their grids with what the data shows of their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import InputMoments
from bitwidth.context import Context
from bitwidth.encodings import Encoding
from bitwidth.fitting import Moments
from bitwidth.fitting.rounding import DAMPING, EntropyPrice, feedback
from bitwidth.graph import Graph, Parameter

_GRAM_BYTES = 1 << 24  # moments that are held at once, or a share of the model; beyond, the data is run through again
_GRAM_SHARE = 0.25


def moments_of(
    graph: Graph, context: Context, parameters: tuple[Parameter, ...], samples: int
) -> Iterator[tuple[Parameter, tuple[Moments, ...]]]:
    """The input moments of each parameter, measured for as many together as fit in memory."""
    size = 4 * sum(parameter.size for parameter in graph)
    for group in _groups(parameters, max(_GRAM_BYTES, int(_GRAM_SHARE * size))):
        question = InputMoments(samples, tuple(parameter.path for parameter in group))
        found = context.ask(question, graph, once=group != parameters)
        for parameter in group:
            yield parameter, found[parameter.path]


def rounded(
    graph: Graph,
    context: Context,
    encodings: Mapping[str, Encoding],
    samples: int,
    damping: float,
    price: EntropyPrice | None,
) -> Graph:
    """`graph` with the parameters of `encodings` on their grids, with errors fed back to weights rounded later.

    A parameter that no operation sums over inputs with is rounded to nearest, and a remark says so.
    """
    parameters = tuple(parameter for parameter in graph if parameter.path in encodings)
    values = {}
    for parameter, moments in moments_of(graph, context, parameters, samples):
        path = parameter.path
        if not moments:
            context.remark(f"{path}: rounded to nearest, no operation that can be watched sums over its inputs")
            continue
        values[path] = fed_back(graph.values[path], encodings[path], moments, damping, price)
        values[path].setflags(write=False)  # so that the graph takes it without a copy
    return graph.update(values, encodings)


def used_parts(moments: tuple[Moments, ...]) -> tuple[Moments, ...]:
    """The moments that count: of several uses of a whole parameter the one over most inputs, else of its parts."""
    whole = [part for part in moments if part.arrangement.index is None]
    return (max(whole, key=lambda part: part.arrangement.matrix[1]),) if whole else moments


def fed_back(
    values: NDArray[np.float32],
    encoding: Encoding,
    moments: tuple[Moments, ...],
    damping: float = DAMPING,
    price: EntropyPrice | None = None,
) -> NDArray[np.float32]:
    """The values of a parameter on its grid, with errors fed back; there are moments."""
    if encoding.mask is not None:
        values = np.where(encoding.mask, values, np.float32(0))
    parts = used_parts(moments)
    if parts[0].arrangement.index is None:
        (part,) = parts
        return feedback(values, encoding, part.arrangement, part.gram, damping, price, part.rows)
    held = encoding.project(values)
    for part in parts:
        index = part.arrangement.index
        assert index is not None
        found = feedback(values, encoding, part.arrangement, part.gram, damping, price, part.rows)
        held.reshape(-1)[index] = found.reshape(-1)[index]
    return held


def _groups(parameters: tuple[Parameter, ...], most: int) -> Iterator[tuple[Parameter, ...]]:
    """The parameters in runs whose moments take `most` bytes together."""
    group: list[Parameter] = []
    held = 0
    for parameter in parameters:
        inputs = prod(parameter.shape[axis] for axis in parameter.input_axes)
        size = 4 * inputs * inputs
        if group and held + size > most:
            yield tuple(group)
            group, held = [], 0
        group.append(parameter)
        held += size
    if group:
        yield tuple(group)
