"""Rules of operations that run others, of constants, and of lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bitwidth.graph.labels.axes import Labelled, Listed, positions
from bitwidth.graph.labels.contractions import unknown
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute
from bitwidth.text import shape_text

Known = Labelled | Listed


def same_tensor(state: Labelling, op: Op, first: Known, second: Known) -> Known:
    """Two tensors that stand for each other: a loop's before and after a step, a branch's and another's."""
    if isinstance(first, Listed) and isinstance(second, Listed):
        return _same_list(state, op, first.root(), second.root())
    if isinstance(first, Listed) or isinstance(second, Listed) or len(first.axes) != len(second.axes):
        for tensor in (first, second):
            if isinstance(tensor, Labelled):
                unknown(state, op, [tensor])
        return first
    axes = tuple(state.tie(one, other, op) for one, other in zip(first.axes, second.axes, strict=True))
    zero = tuple(one and other for one, other in zip(first.zero, second.zero, strict=True))
    return Labelled(axes, zero, first.static and second.static)


def _same_list(state: Labelling, op: Op, first: Listed, second: Listed) -> Listed:
    if first is not second:
        if first.element is not None and second.element is not None:
            same_tensor(state, op, first.element, second.element)
        first.element = first.element or second.element
        second.joined = first
    return first


def ends(op: Op) -> list[tuple[str, ...]]:
    """What each part that an operation runs returns, but for the conditions of loops."""
    return [names for key, names in op.attributes if key.endswith("_outputs") and not key.startswith("cond")]


def call(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A function: its operations were followed already."""
    return [state.tensors[name] for name in ends(op)[0]]


def loop(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A loop: what a step returns is what the next one takes."""
    found = []
    for given, name in zip(operands, ends(op)[0], strict=True):
        after = state.tensors[name]
        found.append(given if after is given else same_tensor(state, op, given, after))
    return [_settled(item) for item in found]


def branch(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """One of several functions, whose results are the same."""
    first, *others = ends(op)
    found = [state.tensors[name] for name in first]
    for names in others:
        found = [same_tensor(state, op, one, state.tensors[name]) for one, name in zip(found, names, strict=True)]
    return found


def _settled(item: Known) -> Known:
    """What a loop returns: whether it is zero depends on all steps."""
    return item if isinstance(item, Listed) else replace(item, zero=(False,) * len(item.zero))


def constant(state: Labelling, op: Op) -> Labelled:
    """A constant. One number in all places may be there as often as needed; others stay as they are.

    Where a layer computes with what it made of its own parameter once, that is the parameter, broadcast.
    """
    name, value = op.outputs[0], attribute(op, "value")
    shape, fill = state.shape(name), attribute(op, "fill")
    source = state.folded.get(name)
    if source is not None:
        own = iter(state.parameters[source])
        axes = tuple(next(own) if size != 1 else positions(1) for size in shape)
        return Labelled(axes, (False,) * len(axes), static=True)
    if fill is None and np.ndim(value) == 0 and not isinstance(value, str):
        fill = value
    if fill is None:
        where = f"a constant of shape {shape_text(tuple(size or 0 for size in shape))} in {op.layer or 'the model'}"
        axes = tuple(state.fixed((name, place), size, where) for place, size in enumerate(shape))
        return Labelled(axes, (False,) * len(axes), static=True)
    return filled(state, op, fill == 0)


def filled(state: Labelling, op: Op, is_zero: bool) -> Labelled:
    """A tensor with the same number in all places."""
    shape = state.shape(op.outputs[0])
    axes = tuple(state.fresh((op.outputs[0], place), size) for place, size in enumerate(shape))
    return Labelled(axes, (is_zero,) * len(axes), static=True)


def fill(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A tensor of a computed shape, with the same number in all places."""
    value = state.value(op.inputs[1]) if len(op.inputs) > 1 else None
    return [filled(state, op, value is not None and not np.any(value))]


def fill_like(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A tensor of the shape of another one, with the same number in all places."""
    given = operands[0]
    assert isinstance(given, Labelled)
    return [Labelled(given.axes, (False,) * len(given.axes), static=True)]


def blank(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """Numbers that say where something is, or how large: no units."""
    static = all(isinstance(operand, Labelled) and operand.static for operand in operands)
    return [state.blank(name, static) for name in op.outputs]


def list_new(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """An empty list."""
    return [Listed()]


def list_from_tensor(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A tensor as the list of what it holds along its first axis."""
    given = operands[0]
    assert isinstance(given, Labelled)
    state.freeze(given.axes[0], f"{op.shown} runs along it")
    return [Listed(Labelled(given.axes[1:], given.zero[1:]))]


def list_set(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """A list with one element, operand 2, exchanged."""
    held, given = operands[0], operands[2]
    assert isinstance(held, Listed)
    assert isinstance(given, Labelled)
    root = held.root()
    if root.element is None:
        root.element = replace(given, static=False)
    else:
        same_tensor(state, op, root.element, given)
    return [root]


def _element(state: Labelling, op: Op, held: Known, shape: Sequence[int | None]) -> Labelled:
    assert isinstance(held, Listed)
    root = held.root()
    if root.element is None:
        axes = tuple(state.fresh((op.name, place), size) for place, size in enumerate(shape))
        root.element = Labelled(axes, (False,) * len(axes))
    return root.element


def list_get(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """One element of a list."""
    return [_element(state, op, operands[0], state.shape(op.outputs[0]))]


def list_stack(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """The elements of a list along a new first axis."""
    shape = state.shape(op.outputs[0])
    element = _element(state, op, operands[0], shape[1:])
    return [Labelled((positions(shape[0] if shape else None), *element.axes), (False, *element.zero))]


def identity(state: Labelling, op: Op, operands: Sequence[Known]) -> list[Known]:
    """Each operand as it is."""
    return list(operands[: len(op.outputs)])
