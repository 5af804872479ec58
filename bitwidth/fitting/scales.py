"""Find the scale of each block: by its greatest magnitude, or by a search for the least squared error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.encodings.floats import LARGEST_HALF, SMALLEST_NORMAL_HALF
from bitwidth.encodings.interface import Levels
from bitwidth.encodings.quantized import Quantized
from bitwidth.fitting.search import Search
from bitwidth.fitting.strips import Strip, check_counted, per_block, strips
from bitwidth.typing import Array

ScaleMethod = Literal["mse", "max"]
Stored = Callable[[Array], NDArray[np.float32]]


def fit_scale(
    values: NDArray[np.float32],
    levels: Levels,
    block: Sequence[int],
    method: ScaleMethod = "mse",
    keep: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
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
        weights: how much the squared error of each value counts, not negative, of the tensor's shape; None for one
            each. Values of weight zero count for nothing, not even for the greatest magnitude.

    Raises:
        EncodingError: mask or weights do not fit the values.

    Example:
        >>> from bitwidth.encodings.levels import uniform_levels
        >>> grid = fit_scale(np.array([[0.5, -1.0], [0.25, 3.0]], np.float32), uniform_levels(3), (2, 1), "max")
        >>> grid.scale
        array([[0.16662598, 1.        ]], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    check_counted(values.shape, keep, weights)
    grid = grid_shape(values.shape, block)
    widest = greatest(values, block, keep, weights) / np.float32(levels.extent)
    ratios = ratios_of(levels)
    stored = storage(widest, float(ratios[-1]))
    if method == "max":
        return Quantized(levels, stored(widest), tuple(block))

    def fitted() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            yield strip, (search_scale(strip, levels, widest[strip.place].reshape(-1), stored).scale,)

    (scale,) = per_block(fitted(), grid, [np.float32])
    return Quantized(levels, scale, tuple(block))


def greatest(
    values: NDArray[np.float32], block: Sequence[int], keep: NDArray[np.bool_] | None, weights: Array | None
) -> NDArray[np.float32]:
    """The greatest magnitude of each block among the values that count: one entry per block."""

    def found() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            low, high = strip.range()
            yield strip, (np.maximum(-low, high),)

    return per_block(found(), grid_shape(values.shape, block), [np.float32])[0]


def search_scale(
    strip: Strip,
    levels: Levels,
    widest: NDArray[np.float32],
    stored: Stored,
    bias: NDArray[np.float32] | None = None,
) -> Search:
    """The scale of least squared error for each block of a strip.

    Args:
        strip: the blocks.
        levels: what a code stands for.
        widest: the greatest scale to try, shape (blocks,).
        stored: rounds scales to how they are stored.
        bias: of each block, shape (blocks,); None for 0.
    """
    ratios, search = ratios_of(levels), Search(strip)

    def offer(scale: NDArray[np.float32]) -> None:
        search.offer(levels, stored(np.maximum(scale, np.float32(0))), bias=bias)

    for ratio in ratios:
        offer(widest * np.float32(ratio))
    step, centre = np.float32(ratios[0] - ratios[1]), search.scale
    for fraction in (-2 / 3, -1 / 3, 1 / 3, 2 / 3):
        offer(centre + widest * step * np.float32(fraction))
    for _ in range(2 if levels.bits <= 4 or levels.tables else 0):
        offer(search.least_squares())
    return search


def ratios_of(levels: Levels) -> NDArray[np.float64]:
    """Ratios to the widest scale that are worth trying: the fewer the bits, the more a grid gains by clipping.

    The levels of a table may lie far apart, so half of the widest scale is always within what is tried.
    """
    tried = {1: (0.1, 19), 2: (0.2, 17), 3: (0.35, 14), 4: (0.45, 12), 5: (0.6, 9)}
    lowest, count = tried.get(int(levels.bits), (0.45, 12) if levels.tables else (0.8, 6))
    return np.linspace(1.0, lowest, count)


def storage(widest: NDArray[np.float32], least: float) -> Stored:
    """How to round scales so that two bytes hold each: to 11 bits (float16) where all are in its range, else to 8.

    Scales down to `least` times the widest are tried. One format for all blocks, chosen from the widest scales: an
    array is stored in one format.
    """
    positive = widest[widest > 0]
    if not positive.size or (positive.min() * least >= SMALLEST_NORMAL_HALF and positive.max() <= LARGEST_HALF / 2):
        return lambda scale: np.clip(scale, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(np.float32)
    return _to_8_bits


def _to_8_bits(scale: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    mantissa, exponent = np.frexp(scale.astype(np.float32))
    rounded: NDArray[np.float32] = np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)
    return rounded
