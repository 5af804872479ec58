"""Rules of operations that move elements: reshapes, transposes, joins, parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwidth.graph.labels.axes import UNKNOWN, Axis, Labelled, Labels, is_open, normal, positions, size_of
from bitwidth.graph.labels.contractions import unknown
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute


def reshape(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """The same elements in another shape. Units that would be torn apart stay."""
    given, shape = operands[0], state.shape(op.outputs[0])
    before = [size_of(axis) for axis in given.axes]
    alike = 0  # leading axes that stay as they are, the batch above all
    while alike < min(len(before), len(shape)) and before[alike] == shape[alike] and _even(before, shape, alike):
        alike += 1
    taker = _Taker(state, op, given, alike)
    made = [taker.take(place, shape[place], place == alike) for place in reversed(range(alike, len(shape)))]
    taker.finish()
    axes = given.axes[:alike] + tuple(axis for axis, _ in reversed(made))
    zero = given.zero[:alike] + tuple(is_zero for _, is_zero in reversed(made))
    return [Labelled(axes, zero, given.static)]


def _even(before: Sequence[int | None], shape: Sequence[int | None], place: int) -> bool:
    """Whether what comes after an axis of unknown size is known, so that the sizes in front of it are the same."""
    if before[place] is not None:
        return True
    after, later = before[place + 1 :], shape[place + 1 :]
    return None not in after and None not in later and np.prod(after or [1]) == np.prod(later or [1])  # type: ignore[arg-type]


class _Taker:
    """The factors of a shape, taken from the last to the first for the axes of another."""

    def __init__(self, state: Labelling, op: Op, given: Labelled, start: int) -> None:
        self.state, self.op = state, op
        held = zip(given.axes[start:], given.zero[start:], strict=True)
        self.left = [(factor, zero) for axis, zero in held for factor in axis]
        self.reason = f"{op.shown} merges it with others, or takes it apart unevenly"
        self.torn = False

    def take(self, place: int, size: int | None, is_last: bool) -> tuple[Axis, bool]:
        """The axis at a place of the new shape, and whether it is zero where its units are."""
        found: list[tuple[Labels, bool]] | None = None
        if size is None and is_last and not self.torn:
            found, self.left = self.left, []
        elif size is not None and not self.torn:
            found = self._taken(size)
        if found is None:
            self.torn = True
            labelled = any(factor.any() for factor, _ in self.left)
            axis = self.state.fixed((self.op.outputs[0], place), size, self.reason) if labelled else positions(size)
            return axis, False
        held = [zero for factor, zero in found if factor.any()]
        return normal(factor for factor, _ in found), bool(held) and all(held)

    def _taken(self, size: int) -> list[tuple[Labels, bool]] | None:
        found: list[tuple[Labels, bool]] = []
        need = size
        while need > 1:
            factor, zero = self.left.pop() if self.left else (UNKNOWN, False)
            count = len(factor)
            if not count or (count % need and need % count):
                self.left += [(factor, zero), *found]
                return None
            outer, inner = self.state.split((factor,), min(need, count), self.op)
            self.left += [(item, zero) for item in outer]
            found = [*((item, zero) for item in inner), *found]
            need //= min(need, count)
        return found

    def finish(self) -> None:
        """Let stay what was not taken."""
        for factor, _ in self.left:
            self.state.freeze((factor,), self.reason)


def transpose(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """The axes in another order."""
    given, order = operands[0], attribute(op, "order")
    if order is None:
        value = state.value(op.inputs[1]) if len(op.inputs) > 1 else None
        if value is None:
            return unknown(state, op, operands)
        order = value.astype(int).tolist()
    axes, zero = tuple(given.axes[place] for place in order), tuple(given.zero[place] for place in order)
    return [Labelled(axes, zero, given.static)]


def concat(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Tensors one behind the other along an axis; their other axes are the same."""
    place = attribute(op, "axis")
    shape = state.shape(op.outputs[0])
    operands = [operand for operand in operands if len(operand.axes) == len(shape)]
    if place is None or not operands:
        return unknown(state, op, operands)
    place %= len(shape)
    joined = [operand.axes[place] for operand in operands]
    axes, zero = _alike(state, op, operands, place)
    axes[place] = _joined(state, op, joined)
    return [Labelled(tuple(axes), tuple(zero), all(operand.static for operand in operands))]


def _alike(
    state: Labelling, op: Op, operands: Sequence[Labelled], apart: int | None = None
) -> tuple[list[Axis], list[bool]]:
    """The axes that tensors of one rank have in common, all tied, but for the one at `apart`."""
    axes, zero = list(operands[0].axes), list(operands[0].zero)
    for operand in operands[1:]:
        for place, axis in enumerate(operand.axes):
            axes[place] = axis if place == apart else state.tie(axes[place], axis, op)
            zero[place] = zero[place] and operand.zero[place]
    return axes, zero


