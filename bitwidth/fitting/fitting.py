"""Fit a rule to a tensor: one function from values to the grid that holds them in few bits.

- `"uniform"`: integers times scale. Symmetric (`uniform_levels`), or from the least to the greatest value of a block
  with an integer zero point, so that zero is exact (Jacob et al. 2018, "Quantization and Training of Neural Networks
  for Efficient Integer-Arithmetic-Only Inference", section 2.1).
- `"power_of_two"`: zero and powers of two (`power_levels`).
- `"codebook"`: 2**bits levels learned from the tensor (`fit_codebook`), never worse than `"uniform"`.
- `"ternary"`: -scale, 0, +scale: the optimum of Li and Liu 2016, "Ternary Weight Networks", section 2.2, found exactly
  for blocks of up to four million values, and by search beyond.
- `"binary"`: -scale, +scale with the mean magnitude (Rastegari et al. 2016, "XNOR-Net", section 3.1).
- a `BitRule`: a user's own table (`fit_table`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import grid_shape
from bitwidth.encodings.interface import Levels
from bitwidth.encodings.levels import MAX_BITS, IntegerLevels, TableLevels, uniform_levels
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError
from bitwidth.fitting.codebook import fit_codebook
from bitwidth.fitting.rules import BitRule, Rule, check_rule, power_levels
from bitwidth.fitting.scales import ScaleMethod, fit_scale, greatest, ratios_of, storage
from bitwidth.fitting.search import Search
from bitwidth.fitting.strips import Strip, check_counted, per_block, strips
from bitwidth.fitting.tables import fit_table
from bitwidth.typing import Array

LARGEST_SORTED = 1 << 22  # elements of a block that is sorted as a whole
SIGNS, TERNARY = TableLevels((-1.0, 1.0)), IntegerLevels(-1, 1)


def fit(
    rule: Rule,
    bits: int,
    values: Array,
    block: Sequence[int],
    *,
    scale: ScaleMethod = "mse",
    symmetric: bool = True,
    keep: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
) -> Quantized:
    """The grid of a rule that holds `values` best, with one scale per block. Deterministic.

    Args:
        rule: by what the values become few bits; what each rule is, and whose, is said at the head of this module.
        bits: width of a code, 1 to 16; `"ternary"`, `"binary"` and a `BitRule` have their own and ignore it.
        values: the tensor, of any float dtype.
        block: lengths of a block, one per axis.
        scale: `"mse"` for the least squared error, `"max"` for the greatest magnitude on the outermost level (a
            `BitRule` says itself how its scale is found).
        symmetric: False for a zero point, with `"uniform"`; the other rules have none.
        keep: bool of the tensor's shape, True where a value counts; None for everywhere.
        weights: how much each squared error counts, of the tensor's shape, finite and not negative; None for one each.

    Raises:
        ConfigError: the rule is not known.
        EncodingError: bits, mask or weights are out of range or of another shape.

    Example:
        >>> x = np.array([-1.0, -0.5, 0.0, 2.0], np.float32)
        >>> fit("power_of_two", 3, x, (4,)).project(x)
        array([-1. , -0.5,  0. ,  2. ], dtype=float32)
        >>> fit("uniform", 2, x, (4,), symmetric=False, scale="max").project(x)
        array([-1.,  0.,  0.,  2.], dtype=float32)
    """
    check_rule(rule, "fit")
    if not 1 <= bits <= MAX_BITS:
        raise EncodingError(f"a code has 1 to {MAX_BITS} bits, got {bits}")
    values = np.asarray(values, np.float32)
    check_counted(values.shape, keep, weights)
    if isinstance(rule, BitRule):
        return fit_table(rule, values, block, keep, weights)
    if rule == "uniform" and not symmetric:
        return _asymmetric(bits, values, block, scale, keep, weights)
    return _named(rule, bits, values, block, scale, keep, weights)


def _named(
    rule: str,
    bits: int,
    values: NDArray[np.float32],
    block: Sequence[int],
    scale: ScaleMethod,
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
) -> Quantized:
    if rule == "codebook":
        return fit_codebook(values, bits, block, scale, keep, weights)
    if rule in ("ternary", "binary") and scale == "mse":
        return _few(TERNARY if rule == "ternary" else SIGNS, values, block, keep, weights)
    named: dict[str, Levels] = {"ternary": TERNARY, "binary": SIGNS}
    levels = power_levels(bits) if rule == "power_of_two" else named.get(rule, uniform_levels(bits))
    return fit_scale(values, levels, block, scale, keep, weights)


def _few(
    levels: Levels,
    values: NDArray[np.float32],
    block: Sequence[int],
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
) -> Quantized:
    """Two or three levels: the scale of least squared error in closed form."""
    grid = grid_shape(values.shape, block)
    if levels == TERNARY and values.size > LARGEST_SORTED * int(np.prod(grid)):
        return fit_scale(values, levels, block, "mse", keep, weights)
    stored = storage(greatest(values, block, keep, weights), 0.1)
    best = _best_ternary if levels == TERNARY else _mean_magnitude

    def fitted() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            yield strip, (stored(best(strip)),)

    return Quantized(levels, per_block(fitted(), grid, [np.float32])[0], tuple(block))


def _mean_magnitude(strip: Strip) -> NDArray[np.float32]:
    def sums(x: NDArray[np.float32], weights: NDArray[np.float32] | None) -> list[Any]:
        if weights is None:
            return [np.abs(x).sum(axis=1), np.full(len(x), x.shape[1])]
        return [(np.abs(x) * weights).sum(axis=1), weights.sum(axis=1)]

    magnitude, count = strip.total(sums)
    mean = np.divide(magnitude, count, out=np.zeros_like(magnitude), where=count > 0)
    return np.asarray(mean, np.float32)


def _best_ternary(strip: Strip) -> NDArray[np.float32]:
    """The k greatest magnitudes share their mean; that lowers the error by sum**2 / k, so take the best k."""
    parts = list(strip.pieces())
    x = np.abs(parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts], axis=1))
    if parts[0][1] is None:
        magnitude = np.sort(x, axis=1)[:, ::-1]
        count: Any = np.arange(1, x.shape[1] + 1, dtype=np.float64)[None]
        total = np.cumsum(magnitude, axis=1, dtype=np.float64)
    else:
        weights = np.concatenate([np.asarray(part) for _, part in parts], axis=1)
        order = np.argsort(-x, axis=1, kind="stable")
        sorted_weights = np.take_along_axis(weights, order, axis=1).astype(np.float64)
        count = np.cumsum(sorted_weights, axis=1)
        total = np.cumsum(np.take_along_axis(x, order, axis=1) * sorted_weights, axis=1)
    gain = np.divide(total * total, count, out=np.zeros_like(total), where=count > 0)
    best = gain.argmax(axis=1)[:, None]
    top, number = np.take_along_axis(total, best, axis=1), np.take_along_axis(np.broadcast_to(count, x.shape), best, 1)
    mean = np.divide(top, number, out=np.zeros_like(top), where=number > 0)
    return np.asarray(mean[:, 0], np.float32)


def _asymmetric(
    bits: int,
    values: NDArray[np.float32],
    block: Sequence[int],
    method: ScaleMethod,
    keep: NDArray[np.bool_] | None,
    weights: Array | None,
) -> Quantized:
    """All 2**bits codes from the least to the greatest value of a block, or over the part of that which errs least."""
    levels, grid = IntegerLevels(-(1 << (bits - 1)), (1 << (bits - 1)) - 1), grid_shape(values.shape, block)
    steps = np.float32((1 << bits) - 1)
    ends = ((strip, strip.range()) for strip in strips(values, block, keep, weights))
    lowest, highest = per_block(ends, grid, [np.float32, np.float32])
    stored = storage(np.asarray(highest / steps - lowest / steps, np.float32), 0.2)

    def fitted() -> Iterator[tuple[Strip, tuple[Array, ...]]]:
        for strip in strips(values, block, keep, weights):
            own = lowest[strip.place].reshape(-1), highest[strip.place].reshape(-1)
            search = Search(strip)

            def offer(low: Any, high: Any, search: Search = search) -> None:
                scale = stored(high / steps - low / steps)
                ratio = np.divide(-low, scale, out=np.zeros_like(scale), where=scale > 0)
                zero = np.clip(np.rint(ratio), 0, steps).astype(np.int32) + np.int32(levels.bounds[0])
                search.offer(levels, scale, zero)

            offer(*own)
            if method == "mse":
                _narrow(search, levels, own, offer)
                for _ in range(2 if bits <= 4 else 0):
                    search.offer(levels, stored(np.maximum(search.least_squares(), 0)), search.zero)
            yield strip, (search.scale, search.zero)

    scale, zero = per_block(fitted(), grid, [np.float32, np.int32])
    return Quantized(levels, scale, tuple(block), zero)


def _narrow(search: Search, levels: IntegerLevels, ends: tuple[Any, Any], offer: Any) -> None:
    """Both ends drawn in together, then each by itself around the best so far."""
    ratios = ratios_of(levels)
    for ratio in ratios[1:]:
        offer(*(end * np.float32(ratio) for end in ends))
    for share in (0.2, 0.1, 0.05) if levels.bits <= 5 else (0.05,):
        for factor in (1 - share, 1 + share):
            for moved in (0, 1):
                now = [(bound - search.zero) * search.scale for bound in levels.bounds]
                now[moved] = now[moved] * np.float32(factor)
                offer(*(end.astype(np.float32) for end in now))
