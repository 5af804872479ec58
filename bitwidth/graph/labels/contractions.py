"""Rules of operations that sum over features: products, convolutions, look-ups."""

from __future__ import annotations

from collections.abc import Sequence

from bitwidth.graph.labels.axes import Axis, Labelled, size_of
from bitwidth.graph.labels.labelling import Labelling, Role
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute, channels_first


def contracted(state: Labelling, op: Op, operands: Sequence[Labelled], names: Sequence[str], result: str) -> Labelled:
    """A product of tensors, summed over the axes that the result does not have.

    Args:
        state: the labelling.
        op: the operation.
        operands: the tensors.
        names: a letter for each axis of each; axes of the same letter are the same.
        result: the letters of the result.
    """
    axes: dict[str, Axis] = {}
    static = all(operand.static for operand in operands)
    for operand, letters in zip(operands, names, strict=True):
        for axis, letter in zip(operand.axes, letters, strict=True):
            axes[letter] = state.tie(axes[letter], axis, op) if letter in axes else axis
    for letter in axes:
        given = zip(operands, names, strict=True)
        places = [(operand, letters.index(letter)) for operand, letters in given if letter in letters]
        if letter not in result:
            _summed(state, op, places)
        elif len(places) == 1 and places[0][0].static and not static:
            state.play(places[0][0].axes[places[0][1]], Role.PRODUCES)
    held = [dict(zip(letters, operand.zero, strict=True)) for operand, letters in zip(operands, names, strict=True)]
    zero = tuple(any(flags.get(letter, False) for flags in held) for letter in result)
    return Labelled(tuple(axes[letter] for letter in result), zero, static)


def _summed(state: Labelling, op: Op, held: Sequence[tuple[Labelled, int]]) -> None:
    """An axis that is summed over: where a kernel has it, that consumes its units."""
    static = [(operand, place) for operand, place in held if operand.static]
    for operand, place in static:
        state.play(operand.axes[place], Role.CONSUMES)
        if not operand.zero[place]:
            state.mark(operand.axes[place], op)
    if not static:
        state.meet(held[0][0].axes[held[0][1]], op, any(operand.zero[place] for operand, place in held))


