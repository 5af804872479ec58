"""Integers that a graph computes from shapes: the targets of reshapes, the order of a transpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph.model import Op
from bitwidth.graph.ops import Kind, attribute

Numbers = NDArray[np.float64]
"""Integers, NaN for one that is only known when the model runs."""

_LARGEST = 64  # shapes, axes and orders are short


class Integers:
    """Values of small tensors that depend on constants and shapes alone.

    Args:
        shapes: of tensors, by name.
        makers: the operation that makes a tensor, by name.

    Example:
        >>> ops = [
        ...     Op("s", "shape", "", ("x",), ("s",)),
        ...     Op("two", "constant", "", (), ("two",), attributes=(("value", 2),)),
        ...     Op("m", "multiply", "", ("s", "two"), ("m",)),
        ... ]
        >>> integers = Integers({"x": (None, 3), "s": (2,), "two": (), "m": (2,)}, {op.outputs[0]: op for op in ops})
        >>> integers.of("m")
        array([nan,  6.])
    """

    def __init__(self, shapes: Mapping[str, tuple[int | None, ...] | None], makers: Mapping[str, Op]) -> None:
        self._shapes, self._makers = shapes, makers
        self._known: dict[str, Numbers | None] = {}

    def of(self, tensor: str) -> Numbers | None:
        """The value of a tensor; None where it is not known at all."""
        if tensor not in self._known:
            self._known[tensor] = None  # while it is computed: a loop does not end
            self._known[tensor] = self._computed(tensor)
        return self._known[tensor]

    def _computed(self, tensor: str) -> Numbers | None:
        maker, shape = self._makers.get(tensor), self._shapes.get(tensor)
        if maker is None or shape is None or None in shape or np.prod(shape) > _LARGEST:  # type: ignore[arg-type]
            return None
        if maker.kind == "constant":
            value = np.asarray(attribute(maker, "value"))
            return value.astype(float) if value.dtype.kind in "iufb" else None
        if maker.kind == "shape":
            sizes = self._shapes.get(maker.inputs[0])
            return None if sizes is None else np.array([np.nan if size is None else size for size in sizes])
        if maker.kind not in _RULES:
            return None
        operands = [self.of(name) for name in maker.inputs]
        known = [operand for operand in operands if operand is not None]
        if len(known) < len(operands) or not known:
            return None
        found = _RULES[maker.kind](maker, known)
        return found.reshape(shape) if found.size == np.prod(shape) else None  # type: ignore[arg-type]


def _sliced(op: Op, operands: list[Numbers]) -> Numbers:
    """A slice of a vector."""
    given, begin, end, step = operands[:4]
    if given.ndim != 1 or np.isnan([*begin, *end, *step]).any():
        return np.zeros(0)
    if attribute(op, "shrink_axis_mask"):
        return given[int(begin[0]) :][:1] if begin[0] >= 0 else given[int(begin[0])].reshape(1)
    start = None if attribute(op, "begin_mask") else int(begin[0])
    stop = None if attribute(op, "end_mask") else int(end[0])
    return given[start : stop : int(step[0])]


def _taken(op: Op, operands: list[Numbers]) -> Numbers:
    given, places = operands[:2]
    return np.zeros(0) if np.isnan(places).any() else given.ravel()[places.astype(int)]


def _joined(op: Op, operands: list[Numbers]) -> Numbers:
    return np.concatenate([operand.ravel() for operand in operands if operand.ndim])


_RULES: Mapping[Kind, Callable[[Op, list[Numbers]], Numbers]] = MappingProxyType(
    {
        "add": lambda op, given: given[0] + given[1],
        "subtract": lambda op, given: given[0] - given[1],
        "multiply": lambda op, given: given[0] * given[1],
        "integer_divide": lambda op, given: given[0] // given[1],
        "maximum": lambda op, given: np.maximum(given[0], given[1]),
        "minimum": lambda op, given: np.minimum(given[0], given[1]),
        "reduce_product": lambda op, given: np.prod(given[0], keepdims=True),
        "stack": lambda op, given: np.array([item.ravel()[0] for item in given]),
        "concat": _joined,
        "gather": _taken,
        "strided_slice": _sliced,
        "cast": lambda op, given: given[0],
        "identity": lambda op, given: given[0],
        "reshape": lambda op, given: given[0],
        "squeeze": lambda op, given: given[0],
        "expand_dims": lambda op, given: given[0],
    }
)
