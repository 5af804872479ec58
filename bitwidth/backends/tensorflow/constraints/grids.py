"""Lowerings of `Quantized`: integer grids, tables and rows of levels, with scales and levels that can be learned.

Scales are learned as in Esser et al. 2020, "Learned Step Size Quantization", section 2: the gradient of a scale is
`round(x / s) - x / s` inside the range and the outermost level outside of it, times `1 / sqrt(N Q)` for N values in a
block and outermost level Q. What trains is r in `scale * exp(r)`, so that Adam moves every scale by the same share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.backends.tensorflow.constraints.lowered import Arrays, Lowering, learned_variable
from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.encodings import Encoding, Quantized, TableLevels, spread
from bitwidth.encodings.floats import LARGEST_HALF
from bitwidth.encodings.interface import LevelKind
from bitwidth.errors import EncodingError
from bitwidth.fitting.scales import storage
from bitwidth.typing import Array


class Scaled(Lowering):
    """`Quantized`: levels times a scale per block, which can be learned."""

    def __init__(self, encoding: Quantized, shape: Sequence[int]) -> None:
        self.block, self.grid = encoding.block, encoding.scale.shape
        super().__init__(encoding, shape)
        self._is_bounded = bool(np.isfinite(encoding.bits))

    @override
    def learn(self, paid: bool = False) -> None:
        """Scales train; those of integers without bounds, whose step was chosen for a rate, where bits are paid for."""
        if prod(self.shape) > 0 and (self._is_bounded or paid):
            self.learned = (learned_variable(self.grid, "learned_scale"),)

    @override
    def slopes(self, master: TFTensor, value: TFTensor, upstream: TFTensor, *learned: TFTensor) -> tuple[TFTensor, ...]:
        if not learned:
            return ()
        state = self.state
        x, held = self.centred(master), self.centred(value)
        scale = self.scales(learned)[0]
        ends = (tf.convert_to_tensor(end) for end in self.ends(learned))
        return (self._total(x, held, upstream, scale, *ends, tf.convert_to_tensor(state["pace"])),)

    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def _total(
        self,
        x: TFTensor,
        held: TFTensor,
        upstream: TFTensor,
        scale: TFTensor,
        low: TFTensor,
        high: TFTensor,
        pace: TFTensor,
    ) -> TFTensor:
        """Per block the sum of `upstream` times `scale * (level - x / scale)`, outside of the range `scale * level`.

        Compiled even where the model is not: one pass over the values in place of seven.
        """
        inside = tf.logical_and(x >= low * scale, x <= high * scale)
        return self.summed(upstream * tf.where(inside, held - x, held)) * pace

    def centred(self, values: TFTensor) -> TFTensor:
        """`values` without the bias, if there is one."""
        return values - self.state["bias"] if "bias" in self.state else values

    def ends(self, learned: Sequence[ModelVariable]) -> tuple[TFTensor, TFTensor]:
        """The outermost levels."""
        return self.state["low"], self.state["high"]

    def scales(self, learned: Sequence[ModelVariable]) -> tuple[TFTensor, TFTensor]:
        """The current scale and reciprocal, so that they broadcast against the master."""
        scale, reciprocal = self.state["scale"], self.state["reciprocal"]
        if not learned:
            return scale, reciprocal
        factor = self.spread(tf.exp(learned[0]))
        return scale * factor, reciprocal / factor

    def spread(self, grid: TFTensor) -> TFTensor:
        """`bitwidth.encodings.spread` in TensorFlow."""
        for axis in self._grouped():
            grid = tf.repeat(grid, self.block[axis], axis=axis)
            if grid.shape[axis] > self.shape[axis]:
                grid = tf.gather(grid, tf.range(self.shape[axis]), axis=axis)
        return grid

    def summed(self, values: TFTensor) -> TFTensor:
        """The sum over each block: a tensor of the scales' shape."""
        if not len(self.grid):
            return tf.reduce_sum(values)
        for axis in self._grouped():
            size, count = self.block[axis], self.grid[axis]
            missing = size * count - self.shape[axis]
            if missing:
                values = tf.pad(values, [[0, missing if a == axis else 0] for a in range(len(self.shape))])
        split, axes = [], []
        for axis, (count, length) in enumerate(zip(self.grid, self.shape, strict=True)):
            parts = [count, self.block[axis]] if axis in self._grouped() else [length]
            split += parts
            if count == 1 or len(parts) == 2:
                axes.append(len(split) - 1)
        if self._grouped():
            values = tf.reshape(values, split)
        return tf.reshape(tf.reduce_sum(values, axes), self.grid)

    @override
    def changed(self, names: set[str]) -> None:
        if "scale" in names:
            for variable in self.learned:
                variable.assign(tf.zeros_like(tf_variable(variable)))

    @override
    def baked(self, encoding: Encoding, master: Array) -> Encoding:
        grid = encoding.grid
        if not self.learned or grid is None:
            return encoding
        moved = self.learned[0].numpy()
        if not moved.any():
            return encoding
        scale = np.asarray(grid.scale * np.exp(moved), np.float32)
        return replace(grid, scale=storage(scale, 1.0)(scale))

    def _grouped(self) -> list[int]:
        """Axes with several blocks of several values."""
        return [axis for axis, (count, size) in enumerate(zip(self.grid, self.block, strict=True)) if count > 1 < size]

    def common(self, grid: Quantized, low: TFTensor, high: TFTensor) -> Arrays:
        """The state that every kind has: scales, bias, outermost levels, and the share of the gradient of a scale."""
        count = (
            prod(min(size, length) for size, length in zip(grid.block, self.shape, strict=True))
            if grid.block
            else prod(self.shape)
        )
        greatest = max(float(np.abs(low).max()), float(np.abs(high).max())) if np.isfinite(grid.bits) else 1.0
        arrays = {
            "scale": spread(grid.scale, grid.block, self.shape),
            "reciprocal": spread(grid.reciprocal, grid.block, self.shape),
            "low": np.asarray(low, np.float32),
            "high": np.asarray(high, np.float32),
            "pace": np.array(1 / np.sqrt(max(count, 1) * greatest), np.float32),
        }
        if grid.bias is not None:
            arrays["bias"] = spread(grid.bias, grid.block, self.shape)
        return arrays


