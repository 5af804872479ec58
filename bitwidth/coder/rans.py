"""Entropy coding of small non-negative integers with static tables, one for each group of contexts.

A stream is one header byte and then, for small streams, one scalar rANS number that holds tables and symbols alike;
for large ones the tables (their length first) and many interleaved lanes. Symbols in contexts that only ever hold one
symbol are not coded at all. In large streams without contexts, two, four or eight symbols of an alphabet of up to 16
are coded in one step.

    header byte: 0 = scalar; else log2(lanes) in bits 0-3, table precision - 12 in bits 4-5, log2(symbols a step) in 6-7

Example:
    >>> import numpy as np
    >>> symbols = np.array([3, 3, 0, 3])
    >>> decode_symbols(encode_symbols(symbols), 4).tolist()
    [3, 3, 0, 3]
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import contexts as shared
from bitwidth.coder import lanes as lanes_
from bitwidth.coder.bitio import Reader, counts_of, varint
from bitwidth.coder.scalar import PRECISION, Decoder, Encoder
from bitwidth.coder.tables import (
    MAX_SYMBOLS,
    TableModels,
    code_length,
    entropy_of,
    normalise,
    read_table,
    write_table,
)
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

MAX_TABLES = 64
_SLOTS = 1 << 18  # all tables of one stream together
_SCALAR_BYTES = 18_000  # above this, lanes cost less than 0.4 % and are faster than plain integers
_SCALAR_STEPS = 1 << 17
_LOG_LANES = range(4, 14)  # log2 of the lanes of a stream that is not scalar
_LOG_ROWS = 16  # log2 of the steps that a lane takes, about, unless there are as many lanes as there may be
_EIGHTS = 1 << 22  # bits are joined by eight from here on, by four below: the table of 256 has to pay
_LANE_BYTES = 1200  # coded bytes to a lane: a lane costs about three, a quarter of a percent


def entropy_bits(codes: Array) -> float:
    """The empirical order-0 entropy of an integer array of any shape, in total bits (not per code).

    Example:
        >>> entropy_bits(np.array([1, 1, 2, 2]))
        4.0
    """
    return entropy_of(np.unique(np.asarray(codes), return_counts=True)[1].astype(np.int64))


def encode_symbols(symbols: Array, context: Array | None = None) -> bytes:
    """Entropy code small non-negative integers.

    Args:
        symbols: integers of any shape, each 0 .. 2**14 - 1.
        context: integers of as many elements, each 0 .. 2**16 - 1, that the decoder will know; symbols of one context
            share a table, and contexts with much the same symbols are given one table together.

    Returns:
        A self-contained stream; empty for no symbols.

    Raises:
        EncodingError: a symbol or a context out of range.

    Source:
        rANS (J. Duda, arXiv:1311.2540), interleaved as by F. Giesen (arXiv:1402.3392).

    Example:
        >>> len(encode_symbols(np.zeros(1000, np.uint8)))
        3
    """
    flat = np.asarray(symbols).reshape(-1)
    if flat.size == 0:
        return b""
    if flat.dtype.kind not in "biu":
        raise EncodingError(f"symbols: integers expected, got {flat.dtype}")
    if flat.dtype.kind != "u":
        if flat.dtype != np.bool_ and int(flat.min()) < 0:
            raise EncodingError(f"symbols: non-negative integers expected, got {flat.min()}")
        flat = flat.astype(np.uint16) if int(flat.max()) < MAX_SYMBOLS else flat.astype(np.uint64)
    if int(flat.max()) >= MAX_SYMBOLS:
        raise EncodingError(f"symbols: integers below {MAX_SYMBOLS} expected, got {flat.max()}")
    flat = flat.astype(np.uint8 if int(flat.max()) < 256 else np.uint16, copy=False)
    grouped = _grouping(flat) if context is None else (flat, 0)
    if context is None:
        contexts, ranks = np.zeros(1, np.intp), None
        counts = counts_of(grouped[0])[None]
    else:
        contexts, ranks = shared.dense(context, flat.size)
        joint = _joint_counts(flat, ranks, contexts.size)
        if joint is None:  # too many contexts to be of use
            ranks = None
        counts = counts_of(flat)[None] if joint is None else joint
    return _encode(grouped[0], ranks, counts, contexts.size, grouped[1])


def _joint_counts(flat: Array, ranks: NDArray[np.uint16], contexts: int) -> NDArray[np.int64] | None:
    """Counts of [context, symbol], or None where that table would be far larger than the stream."""
    alphabet = int(flat.max()) + 1
    if contexts * alphabet > max(1 << 16, 4 * flat.size) or contexts > 4096:
        return None
    joint = ranks.astype(np.uint32)
    joint *= np.uint32(alphabet)
    joint += flat
    return counts_of(joint, contexts * alphabet).reshape(contexts, alphabet)


def _grouping(flat: Array) -> tuple[Array, int]:
    """Join two, four or eight symbols of a small alphabet into one: fewer steps. Returns them and log2 of how many."""
    top = int(flat.max())
    log_group = 0 if top > 15 else 1 if top > 3 else 2 if top > 1 or flat.size < _EIGHTS else 3
    if flat.size < 1 << 18 or log_group == 0 or top == 0:
        return flat, 0
    group = 1 << log_group
    padded = flat if flat.size % group == 0 else np.concatenate([flat, np.zeros(-flat.size % group, dtype=flat.dtype)])
    width = 8 >> log_group
    joint = padded[::group].copy()
    for index in range(1, group):
        joint |= padded[index::group] << np.uint8(width * index)
    return joint, log_group


def _meanings(size: int, log_group: int) -> Array:
    """What a joint symbol stands for: its symbols as the bytes of one unsigned integer."""
    joint = np.arange(size, dtype=np.uint16)
    if log_group == 0:
        return joint.astype(np.uint8) if size <= 256 else joint
    width = 8 >> log_group
    parts = joint[:, None] >> (np.arange(1 << log_group, dtype=np.uint16) * np.uint16(width)) & np.uint16(
        (1 << width) - 1
    )
    return parts.astype(np.uint8).view(f"u{1 << log_group}")[:, 0]


def _encode(
    flat: Array, ranks: NDArray[np.uint16] | None, counts: NDArray[np.int64], contexts: int, log_group: int
) -> bytes:
    """Code checked symbols with their histogram of [context, symbol]."""
    assigned = np.zeros(contexts, dtype=np.intp)
    if ranks is not None and contexts > 1:
        most = MAX_TABLES if counts.shape[1] <= 1 << 12 else _SLOTS >> 15
        assigned = shared.cluster(counts, min(most, contexts))
    tables = np.zeros((int(assigned.max()) + 1, counts.shape[1]), dtype=np.int64)
    np.add.at(tables, assigned if ranks is not None else np.zeros(1, np.intp), counts)
    single = np.count_nonzero(tables, axis=1) == 1
    position_tables = assigned.astype(np.uint8)[ranks] if ranks is not None and len(tables) > 1 else None
    if single.all():
        flat, position_tables = flat[:0], None
    elif position_tables is not None and single.any():
        live = ~single[position_tables]
        flat, position_tables = flat[live], position_tables[live]
    estimate = sum(entropy_of(row) for row in tables) / 8
    log_lanes = _choose_lanes(estimate, flat.size)
    bits = _choose_bits(tables) if log_lanes else PRECISION
    coder, models = Encoder(), TableModels()
    shared.write_map(coder, assigned)
    freqs = _write_tables(coder, models, tables, bits)
    alphabet = freqs.shape[1]
    index: Array = flat
    if position_tables is not None:
        index = position_tables.astype(np.uint32) * np.uint32(alphabet) + flat
    if not log_lanes:
        starts = (np.cumsum(freqs, axis=1) - freqs).reshape(-1)
        coder.spans += list(zip(starts[index].tolist(), freqs.reshape(-1)[index].tolist(), strict=True))
        return bytes([log_group << 6]) + coder.finish()
    side = coder.finish()
    header = log_lanes | (bits - 12) << 4 | log_group << 6
    return bytes([header]) + varint(len(side)) + side + lanes_.encode(index, freqs.reshape(-1), bits, 1 << log_lanes)


def _write_tables(coder: Encoder, models: TableModels, tables: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Write every table; returns frequencies [table, symbol], rows padded with zeros."""
    return _stacked([write_table(coder, models, row, bits) for row in tables])


