"""Fit a table of levels that the user gives: which row, scale and bias hold each block best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.encodings.levels import TableLevels
from bitwidth.encodings.quantized import Quantized
from bitwidth.fitting.rules import BitRule
from bitwidth.fitting.scales import Stored, greatest, ratios_of, search_scale, storage
from bitwidth.fitting.search import Search
from bitwidth.fitting.snap import snapper
from bitwidth.fitting.strips import Strip, per_block, strips
from bitwidth.typing import Array

STEPS = 3  # of least squares over fixed codes
LEAST = 0.05  # the smallest ratio of a fitted scale to the widest for which its format is chosen


def fit_table(
    rule: BitRule,
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
) -> Quantized:
    """The grid of a user's table that holds `values` best: per block the row, scale and bias of least squared error.

    Scales and biases that are fitted are rounded so that two bytes hold each; those that are given stay unchanged.
    What is fitted alternates between codes and least squares (Lloyd 1982), from several starts.

    Args:
        rule: the table.
        values: the tensor, float32.
        block: lengths of a block, one per axis.
        keep: True where a value counts; None for everywhere.
        weights: how much each squared error counts; None for one each.

    Example:
        >>> x = np.array([[2.0, 30.0], [1.0, 10.0]], np.float32)
        >>> fit_table(BitRule([[1, 2], [1, 3]], scale=[1, 10]), x, (2, 1)).row
        array([[0, 1]], dtype=int32)
    """
    grid, rows = grid_shape(values.shape, block), [TableLevels(row) for row in rule.levels]
    widest = greatest(values, block, keep, weights)
    stored = storage(widest / np.float32(max(row.extent for row in rows)), LEAST)

    def fitted() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            best = Search(strip)
            for index, row in enumerate(rows):
                best.merge(_row(strip, rule, row, stored), index)
            yield strip, (best.scale, best.bias, best.row)

    scale, bias, row = per_block(fitted(), grid, [np.float32, np.float32, np.int32])
    table = rule.table
    chosen = row if table.by_block else None
    return Quantized(table, scale, tuple(block), bias=bias if bias.any() else None, row=chosen)


def _row(strip: Strip, rule: BitRule, levels: TableLevels, stored: Stored) -> Search:
    """The best scale and bias over one row of levels."""
    if rule.bias == "fit":
        return _fit_bias(strip, rule, levels, stored)
    low, high = strip.range()
    best = Search(strip)
    for number in _numbers(rule.bias):
        bias = np.full(len(strip.values), number, np.float32) if number else None
        if rule.scale == "fit":
            furthest = np.maximum(np.abs(low - np.float32(number)), np.abs(high - np.float32(number)))
            widest = furthest / np.float32(levels.extent)
            best.merge(search_scale(strip, levels, widest, stored, bias), 0)
            continue
        for scale in _numbers(rule.scale):
            best.offer(levels, np.full(len(strip.values), scale, np.float32), bias=bias)
    return best


def _fit_bias(strip: Strip, rule: BitRule, levels: TableLevels, stored: Stored) -> Search:
    """Start with the levels over the range of the values, or a part of it; then least squares."""
    low, high = (end.astype(np.float64) for end in strip.span())
    first, last = levels.values[0], levels.values[-1]
    best = Search(strip)
    widest = (high - low) / (last - first)
    given = [] if rule.scale == "fit" else [np.full(len(low), scale) for scale in _numbers(rule.scale)]
    scales = given or [widest * ratio for ratio in ratios_of(levels)]
    for scale in scales:
        exact = scale.astype(np.float32) if given else stored(scale)
        best.offer(levels, exact, bias=stored((low + high) / 2 - exact * (first + last) / 2))
    for _ in range(STEPS):
        scale, bias = _least_squares(strip, levels, best, free=not given)
        best.offer(levels, best.scale if given else stored(np.maximum(scale, 0)), bias=stored(bias))
    return best


def _least_squares(
    strip: Strip, levels: TableLevels, best: Search, free: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and bias of least error for the codes of the best so far; the scale stays unless it is `free`."""
    bias, snap = best.bias[:, None], snapper(levels)
    inverse = np.divide(1, best.scale, out=np.zeros_like(best.scale), where=best.scale > 0)[:, None]

    def sums(x: NDArray[np.float32], weights: NDArray[np.float32] | None) -> list[Array]:
        level, value = snap((x - bias) * inverse).astype(np.float64), x.astype(np.float64)
        counted = np.ones_like(value) if weights is None else weights.astype(np.float64)
        terms = (counted, counted * level, counted * value, counted * level * value, counted * level * level)
        return [term.sum(axis=1) for term in terms]

    count, level, value, product, square = strip.total(sums)
    scale, spread = best.scale.astype(np.float64), count * square - level * level
    if free:
        np.divide(count * product - level * value, spread, out=scale, where=spread > 1e-9 * count * square)
    shift = np.divide(value - scale * level, count, out=best.bias.astype(np.float64), where=count > 0)
    return scale, shift


def _numbers(given: Any) -> tuple[float, ...]:
    return given if isinstance(given, tuple) else (given,)
