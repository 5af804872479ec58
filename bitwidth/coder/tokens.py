"""Tokens of wide integers: a magnitude is a small symbol and, where it is large, raw bits below it.

Magnitudes below 2**(m + 1) are tokens of their own, larger ones a token for the exponent and the `m` bits below the
leading one, as in floating-point numbers; the remaining low bits are left out.

Source: the hybrid integers of JPEG XL (ISO/IEC 18181-1).

Example:
    >>> tokens, left_out = tokens_of(np.array([3, 9], np.uint64), 1)
    >>> tokens.tolist(), left_out.tolist()
    ([3, 6], [0, 2])
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import counts_of
from bitwidth.coder.tables import entropy_of

MANTISSAS = (6, 4, 3, 2, 1, 0)
"""The numbers of mantissa bits to choose from, finest first."""

_WEIGHT_BITS = 3.5  # what one more symbol in a table costs, roughly


def _bit_lengths(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The bit length of each value; in two halves, since a double holds 53 bits only."""
    upper = (values >> np.uint64(32)).astype(np.float64)
    lower = (values & np.uint64(0xFFFFFFFF)).astype(np.float64)
    return np.where(upper > 0, np.frexp(upper)[1] + 32, np.frexp(lower)[1]).astype(np.int64)


def tokens_of(values: NDArray[np.uint64], mantissa: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """(token, how many low bits are left out of it) of each magnitude.

    Example:
        >>> tokens_of(np.array([5], np.uint64), 6)[0]
        array([5])
    """
    shifts = np.maximum(_bit_lengths(values) - 1 - mantissa, 0)
    unsigned = shifts.astype(np.uint64)
    return (shifts << mantissa) + (values >> unsigned).astype(np.int64), unsigned


def least_of(tokens: NDArray[np.int64], mantissa: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(the least magnitude of each token, how many low bits it leaves out).

    Example:
        >>> least_of(np.array([6]), 1)
        (array([8], dtype=uint64), array([2]))
    """
    shifts = np.maximum((tokens >> mantissa) - 1, 0)
    return (tokens - (shifts << mantissa)).astype(np.uint64) << shifts.astype(np.uint64), shifts


def choose_mantissa(
    magnitude: NDArray[np.uint64], negative: NDArray[np.bool_], often: NDArray[np.int64] | None = None
) -> tuple[int, float]:
    """The mantissa bits of least estimated cost, and that cost in bits: coarser tokens are unions of finer ones.

    `often` says how often each occurs, if not once.

    Example:
        >>> choose_mantissa(np.array([1, 1, 2], np.uint64), np.array([False, False, True]))[0]
        6
    """
    finest = MANTISSAS[0]
    fine = tokens_of(magnitude, finest)[0] * 2 + negative
    counts = counts_of(fine) if often is None else np.bincount(fine, weights=often).astype(np.int64)
    used = np.flatnonzero(counts)
    counts = counts[used]
    least = least_of(used >> 1, finest)[0]
    best, best_cost = 0, float("inf")
    for mantissa in MANTISSAS:
        tokens, shifts = tokens_of(least, mantissa)
        merged = np.bincount(tokens * 2 + (used & 1), weights=counts).astype(np.int64)
        raw = float(counts @ shifts.astype(np.float64))
        cost = entropy_of(merged) + raw + _WEIGHT_BITS * np.count_nonzero(merged)
        if cost < best_cost:
            best, best_cost = mantissa, cost
    return best, best_cost
