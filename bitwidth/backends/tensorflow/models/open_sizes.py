"""Sizes that are known only when a model runs, asked for by `keras.ops.shape` while the model is built symbolically.

To the call of a composite they are integers that no tensor has. What is made with them is said in another way: a
reshape leaves the axis open, a tile or broadcast along the batch adds zeros of that length, a range counts along an
axis. Where a size ends up anywhere else, the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NoReturn, final

import keras
import numpy as np
import tensorflow as tf
from typing_extensions import override

from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.errors import Refused

_FIRST = 10_007  # a prime that no layer has for a width; each open size has one of its own
_WHY = "it computes with a size that is only known when the model runs"
_HOW = "pass data= with inputs of the sizes that the model is used with, or use -1 in its reshapes"


@final
class Size(int):
    """The size of an axis that is open. It can be handed on, and calculated with; it cannot be compared.

    Attributes:
        tensor: the tensor it was asked of, None for what was calculated.
        axis: of the tensor.
    """

    tensor: TFTensor = None
    axis: int = 0

    def _calculated(self, other: object) -> Size:
        del other
        return Size(self)

    def _below(self, other: int) -> bool:
        """No size is below zero; how it compares with another one is not known."""
        if not _is_open(other) and other <= 0:
            return False
        raise Refused(f"{_WHY}, and compares it; {_HOW}")

    def _above(self, other: int) -> bool:
        return not self._below(other)

    def _valued(self, *others: object) -> NoReturn:
        del others
        raise Refused(f"{_WHY}, and takes it for a number; {_HOW}")

    @override
    def __bool__(self) -> bool:
        return True

    @override
    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Size) and int(self) == int(other) and self.axis == other.axis)

    @override
    def __hash__(self) -> int:
        return int.__hash__(self)


_METHODS = {
    Size._calculated: "add radd sub rsub mul rmul floordiv rfloordiv mod rmod pow",
    Size._valued: "truediv rtruediv neg abs round float",
    Size._below: "lt le",
    Size._above: "gt ge",
}
for _method, _names in _METHODS.items():
    for _name in _names.split():
        setattr(Size, f"__{_name}__", _method)


@final
class OpenSizes:
    """The open sizes that were asked for in one model.

    Attributes:
        asked: whether one was.

    Args:
        batch: a tensor whose first axis is as long as the batch: an input.
    """

    def __init__(self, batch: TFTensor) -> None:
        self.asked = False
        self._batch = batch
        self._sizes: dict[tuple[int, int], Size] = {}
        self._held: list[Any] = []  # ids stay unique only while their objects live
        self._lines: dict[int, TFTensor] = {}

    def shape(self, tensor: TFTensor) -> tuple[int, ...]:
        """The shape of a symbolic tensor, its open axes as sizes."""
        return tuple(self._size(tensor, axis) if n is None else n for axis, n in enumerate(tensor.shape))

    def _size(self, tensor: TFTensor, axis: int) -> Size:
        self.asked = True
        if (id(tensor), axis) not in self._sizes:
            size = Size(_FIRST + 2 * len(self._sizes))
            size.tensor, size.axis = tensor, axis
            self._sizes[id(tensor), axis] = size
            self._held.append(tensor)
        return self._sizes[id(tensor), axis]

    # ---- functions that make tensors

    def functions(self, active: Callable[[], bool]) -> dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]:
        """What `keras.ops.shape`, and functions that make tensors of sizes, do while `active()`."""

        def shape_of(original: Callable[..., Any]) -> Callable[..., Any]:
            def shape(x: Any) -> Any:
                return self.shape(x) if active() and isinstance(x, keras.KerasTensor) else original(x)

            return shape

        def filled(value: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def made(original: Callable[..., Any]) -> Callable[..., Any]:
                def fill(shape: Any, dtype: Any = None) -> Any:
                    if not (active() and _sizes_in(shape)):
                        return original(shape, dtype)
                    zeros = keras.ops.cast(self.zeros(tuple(shape)), dtype or keras.config.floatx())
                    return zeros if value == 0 else keras.ops.add(zeros, value)

                return fill

            return made

        def ranged(original: Callable[..., Any]) -> Callable[..., Any]:
            def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
                if not (active() and _sizes_in((start, stop, step))):
                    return original(start, stop, step, dtype)
                first, last = (0, start) if stop is None else (start, stop)
                if not _is_open(last) or _sizes_in(first) or first != 0 or step not in (None, 1):
                    raise Refused(f"{_WHY}, in a range; {_HOW}")
                return keras.ops.cast(self.counted(last), dtype or "int32")

            return arange

        def cast(original: Callable[..., Any]) -> Callable[..., Any]:
            def number(x: Any, dtype: Any = None) -> Any:
                return keras.ops.cast(self.number(x), dtype) if active() and _is_open(x) else original(x, dtype)

            return number

        return {"cast": cast, "shape": shape_of, "zeros": filled(0), "ones": filled(1), "arange": ranged}

    # ---- operations

    def instead(self, operation: Any, args: Any) -> TFTensor:
        """What an operation gives that was made with open sizes, said without them; None where it has none.

        Raises:
            Refused: it cannot be said.
        """
        kind = type(operation).__name__
        if kind == "GetItem":
            return self._item(*args) if _sizes_in(args[1]) else None
        fields = {name: value for name, value in vars(operation).items() if _sizes_in(value)}
        if not fields and any(map(_is_open, args)):
            return operation.symbolic_call(*(self.number(arg) if _is_open(arg) else arg for arg in args))
        if not fields:
            _check_constants(operation, args, self._sizes.values())
            return None
        said = {"Reshape": _reshaped, "Tile": self._tiled, "BroadcastTo": self._broadcast}.get(kind)
        if said is None:
            raise Refused(f"{_WHY}, in {kind}; {_HOW}")
        return said(args[0], tuple(next(iter(fields.values()))))

    def line(self, size: Size) -> TFTensor:
        """As many zeros as the size says."""
        if size.tensor is None:
            raise Refused(f"{_WHY}; {_HOW}")
        if id(size) not in self._lines:
            tensor, axis = (self._batch, 0) if size.axis == 0 else (size.tensor, size.axis)
            others = tuple(place for place in range(len(tensor.shape)) if place != axis)
            zeros = keras.ops.zeros_like(tensor, dtype="int32")
            self._lines[id(size)] = keras.ops.sum(zeros, axis=others) if others else zeros
        return self._lines[id(size)]

    def counted(self, size: Size) -> TFTensor:
        """0, 1, ... along the axis."""
        return keras.ops.subtract(keras.ops.cumsum(keras.ops.add(self.line(size), 1)), 1)

    def number(self, size: Size) -> TFTensor:
        """The size itself, as a tensor."""
        return keras.ops.sum(keras.ops.add(self.line(size), 1))

    def zeros(self, shape: tuple[Any, ...]) -> TFTensor:
        """Zeros, as integers, of a shape with open sizes in it."""
        rank = len(shape)
        found: Any = None
        for axis, size in enumerate(shape):
            if _is_open(size):
                part = keras.ops.reshape(self.line(size), [-1 if place == axis else 1 for place in range(rank)])
                found = part if found is None else keras.ops.add(found, part)
        return keras.ops.tile(found, [1 if _is_open(size) else int(size) for size in shape])

    def _tiled(self, x: TFTensor, repeats: tuple[Any, ...]) -> TFTensor:
        rank = max(len(repeats), len(x.shape))
        repeats = (1,) * (rank - len(repeats)) + repeats
        shape = (1,) * (rank - len(x.shape)) + tuple(x.shape)
        for size, repeat in zip(shape, repeats, strict=True):
            if _is_open(repeat) and size != 1:
                raise Refused(f"{_WHY}, to repeat an axis that is longer than one; {_HOW}")
        zeros = self.zeros(tuple(repeat if _is_open(repeat) else 1 for repeat in repeats))
        combined = keras.ops.logical_or if x.dtype == "bool" else keras.ops.add
        long = combined(x, keras.ops.cast(zeros, x.dtype))
        rest = tuple(1 if _is_open(repeat) else repeat for repeat in repeats)
        return long if set(rest) == {1} else keras.ops.tile(long, rest)

    def _broadcast(self, x: TFTensor, shape: tuple[Any, ...]) -> TFTensor:
        before = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
        needed = tuple(1 if old is None or old == new else new for old, new in zip(before, shape, strict=True))
        if not _sizes_in(needed):
            return keras.ops.tile(x, needed)
        return self._tiled(x, needed)

    def _item(self, x: TFTensor, key: Any) -> TFTensor:
        """`x[key]`, where only stops of slices are open."""
        keys = list(key) if isinstance(key, tuple) else [key]
        whole = [slice(None) if isinstance(part, slice) and _sizes_in(part.stop) else part for part in keys]
        if _sizes_in([(p.start, p.stop, p.step) if isinstance(p, slice) else p for p in whole]) or Ellipsis in keys:
            raise Refused(f"{_WHY}, in an index; {_HOW}")
        for axis, part in enumerate(keys):
            if isinstance(part, slice) and _sizes_in(part.stop) and x.shape[axis] is not None:
                if part.start not in (None, 0) or part.step not in (None, 1):
                    raise Refused(f"{_WHY}, in a slice; {_HOW}")
                x = keras.ops.take(x, self.counted(part.stop), axis=axis)
        left = tuple(whole)
        return x if all(part == slice(None) for part in left) else x[left]


def _reshaped(x: TFTensor, shape: tuple[Any, ...]) -> TFTensor:
    """A reshape with open sizes: one of them may be found from the others, and the batch stays as it is."""
    free = [place for place, size in enumerate(shape) if _is_open(size) or size == -1]
    if len(free) == 1:
        return keras.ops.reshape(x, tuple(-1 if place in free else int(n) for place, n in enumerate(shape)))
    first = shape[0]
    batch = _is_open(first) and first.tensor is not None and first.axis == 0 and x.shape[0] is None
    if batch and len(free) == 3 and -1 in shape:  # the size of the other open axis is that of an axis of x, perhaps
        known = [int(n) for place, n in enumerate(shape) if place not in free]
        before = [n for n in x.shape if n is not None]
        if x.shape.count(None) == 2 and prod(before) % max(prod(known), 1) == 0:
            shape = tuple(prod(before) // max(prod(known), 1) if not _is_open(n) and n == -1 else n for n in shape)
            free = [place for place, size in enumerate(shape) if _is_open(size)]
    if not batch or len(free) > 2:
        raise Refused(f"{_WHY}, and reshapes to {len(free)} such axes; {_HOW}")
    rest = tuple(-1 if _is_open(size) else int(size) for size in shape[1:])
    return keras.layers.Reshape(rest)(x)


def _is_open(size: Any) -> bool:
    return isinstance(size, Size)


def _sizes_in(value: Any) -> bool:
    if isinstance(value, slice):
        return _sizes_in((value.start, value.stop, value.step))
    return _is_open(value) or (isinstance(value, tuple | list) and any(_sizes_in(part) for part in value))


def _check_constants(operation: Any, args: Any, sizes: Any) -> None:
    """Raise if an argument is a constant that was made with an open size."""
    numbers = {int(size) for size in sizes}
    for leaf in keras.tree.flatten(args):
        lengths = leaf.shape if isinstance(leaf, np.ndarray) or tf.is_tensor(leaf) else ()
        if _is_open(leaf) or any(int(n) in numbers for n in lengths):
            raise Refused(f"{_WHY}, in {type(operation).__name__}; {_HOW}")
