"""Contexts share tables: which contexts of a stream are coded with one table, and how that is written down.

Example:
    >>> import numpy as np
    >>> cluster(np.array([[90, 10], [9, 1], [10, 90]]), 64).tolist()
    [0, 0, 1]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import counts_of
from bitwidth.coder.scalar import Bit, Decoder, Encoder
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

MAX_CONTEXTS = 1 << 16
_TABLE_BITS = 16.0  # what a table costs beside its weights, roughly
_WEIGHT_BITS = 3.0  # what a weight costs, roughly


def dense(context: Array, count: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """Check contexts and rank those that occur: (contexts that occur, ascending; the rank of each position's context).

    Both ends of a stream do this alike, so contexts that do not occur cost nothing.

    Raises:
        EncodingError: not `count` integers of 0..65535.

    Example:
        >>> dense(np.array([7, 3, 7]), 3)[1].tolist()
        [1, 0, 1]
    """
    flat = np.asarray(context).reshape(-1)
    if flat.size != count or flat.dtype.kind not in "biu":
        raise EncodingError(f"context: {count} integers expected, got {flat.size} of {flat.dtype}")
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    if count and (int(flat.min()) < 0 or int(flat.max()) >= MAX_CONTEXTS):
        raise EncodingError(f"context: integers of 0..{MAX_CONTEXTS - 1} expected, got {flat.min()}..{flat.max()}")
    present = np.flatnonzero(counts_of(flat))
    ranks = np.zeros(MAX_CONTEXTS, dtype=np.uint16)
    ranks[present] = np.arange(present.size)
    return present, ranks[flat]


def _entropies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Entropy of each row of counts, plus what its table is likely to cost, in bits."""
    values = counts.astype(np.float64)
    total = values.sum(axis=1)
    logs = np.log2(np.maximum(values, 1.0))
    used = np.count_nonzero(counts, axis=1)
    tables = _TABLE_BITS + _WEIGHT_BITS * (used - 1) + 0.5 * np.log2(total + 1) * np.minimum(used - 1, 12)
    return np.asarray(total * np.log2(np.maximum(total, 1.0)) - (values * logs).sum(axis=1) + tables)


def cluster(counts: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Assign each context a table: greedily to the one that makes the stream grow least, a new one if that is cheaper.

    Args:
        counts: int64 [contexts, symbols].
        most: the most tables to make.

    Returns:
        intp [contexts]: table indices, numbered by first use.

    Example:
        >>> cluster(np.array([[5, 5], [6, 4]]), 8).tolist()
        [0, 0]
    """
    tables = np.zeros((most, counts.shape[1]), dtype=np.int64)
    prices = np.zeros(most)
    alone = _entropies(counts)
    assigned = np.zeros(len(counts), dtype=np.intp)
    made = 0
    # The largest contexts found the tables, so that the order of contexts matters little.
    for index in np.argsort(-counts.sum(axis=1), kind="stable"):
        joined = _entropies(tables[:made] + counts[index]) if made else np.zeros(0)
        growth = joined - prices[:made]
        target = int(np.argmin(growth)) if made else 0
        if made == 0 or (made < most and alone[index] < growth[target]):
            target = made
            made += 1
            prices[target] = alone[index]
        else:
            prices[target] = joined[target]
        tables[target] += counts[index]
        assigned[index] = target
    return _by_first_use(_without_needless(counts, assigned, made))


def _without_needless(counts: NDArray[np.int64], assigned: NDArray[np.intp], made: int) -> NDArray[np.intp]:
    """One table for all, if the tables made do not pay together."""
    sums = np.zeros((made, counts.shape[1]), dtype=np.int64)
    np.add.at(sums, assigned, counts)
    apart = float(_entropies(sums).sum()) + len(counts)
    together = float(_entropies(counts.sum(axis=0, keepdims=True))[0])
    return assigned if apart < together else np.zeros_like(assigned)


def _by_first_use(assigned: NDArray[np.intp]) -> NDArray[np.intp]:
    _, first, inverse = np.unique(assigned, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse.reshape(-1)])


def write_map(coder: Encoder, assigned: NDArray[np.intp]) -> None:
    """Write which table each context uses.

    Example:
        >>> coder = Encoder()
        >>> write_map(coder, np.array([0, 0, 1]))
        >>> read_map(Decoder(coder.finish()), 3, 64).tolist()
        [0, 0, 1]
    """
    several, fresh, same = Bit(), Bit(), Bit()
    if assigned.size < 2:
        return
    coder.bit(several, int(assigned.max() > 0))
    if assigned.max() == 0:
        return
    made, before = 1, 0
    for table in assigned[1:].tolist():
        coder.bit(same, int(table != before))
        if table != before:
            coder.bit(fresh, int(table < made))
            if table < made:
                coder.bits(table, (made - 1).bit_length())
        made = max(made, table + 1)
        before = table


def read_map(coder: Decoder, contexts: int, most: int) -> NDArray[np.intp]:
    """Read what `write_map` wrote: intp [contexts], below `most`.

    Raises:
        CorruptFileError: more than `most` tables.

    Example:
        >>> read_map(Decoder(b""), 2, 64).tolist()
        [0, 0]
    """
    several, fresh, same = Bit(), Bit(), Bit()
    assigned = np.zeros(contexts, dtype=np.intp)
    if contexts < 2 or not coder.bit(several):
        return assigned
    made, table = 1, 0
    for index in range(1, contexts):
        if coder.bit(same):
            table = coder.bits((made - 1).bit_length()) if coder.bit(fresh) else made
            if table >= min(made + 1, most):
                raise CorruptFileError("coded stream: a context names a table that does not exist")
            made = max(made, table + 1)
        assigned[index] = table
    return assigned
