"""Encodings as TensorFlow operations: which lowering belongs to which encoding, and the function that a view computes.

See `lowered.py` for what a lowering is, `grids.py` for those of grids.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.backends.tensorflow.constraints.grids import lower_quantized
from bitwidth.backends.tensorflow.constraints.lowered import Arrays, LearnedVariable, Lowering
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.encodings import Dense, Encoding, Escaped, Masked, Quantized, escaped_places, rebased
from bitwidth.errors import ConfigError, EncodingError
from bitwidth.typing import Array

__all__ = ["LearnedVariable", "Lowering", "evaluate", "lower", "register_lowering", "straight_through", "through_masks"]

_OPEN: ContextVar[bool] = ContextVar("open", default=False)

Lower = Callable[[Any, Sequence[int]], "Lowering | None"]
_LOWERINGS: dict[type[Encoding], Lower] = {}


@final
class _Cast(Lowering):
    """A float format of 16 bits or less, through the bits: XLA may drop a pair of casts, but no change of the bits."""

    def __init__(self, encoding: Dense, shape: Sequence[int]) -> None:
        self.format = encoding.format
        self.drop = 23 - (encoding.mantissa_bits or 0)
        super().__init__(encoding, shape)

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        if self.format == "float16":
            return {"bits": np.array(np.uint16(0xFFFF))}
        return {"bits": np.array(np.uint32(0x100000000 - (1 << self.drop)))}

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        if self.format == "float16":
            bits = tf.bitcast(tf.cast(master, tf.float16), tf.uint16)
            return tf.cast(tf.bitcast(tf.bitwise.bitwise_and(bits, self.state["bits"]), tf.float16), tf.float32)
        bits = tf.bitcast(master, tf.uint32)
        odd = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(bits, tf.constant(self.drop, tf.uint32)), tf.constant(1, tf.uint32)
        )
        rounded = tf.bitwise.bitwise_and(
            bits + odd + tf.constant((1 << (self.drop - 1)) - 1, tf.uint32), self.state["bits"]
        )
        return tf.bitcast(rounded, tf.float32)


class _Over(Lowering):
    """An encoding over another one, which learns what that one learns.

    Attributes:
        base: the lowering of the other; None where the layer reads the master itself.
    """

    def __init__(self, encoding: Masked | Escaped, shape: Sequence[int]) -> None:
        self.base = lower(encoding.base, shape)
        super().__init__(encoding, shape)

    @abstractmethod
    def beneath(self, upstream: TFTensor) -> TFTensor:
        """The gradient that reaches what the other encoding holds."""

    @override
    def learn(self, paid: bool = False) -> None:
        if self.base is not None:
            self.base.learn(paid)
            self.learned = self.base.learned

    @override
    def slopes(self, master: TFTensor, value: TFTensor, upstream: TFTensor, *learned: TFTensor) -> tuple[TFTensor, ...]:
        if self.base is None or not learned:
            return ()
        return self.base.slopes(master, value, self.beneath(upstream), *learned)

    @abstractmethod
    def inner(self, encoding: Encoding) -> Encoding:
        """The other encoding, under that of this kind."""

    @override
    def update(self, encoding: Encoding) -> None:
        super().update(encoding)
        if self.base is not None:
            self.base.update(self.inner(encoding))


@final
class _Escape(_Over):
    """`Escaped` over another encoding: escaped values are the master's, so they train as floats."""

    def __init__(self, encoding: Escaped, shape: Sequence[int]) -> None:
        self.format, self.float = encoding.format, lower(Dense(encoding.format), shape)
        super().__init__(encoding, shape)

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        plane = escaped_places(encoding)
        if plane is None or encoding.summary().escape_format != self.format:
            raise EncodingError(f"{encoding.describe()} has no escapes in {self.format}")
        return {"plane": np.array(plane)}

    @override
    def inner(self, encoding: Encoding) -> Encoding:
        return encoding.base if isinstance(encoding, Escaped) else encoding

    @override
    def beneath(self, upstream: TFTensor) -> TFTensor:
        return tf.where(self.state["plane"], 0.0, upstream)

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        held = master if self.base is None else self.base.read(master, *learned)
        free = master if self.float is None else self.float.read(master)
        return tf.where(self.state["plane"], free, held)

    @override
    def baked(self, encoding: Encoding, master: Array) -> Encoding:
        if not isinstance(encoding, Escaped):
            return encoding
        base = encoding.base if self.base is None else self.base.baked(encoding.base, master)
        return Escaped.of(master, encoding.plane, base, encoding.format)


