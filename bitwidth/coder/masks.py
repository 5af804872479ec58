"""Masks of pruned parameters: which elements are kept, coded with what is alike along rows and columns.

The rows of a mask are all axes but the last, flattened; its columns are the last axis. Where densities differ between
rows (dead inputs) or columns (dead outputs), each row or column is given a density class, and an element is coded in
the context of the classes of its row and column. The classes are sent where that pays. Masks with a pattern (n:m,
blocks) are coded in runs (`bitwidth.coder.runs`).

Example:
    >>> import numpy as np
    >>> mask = np.zeros((64, 64), bool)
    >>> mask[::2] = True
    >>> len(encode_mask(mask)) < 24, bool((decode_mask(encode_mask(mask), (64, 64)) == mask).all())
    (True, True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.bitio import Reader, varint
from bitwidth.coder.integers import decode_integers, encode_integers
from bitwidth.coder.rans import decode_symbols, encode_symbols
from bitwidth.coder.runs import LENGTHS, Runs, find_runs
from bitwidth.coder.tables import entropy_of
from bitwidth.errors import CorruptFileError, EncodingError

_ZEROS, _ONES, _PACKED, _PLAIN, _GAPS, _CLASSES, _RUNS = range(7)
_OPTIONS = {_GAPS: 1, _CLASSES: 3, _RUNS: 1}  # the greatest option of each mode, 0 of others
_CLASS_COUNTS = (3, 4, 8, 16)
_ROWS, _COLUMNS = 1, 2
_TRY_BOTH = 1 << 14  # up to this many elements both are tried
_SPARSE = 24  # of so many elements at most one is set: gaps are cheaper to code than elements


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Code a mask in no more than about its order-0 entropy, and in less where rows or columns differ.

    Args:
        mask: bool, any shape.

    Returns:
        A self-contained stream; empty for an empty mask.

    Raises:
        EncodingError: not a bool array.

    Example:
        >>> len(encode_mask(np.ones((1000, 1000), bool)))
        1
    """
    mask = np.ascontiguousarray(mask)
    if mask.dtype != np.bool_:
        raise EncodingError(f"mask: a bool array expected, got {mask.dtype}")
    count, kept = mask.size, int(np.count_nonzero(mask))
    if count == 0:
        return b""
    if kept in (0, count):
        return bytes([_ONES if kept else _ZEROS])
    table = mask.reshape(-1, mask.shape[-1]) if mask.ndim > 1 else mask.reshape(1, -1)
    plain = _entropy2(kept, count)
    options = [_encode_classes(table, plain)]
    if options[0] is None or len(options[0]) * 8 > plain * 0.98:
        options.append(_encode_plain(mask.reshape(-1), kept))
    options.append(_encode_runs(table))
    best = min((option for option in options if option is not None), key=len)
    packed = count + 7 >> 3
    return best if len(best) <= packed else bytes([_PACKED]) + np.packbits(mask.reshape(-1)).tobytes()


def _entropy2(kept: int, count: int) -> float:
    return entropy_of(np.array([kept, count - kept]))


def _encode_plain(flat: NDArray[np.bool_], kept: int) -> bytes:
    """Without classes: element by element, or the gaps between the few that are set (or not set)."""
    rare = kept * 2 <= flat.size
    sparse = min(kept, flat.size - kept) * _SPARSE <= flat.size
    plain = b"" if sparse and flat.size > _TRY_BOTH else bytes([_PLAIN]) + encode_symbols(flat)
    if not sparse:
        return plain
    places = np.flatnonzero(flat if rare else ~flat)
    gaps = np.diff(places, prepend=-1) - 1
    coded = bytes([_GAPS | int(rare) << 3]) + varint(places.size) + encode_integers(gaps)
    return plain if plain and len(plain) < len(coded) else coded


