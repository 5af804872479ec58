"""Rules of operations that compute each element from those at the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bitwidth.graph.labels.axes import Axis, Labelled
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute, channels_first


def _aligned(state: Labelling, op: Op, operands: Sequence[Labelled]) -> tuple[Axis, ...]:
    """The axes of the result, each of them those of all operands, which are aligned at the last one."""
    rank = max((len(operand.axes) for operand in operands), default=0)
    found: list[Axis] = [()] * rank
    for operand in operands:
        for place, axis in enumerate(operand.axes, rank - len(operand.axes)):
            found[place] = state.tie(found[place], axis, op)
    return tuple(found)


def _zeros(operands: Sequence[Labelled], rank: int, place: int) -> list[bool]:
    """For each operand, whether it is zero where the units of one axis of the result are."""
    found = []
    for operand in operands:
        own = place - rank + len(operand.axes)
        found.append(own >= 0 and operand.axes[own] != () and operand.zero[own])
    return found


def pointwise(combine: Callable[[list[bool]], bool]) -> Callable[[Labelling, Op, Sequence[Labelled]], list[Labelled]]:
    """The rule of an operation on elements at the same place.

    Args:
        combine: whether its result is zero, given for each operand whether that is.
    """

    def rule(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
        axes = _aligned(state, op, operands)
        rank = len(axes)
        always = [_is_zero(state, name) for name in op.inputs] + [False] * (len(operands) - len(op.inputs))
        zero = tuple(
            combine([known or found for known, found in zip(always, _zeros(operands, rank, place), strict=True)])
            for place in range(rank)
        )
        return [Labelled(axes, zero, all(operand.static for operand in operands))]

    return rule


def _is_zero(state: Labelling, tensor: str) -> bool:
    value = state.value(tensor)
    return value is not None and value.dtype != object and not np.any(value)


def function(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A function of each element by itself; its other operands are numbers."""
    held = operands[0]
    zero = held.zero if attribute(op, "keeps_zero") else (False,) * len(held.zero)
    return [Labelled(held.axes, zero, all(operand.static for operand in operands))]


def same(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A function of each element by itself that is zero at zero."""
    return [Labelled(operands[0].axes, operands[0].zero, operands[0].static)]


def bias_add(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """One value added for each channel."""
    features, bias = operands[:2]
    place = 1 if channels_first(op) else len(features.axes) - 1
    axes, zero = list(features.axes), list(features.zero)
    axes[place] = state.tie(axes[place], bias.axes[0], op)
    for other in range(len(zero)):
        zero[other] = other == place and zero[other] and bias.zero[0]
    return [Labelled(tuple(axes), tuple(zero), features.static and bias.static)]


def batch_norm(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A normalisation in one operation, by vectors that are given."""
    features = operands[0]
    place = 1 if channels_first(op) else len(features.axes) - 1
    axis = features.axes[place]
    for vector in operands[1:]:
        axis = state.tie(axis, vector.axes[0], op)
    axes = (*features.axes[:place], axis, *features.axes[place + 1 :])
    zero = tuple(other == place and held for other, held in enumerate(features.zero))
    ranks = [len(state.shape(name)) for name in op.outputs[1:]]
    others = [Labelled((axis,), (False,)) if rank == 1 else Labelled((), ()) for rank in ranks]
    return [Labelled(axes, zero), *others]