@final
class Grid(Scaled):
    """`Quantized` over integer levels, or over the leading bits of integers: one changes into the other by `update`."""

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        grid = quantized(encoding)
        if grid.levels.tables:
            raise EncodingError(f"{encoding.describe()} has no integer levels")
        low, high = grid.levels.integer_bounds
        zero = np.int32(0) if grid.zero_point is None else spread(grid.zero_point, grid.block, self.shape)
        step = np.array(1 << grid.levels.dropped_bits, np.float32)
        return {**self.common(grid, low - zero, high - zero), "step": step}

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        state = self.state
        scale, reciprocal = self.scales(learned)
        x = self.centred(master)
        whole = tf.clip_by_value(tf.round(x * reciprocal), state["low"], state["high"])
        step = tf.convert_to_tensor(state["step"])
        # A branch, so that a whole grid does not pay for what only a prefix needs.
        level = tf.cond(step > 1.0, lambda: _leading(whole, step), lambda: whole)
        value = level * scale
        return value + state["bias"] if "bias" in state else value


def _leading(whole: TFTensor, step: TFTensor) -> TFTensor:
    """`PrefixLevels.at` of the truncated codes, in floats: every operation is exact."""
    code = tf.sign(whole) * tf.floor(tf.abs(whole) / step)
    return code * step + tf.sign(code) * ((step - 1.0) / 2.0)