def matmul(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A product of matrices, batched or not."""
    first, second = operands[:2]
    ranks = len(first.axes), len(second.axes)
    if min(ranks) < 2:
        return unknown(state, op, operands)
    letters = [chr(ord("A") + place) for place in range(max(ranks) - 2)]
    batch = ["".join(letters[len(letters) - rank + 2 :]) for rank in ranks]
    ones = "km" if attribute(op, "transpose_a") else "mk"
    others = "nk" if attribute(op, "transpose_b") else "kn"
    return [contracted(state, op, (first, second), (batch[0] + ones, batch[1] + others), "".join(letters) + "mn")]


def einsum(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A product that an equation describes; `...` stands for axes that are aligned at the last one."""
    equation = str(attribute(op, "equation") or "").replace(" ", "")
    given, arrow, result = equation.partition("->")
    names = given.split(",")
    if not arrow or len(names) != len(operands):
        return unknown(state, op, operands)
    extra = [len(operand.axes) - len(name.replace("...", "")) for operand, name in zip(operands, names, strict=True)]
    longest = max((count for count, name in zip(extra, names, strict=True) if "..." in name), default=0)
    spelt = "".join(chr(0x3B1 + place) for place in range(longest))
    names = [
        name.replace("...", spelt[longest - count :] if count else "") for count, name in zip(extra, names, strict=True)
    ]
    if any(len(set(name)) != len(name) for name in names):
        return unknown(state, op, operands)  # a diagonal
    return [contracted(state, op, operands, names, result.replace("...", spelt))]


def _channel(op: Op, operand: Labelled) -> int:
    """Which axis of features has the channels."""
    return 1 if channels_first(op) else len(operand.axes) - 1


def windowed(state: Labelling, op: Op, features: Labelled, channels: Axis, is_zero: bool) -> Labelled:
    """What comes out of windows of positions: the batch as it is, new positions, and some channels."""
    place = _channel(op, features)
    for other, axis in enumerate(features.axes):
        if other not in (0, place):
            state.freeze(axis, f"{op.shown} moves a window along it")
    found = list(state.blank(op.outputs[0]).axes)
    zero = [False] * len(found)
    found[0], zero[0] = features.axes[0], features.zero[0]
    found[place], zero[place] = channels, is_zero
    return Labelled(tuple(found), tuple(zero), features.static)


def _window(state: Labelling, kernel: Labelled) -> None:
    """The positions of a kernel's window are no units."""
    for axis in kernel.axes[:-2]:
        state.freeze(axis, WINDOW)


WINDOW = "a window of positions"


def conv(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A convolution. In a grouped one an index of a group is removed from all groups alike, or a group as a whole."""
    features, kernel = operands[:2]
    _window(state, kernel)
    taken, (inputs, outputs) = features.axes[_channel(op, features)], kernel.axes[-2:]
    count, own, made = size_of(taken), size_of(inputs) or 1, size_of(outputs) or 1
    if count is None:
        return unknown(state, op, operands)
    groups = count // own
    if groups == 1:
        state.tie(taken, inputs, op)
        _summed(state, op, [(kernel, -2)])
        state.play(outputs, Role.PRODUCES)
        return [windowed(state, op, features, outputs, kernel.zero[-1])]
    ahead, within = state.split(taken, own, op)
    state.tie(within, inputs, op)
    _summed(state, op, [(kernel, -2)])
    before, behind = state.split(outputs, made // groups, op)
    state.play(behind, Role.PRODUCES)
    ahead = state.tie(ahead, before, op)
    return [windowed(state, op, features, (*ahead, *behind), kernel.zero[-1])]


def depthwise(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A convolution of each channel by itself, once or several times."""
    features, kernel = operands[:2]
    _window(state, kernel)
    held, several = kernel.axes[-2:]
    held = state.tie(features.axes[_channel(op, features)], held, op)
    state.play(several, Role.PRODUCES)
    return [windowed(state, op, features, (*held, *several), kernel.zero[-1] and kernel.zero[-2])]


def transposed_conv(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """The gradient of a convolution, which takes its outputs and makes its inputs."""
    features, kernel = operands[:2]
    _window(state, kernel)
    outputs, inputs = kernel.axes[-2:]
    state.tie(features.axes[_channel(op, features)], inputs, op)
    _summed(state, op, [(kernel, -1)])
    state.play(outputs, Role.PRODUCES)
    return [windowed(state, op, features, outputs, kernel.zero[-2])]


def gather(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A look-up of rows by their indices, which stay."""
    table, indices = operands[:2]
    axis, batch = attribute(op, "axis"), int(attribute(op, "batch_dims") or 0)
    if axis is None or not isinstance(axis, int):
        return unknown(state, op, operands)
    axis %= max(1, len(table.axes))
    state.freeze(table.axes[axis], f"{op.shown} looks up by its indices")
    for place, held in enumerate(table.axes):
        if table.static and place != axis:
            state.play(held, Role.PRODUCES)
    axes = (*table.axes[:axis], *indices.axes[batch:], *table.axes[axis + 1 :])
    zero = (*table.zero[:axis], *(False for _ in indices.axes[batch:]), *table.zero[axis + 1 :])
    return [Labelled(axes, zero, table.static and indices.static)]


def gather_nd(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """A look-up by several indices at once."""
    table, indices = operands[:2]
    depth = size_of(indices.axes[-1]) if indices.axes else None
    if depth is None or attribute(op, "batch_dims"):
        return unknown(state, op, operands)
    for axis in table.axes[:depth]:
        state.freeze(axis, f"{op.shown} looks up by its indices")
    for axis in table.axes[depth:] if table.static else ():
        state.play(axis, Role.PRODUCES)
    axes = (*indices.axes[:-1], *table.axes[depth:])
    zero = (*(False for _ in indices.axes[:-1]), *table.zero[depth:])
    return [Labelled(axes, zero, table.static and indices.static)]


def unknown(state: Labelling, op: Op, operands: Sequence[Labelled]) -> list[Labelled]:
    """An operation about which nothing is known: all that it takes and makes stays."""
    reason = f"what {op.shown} does is not known"
    for operand in operands:
        for axis in operand.axes:
            state.freeze(axis, reason)
    found, static = [], all(operand.static for operand in operands)
    for name in op.outputs:
        axes = [state.fixed((name, axis), size, reason) for axis, size in enumerate(state.shape(name))]
        found.append(Labelled(tuple(axes), (False,) * len(axes), static))
    return found
