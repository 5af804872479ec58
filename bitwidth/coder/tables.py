"""Frequency tables: integer weights to slots that sum to a power of two, and the cheapest way to write a table down.

A table is written as integer *weights*, which encoder and decoder turn into frequencies by the same integer arithmetic
(`normalise`), so a table may be as coarse as its stream is short. Three kinds, the cheapest is kept:

* `single`: one symbol, whose coding then costs nothing;
* `explicit`: a weight a symbol, as a bit length (coded against the one before it) and a few leading bits;
* `shape`: a generalised normal curve of six numbers (`bitwidth.coder.shapes`), for small streams.

Example:
    >>> import numpy as np
    >>> normalise(np.array([3, 0, 1]), 4).tolist()
    [12, 0, 4]
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import shapes
from bitwidth.coder.scalar import Bit, Decoder, Encoder
from bitwidth.errors import CorruptFileError

MAX_SYMBOLS = 1 << 14
_WEIGHT_BITS = 20
_LONGEST = _WEIGHT_BITS + 1  # rounding may carry a weight up to 2**20
_SHAPE_BITS = 20  # and twice those of the count of its symbols: no shape is written in fewer
_SHAPE_SYMBOLS = 1 << 12  # fitting a shape to more would take long
_SHAPE_SHARE = 2.0**-8  # of the coded symbols: a table that costs less is good enough
_KEPT_BITS = (1, 2, 3, 4, 6, 8, 12, 16)


def normalise(weights: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Frequencies that sum to `2**bits`, at least 1 where a weight is positive and proportional to it otherwise.

    Symbols that would get less than one slot get exactly one and leave the rest to be shared by the others, until none
    is left below one: the allocation of least code length. Integers only, so it is the same on every machine.

    Args:
        weights: int64 [symbols], 0 .. 2**40, at least one positive and at most 2**bits of them.
        bits: 1..20.

    Returns:
        int64 [symbols].

    Example:
        >>> normalise(np.array([1000, 1]), 3).tolist()
        [7, 1]
    """
    freqs = (weights > 0).astype(np.int64)
    open_ = np.flatnonzero(weights)
    slots, share = 1 << bits, weights[open_]
    total = int(share.sum())
    # Never all of those left: that would take fewer slots than symbols.
    while (small := share * slots < total).any():
        slots -= int(np.count_nonzero(small))
        open_, share = open_[~small], share[~small]
        total = int(share.sum())
    whole = share * slots // total
    left = slots - int(whole.sum())
    order = np.argsort(-(share * slots - whole * total), kind="stable")
    whole[order[:left]] += 1
    freqs[open_] = whole
    return freqs


def code_length(counts: NDArray[np.int64], freqs: NDArray[np.int64], bits: int) -> float:
    """The bits that `counts` symbols cost under frequencies that sum to `2**bits`.

    Example:
        >>> code_length(np.array([2, 2]), np.array([8, 8]), 4)
        4.0
    """
    used = counts > 0
    return float(counts.sum()) * bits - float(counts[used] @ np.log2(freqs[used]))


def entropy_of(counts: NDArray[np.int64]) -> float:
    """The empirical entropy of a histogram, in total bits: n log n - sum c log c.

    Example:
        >>> entropy_of(np.array([2, 2]))
        4.0
    """
    used = counts[counts > 0].astype(np.float64)
    total = float(used.sum())
    return max(0.0, total * float(np.log2(max(total, 1.0))) - float(used @ np.log2(used)))


@final
class TableModels:
    """The adaptive probabilities shared by all tables of one stream."""

    def __init__(self) -> None:
        self.kinds = [Bit(), Bit()]
        self.same = [[Bit(), Bit()] for _ in range(_LONGEST + 1)]
        self.up = [Bit() for _ in range(_LONGEST + 1)]
        self.far = [Bit() for _ in range(_LONGEST + 1)]
        self.mantissa = [Bit() for _ in range(4)]


