"""Importance: by what the squared error of each weight is counted while a grid is fitted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import Fisher
from bitwidth.analysis.unknown import filled, silent_channels, without
from bitwidth.context import Context
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.rounding import moments_of


def fisher_weights(
    graph: Graph, context: Context, parameters: tuple[Parameter, ...], fisher: Fisher
) -> Mapping[str, NDArray[np.float32]]:
    """The diagonal Fisher of each parameter, by path.

    An output channel at which no gradient arrives (its unit is never active on the data, or nothing is known) counts
    its weights alike: without weights, a grid would be fitted to nothing.
    """
    curvature = context.ask(fisher, graph)
    for path, words in without(graph, curvature, parameters).items():
        context.remark(f"{path}: {words}; squared errors count alike")
    return {
        p.path: filled(curvature[p.path], silent_channels(p, curvature[p.path])).astype(np.float32) for p in parameters
    }


def input_power(
    graph: Graph, context: Context, parameters: tuple[Parameter, ...], samples: int
) -> list[tuple[Parameter, NDArray[np.float32]]]:
    """Mean square of the input that each weight meets, of the parameter's shape; 1 where that is not known."""
    found = []
    for parameter, moments in moments_of(graph, context, parameters, samples):
        power = np.ones(parameter.shape, np.float32)
        for part in moments:
            diagonal = np.einsum("gkk->gk", part.gram)
            part.arrangement.put(power, np.broadcast_to(diagonal[:, :, None], part.arrangement.matrix))
        found.append((parameter, power))
    return found
