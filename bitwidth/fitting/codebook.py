"""Learned codebooks: levels that suit a tensor, found by k-means over its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.encodings.floats import LARGEST_HALF
from bitwidth.encodings.levels import TableLevels, uniform_levels
from bitwidth.encodings.quantized import Quantized
from bitwidth.fitting.scales import ScaleMethod, Stored, fit_scale, storage
from bitwidth.fitting.search import Search, measure
from bitwidth.fitting.strips import Strip, per_block, strips
from bitwidth.typing import Array

ROUNDS = 3  # of levels, then scales
LLOYD_STEPS = 200
REACH = 4  # values further out than so many times the outermost level are counted together


@dataclass(frozen=True, eq=False)
class _Histogram:
    """Sums over the values in equal bins of the normalised axis, each as running totals over the edges."""

    edges: NDArray[np.float64]
    weight: NDArray[np.float64]
    moment: NDArray[np.float64]

    def cells(self, levels: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight and first moment of the values nearest to each level."""
        middles = (levels[1:] + levels[:-1]) / 2
        inner = [np.interp(middles, self.edges, total) for total in (self.weight, self.moment)]
        ends = [(total[:1], total[-1:]) for total in (self.weight, self.moment)]
        weight, moment = (np.diff(np.concatenate([a, part, b])) for part, (a, b) in zip(inner, ends, strict=True))
        return weight, moment


def fit_codebook(
    values: NDArray[np.float32],
    bits: int,
    block: Sequence[int],
    method: ScaleMethod = "mse",
    keep: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
) -> Quantized:
    """Levels of one table for the whole tensor and a scale per block, of little weighted squared error.

    Weighted k-means over the values divided by their block's scale (Lloyd 1982, "Least squares quantization in PCM";
    Han, Mao and Dally 2016, "Deep Compression", section 3; with the Hessian's diagonal as weights, Choi, El-Khamy and
    Lee 2017, "Towards the Limit of Network Quantization", section 3.3), alternated with least squares for the scales.
    It runs over a histogram with exact sums, from the uniform grid and from levels at equal steps of the density's cube
    root (Panter and Dite 1951). The uniform grid is kept where nothing better is found: the error is never greater.

    Args:
        values: the tensor, float32.
        bits: at most 2**bits levels.
        block: lengths of a block, one per axis.
        method: `"mse"`, or `"max"` to leave the scales where the greatest magnitudes put them.
        keep: True where a value counts; None for everywhere.
        weights: how much each squared error counts; None for one each.

    Returns:
        A grid over a table. Levels and scales take two bytes each.

    Example:
        >>> x = np.array([0.0, 0.0, 1.0, 1.0, 8.0], np.float32)
        >>> fit_codebook(x, 2, (5,)).project(x)
        array([0., 0., 1., 1., 8.], dtype=float32)
    """
    start = fit_scale(values, uniform_levels(bits), block, method, keep, weights)
    low, high = start.levels.bounds
    levels = TableLevels(tuple(uniform_levels(bits).at(np.arange(low, high + 1)).tolist()), free=True)
    stored = storage(start.scale, 0.5)
    best = Quantized(levels, start.scale, tuple(block))
    least, grid = _error(best, levels, values, block, keep, weights), best
    for _ in range(ROUNDS if method == "mse" else 1):
        seen = _histogram(grid, values, block, keep, weights)
        learned = _learned(seen, levels.array.astype(np.float64), 1 << bits)
        if learned is None:
            break
        levels = learned
        scale = _rescaled(levels, grid.scale, values, block, keep, weights, stored if method == "mse" else None)
        grid = Quantized(levels, scale, tuple(block))
        error = _error(grid, levels, values, block, keep, weights)
        if error < least:
            best, least = grid, error
    return best


def _learned(seen: _Histogram, levels: NDArray[np.float64], count: int) -> TableLevels | None:
    """The better of k-means from the present levels and from equal steps of the density's cube root."""
    if not seen.weight[-1] > 0:
        return None
    density = np.cbrt(np.diff(seen.weight))
    total = np.concatenate([[0.0], np.cumsum(density)])
    parts = (np.arange(count) + 0.5) / count * total[-1]
    found = [_lloyd(seen, start) for start in (_filled(levels, count), np.interp(parts, total, seen.edges))]
    gains = []
    for candidate in found:
        weight, moment = seen.cells(candidate)
        gains.append(float(np.divide(moment**2, weight, out=np.zeros_like(weight), where=weight > 0).sum()))
    chosen = np.clip(found[int(np.argmax(gains))], -LARGEST_HALF, LARGEST_HALF).astype(np.float16)
    rounded = np.unique(chosen.astype(np.float32) + np.float32(0))
    return TableLevels(tuple(rounded.tolist()), free=True) if rounded.size >= 2 else None


def _filled(levels: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`levels` with more of them, between the first ones, up to `count`."""
    while levels.size < count:
        more = min(count - levels.size, levels.size - 1)
        levels = np.sort(np.concatenate([levels, (levels[1 : more + 1] + levels[:more]) / 2]))
    return levels


def _lloyd(seen: _Histogram, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each level to the mean of the values nearest to it, until none moves; one that has no values stays."""
    for _ in range(LLOYD_STEPS):
        weight, moment = seen.cells(levels)
        moved = np.sort(np.divide(moment, weight, out=levels.copy(), where=weight > 0))
        if np.abs(moved - levels).max() <= 1e-5 * np.abs(levels).max():
            return moved
        levels = moved
    return levels


def _histogram(
    grid: Quantized,
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
) -> _Histogram:
    """Of the values over their block's scale; the squared scale is their weight, since errors count before scaling."""
    bins, reach = max(1 << 14, 16 << int(grid.bits)), np.float32(REACH * grid.levels.extent)
    sums = np.zeros((2, bins))
    for strip in strips(values, block, keep, weights):
        scale = grid.scale[strip.place].reshape(-1, 1)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 1e-37)
        square = np.square(scale.astype(np.float64))
        for x, counted in strip.pieces():
            normal = x * inverse
            place = normal * np.float32(bins / (2 * reach)) + np.float32(bins / 2)
            index = np.clip(place, 0, bins - 1).astype(np.intp).ravel()
            weight = np.broadcast_to(square, x.shape) if counted is None else square * counted
            sums[0] += np.bincount(index, weight.ravel(), bins)
            sums[1] += np.bincount(index, (weight * normal).ravel(), bins)
    totals = np.concatenate([np.zeros((2, 1)), np.cumsum(sums, axis=1)], axis=1)
    return _Histogram(np.linspace(-float(reach), float(reach), bins + 1), totals[0], totals[1])


def _rescaled(
    levels: TableLevels,
    scale: NDArray[np.float32],
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
    stored: Stored | None,
) -> NDArray[np.float32]:
    """Scales by least squares over the new levels, where that lowers the error of a block; None leaves them."""
    if stored is None:
        return scale
    rounding = stored

    def fitted() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            search = Search(strip)
            search.offer(levels, scale[strip.place].reshape(-1))
            for _ in range(2):
                search.offer(levels, rounding(np.maximum(search.least_squares(), np.float32(0))))
            yield strip, (search.scale,)

    return per_block(fitted(), grid_shape(values.shape, block), [np.float32])[0]


def _error(
    grid: Quantized,
    levels: TableLevels,
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
) -> float:
    """Weighted squared error of a grid over the whole tensor."""
    found = (
        measure(strip, levels, grid.scale[strip.place].reshape(-1)).error
        for strip in strips(values, block, keep, weights)
    )
    return float(sum(error.sum() for error in found))