def _density_classes(kept: NDArray[np.int64], length: int, classes: int) -> NDArray[np.uint8]:
    """Classes of lines by how many of their `length` elements are set: none, all, and quantiles of those between."""
    inner = (kept > 0) & (kept < length)
    out = np.where(kept == 0, 0, 1).astype(np.uint8)
    values = np.sort(kept[inner])
    if values.size:
        edges = np.unique(values[np.arange(1, classes - 2) * values.size // (classes - 2)])
        out[inner] = 2 + np.searchsorted(edges, kept[inner], side="right")
    return out


def _encode_classes(table: NDArray[np.bool_], plain: float) -> bytes | None:
    """With row classes, column classes or both, whichever is estimated cheapest; None where none is."""
    rows, columns = table.shape
    row_kept = np.count_nonzero(table, axis=1).astype(np.int64)
    column_kept = np.count_nonzero(table, axis=0).astype(np.int64)
    none = np.zeros(rows, np.uint8), np.zeros(columns, np.uint8)
    best, best_cost = None, plain
    for classes in _CLASS_COUNTS:
        of_rows = _density_classes(row_kept, columns, classes)
        of_columns = _density_classes(column_kept, rows, classes)
        sides = _side_bits(of_rows), _side_bits(of_columns)
        for use in (_ROWS, _COLUMNS, _ROWS | _COLUMNS):
            chosen = of_rows if use & _ROWS else none[0], of_columns if use & _COLUMNS else none[1]
            side = sum(bits for flag, bits in zip((_ROWS, _COLUMNS), sides, strict=True) if use & flag)
            if side >= best_cost:
                continue
            cost = side + _cost(table, *chosen)
            if cost < best_cost:
                best, best_cost = (use, *chosen), cost
    if best is None:
        return None
    use, of_rows, of_columns = best
    out = bytes([_CLASSES | use << 3])
    for flag, line in ((_ROWS, of_rows), (_COLUMNS, of_columns)):
        if use & flag:
            stream = encode_integers(line)
            out += varint(len(stream)) + stream
    return out + encode_symbols(table, _contexts(of_rows, of_columns))


def _encode_runs(table: NDArray[np.bool_]) -> bytes | None:
    """Run by run, where the mask has a pattern; None where it has none."""
    runs = find_runs(table)
    if runs is None:
        return None
    return bytes([_RUNS | int(runs.along_rows) << 3, runs.length]) + encode_symbols(runs.cut(table))


def _side_bits(classes: NDArray[np.uint8]) -> float:
    counts = np.bincount(classes)
    return entropy_of(counts) + 4.0 * np.count_nonzero(counts) + 32


def _cost(table: NDArray[np.bool_], of_rows: NDArray[np.uint8], of_columns: NDArray[np.uint8]) -> float:
    """Bits of the elements in the contexts of these classes, tables included."""
    row_classes, column_classes = int(of_rows.max()) + 1, int(of_columns.max()) + 1
    by_row = np.zeros((row_classes, table.shape[1]))
    for index in range(row_classes):
        by_row[index] = np.count_nonzero(table[of_rows == index], axis=0)
    kept = np.stack([np.bincount(of_columns, weights=line, minlength=column_classes) for line in by_row])
    sizes = np.outer(np.bincount(of_rows), np.bincount(of_columns)).astype(np.float64)
    bits = [_entropy2(int(k), int(n)) for k, n in zip(kept.flat, sizes.flat, strict=True)]
    return sum(bits) + 16.0 * sum(1 for value in bits if value > 0)


def _contexts(of_rows: NDArray[np.uint8], of_columns: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The context of each element: [rows, columns]."""
    stride = np.uint16(int(of_columns.max()) + 1)
    return of_rows.astype(np.uint16)[:, None] * stride + of_columns.astype(np.uint16)[None, :]


def decode_mask(data: bytes, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Decode what `encode_mask` wrote.

    Args:
        data: the whole stream; untrusted.
        shape: of the mask.

    Returns:
        bool, of `shape`.

    Raises:
        CorruptFileError: `data` is not a mask of this shape.

    Example:
        >>> decode_mask(encode_mask(np.array([True, False, True])), (3,))
        array([ True, False,  True])
    """
    count = math.prod(shape)
    reader = Reader(data)
    if count == 0:
        reader.end()
        return np.zeros(shape, dtype=np.bool_)
    header = reader.byte()
    mode, option = header & 7, header >> 3
    if mode > _RUNS or option > _OPTIONS.get(mode, 0):
        raise CorruptFileError("coded mask: an unknown header")
    if mode in (_ZEROS, _ONES):
        flat = np.full(count, mode == _ONES)
    elif mode == _PACKED:
        bits = np.unpackbits(np.frombuffer(reader.take(count + 7 >> 3), dtype=np.uint8))
        if bits[count:].any():
            raise CorruptFileError("coded mask: padding bits are not zero")
        flat = bits[:count].astype(np.bool_)
    elif mode == _PLAIN:
        flat = _as_bools(decode_symbols(reader.rest(), count))
    elif mode == _GAPS:
        flat = _decode_gaps(reader, count, bool(option))
    elif not len(shape):
        raise CorruptFileError("coded mask: classes of rows and columns in a mask without axes")
    elif mode == _RUNS:
        flat = _decode_runs(reader, (count // shape[-1], shape[-1]), bool(option)).reshape(-1)
    else:
        flat = _decode_classes(reader, count, shape[-1], option)
    reader.end()
    return flat.reshape(shape)


def _decode_runs(reader: Reader, shape: tuple[int, int], along_rows: bool) -> NDArray[np.bool_]:
    runs = Runs(reader.byte(), along_rows)
    if runs.length not in LENGTHS or not runs.fit(shape):
        raise CorruptFileError("coded mask: runs of a length that does not divide the mask")
    kinds = decode_symbols(reader.rest(), shape[0] * shape[1] // runs.length)
    if int(kinds.max()) >> runs.length:
        raise CorruptFileError("coded mask: a run of more elements than it has")
    return runs.joined(kinds.astype(np.uint8), shape)


def _as_bools(symbols: NDArray[np.uint8]) -> NDArray[np.bool_]:
    if int(symbols.max()) > 1:
        raise CorruptFileError("coded mask: an element that is neither kept nor pruned")
    return symbols.astype(np.bool_)


def _decode_gaps(reader: Reader, count: int, rare: bool) -> NDArray[np.bool_]:
    size = reader.varint()
    if not 0 < size <= count:
        raise CorruptFileError("coded mask: more elements set than there are")
    gaps = decode_integers(reader.rest(), size).astype(np.int64)
    if int(gaps.min()) < 0 or int(gaps.max()) >= count:
        raise CorruptFileError("coded mask: a gap beyond the mask")
    places = np.cumsum(gaps + 1) - 1
    if int(places[-1]) >= count:
        raise CorruptFileError("coded mask: an element beyond the mask")
    flat = np.full(count, not rare)
    flat[places] = rare
    return flat


def _decode_classes(reader: Reader, count: int, columns: int, use: int) -> NDArray[np.bool_]:
    rows = count // columns
    lines = []
    for flag, length in ((_ROWS, rows), (_COLUMNS, columns)):
        line = np.zeros(length, dtype=np.uint8)
        if use & flag:
            classes = decode_integers(reader.take(reader.varint()), length)
            if int(classes.min()) < 0 or int(classes.max()) >= max(_CLASS_COUNTS):
                raise CorruptFileError("coded mask: an unknown density class")
            line = classes.astype(np.uint8)
        lines.append(line)
    return _as_bools(decode_symbols(reader.rest(), count, _contexts(*lines)))
