"""Classes of the rows and columns of a matrix of symbols: lines with much the same symbols are put in one class.

A tensor is seen as a matrix: its last axis are the columns, the others the rows. An element is coded in the context of
the classes of its row and column. Which classes there are is chosen here: lines are ranked by their mean magnitude and
cut into up to sixteen groups of equal size; coarser groupings are priced by the one histogram of
[row class, column class, symbol] that merging makes of the finest; the lines then move to the class that codes them in
the fewest bits, classes and lines in turn, as in co-clustering.

Source: I. Dhillon, S. Mallela, D. Modha, "Information-theoretic co-clustering", KDD 2003, section 4: each step can only
lower the code length.

Example:
    >>> matrix = np.zeros((64, 64), np.uint8)
    >>> matrix[::2] = np.arange(64) % 4
    >>> found = choose(matrix, matrix)
    >>> int(found.rows.max()) + 1, int(found.columns.max()) + 1
    (2, 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.tables import entropy_of
from bitwidth.typing import Array

MOST_CLASSES = 16
_LEAST_ELEMENTS = 1 << 9  # fewer are not worth the search
_SAMPLE = 1 << 20  # elements that choices are made on
_ROUNDS = 2
_BLOCK = 1 << 17
_TABLE_BITS = 20.0  # what a table costs beside its weights, roughly; clustering gives many contexts one
_WEIGHT_BITS = 4.0


@final
@dataclass(frozen=True)
class Classes:
    """The class of each row and column, uint8; and the bits that symbols and classes are likely to cost."""

    rows: NDArray[np.uint8]
    columns: NDArray[np.uint8]
    bits: float

    @property
    def counts(self) -> tuple[int, int]:
        """How many row classes and column classes."""
        return _number(self.rows), _number(self.columns)


def _number(line: NDArray[np.uint8]) -> int:
    return int(line.max()) + 1 if line.size else 1


def choose(symbols: Array, magnitudes: Array) -> Classes:
    """The classes that are likely to cost least, one of each where none pay.

    Args:
        symbols: unsigned integers [rows, columns].
        magnitudes: numbers [rows, columns] that lines are ranked by.

    Returns:
        At most 16 classes of rows and of columns.

    Example:
        >>> choose(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)).counts
        (1, 1)
    """
    rows, columns = symbols.shape
    plain = Classes(np.zeros(rows, np.uint8), np.zeros(columns, np.uint8), 0.0)
    alphabet = int(symbols.max()) + 1 if symbols.size else 1
    if symbols.size < _LEAST_ELEMENTS or alphabet > 256 or alphabet < 2:
        histogram = np.bincount(symbols.reshape(-1)) if symbols.size else np.zeros(1)
        return Classes(plain.rows, plain.columns, entropy_of(histogram.astype(np.int64)))
    fine = _ranked(magnitudes.mean(axis=1, dtype=np.float32)), _ranked(magnitudes.mean(axis=0, dtype=np.float32))
    stride = -(-symbols.size // _SAMPLE)
    sample, of_rows = symbols[::stride], fine[0][::stride]
    scale = symbols.size / max(sample.size, 1)
    joint = np.asarray(histogram_of(sample, of_rows, fine[1], alphabet) * scale, dtype=np.float64)
    merged = _best_merging(joint, (rows, columns))
    if merged is None:
        return Classes(plain.rows, plain.columns, _price(joint.sum(axis=(0, 1), keepdims=True)))
    found = merged[0][fine[0]], merged[1][fine[1]]
    joint = np.add.reduceat(np.add.reduceat(joint, _starts(merged[0]), axis=0), _starts(merged[1]), axis=1)
    if stride == 1:
        counts = joint.astype(np.int64)
        for _ in range(_ROUNDS):
            rows_, columns_, counts = _move(symbols, *found, counts)
            found = rows_, columns_
        joint = counts.astype(np.float64)
    found = _renumbered(found[0], magnitudes, 1), _renumbered(found[1], magnitudes, 0)
    return Classes(found[0], found[1], _price(joint) + sum(side_bits(line) for line in found))


def _ranked(means: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Groups of equal size by rank, as many as there may be; lines of one mean are together."""
    groups = min(MOST_CLASSES, means.size)
    order = np.sort(means)
    edges = np.unique(order[np.arange(1, groups) * means.size // groups])
    return np.searchsorted(edges, means, side="right").astype(np.uint8)


def histogram_of(
    symbols: Array, rows: NDArray[np.uint8], columns: NDArray[np.uint8], alphabet: int
) -> NDArray[np.int64]:
    """How often each symbol stands in rows and columns of each class: int64 [row class, column class, symbol].

    Example:
        >>> histogram_of(np.array([[0, 1], [1, 1]]), np.array([0, 1], np.uint8), np.zeros(2, np.uint8), 2).tolist()
        [[[1, 1]], [[0, 2]]]
    """
    shape = _number(rows), _number(columns), alphabet
    return _histogram(symbols, rows, columns, shape)


def _histogram(symbols: Array, rows: Array, columns: Array, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    size = shape[0] * shape[1] * shape[2]
    total = np.zeros(size, dtype=np.int64)
    first = rows.astype(np.intp) * (shape[1] * shape[2])
    second = columns.astype(np.intp) * shape[2]
    step = max(_BLOCK // max(columns.size, 1), 1, size // max(4 * columns.size, 1))
    for begin in range(0, rows.size, step):
        index = np.add(second, symbols[begin : begin + step], dtype=np.intp)
        index += first[begin : begin + step, None]
        total += np.bincount(index.reshape(-1), minlength=size)
    return total.reshape(shape)


def _price(joint: NDArray[Any]) -> float:
    """Bits of the symbols of a histogram [row class, column class, symbol], with something for the tables."""
    values = joint.reshape(-1, joint.shape[-1])
    total, used = np.add.reduce(values, axis=1), np.count_nonzero(values, axis=1)
    # `einsum` rather than `@`: BLAS would start threads for so little, which takes longer than the sum.
    bits = float(np.einsum("i,i->", total, np.log2(np.maximum(total, 1.0))))
    bits -= float(np.einsum("ij,ij->", values, np.log2(np.maximum(values, 1.0))))
    tables = np.where(used > 1, _TABLE_BITS + _WEIGHT_BITS * used, 0.0)
    return bits + float(tables.sum())


def _best_merging(
    joint: NDArray[np.float64], lines: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """How to merge the finest classes of rows and of columns; None where one of each is best."""
    options = [[_merging(size, wanted) for wanted in (1, 2, 4, 8, 16) if wanted <= size] for size in joint.shape[:2]]

    def price(part: NDArray[np.float64], index: int, other: int) -> float:
        total = _price(part)
        for place, count, several in zip((index, other), lines, options, strict=True):
            groups = int(several[place].max()) + 1
            total += count * float(np.log2(groups)) * 0.85 + (12.0 + 4.0 * groups if groups > 1 else 0.0)
        return total

    # Rows alone and columns alone, which is quick; then both, near the best of each.
    by_row, by_column = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    starts = [[_starts(merging) for merging in several] for several in options]
    prices = {(at, 0): price(np.add.reduceat(by_row, start, axis=0), at, 0) for at, start in enumerate(starts[0])}
    for at, start in enumerate(starts[1]):
        prices[0, at] = price(np.add.reduceat(by_column, start, axis=1), 0, at)
    row = min(range(len(starts[0])), key=lambda at: prices[at, 0])
    column = min(range(len(starts[1])), key=lambda at: prices[0, at])
    for first in range(max(row - 1, 1), min(row + 2, len(starts[0]))):
        part = np.add.reduceat(joint, starts[0][first], axis=0)
        for second in range(max(column - 1, 1), min(column + 2, len(starts[1]))):
            prices[first, second] = price(np.add.reduceat(part, starts[1][second], axis=1), first, second)
    best = min(prices, key=lambda pair: prices[pair])
    return None if best == (0, 0) else (options[0][best[0]], options[1][best[1]])


def _merging(size: int, wanted: int) -> NDArray[np.uint8]:
    return (np.arange(size) * wanted // size).astype(np.uint8)


def _starts(merging: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.flatnonzero(np.diff(merging, prepend=255))


def _move(
    symbols: Array, rows: NDArray[np.uint8], columns: NDArray[np.uint8], joint: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Each row to the class that codes it in the fewest bits, then each column; and the histogram of the result."""
    shape = joint.shape
    alphabet = shape[2]
    if shape[0] > 1:
        each = _histogram(symbols, np.arange(rows.size), columns, (rows.size, shape[1], alphabet))
        rows = _cheapest(each.reshape(rows.size, -1), _lengths(joint).reshape(shape[0], -1), rows)
        joint = np.zeros(shape, dtype=np.int64)
        np.add.at(joint, rows, each)
    if shape[1] > 1:
        each = _histogram(symbols.T, np.arange(columns.size), rows, (columns.size, shape[0], alphabet))
        lengths = np.ascontiguousarray(_lengths(joint).transpose(1, 0, 2))
        columns = _cheapest(each.reshape(columns.size, -1), lengths.reshape(shape[1], -1), columns)
        turned = np.zeros((shape[1], shape[0], alphabet), dtype=np.int64)
        np.add.at(turned, columns, each)
        joint = np.ascontiguousarray(turned.transpose(1, 0, 2))
    return rows, columns, joint


def _lengths(joint: NDArray[np.int64]) -> NDArray[np.float32]:
    """Bits of each symbol in each class, a little of all classes in each."""
    weights = joint + 0.02 + 0.5 * joint.sum(axis=(0, 1)) / max(float(joint.sum()), 1.0)
    lengths: NDArray[np.float32] = -np.log2(weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)
    return lengths


def _cheapest(each: NDArray[np.int64], lengths: NDArray[np.float32], before: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shares = np.bincount(before, minlength=len(lengths)) + 0.5
    price = each.astype(np.float32) @ lengths.T - np.log2(shares / shares.sum()).astype(np.float32)
    cheapest: NDArray[np.uint8] = price.argmin(axis=1).astype(np.uint8)
    return cheapest


def _renumbered(line: NDArray[np.uint8], magnitudes: Array, axis: int) -> NDArray[np.uint8]:
    """Classes numbered by mean magnitude, so that lines of much the same have numbers close by."""
    present, inverse = np.unique(line, return_inverse=True)
    means = magnitudes.mean(axis=axis, dtype=np.float32)
    per_class = np.bincount(inverse, weights=means) / np.bincount(inverse)
    order = np.argsort(np.argsort(per_class)).astype(np.uint8)
    return order[inverse] if present.size > 1 else np.zeros_like(line)


def side_bits(line: NDArray[np.uint8]) -> float:
    """What the classes of lines are likely to cost.

    Example:
        >>> side_bits(np.zeros(9, np.uint8))
        0.0
    """
    groups = _number(line)
    if groups == 1:
        return 0.0
    steps: NDArray[np.int64] = np.mod(np.diff(line.astype(np.int64), prepend=0), groups)
    return min(entropy_of(np.bincount(line)), entropy_of(np.bincount(steps))) + 12.0 + 4.0 * groups
