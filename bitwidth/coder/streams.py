"""One stream of symbols: which table each context uses, the tables, and the symbols in lanes or in one plain number.

A stream is one header byte and then, for few symbols, one scalar rANS number that holds tables and symbols alike; for
many the tables (their length first) and the lanes. Symbols of tables that hold one symbol only are not coded at all.

    header byte: bits 0-3: 0 = scalar, 1 = lanes that grow, 4..13 = log2 of lanes that are all there from the start;
                 bits 4-5: table precision - 12; bits 6-7: log2 of the symbols that were joined into one
    lanes that grow: log2(lanes) (one byte), rows and padding (varints), then the length of the tables and the tables

Lanes that are all there from the start and joined symbols are read, in files of versions 1 and 2, and not written.

Example:
    >>> symbols = np.array([3, 3, 0, 3], np.uint8)
    >>> decode(encode(symbols, np.array([[1, 0, 0, 3]])), 4, 1).tolist()
    [3, 3, 0, 3]
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import contexts as shared
from bitwidth.coder import growing
from bitwidth.coder import lanes as lanes_
from bitwidth.coder.bitio import Reader, varint
from bitwidth.coder.scalar import PRECISION, Decoder, Encoder
from bitwidth.coder.tables import TableModels, code_length, entropy_of, normalise, read_table, write_table
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

Placing = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Makes the table of every position, in the order of the symbols, of the table of every context."""

MAX_TABLES = 64
_SLOTS = 1 << 18  # all tables of one stream together
_GROWING = 1
_SCALAR_STEPS = 1 << 17  # in any stream
_SCALAR_ALWAYS = 3 << 10  # up to so many steps, plain numbers are as fast as lanes
_SCALAR_BYTES, _SCALAR_FEW = 600, 1 << 14  # up to so many steps of so few bytes, lanes would cost a percent
_LOG_LANES = range(4, 14)  # log2 of the lanes of a stream whose lanes are all there from the start
_LOG_ROWS = 16  # log2 of the rows of a stream, about, unless there are as many lanes as there may be
_MOST_LOG_LANES = 13
_LANE_BITS = 30.0  # what splitting a lane off takes
_LANE_BYTES = 10  # coded bytes to a lane: a lane costs about a hundredth of a byte
_MOST_ROWS = 1 << 12  # between one splitting and the next


def encode(flat: Array, counts: NDArray[np.int64], place: Placing | None = None, contexts: int | None = None) -> bytes:
    """Code symbols in contexts; those with much the same symbols are given one table together.

    Args:
        flat: uint8 or uint16, 1-D, at least one.
        counts: int64 [context, symbol]: how often each symbol stands in each context.
        place: makes the table of each position; None where all contexts are to have one table.
        contexts: how many there are, if not as many as rows of `counts`; then these are one.

    Returns:
        A self-contained stream.

    Example:
        >>> len(encode(np.zeros(1000, np.uint8), np.array([[1000]])))
        3
    """
    assigned = np.zeros(contexts or len(counts), dtype=np.intp)
    if place is not None and len(counts) > 1:
        most = MAX_TABLES if counts.shape[1] <= 1 << 12 else _SLOTS >> 15
        assigned = shared.cluster(counts, min(most, len(counts)))
    tables = np.zeros((int(assigned.max()) + 1, counts.shape[1]), dtype=np.int64)
    np.add.at(tables, assigned[: len(counts)], counts)
    single = np.count_nonzero(tables, axis=1) == 1
    position_tables = place(assigned.astype(np.uint8)) if place is not None and len(tables) > 1 else None
    if single.all():
        flat, position_tables = flat[:0], None
    elif position_tables is not None and single.any():
        live = ~single[position_tables]
        flat, position_tables = flat[live], position_tables[live]
    coded = sum(entropy_of(row) for row in tables) / 8
    scalar = flat.size <= _SCALAR_ALWAYS or (flat.size <= _SCALAR_FEW and coded < _SCALAR_BYTES)
    bits = PRECISION if scalar else _choose_bits(tables)
    coder, models = Encoder(), TableModels()
    shared.write_map(coder, assigned)
    freqs = _stacked([write_table(coder, models, row, bits) for row in tables])
    if scalar:
        index: Array = flat
        if position_tables is not None:
            index = position_tables.astype(np.uint32) * np.uint32(freqs.shape[1]) + flat
        starts = (np.cumsum(freqs, axis=1) - freqs).reshape(-1)
        coder.spans += list(zip(starts[index].tolist(), freqs.reshape(-1)[index].tolist(), strict=True))
        return bytes([0]) + coder.finish()
    side = coder.finish()
    return _encode_lanes(flat, position_tables, freqs, bits, coded, varint(len(side)) + side)


