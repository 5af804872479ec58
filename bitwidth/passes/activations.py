"""Activations: which tensors are held on a grid, and which grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from bitwidth.analysis import ActivationRanges
from bitwidth.context import Context
from bitwidth.encodings import Quantized
from bitwidth.fitting import fit
from bitwidth.graph import Graph, Parameter
from bitwidth.graph.exact import exact_inputs
from bitwidth.probes import Observed

RangeMethod = Literal["mse", "percentile", "max"]
_TAIL = 0.01  # percent of the values beyond each end that the percentile gives up
_SYMMETRIC_FROM = 16  # bits: integer hardware has no zero points there


def quantized_inputs(
    graph: Graph, context: Context, parameters: Iterable[Parameter], bits: int, method: RangeMethod, samples: int
) -> dict[str, Quantized]:
    """A grid for every floating point tensor that enters a layer which uses one of the parameters, by its name.

    Tensors that enter the same layer in turn (a layer that is called twice) and layers that take the same tensor share
    a grid. A remark names each layer whose inputs stay in floating point.
    """
    groups = input_groups(graph, context, parameters)
    names = tuple(sorted({name for group in groups for name in group}))
    if not names:
        return {}
    seen = context.ask(ActivationRanges(names, samples), graph)
    grids: dict[str, Quantized] = {}
    for group in groups:
        found = [seen[name] for name in group if seen[name].values.size]
        if not found or not np.isfinite([(item.low, item.high) for item in found]).all():
            reason = "it takes values that are not finite" if found else "the data never reached it"
            context.remark(f"{', '.join(group)}: not held on a grid, {reason}")
            continue
        grid = range_grid(found, bits, method)
        grids.update(dict.fromkeys(group, grid))
    return grids


def input_groups(graph: Graph, context: Context, parameters: Iterable[Parameter]) -> list[tuple[str, ...]]:
    """Names of the tensors that have to share a grid. What a layer takes for exactly what it is has none."""
    floats = {t.name for t in graph.structure.tensors if "float" in t.dtype}
    exact = exact_inputs(graph)
    layers = graph.layers
    merged: dict[str, set[str]] = {}
    for path in dict.fromkeys(use.layer for parameter in parameters for use in parameter.uses):
        calls = layers[path].calls if path in layers and layers[path].tracked else ()
        if not calls:
            context.remark(
                f"inputs of {path or 'the model itself'} are left unchanged: no layer of the model is called on them"
            )
            continue
        if not floats.intersection(name for call in calls for name in call.inputs):
            context.remark(f"inputs of {path} are left unchanged: none is floating point")
        for place in range(max(len(call.inputs) for call in calls)):
            together = {call.inputs[place] for call in calls if place < len(call.inputs)} & floats
            for name in list(together):
                together |= merged.get(name, set())
            for name in together:
                merged[name] = together
    exact = exact_inputs(graph)
    groups = []
    for group in sorted({tuple(sorted(group)) for group in merged.values()}):
        reason = next((exact[name] for name in group if name in exact), None)
        if reason is None:
            groups.append(group)
        else:
            context.remark(f"{', '.join(group)}: not held on a grid, {reason}")
    return groups


def range_grid(seen: list[Observed], bits: int, method: RangeMethod) -> Quantized:
    """One grid for all that was seen: asymmetric with an exact zero, symmetric from 16 bits on.

    Args:
        seen: what was seen of the tensors that share it.
        bits: width of a code.
        method: `"max"` covers least and greatest value; `"percentile"` gives up 0.01 % at either end; `"mse"` searches
            the range of least squared error.
    """
    values = np.concatenate([item.values for item in seen])
    low, high = min(item.low for item in seen), max(item.high for item in seen)
    if method == "percentile":
        low, high = (float(end) for end in np.percentile(values, (_TAIL, 100 - _TAIL)))
    ends = np.array([min(low, 0.0), max(high, 0.0)], np.float32)
    looked_at = np.concatenate([values, ends]) if method == "mse" else ends
    symmetric = bits >= _SYMMETRIC_FROM
    scale: Literal["mse", "max"] = "mse" if method == "mse" else "max"
    grid = fit("uniform", bits, looked_at, (looked_at.size,), scale=scale, symmetric=symmetric)
    zero = None if grid.zero_point is None else grid.zero_point.reshape(())
    return Quantized(grid.levels, grid.scale.reshape(()), (), zero)
