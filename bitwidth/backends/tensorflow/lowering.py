"""Lower an encoding to TensorFlow: a function from a float master to the value that the layer reads.

The forward arithmetic is that of `Encoding.project`, operation by operation; the gradient passes straight through to
the master (Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", section 4), except
where a mask holds the value at zero. What may change while a model trains (scales, bounds, levels, masks) lives in
variables, so that it can change without a retrace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bitwidth.errors import ConfigError, EncodingError
from bitwidth.tensors import (
    Dense,
    Encoding,
    Escaped,
    IntegerLevels,
    LevelRows,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    spread,
)

_OPEN: ContextVar[bool] = ContextVar("open", default=False)
Arrays = dict[str, NDArray[Any]]


Lower = Callable[[Any, Sequence[int]], "Lowering | None"]
_LOWERINGS: dict[type[Encoding], Lower] = {}


class Lowering(ABC):
    """One encoding as TensorFlow operations over state variables.

    Attributes:
        state: the variables that hold what may change without a retrace, by name.
    """

    def __init__(self, encoding: Encoding, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.state = {
            name: tf.Variable(array, trainable=False, name=f"view_{name}", dtype=array.dtype)
            for name, array in self.arrays(encoding).items()
        }

    @abstractmethod
    def arrays(self, encoding: Encoding) -> Arrays:
        """The arrays of the state that belongs to `encoding`."""

    @abstractmethod
    def read(self, master: Any) -> Any:
        """The value the layer reads: a float32 tensor of the master's shape."""

    def update(self, encoding: Encoding) -> None:
        """Change the state to that of another encoding of the same structure.

        Raises:
            EncodingError: the structure differs, so the view has to be built anew.
        """
        arrays = self.arrays(encoding)
        if {name: a.shape for name, a in arrays.items()} != {name: tuple(v.shape) for name, v in self.state.items()}:
            raise EncodingError(f"{encoding.describe()} has another structure than the encoding under training")
        for name, array in arrays.items():
            self.state[name].assign(array)

    def baked(self, encoding: Encoding, master: NDArray[Any]) -> Encoding:
        """`encoding` with what training has learned put into it: escaped values are those of the master.

        Args:
            encoding: the encoding under training.
            master: the trained master, float32 of the tensor's shape.
        """
        return encoding


class _Cast(Lowering):
    """A 16-bit float format, through the bits: XLA may drop a pair of casts, but no change of the bits."""

    def __init__(self, encoding: Dense, shape: Sequence[int]) -> None:
        self.format = encoding.format
        super().__init__(encoding, shape)

    def arrays(self, encoding: Encoding) -> Arrays:
        word = {"bfloat16": np.uint32(0xFFFF0000), "float16": np.uint16(0xFFFF)}[str(self.format)]
        return {"bits": np.array(word)}

    def read(self, master: Any) -> Any:
        if self.format == "float16":
            bits = tf.bitcast(tf.cast(master, tf.float16), tf.uint16)
            return tf.cast(tf.bitcast(tf.bitwise.bitwise_and(bits, self.state["bits"]), tf.float16), tf.float32)
        bits = tf.bitcast(master, tf.uint32)
        odd = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32)), tf.constant(1, tf.uint32)
        )
        rounded = tf.bitwise.bitwise_and(bits + odd + tf.constant(0x7FFF, tf.uint32), self.state["bits"])
        return tf.bitcast(rounded, tf.float32)


class _Grid(Lowering):
    """`Quantized` over integer levels, or over the leading bits of integers: one changes into the other by `update`."""

    def arrays(self, encoding: Encoding) -> Arrays:
        grid = _quantized(encoding)
        if not isinstance(grid.levels, IntegerLevels | PrefixLevels):
            raise EncodingError(f"{encoding.describe()} has no integer levels")
        short = grid.levels if isinstance(grid.levels, PrefixLevels) else None
        low, high = (-short.high, short.high) if short else grid.levels.bounds
        zero = np.int32(0) if grid.zero_point is None else spread(grid.zero_point, grid.block, self.shape)
        arrays = {
            "scale": spread(grid.scale, grid.block, self.shape),
            "reciprocal": spread(grid.reciprocal, grid.block, self.shape),
            "low": np.asarray(low - zero, np.float32),
            "high": np.asarray(high - zero, np.float32),
            "step": np.array(1 << (short.dropped if short else 0), np.float32),
        }
        if grid.bias is not None:
            arrays["bias"] = spread(grid.bias, grid.block, self.shape)
        return arrays

    def read(self, master: Any) -> Any:
        state = self.state
        x = master - state["bias"] if "bias" in state else master
        whole = tf.clip_by_value(tf.round(x * state["reciprocal"]), state["low"], state["high"])
        step = tf.convert_to_tensor(state["step"])
        # A branch, so that a whole grid does not pay for what only a prefix needs.
        level = tf.cond(step > 1.0, lambda: _leading(whole, step), lambda: whole)
        value = level * state["scale"]
        return value + state["bias"] if "bias" in state else value


def _leading(whole: Any, step: Any) -> Any:
    """`PrefixLevels.at` of the truncated codes, in floats: every operation is exact."""
    code = tf.sign(whole) * tf.floor(tf.abs(whole) / step)
    return code * step + tf.sign(code) * ((step - 1.0) / 2.0)