@final
class _Mask(_Over):
    """`Masked` over another encoding."""

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        if encoding.mask is None:
            raise EncodingError(f"{encoding.describe()} has no mask")
        return {"keep": encoding.mask.astype(np.float32)}

    @override
    def inner(self, encoding: Encoding) -> Encoding:
        return encoding.unmasked

    @override
    def beneath(self, upstream: TFTensor) -> TFTensor:
        return upstream * self.state["keep"]

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        value = master if self.base is None else self.base.read(master, *learned)
        return value * self.state["keep"]

    @override
    def baked(self, encoding: Encoding, master: Array) -> Encoding:
        if encoding.mask is None or self.base is None:
            return encoding
        return rebased(encoding, self.base.baked(encoding.unmasked, master))


def register_lowering(kind: type[Encoding]) -> Callable[[Lower], Lower]:
    """Decorator: how encodings of a kind are lowered, given the encoding and the tensor's shape.

    Raises:
        ConfigError: the kind has a lowering already.
    """

    def decorate(make: Lower) -> Lower:
        if kind in _LOWERINGS:
            raise ConfigError(f"{kind.__name__} has a lowering already")
        _LOWERINGS[kind] = make
        return make

    return decorate


def lower(encoding: Encoding, shape: Sequence[int]) -> Lowering | None:
    """The lowering of an encoding for a tensor of `shape`; None where the layer reads the master itself.

    Raises:
        EncodingError: no lowering is registered for this type of encoding.
    """
    for kind in type(encoding).__mro__:
        if kind in _LOWERINGS:
            return _LOWERINGS[kind](encoding, shape)
    raise EncodingError(f"no TensorFlow lowering for {type(encoding).__name__}; `register_lowering` adds one")


@register_lowering(Dense)
def _lower_dense(encoding: Dense, shape: Sequence[int]) -> Lowering | None:
    return None if encoding.format in (None, "float32") else _Cast(encoding, shape)


@register_lowering(Masked)
def _lower_masked(encoding: Masked, shape: Sequence[int]) -> Lowering:
    return _Mask(encoding, shape)


@register_lowering(Quantized)
def _lower_quantized(encoding: Quantized, shape: Sequence[int]) -> Lowering:
    return lower_quantized(encoding, shape)


@register_lowering(Escaped)
def _lower_escaped(encoding: Escaped, shape: Sequence[int]) -> Lowering:
    return _Escape(encoding, shape)


@contextmanager
def through_masks() -> Iterator[None]:
    """Within this context gradients are traced as those of what the layer reads: masks do not stop them."""
    token = _OPEN.set(True)
    try:
        yield
    finally:
        _OPEN.reset(token)


def straight_through(lowering: Lowering) -> Callable[[TFTensor], TFTensor]:
    """The function a view computes: `lowering.read`, with the gradient of the identity on what is not masked.

    What the lowering learns gets the gradients of `lowering.slopes`.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def view(master: TFTensor, *learned: TFTensor) -> tuple[Any, Callable[[TFTensor], TFTensor]]:
        keep = lowering.state.get("keep")
        value = lowering.read(master, *learned)

        def gradient(upstream: TFTensor, variables: TFTensor = None) -> TFTensor:
            through = upstream if keep is None or _OPEN.get() else upstream * keep
            found = (through, *lowering.slopes(master, value, upstream, *learned)) if learned else through
            return found if variables is None else (found, [None] * len(variables))

        return value, gradient

    def read(master: TFTensor) -> TFTensor:
        return view(master, *(tf.convert_to_tensor(tf_variable(variable)) for variable in lowering.learned))

    return read


def evaluate(
    encoding: Encoding, values: NDArray[np.float32], upstream: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a layer reads of a variable that is held in an encoding while it trains, and the gradient of the variable.

    Args:
        encoding: how the variable is held.
        values: of the variable.
        upstream: the gradient of what the layer reads, of the same shape.

    Returns:
        Both as float32, of the shape of `values`.

    Raises:
        EncodingError: no lowering is registered for the encoding.

    Example:
        >>> from bitwidth.encodings import Masked
        >>> mask = Masked(np.array([True, False]))
        >>> evaluate(mask, np.array([3.0, 4.0], np.float32), np.ones(2, np.float32))
        (array([3., 0.], dtype=float32), array([1., 0.], dtype=float32))
    """
    lowering = lower(encoding, values.shape)
    if lowering is None:
        return values, upstream
    master = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(master)
        read = straight_through(lowering)(master)
    gradient = tape.gradient(read, master, output_gradients=tf.constant(upstream))
    return read.numpy(), gradient.numpy()
