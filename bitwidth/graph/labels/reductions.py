"""Rules of operations that compute with all indices of an axis: means, maxima, pools, softmax."""

from __future__ import annotations

from collections.abc import Sequence

from bitwidth.graph.labels.axes import Labelled
from bitwidth.graph.labels.contractions import unknown, windowed
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute, channels_first


def reduction(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A reduction along axes: a sum leaves out what is zero, anything else changes with the number of units."""
    given, places = operands[0], attribute(op, "axes")
    if not given.axes:
        return [given]
    if places is None:
        return unknown(state, op, operands)
    reduced = {place % len(given.axes) for place in places}
    for place in reduced:
        if op.kind == "reduce_sum":
            state.meet(given.axes[place], op, given.zero[place])
        else:
            state.mark(given.axes[place], op)
    keeps = bool(attribute(op, "keep_dims"))
    left = [place for place in range(len(given.axes)) if keeps or place not in reduced]
    axes = tuple(() if place in reduced else given.axes[place] for place in left)
    zero = tuple(place not in reduced and given.zero[place] for place in left)
    return [Labelled(axes, zero, given.static)]


def softmax(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A softmax along the last axis."""
    given = operands[0]
    state.mark(given.axes[-1], op)
    return [Labelled(given.axes, (False,) * len(given.axes), given.static)]


def pool(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A mean or maximum over windows of positions."""
    given = operands[0]
    place = 1 if channels_first(op) else len(given.axes) - 1
    size = attribute(op, "ksize")
    if size is not None and (size[place] != 1 or size[0] != 1):
        return unknown(state, op, operands)
    return [windowed(state, op, given, given.axes[place], given.zero[place])]