class _Table(Lowering):
    """`Quantized` over a table of levels."""

    def arrays(self, encoding: Encoding) -> Arrays:
        grid = _quantized(encoding)
        if not isinstance(grid.levels, TableLevels):
            raise EncodingError(f"{encoding.describe()} has no table of levels")
        arrays = {
            "scale": spread(grid.scale, grid.block, self.shape),
            "reciprocal": spread(grid.reciprocal, grid.block, self.shape),
            "levels": grid.levels.array,
            "thresholds": grid.levels.thresholds,
        }
        if grid.bias is not None:
            arrays["bias"] = spread(grid.bias, grid.block, self.shape)
        return arrays

    def read(self, master: Any) -> Any:
        state = self.state
        x = master - state["bias"] if "bias" in state else master
        x = tf.reshape(x * state["reciprocal"], [-1])
        index = tf.searchsorted(state["thresholds"], x, side="left")
        value = tf.reshape(tf.gather(state["levels"], index), self.shape) * state["scale"]
        return value + state["bias"] if "bias" in state else value


class _Rows(Lowering):
    """`Quantized` over rows of levels: each block reads its own table."""

    def arrays(self, encoding: Encoding) -> Arrays:
        grid = _quantized(encoding)
        if not isinstance(grid.levels, LevelRows):
            raise EncodingError(f"{encoding.describe()} has no rows of levels")
        longest = max(len(row.values) for row in grid.levels.rows)
        arrays = {
            "scale": spread(grid.scale, grid.block, self.shape),
            "reciprocal": spread(grid.reciprocal, grid.block, self.shape),
            "row": spread(np.asarray(grid.row), grid.block, self.shape),
            "levels": np.stack([_padded(row.array, longest, row.array[-1]) for row in grid.levels.rows]),
            "thresholds": np.stack([_padded(row.thresholds, longest - 1, np.inf) for row in grid.levels.rows]),
        }
        if grid.bias is not None:
            arrays["bias"] = spread(grid.bias, grid.block, self.shape)
        return arrays

    def read(self, master: Any) -> Any:
        state = self.state
        x = master - state["bias"] if "bias" in state else master
        x = tf.reshape(x * state["reciprocal"], [-1])
        level = tf.zeros(self.shape, tf.float32)
        for index in range(state["levels"].shape[0]):
            position = tf.searchsorted(state["thresholds"][index], x, side="left")
            own = tf.reshape(tf.gather(state["levels"][index], position), self.shape)
            level = tf.where(tf.equal(state["row"], index), own, level)
        value = level * state["scale"]
        return value + state["bias"] if "bias" in state else value


class _Escape(Lowering):
    """`Escaped` over another encoding: escaped values are the master's, so they train as they are."""

    def __init__(self, encoding: Escaped, shape: Sequence[int]) -> None:
        self.base, self.float = lower(encoding.base, shape), lower(Dense(encoding.format), shape)
        self.format = encoding.format
        super().__init__(encoding, shape)

    def arrays(self, encoding: Encoding) -> Arrays:
        if not isinstance(encoding, Escaped) or encoding.format != self.format:
            raise EncodingError(f"{encoding.describe()} has no escapes in {self.format}")
        return {"plane": np.array(encoding.plane)}

    def read(self, master: Any) -> Any:
        held = master if self.base is None else self.base.read(master)
        free = master if self.float is None else self.float.read(master)
        return tf.where(self.state["plane"], free, held)

    def update(self, encoding: Encoding) -> None:
        super().update(encoding)
        if isinstance(encoding, Escaped) and self.base is not None:
            self.base.update(encoding.base)

    def baked(self, encoding: Encoding, master: NDArray[Any]) -> Encoding:
        if not isinstance(encoding, Escaped):
            return encoding
        base = encoding.base if self.base is None else self.base.baked(encoding.base, master)
        return Escaped.of(master, encoding.plane, base, encoding.format)


class _Mask(Lowering):
    """`Masked` over another encoding."""

    def __init__(self, encoding: Masked, shape: Sequence[int]) -> None:
        self.base = lower(encoding.base, shape)
        super().__init__(encoding, shape)

    def arrays(self, encoding: Encoding) -> Arrays:
        if encoding.mask is None:
            raise EncodingError(f"{encoding.describe()} has no mask")
        return {"keep": encoding.mask.astype(np.float32)}

    def read(self, master: Any) -> Any:
        value = master if self.base is None else self.base.read(master)
        return value * self.state["keep"]

    def update(self, encoding: Encoding) -> None:
        super().update(encoding)
        if isinstance(encoding, Masked) and self.base is not None:
            self.base.update(encoding.base)

    def baked(self, encoding: Encoding, master: NDArray[Any]) -> Encoding:
        if not isinstance(encoding, Masked) or self.base is None:
            return encoding
        return Masked(encoding.keep, self.base.baked(encoding.base, master))


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
    """The lowering of an encoding for a tensor of `shape`; None where the layer reads the master as it is.

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
    kinds: dict[type, type[Lowering]] = {TableLevels: _Table, LevelRows: _Rows}
    return kinds.get(type(encoding.levels), _Grid)(encoding, shape)


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


def straight_through(lowering: Lowering) -> Callable[[Any], Any]:
    """The function a view computes: `lowering.read`, with the gradient of the identity on what is not masked."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def view(master: Any) -> tuple[Any, Callable[[Any], Any]]:
        keep = lowering.state.get("keep")

        def gradient(upstream: Any, variables: Any = None) -> Any:
            through = upstream if keep is None or _OPEN.get() else upstream * keep
            return through if variables is None else (through, [None] * len(variables))

        return lowering.read(master), gradient

    made: Callable[[Any], Any] = view
    return made


def _quantized(encoding: Encoding) -> Quantized:
    if not isinstance(encoding, Quantized):
        raise EncodingError(f"{encoding.describe()} is not on a grid")
    return encoding


def _padded(array: NDArray[np.float32], length: int, filler: Any) -> NDArray[np.float32]:
    return np.pad(array, (0, length - array.size), constant_values=filler)