def _stacked(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of unlike length as one array."""
    out = np.zeros((len(rows), max(row.size for row in rows)), dtype=np.int64)
    for row, freqs in zip(out, rows, strict=True):
        row[: freqs.size] = freqs
    return out


def _choose_lanes(coded_bytes: float, steps: int) -> int:
    """log2 of the lanes, 0 for the scalar coder: few enough to cost little, enough that it does not take for ever."""
    if coded_bytes < _SCALAR_BYTES and steps <= _SCALAR_STEPS:
        return 0
    wanted = max(coded_bytes / _LANE_BYTES, steps / (1 << _LOG_ROWS), 1 << _LOG_LANES[0])
    return min(int(np.log2(wanted)), _LOG_LANES[-1])


def _check_steps(steps: int, log_lanes: int) -> None:
    """Raise unless an encoder would take so many steps in so many lanes: each costs time, however few bytes it takes.

    Raises:
        CorruptFileError: it would not.
    """
    if not log_lanes:
        possible = steps <= _SCALAR_STEPS
    else:
        few_rows = steps >> (log_lanes + _LOG_ROWS + 1) == 0
        possible = log_lanes in _LOG_LANES and (few_rows or log_lanes == _LOG_LANES[-1])
    if not possible:
        raise CorruptFileError(f"coded stream: {steps:,} steps in {1 << log_lanes} lanes, which nothing writes")


def _choose_bits(tables: NDArray[np.int64]) -> int:
    """The least precision that is within 0.05 % of the best, for lanes."""
    used = tables[tables.sum(axis=1) > 0]
    allowed = [bits for bits in (12, 13, 14, 15) if len(tables) << bits <= _SLOTS]
    fitting = [bits for bits in allowed if np.count_nonzero(used, axis=1).max() <= 1 << bits]
    prices = [sum(code_length(row, normalise(row, bits), bits) for row in used) for bits in fitting]
    return next(bits for bits, price in zip(fitting, prices, strict=True) if price <= min(prices) * 1.0005 + 8)


def decode_symbols(data: bytes, count: int, context: Array | None = None) -> Array:
    """Decode what `encode_symbols` wrote.

    Args:
        data: the whole stream; untrusted.
        count: how many symbols.
        context: as given to `encode_symbols`.

    Returns:
        uint8 or uint16 [count].

    Raises:
        CorruptFileError: `data` is not a stream of `count` symbols in these contexts.
        EncodingError: `context` is not of `count` integers in range.

    Example:
        >>> decode_symbols(encode_symbols(np.array([1, 5])), 2)
        array([1, 5], dtype=uint8)
    """
    reader = Reader(data)
    ranks, contexts = None, 1
    if context is not None:
        present, ranks = shared.dense(context, count)
        contexts = present.size
    if count == 0:
        reader.end()
        return np.zeros(0, dtype=np.uint8)
    header = reader.byte()
    log_lanes, bits, log_group = header & 15, 12 + (header >> 4 & 3), header >> 6
    if log_lanes == 0 and bits != 12:
        raise CorruptFileError("coded stream: an unknown header")
    steps = -(-count // (1 << log_group))
    if (log_group and contexts > 1) or (log_lanes and steps < 1 << log_lanes):
        raise CorruptFileError("coded stream: its header does not fit its symbols")
    side = reader.take(reader.varint()) if log_lanes else reader.rest()
    coder, models = Decoder(side), TableModels()
    bits = bits if log_lanes else PRECISION
    assigned = shared.read_map(coder, contexts, MAX_TABLES)
    made = int(assigned.max()) + 1
    if log_lanes and made << bits > _SLOTS:
        raise CorruptFileError("coded stream: more tables than a stream may have")
    freqs = _stacked([read_table(coder, models, bits) for _ in range(made)])
    if log_group and freqs.shape[1] > 256:
        raise CorruptFileError("coded stream: a joint symbol above 255")
    meanings = _meanings(freqs.shape[1], log_group)
    tables = assigned.astype(np.uint8)[ranks] if ranks is not None and made > 1 else None
    body = reader.rest() if log_lanes else None
    out = _decode_body(coder, body, steps, freqs, meanings, tables, bits, log_lanes)
    return (out.view(np.uint8) if log_group else out)[:count]


def _decode_body(
    coder: Decoder,
    body: bytes | None,
    steps: int,
    freqs: NDArray[np.int64],
    meanings: Array,
    tables: NDArray[np.uint8] | None,
    bits: int,
    log_lanes: int,
) -> Array:
    """The symbols of all positions: those of one-symbol tables filled in, the others decoded."""
    single = (freqs == 1 << bits).any(axis=1)
    filled = meanings[freqs.argmax(axis=1)]
    live: NDArray[np.bool_] | None = None
    out = np.full(steps, filled[0]) if tables is None else filled[tables]
    inner = tables
    if single.all():
        todo = 0
    elif tables is not None and single.any():
        live = ~single[tables]
        inner = tables[live]
        todo = inner.size
    else:
        todo = steps
    _check_steps(todo, log_lanes)
    if body is None:
        part = meanings[_decode_scalar(coder, todo, freqs, inner)]
    else:
        coder.end()
        values = np.resize(meanings, freqs.size) if freqs.shape[0] > 1 else meanings
        part = lanes_.decode(body, todo, freqs.reshape(-1), values, bits, 1 << log_lanes, inner)
    if live is not None:
        out[live] = part
    elif todo:
        out = part
    return out


def _decode_scalar(
    coder: Decoder, count: int, freqs: NDArray[np.int64], tables: NDArray[np.uint8] | None
) -> NDArray[np.uint16]:
    """`count` symbols by bisection in each table's cumulative frequencies."""
    # Absent symbols are left out of the search, so that the slot of every symbol found is its own.
    kept = [np.flatnonzero(row) for row in freqs]
    starts = [(np.cumsum(row) - row)[used].tolist() for row, used in zip(freqs, kept, strict=True)]
    sizes = [row[used].tolist() for row, used in zip(freqs, kept, strict=True)]
    names = [used.tolist() for used in kept]
    out = [0] * count
    which = tables[:count].tolist() if tables is not None else None
    begin, size, name = starts[0], sizes[0], names[0]
    advance = coder.advance
    for position in range(count):
        if which is not None:
            table = which[position]
            begin, size, name = starts[table], sizes[table], names[table]
        place = bisect_right(begin, coder.state & 32767) - 1
        advance(begin[place], size[place])
        out[position] = name[place]
    coder.end()
    return np.array(out, dtype=np.uint16)