def _rounded(counts: NDArray[np.int64], kept: int) -> NDArray[np.int64]:
    """Counts scaled below 2**20 and rounded to `kept` leading bits."""
    total = int(counts.sum())
    weights = counts if total < 1 << _WEIGHT_BITS else (counts * ((1 << _WEIGHT_BITS) - 1) + total // 2) // total
    weights = np.where(counts > 0, np.maximum(weights, 1), 0)
    cut = np.maximum(_lengths(weights) - kept, 0)
    return (weights + ((1 << cut) >> 1)) >> cut << cut


def _lengths(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bit length of each non-negative weight below 2**52."""
    return np.frexp(weights.astype(np.float64))[1].astype(np.int64)


def write_table(coder: Encoder, models: TableModels, counts: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Write the table that codes `counts` in the fewest bits, its own included, and return its frequencies.

    Args:
        coder: where the table goes.
        models: the adaptive models of the stream.
        counts: int64 [symbols], at most 2**14 symbols, at least one positive.
        bits: the frequencies sum to `2**bits`.

    Returns:
        int64 [symbols], zero for some or all of the symbols that do not occur.

    Example:
        >>> write_table(Encoder(), TableModels(), np.array([9, 0]), 12).tolist()
        [4096, 0]
    """
    present = np.flatnonzero(counts)
    coder.bit(models.kinds[0], int(present.size == 1))
    if present.size == 1:
        coder.number(int(present[0]))
        return normalise(counts, bits)
    weights, kept = _best_rounding(counts, bits)
    mark = len(coder.spans)
    undo = _Snapshot(models)
    coder.bit(models.kinds[1], 0)
    _write_explicit(coder, models, weights, kept)
    freqs = normalise(weights, bits)
    span, table_cost, coded = (
        int(present[-1] - present[0]) + 1,
        _cost_since(coder, mark),
        code_length(counts, freqs, bits),
    )
    if span > min(1 << bits, _SHAPE_SYMBOLS, 8 * int(counts.sum())):
        return freqs
    if table_cost < max(_SHAPE_BITS + 2 * span.bit_length(), coded * _SHAPE_SHARE):
        return freqs
    curve = shapes.fit(counts)
    smooth = normalise(shapes.weights(curve), bits)
    table = Encoder()
    shapes.write(table, curve)
    if table.cost() + code_length(counts, np.resize(smooth, counts.size), bits) + 1 < table_cost + coded:
        del coder.spans[mark:]
        undo.restore()
        coder.bit(models.kinds[1], 1)
        coder.spans += table.spans
        return smooth
    return freqs


def _best_rounding(counts: NDArray[np.int64], bits: int) -> tuple[NDArray[np.int64], int]:
    """The weights that cost least with the counts under them, and how many leading bits of each they keep.

    More bits are tried while they cost less than what the best so far is above the counts themselves.
    """
    ideal = code_length(counts, normalise(_rounded(counts, _WEIGHT_BITS), bits), bits)
    best, least = (counts, _KEPT_BITS[-1]), float("inf")
    for kept in _KEPT_BITS:
        weights = _rounded(counts, kept)
        table = float(np.minimum(np.maximum(_lengths(weights) - 1, 0), kept - 1).sum())
        if ideal + table >= least:
            break
        price = code_length(counts, normalise(weights, bits), bits) + table
        if price < least:
            best, least = (weights, kept), price
    return best


def _cost_since(coder: Encoder, mark: int) -> float:
    part = Encoder()
    part.spans = coder.spans[mark:]
    return part.cost()


@final
class _Snapshot:
    """The state of a set of models, to go back to when a trial is dropped."""

    def __init__(self, models: TableModels) -> None:
        flat = [*models.kinds, *(b for pair in models.same for b in pair), *models.up, *models.far, *models.mantissa]
        self._saved = [(bit, bit.zero, bit.seen) for bit in flat]

    def restore(self) -> None:
        for bit, zero, seen in self._saved:
            bit.zero, bit.seen = zero, seen


def _write_explicit(coder: Encoder, models: TableModels, weights: NDArray[np.int64], kept: int) -> None:
    """The first symbol, the symbol count, and each weight's bit length and leading bits."""
    present = np.flatnonzero(weights)
    first, last = int(present[0]), int(present[-1])
    coder.number(first)
    coder.number(last - first)
    coder.bits(_KEPT_BITS.index(kept), 3)
    before = earlier = 1
    for weight in weights[first : last + 1].tolist():
        length = weight.bit_length()
        _write_length(coder, models, length, before, earlier)
        low = max(length - kept, 0)
        coder.bits((weight >> low) - (1 << length - 1 - low) if length else 0, max(length - 1 - low, 0))
        before, earlier = length, before


def _write_length(coder: Encoder, models: TableModels, length: int, before: int, earlier: int) -> None:
    """One bit length, given the two before it: same, or up or down by so many steps."""
    coder.bit(models.same[before][int(before == earlier)], int(length != before))
    if length == before:
        return
    up = length > before
    if 0 < before < _LONGEST:
        coder.bit(models.up[before], int(up))
    far = models.far[before]
    steps, most = (length - before, _LONGEST - before) if up else (before - length, before)
    for index in range(1, most):
        coder.bit(far, int(index < steps))
        if index >= steps:
            return


def read_table(coder: Decoder, models: TableModels, bits: int) -> NDArray[np.int64]:
    """Read what `write_table` wrote: the frequencies, int64 [symbols], summing to `2**bits`.

    Raises:
        CorruptFileError: more symbols than a table may have, or none.

    Example:
        >>> coder = Encoder()
        >>> written = write_table(coder, TableModels(), np.array([5, 3, 1]), 12)
        >>> read_table(Decoder(coder.finish()), TableModels(), 12).tolist() == written.tolist()
        True
    """
    if coder.bit(models.kinds[0]):
        freqs = np.zeros(coder.number(MAX_SYMBOLS - 1) + 1, dtype=np.int64)
        freqs[-1] = 1 << bits
        return freqs
    weights = (
        shapes.weights(shapes.read(coder, MAX_SYMBOLS)) if coder.bit(models.kinds[1]) else _explicit(coder, models)
    )
    if not 0 < np.count_nonzero(weights) <= 1 << bits:
        raise CorruptFileError("coded stream: a frequency table without symbols, or with too many")
    return normalise(weights, bits)


def _explicit(coder: Decoder, models: TableModels) -> NDArray[np.int64]:
    """The weights that `_write_explicit` wrote."""
    first = coder.number(MAX_SYMBOLS - 1)
    size = coder.number(MAX_SYMBOLS - 1 - first) + 1
    kept = _KEPT_BITS[coder.bits(3)]
    weights = [0] * first
    before = earlier = 1
    for _ in range(size):
        length = _read_length(coder, models, before, earlier)
        low = max(length - kept, 0)
        lead = 1 << length - 1 - low if length else 0
        weights.append(lead + coder.bits(max(length - 1 - low, 0)) << low)
        before, earlier = length, before
    return np.array(weights, dtype=np.int64)


def _read_length(coder: Decoder, models: TableModels, before: int, earlier: int) -> int:
    """What `_write_length` wrote."""
    if not coder.bit(models.same[before][int(before == earlier)]):
        return before
    up = before == 0 or (before < _LONGEST and coder.bit(models.up[before]) == 1)
    far = models.far[before]
    most = _LONGEST - before if up else before
    steps = 1
    while steps < most and coder.bit(far):
        steps += 1
    return before + steps if up else before - steps