@final
class Table(Scaled):
    """`Quantized` over a table of levels; those of a codebook can be learned."""

    def __init__(self, encoding: Quantized, shape: Sequence[int]) -> None:
        super().__init__(encoding, shape)
        self._free = any(table.free for table in encoding.levels.tables)

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        grid = quantized(encoding)
        if grid.levels.by_block or not grid.levels.tables:
            raise EncodingError(f"{encoding.describe()} has no table of levels")
        (table,) = grid.levels.tables
        levels = table.array
        return {**self.common(grid, levels[0], levels[-1]), "levels": levels, "thresholds": table.thresholds}

    @override
    def learn(self, paid: bool = False) -> None:
        """Scales train, and the levels of a codebook, as offsets in units of the outermost level."""
        super().learn(paid)
        if self.learned and self._free:
            self.learned = (*self.learned, learned_variable(self.state["levels"].shape, "learned_levels"))

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        state = self.state
        scale, _ = self.scales(learned)
        levels, index = self._places(master, learned)
        value = tf.reshape(tf.gather(levels, index), self.shape) * scale
        return value + state["bias"] if "bias" in state else value

    @override
    def ends(self, learned: Sequence[ModelVariable]) -> tuple[TFTensor, TFTensor]:
        levels = self._levels(learned)
        return levels[0], levels[-1]

    @override
    def slopes(self, master: TFTensor, value: TFTensor, upstream: TFTensor, *learned: TFTensor) -> tuple[TFTensor, ...]:
        found = super().slopes(master, value, upstream, *learned)
        if len(learned) < 2:
            return found
        index = self._places(master, learned)[1]
        each = tf.reshape(upstream * self.scales(learned)[0], [-1])
        sums = tf.math.unsorted_segment_sum(each, index, self.state["levels"].shape[0])
        order = tf.argsort(self._moved(learned))
        back = tf.scatter_nd(order[:, None], sums, sums.shape)
        mobile = tf.cast(tf.not_equal(self.state["levels"], 0.0), tf.float32)
        return (*found, back * mobile * self._extent() * self.state["pace"])

    @override
    def baked(self, encoding: Encoding, master: Array) -> Encoding:
        encoding = super().baked(encoding, master)
        grid = encoding.grid
        if len(self.learned) < 2 or grid is None or not self.learned[1].numpy().any():
            return encoding
        moved = np.sort(self._moved([tf_variable(v) for v in self.learned]).numpy())
        rounded = np.clip(moved, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)
        levels = np.unique(rounded + np.float32(0))
        if levels.size < 2:
            return encoding
        return replace(grid, levels=TableLevels(tuple(levels.tolist()), free=True))

    def _extent(self) -> TFTensor:
        return tf.reduce_max(tf.abs(self.state["levels"]))

    def _moved(self, learned: Sequence[ModelVariable]) -> TFTensor:
        return self.state["levels"] + learned[1] * self._extent()

    def _levels(self, learned: Sequence[ModelVariable]) -> TFTensor:
        return tf.sort(self._moved(learned)) if len(learned) > 1 else self.state["levels"]

    def _places(self, master: TFTensor, learned: Sequence[ModelVariable]) -> tuple[TFTensor, TFTensor]:
        """The current levels, and which of them is nearest to each value, flat."""
        state, levels = self.state, self._levels(learned)
        thresholds = levels[:-1] + (levels[1:] - levels[:-1]) / 2.0 if len(learned) > 1 else state["thresholds"]
        x = self.centred(master)
        x = tf.reshape(x * self.scales(learned)[1], [-1])
        return levels, tf.searchsorted(thresholds, x, side="left")


@final
class Rows(Scaled):
    """`Quantized` over rows of levels: each block reads its own table."""

    @override
    def arrays(self, encoding: Encoding) -> Arrays:
        grid = quantized(encoding)
        if not grid.levels.by_block:
            raise EncodingError(f"{encoding.describe()} has no rows of levels")
        rows = grid.levels.tables
        longest = max(len(row.values) for row in rows)
        row = spread(np.asarray(grid.row), grid.block, self.shape)
        ends = (np.array([table.array[place] for table in rows])[row] for place in (0, -1))
        return {
            **self.common(grid, *ends),
            "row": row,
            "levels": np.stack([_padded(table.array, longest, table.array[-1]) for table in rows]),
            "thresholds": np.stack([_padded(table.thresholds, longest - 1, np.inf) for table in rows]),
        }

    @override
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        state = self.state
        scale, reciprocal = self.scales(learned)
        x = self.centred(master)
        x = tf.reshape(x * reciprocal, [-1])
        level = tf.zeros(self.shape, tf.float32)
        for index in range(state["levels"].shape[0]):
            position = tf.searchsorted(state["thresholds"][index], x, side="left")
            own = tf.reshape(tf.gather(state["levels"][index], position), self.shape)
            level = tf.where(tf.equal(state["row"], index), own, level)
        value = level * scale
        return value + state["bias"] if "bias" in state else value


def lower_quantized(encoding: Quantized, shape: Sequence[int]) -> Lowering:
    """The lowering of a grid, by its kind of levels."""
    kinds: dict[LevelKind, type[Scaled]] = {"integers": Grid, "prefix": Grid, "table": Table, "tables": Rows}
    return kinds[encoding.levels.kind](encoding, shape)


def quantized(encoding: Encoding) -> Quantized:
    """`encoding`, if it is a grid.

    Raises:
        EncodingError: it is not one.
    """
    grid = encoding.grid
    if grid is None or grid is not encoding:
        raise EncodingError(f"{encoding.describe()} is not on a grid")
    return grid


def _padded(array: NDArray[np.float32], length: int, filler: TFTensor) -> NDArray[np.float32]:
    return np.pad(array, (0, length - array.size), constant_values=filler)
