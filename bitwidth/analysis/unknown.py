"""Where a Fisher information is not known: no gradient arrives there, which is not the same as a gradient of zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph import Graph, Parameter
from bitwidth.graph.gradients import differentiable
from bitwidth.probes import Arrays


def unknown(graph: Graph, curvature: Arrays, parameters: Iterable[Parameter]) -> dict[str, NDArray[np.bool_]]:
    """Which elements of parameters have a curvature of zero because no gradient arrives at them.

    These are all elements of a parameter whose curvature is zero everywhere (it stands behind an operation without a
    gradient, or behind weights that are all zero), and the output channels without curvature of one that is used in
    several ways, some of them behind such an operation. A zero beside other values in the same channel is a true one:
    that weight meets an input that is always zero.

    Args:
        graph: the model.
        curvature: mean squared gradients by path, each of its parameter's shape.
        parameters: those to look at.

    Returns:
        By path a bool array of the parameter's shape; parameters of which all is known are left out.
    """
    through = differentiable(graph)
    found = {}
    for parameter in parameters:
        silent = silent_channels(parameter, curvature[parameter.path])
        blocked = any(use.op not in through for use in parameter.uses)
        if silent.any() and (blocked or silent.all()):
            found[parameter.path] = silent
    return found


def silent_channels(parameter: Parameter, curvature: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True, in the parameter's shape, on the output channels in which every curvature is zero."""
    others = tuple(axis for axis in range(curvature.ndim) if axis not in parameter.channel_axes)
    return np.broadcast_to(~curvature.any(axis=others, keepdims=True), curvature.shape)


def filled(curvature: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`curvature` with the mean of the others in the places `where`; ones where there are no others."""
    if not where.any():
        return curvature
    return np.where(where, 1.0 if where.all() else curvature[~where].mean(), curvature)


def without(graph: Graph, curvature: Arrays, parameters: Iterable[Parameter]) -> Mapping[str, str]:
    """What to say about each parameter of which nothing, or not all, is known, by path."""
    words = {}
    for path, where in unknown(graph, curvature, parameters).items():
        part = "it" if where.all() else f"{int(where.sum()):,} of its {where.size:,} weights"
        words[path] = f"no gradient arrives at {part}, so the Fisher information is not known there"
    return words