def _encode_lanes(
    flat: Array,
    tables: NDArray[np.uint8] | None,
    freqs: NDArray[np.int64],
    bits: int,
    coded: float,
    side: bytes,
) -> bytes:
    """The stream, its symbols in as many lanes as pay."""
    rows = min(int(_LANE_BITS * flat.size / max(8 * coded, 1.0)) + 2, _MOST_ROWS)
    while True:
        log_lanes = _choose_lanes(coded, flat.size, rows)
        # Rows that hold less than the average leave the lanes to padding: longer ones, if much of it would be needed.
        most = None if 2 * rows > _MOST_ROWS else int(coded / 1000) + 8
        found = growing.encode(flat, freqs, bits, log_lanes, rows, tables, most)
        if found is not None:
            data, padding = found
            head = bytes([_GROWING | (bits - 12) << 4, log_lanes]) + varint(rows) + varint(padding)
            return head + side + data
        rows *= 2


def _choose_lanes(coded: float, steps: int, rows: int) -> int:
    """log2 of the most lanes: few enough to cost little, enough that it does not take for ever."""
    wanted = max(int(coded / _LANE_BYTES), 1).bit_length() - 1
    least = (steps >> _LOG_ROWS + 1).bit_length()
    fitting = (steps // rows + 1).bit_length() - 1  # rows * (lanes - 1) are coded while lanes grow
    most = min(max(wanted, least), fitting, _MOST_LOG_LANES)
    return min(
        range(min(least, most), most + 1), key=lambda log: log * rows + (steps - growing.tail_of(log, rows) >> log)
    )


def _stacked(rows: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of unlike length as one array [table, symbol], padded with zeros."""
    out = np.zeros((len(rows), max(row.size for row in rows)), dtype=np.int64)
    for row, freqs in zip(out, rows, strict=True):
        row[: freqs.size] = freqs
    return out


def _choose_bits(tables: NDArray[np.int64]) -> int:
    """The least precision that is within 0.05 % of the best, for lanes."""
    used = tables[tables.sum(axis=1) > 0]
    allowed = [bits for bits in (12, 13, 14, 15) if len(tables) << bits <= _SLOTS]
    fitting = [bits for bits in allowed if np.count_nonzero(used, axis=1).max() <= 1 << bits]
    prices = [sum(code_length(row, normalise(row, bits), bits) for row in used) for bits in fitting]
    return next(bits for bits, price in zip(fitting, prices, strict=True) if price <= min(prices) * 1.0005 + 8)


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


class _Header:
    """The bytes before the tables."""

    def __init__(self, reader: Reader) -> None:
        first = reader.byte()
        self.log_lanes, self.bits, self.log_group = first & 15, 12 + (first >> 4 & 3), first >> 6
        self.growing = self.log_lanes == _GROWING
        self.scalar = self.log_lanes == 0
        self.rows = self.padding = 0
        if (self.scalar and self.bits != 12) or (self.growing and self.log_group):
            raise CorruptFileError("coded stream: an unknown header")
        if self.scalar:
            self.bits = PRECISION
        if self.growing:
            self.log_lanes, self.rows, self.padding = reader.byte(), reader.varint(), reader.varint()
            if self.log_lanes > _MOST_LOG_LANES or not 0 < self.rows <= _MOST_ROWS:
                raise CorruptFileError("coded stream: an unknown header")

    def check(self, steps: int) -> None:
        """Raise `CorruptFileError` where `steps` symbols would take longer than anything that an encoder writes."""
        if not self.growing:
            _check_steps(steps, self.log_lanes)
        elif steps >> self.log_lanes > 2 << _LOG_ROWS and self.log_lanes < _MOST_LOG_LANES:
            raise CorruptFileError(
                f"coded stream: {steps:,} steps in {1 << self.log_lanes} lanes, which nothing writes"
            )


def decode(data: bytes, count: int, contexts: int, place: Placing | None = None) -> Array:
    """Decode what `encode` wrote.

    Args:
        data: the whole stream; untrusted.
        count: how many symbols, at least one.
        contexts: how many contexts.
        place: makes the table of each position; None for one context.

    Returns:
        uint8 or uint16 [count].

    Raises:
        CorruptFileError: `data` is not a stream of `count` symbols in so many contexts.

    Example:
        >>> decode(encode(np.zeros(3, np.uint8), np.array([[3]])), 3, 1)
        array([0, 0, 0], dtype=uint8)
    """
    reader = Reader(data)
    header = _Header(reader)
    steps = -(-count // (1 << header.log_group))
    fixed = not header.scalar and not header.growing
    if (header.log_group and contexts > 1) or (fixed and steps < 1 << header.log_lanes):
        raise CorruptFileError("coded stream: its header does not fit its symbols")
    coder = Decoder(reader.rest() if header.scalar else reader.take(reader.varint()))
    assigned, freqs = _read_tables(coder, contexts, header)
    if header.log_group and freqs.shape[1] > 256:
        raise CorruptFileError("coded stream: a joint symbol above 255")
    meanings = _meanings(freqs.shape[1], header.log_group)
    tables = place(assigned.astype(np.uint8)) if place is not None and len(freqs) > 1 else None
    body = None if header.scalar else reader.rest()
    out = _decode_body(coder, body, steps, freqs, meanings, tables, header)
    return (out.view(np.uint8) if header.log_group else out)[:count]


def table_bytes(data: bytes, contexts: int) -> int:
    """How many bytes of a stream are its header and tables; where both are one number with the symbols, about.

    Raises:
        CorruptFileError: `data` is not a stream in so many contexts.

    Example:
        >>> table_bytes(encode(np.arange(200, dtype=np.uint8), np.ones((1, 200), np.int64)), 1)
        5
    """
    reader = Reader(data)
    header = _Header(reader)
    if not header.scalar:
        reader.take(reader.varint())
        return reader.at
    coder = Decoder(reader.rest())
    _read_tables(coder, contexts, header)
    return min(max(len(data) - round(coder.left() / 8), 1), len(data))


def _read_tables(coder: Decoder, contexts: int, header: _Header) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The table of each context, and the frequencies of all tables."""
    assigned = shared.read_map(coder, contexts, MAX_TABLES)
    made = int(assigned.max()) + 1
    if not header.scalar and made << header.bits > _SLOTS:
        raise CorruptFileError("coded stream: more tables than a stream may have")
    models = TableModels()
    return assigned, _stacked([read_table(coder, models, header.bits) for _ in range(made)])


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


def _decode_body(
    coder: Decoder,
    body: bytes | None,
    steps: int,
    freqs: NDArray[np.int64],
    meanings: Array,
    tables: NDArray[np.uint8] | None,
    header: _Header,
) -> Array:
    """The symbols of all positions: those of one-symbol tables filled in, the others decoded."""
    single = (freqs == 1 << header.bits).any(axis=1)
    live: NDArray[np.bool_] | None = None
    inner, todo = tables, steps
    if single.all():
        todo = 0
    elif tables is not None and single.any():
        live = ~single[tables]
        inner = tables[live]
        todo = inner.size
    header.check(todo)
    if body is None:
        part = meanings[_decode_scalar(coder, todo, freqs, inner)]
    else:
        coder.end()
        values = np.resize(meanings, freqs.size) if len(freqs) > 1 else meanings
        part = _decode_lanes(body, todo, freqs, values, header, inner)
    if live is None and todo:
        return part
    filled = meanings[freqs.argmax(axis=1)]
    out: Array = np.full(steps, filled[0]) if tables is None else filled[tables]
    if live is not None:
        out[live] = part
    return out


def _decode_lanes(
    body: bytes,
    todo: int,
    freqs: NDArray[np.int64],
    values: Array,
    header: _Header,
    tables: NDArray[np.uint8] | None,
) -> Array:
    if header.growing and not todo:
        if body:
            raise CorruptFileError("coded stream: it does not end where its symbols do")
        return values[:0]
    bits, log_lanes = header.bits, header.log_lanes
    if header.growing:
        return growing.decode(body, todo, freqs, values, bits, log_lanes, header.rows, header.padding, tables)
    return lanes_.decode(body, todo, freqs.reshape(-1), values, bits, 1 << log_lanes, tables)


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
        if not coder.state and coder.ended:  # what is left are symbols that own the first slot
            firsts = np.array([row[0] for row in names], dtype=np.uint16)
            rest = np.full(count - position, firsts[0]) if tables is None else firsts[tables[position:count]]
            return np.concatenate([np.array(out[:position], dtype=np.uint16), rest])
        if which is not None:
            table = which[position]
            begin, size, name = starts[table], sizes[table], names[table]
        place = bisect_right(begin, coder.state & 32767) - 1
        advance(begin[place], size[place])
        out[position] = name[place]
    coder.end()
    return np.array(out, dtype=np.uint16)