def _joined(state: Labelling, op: Op, axes: Sequence[Axis]) -> Axis:
    if any(is_open(axis) for axis in axes):
        for axis in axes:
            state.freeze(axis, f"{op.shown} joins it with an axis of unknown size")
        return positions(None)
    tails = {tuple(len(factor) for factor in axis[1:]) for axis in axes}
    if len(tails) == 1 and any(sum(map(np.any, axis)) > 1 for axis in axes):
        tail = axes[0][1:]
        for axis in axes[1:]:
            tail = state.tie(tail, axis[1:], op)
        return normal((np.concatenate([axis[0] for axis in axes]), *tail))
    return normal((np.concatenate([state.merged(axis, op) for axis in axes]),))


def stack(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Tensors along a new axis."""
    rank = len(operands[0].axes)
    place = int(attribute(op, "axis") or 0) % (rank + 1)
    axes, zero = _alike(state, op, operands)
    axes.insert(place, positions(len(operands)))
    zero.insert(place, False)
    return [Labelled(tuple(axes), tuple(zero), all(operand.static for operand in operands))]


def unstack(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Each index of an axis by itself."""
    given = operands[0]
    place = int(attribute(op, "axis") or 0) % len(given.axes)
    state.freeze(given.axes[place], f"{op.shown} takes its indices apart")
    axes = given.axes[:place] + given.axes[place + 1 :]
    zero = given.zero[:place] + given.zero[place + 1 :]
    return [Labelled(axes, zero, given.static) for _ in op.outputs]


def part(state: Labelling, op: Op, axis: Axis, start: int, size: int) -> Axis:
    """Some consecutive indices of an axis.

    One of several equal parts couples them: what is removed from one is removed from each, as the gates of a recurrent
    cell need it.
    """
    total = size_of(axis)
    if total is None:
        state.freeze(axis, f"{op.shown} takes a part of it")
        return positions(size)
    if size in (0, total):
        return axis if size else positions(size)
    if total % size == 0 and start % size == 0:
        outer, inner = state.split(axis, size, op)
        state.freeze(outer, f"{op.shown} takes one part of it")
        return inner
    factors, within = list(axis), 1
    while factors and start % (within * len(factors[-1])) == 0 and size % (within * len(factors[-1])) == 0:
        within *= len(factors.pop())
    held = state.merged(tuple(factors), op)
    return normal((held[start // within : (start + size) // within], *axis[len(factors) :]))


def split(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """An axis in parts."""
    given, place = operands[0], attribute(op, "axis")
    shapes = [state.shape(name) for name in op.outputs]
    if place is None:
        return unknown(state, op, operands)
    place %= len(given.axes)
    sizes, start, found = [shape[place] if shape else None for shape in shapes], 0, []
    for size in sizes:
        if size is None:
            state.freeze(given.axes[place], f"{op.shown} takes it apart at unknown places")
            axis = positions(None)
        else:
            axis = part(state, op, given.axes[place], start, size)
            start += size
        axes = (*given.axes[:place], axis, *given.axes[place + 1 :])
        found.append(Labelled(axes, given.zero, given.static))
    return found


def slice_(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A part along each axis; operands 1 and 2 are where each begins and how long it is."""
    given, shape = operands[0], state.shape(op.outputs[0])
    begin = state.value(op.inputs[1])
    axes: list[Axis] = []
    for place, (axis, size) in enumerate(zip(given.axes, shape, strict=True)):
        start = None if begin is None else int(begin[place])
        axes.append(_sliced(state, op, axis, start, size, 1))
    return [Labelled(tuple(axes), given.zero, given.static)]


def _sliced(state: Labelling, op: Op, axis: Axis, start: int | None, size: int | None, step: int) -> Axis:
    if size == size_of(axis) and step == 1:
        return axis
    if start is None or size is None or step != 1:
        state.freeze(axis, f"{op.shown} takes a part of it")
        return positions(size)
    return part(state, op, axis, start, size)


def strided_slice(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """`x[1:, ..., None, 0]`: operands 1 to 3 are where each axis begins, ends, and its step, as the masks say."""
    given, shape = operands[0], list(state.shape(op.outputs[0]))
    begin, step = state.value(op.inputs[1]), state.value(op.inputs[3])
    count = (state.shape(op.inputs[1]) or (None,))[0]
    if count is None:
        return unknown(state, op, operands)
    axes: list[Axis] = []
    zero: list[bool] = []
    place = 0
    for item in range(count):
        if _bit(op, "ellipsis", item):
            later = sum(not _bit(op, "new_axis", after) for after in range(item + 1, count))
            kept = len(given.axes) - later - place
            axes += given.axes[place : place + kept]
            zero += given.zero[place : place + kept]
            place += kept
        elif _bit(op, "new_axis", item):
            axes.append(())
            zero.append(False)
        elif _bit(op, "shrink_axis", item):
            state.freeze(given.axes[place], f"{op.shown} takes one index of it")
            place += 1
        else:
            start = 0 if _bit(op, "begin", item) else None if begin is None else int(begin[item])
            total, size = size_of(given.axes[place]), shape[len(axes)]
            start = start + total if start is not None and total is not None and start < 0 else start
            stride = 0 if step is None else int(step[item])
            axes.append(_sliced(state, op, given.axes[place], start, size, stride))
            zero.append(given.zero[place])
            place += 1
    axes += given.axes[place:]
    zero += given.zero[place:]
    return [Labelled(tuple(axes), tuple(zero), given.static)]


def _bit(op: Op, mask: str, place: int) -> bool:
    return bool(int(attribute(op, f"{mask}_mask") or 0) >> place & 1)


def reverse(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Some axes from their end."""
    given, places = operands[0], state.value(op.inputs[1])
    turned = range(len(given.axes)) if places is None else [int(place) % len(given.axes) for place in places.ravel()]
    axes = list(given.axes)
    for place in turned:
        axes[place] = tuple(factor[::-1] for factor in axes[place])
    if places is None:
        return unknown(state, op, operands)
    return [Labelled(tuple(axes), given.zero, given.static)]


def pad(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Numbers around a tensor; they stay, because how many there are stands in the operation."""
    given, pads, fill = operands[0], attribute(op, "pads"), attribute(op, "fill")
    if pads is None:
        return unknown(state, op, operands)
    axes: list[Axis] = []
    for place, (axis, (before, behind)) in enumerate(zip(given.axes, pads, strict=True)):
        if is_open(axis) or (before, behind) == (0, 0):
            axes.append(axis)
        elif fill is None:
            state.freeze(axis, f"{op.shown} puts other values around it")
            axes.append(positions((size_of(axis) or 0) + before + behind))
        else:
            around = state.loose((op.name, place), before + behind)
            state.freeze((around,), f"{op.shown} puts numbers around it")
            axes.append(normal((np.concatenate([around[:before], state.merged(axis, op), around[before:]]),)))
    zero = tuple(held and fill == 0 for held in given.zero)
    return [Labelled(tuple(axes), zero, given.static)]


def tile(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Axes several times, one copy behind the other."""
    given, times = operands[0], state.value(op.inputs[1])
    if times is None:
        return broadcast(state, op, operands)
    axes: list[Axis] = []
    for place, (axis, count) in enumerate(zip(given.axes, times.ravel(), strict=True)):
        if is_open(axis) or count == 1:
            axes.append(axis)
        elif axis == ():
            axes.append(state.fresh((op.name, place), int(count)))
        else:
            axes.append(normal((np.zeros(int(count), np.int64), *axis)))
    return [Labelled(tuple(axes), given.zero, given.static)]


def broadcast(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A tensor in a larger shape: what it is repeated along may be removed there."""
    given, shape = operands[0], state.shape(op.outputs[0])
    ahead = len(shape) - len(given.axes)
    axes = [state.fresh((op.name, place), size) for place, size in enumerate(shape)]
    zero = [False] * len(shape)
    for place, axis in enumerate(given.axes, ahead):
        if is_open(axis) or size_of(axis) == shape[place]:
            axes[place], zero[place] = axis, given.zero[place - ahead]
        elif axis != ():
            return unknown(state, op, operands)
    return [Labelled(tuple(axes), tuple(zero), given.static)]


def mixed_positions(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """Positions moved between the axes of an image and the front of its batch; the last axis is as before."""
    given, blocks = operands[0], state.value(op.inputs[1])
    for axis in given.axes[:-1]:
        state.freeze(axis, f"{op.shown} mixes positions")
    found = state.blank(op.outputs[0], given.static)
    batch = given.axes[0]
    if blocks is not None and op.kind == "space_to_batch":
        batch = normal((np.zeros(int(np.prod(blocks)), np.int64), *batch))
    elif blocks is not None and batch and len(batch[0]) == np.prod(blocks):
        batch = batch[1:]
    axes, zero = (batch, *found.axes[1:-1], given.axes[-1]), (*found.zero[:-1], given.zero[-1])
    return [Labelled(axes, zero, given.static)]
