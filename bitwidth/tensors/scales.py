"""Find the scale of each block: by its greatest magnitude, or by a search for the least squared error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitwidth.tensors.blocks import block_reduce
from bitwidth.tensors.floats import LARGEST_HALF, SMALLEST_NORMAL_HALF
from bitwidth.tensors.levels import Levels
from bitwidth.tensors.quantized import Quantized

ScaleMethod = Literal["mse", "max"]


def fit_scale(
    values: NDArray[np.float32],
    levels: Levels,
    block: Sequence[int],
    method: ScaleMethod = "mse",
    keep: NDArray[np.bool_] | None = None,
) -> Quantized:
    """The grid of `levels` that holds `values` best, one scale per block.

    `"max"` puts the greatest magnitude of each block on the outermost level. `"mse"` searches scales below that for the
    least squared error per block, on a coarse and then a fine grid of ratios, and ends with least-squares steps over
    fixed codes (the alternation of Lloyd 1982, "Least squares quantization in PCM", with scaled levels). Scales are
    rounded to 11 significant bits, so that they are stored in two bytes.

    Args:
        values: the tensor.
        levels: what a code stands for; bounded.
        block: lengths of a block, one per axis.
        method: `"mse"` or `"max"`.
        keep: True where a value counts; None for everywhere.

    Example:
        >>> from bitwidth.tensors.levels import uniform_levels
        >>> grid = fit_scale(np.array([[0.5, -1.0], [0.25, 3.0]], np.float32), uniform_levels(3), (2, 1), "max")
        >>> grid.scale
        array([[0.16662598, 1.        ]], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    kept = values if keep is None else np.where(keep, values, np.float32(0))
    greatest = block_reduce(np.abs(kept), block, np.maximum)
    widest = (greatest / np.float32(levels.extent)).astype(np.float32)
    stored = _storage(widest, float(_ratios(levels.bits)[-1]))
    if method == "max":
        return Quantized(levels, stored(widest), tuple(block))
    search = _Search(kept, levels, block, keep, stored)
    for ratio in _ratios(levels.bits):
        search.offer(widest * np.float32(ratio))
    step = np.float32(_ratios(levels.bits)[0] - _ratios(levels.bits)[1])
    centre = search.scale
    for fraction in (-2 / 3, -1 / 3, 1 / 3, 2 / 3):
        search.offer(centre + widest * step * np.float32(fraction))
    for _ in range(2 if levels.bits <= 4 else 0):
        search.offer(search.least_squares())
    return Quantized(levels, search.scale, tuple(block))


class _Search:
    """The best scale so far for each block, and its error."""

    def __init__(
        self,
        values: NDArray[np.float32],
        levels: Levels,
        block: Sequence[int],
        keep: NDArray[np.bool_] | None,
        stored: Callable[[NDArray[Any]], NDArray[np.float32]],
    ) -> None:
        self.values, self.levels, self.block, self.keep, self.stored = values, levels, tuple(block), keep, stored
        self.scale: NDArray[np.float32] = np.zeros(0, np.float32)
        self.error: NDArray[np.float32] | None = None

    def offer(self, scale: NDArray[np.float32]) -> None:
        """Take each block's new scale where it lowers the error of the block."""
        scale = self.stored(np.maximum(scale, np.float32(0)))
        difference = Quantized(self.levels, scale, self.block).project(self.values) - self.values
        if self.keep is not None:
            difference = np.where(self.keep, difference, np.float32(0))
        error = block_reduce(np.square(difference, out=difference), self.block, np.add)
        if self.error is None:
            self.scale, self.error = scale, error
            return
        better = error < self.error
        self.scale = np.where(better, scale, self.scale)
        self.error = np.where(better, error, self.error)

    def least_squares(self) -> NDArray[np.float32]:
        """The scale of least error for the codes that the present scale gives."""
        grid = Quantized(self.levels, self.scale, self.block)
        level = self.levels.at(grid.encode(self.values))
        if self.keep is not None:
            level = np.where(self.keep, level, np.float32(0))
        product = block_reduce(level * self.values, self.block, np.add)
        square = block_reduce(level * level, self.block, np.add)
        best: NDArray[np.float32] = np.divide(product, square, out=np.array(self.scale), where=square > 0)
        return best


def _ratios(bits: float) -> NDArray[np.float64]:
    """Ratios to the widest scale that are worth trying: the fewer the bits, the more a grid gains by clipping."""
    lowest, count = {1: (0.1, 19), 2: (0.2, 17), 3: (0.35, 14), 4: (0.45, 12), 5: (0.6, 9)}.get(int(bits), (0.8, 6))
    return np.linspace(1.0, lowest, count)


def _storage(widest: NDArray[np.float32], least: float) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """How to round scales so that two bytes hold each: to 11 bits (float16) where all are in its range, else to 8.

    Scales down to `least` times the widest are tried. One format for all blocks, chosen from the widest scales: an
    array is stored in one format.
    """
    positive = widest[widest > 0]
    if not positive.size or (positive.min() * least >= SMALLEST_NORMAL_HALF and positive.max() <= LARGEST_HALF / 2):
        return lambda scale: np.minimum(scale, LARGEST_HALF).astype(np.float16).astype(np.float32)
    return _to_8_bits


def _to_8_bits(scale: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    mantissa, exponent = np.frexp(scale.astype(np.float32))
    rounded: NDArray[np.float32] = np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)
    return rounded
