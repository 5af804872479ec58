from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import growing
from bitwidth.coder.tables import entropy_of, normalise
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array
from tests.coder.hostile import damaged

Tables = NDArray[np.uint8] | None


def freqs_of(symbols: Array, tables: Tables, bits: int) -> NDArray[np.int64]:
    """The frequencies of each table, as a stream has them."""
    which = np.zeros(symbols.size, np.uint8) if tables is None else tables
    rows = [np.bincount(symbols[which == one], minlength=int(symbols.max()) + 1) for one in range(int(which.max()) + 1)]
    return np.stack([normalise(row.astype(np.int64), bits) for row in rows])


def round_trip(symbols: Array, log_lanes: int, rows: int, bits: int = 12, tables: Tables = None) -> tuple[int, int]:
    """Bytes of the stream, and words of padding."""
    freqs = freqs_of(symbols, tables, bits)
    found = growing.encode(symbols, freqs, bits, log_lanes, rows, tables)
    assert found is not None
    data, padding = found
    values = np.resize(np.arange(freqs.shape[1], dtype=symbols.dtype), freqs.size)
    back = growing.decode(data, symbols.size, freqs, values, bits, log_lanes, rows, padding, tables)
    assert back.dtype == symbols.dtype
    np.testing.assert_array_equal(back, symbols)
    return len(data), padding


def geometric(count: int, share: float = 0.3, seed: int = 0) -> NDArray[np.uint8]:
    return np.minimum(np.random.default_rng(seed).geometric(share, count) - 1, 40).astype(np.uint8)


@pytest.mark.parametrize("log_lanes", range(14))
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_lanes_of_every_number(log_lanes: int, rows: int) -> None:
    tail = growing.tail_of(log_lanes, rows)
    for more in (0, 1, (1 << log_lanes) - 1, 1 << log_lanes, 5000):
        if tail + more:
            round_trip(geometric(tail + more), log_lanes, rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(1, 40), st.integers(12, 15), st.integers(1, 3000), st.integers(0, 9))
def test_any_rows_and_precision(log_lanes: int, rows: int, bits: int, more: int, seed: int) -> None:
    round_trip(geometric(growing.tail_of(log_lanes, rows) + more, 0.05, seed), log_lanes, rows, bits)


@pytest.mark.parametrize("log_lanes", [0, 1, 5, 10])
def test_several_tables(log_lanes: int) -> None:
    rng = np.random.default_rng(log_lanes)
    tables = rng.integers(0, 5, 50_000).astype(np.uint8)
    symbols = (rng.integers(0, 8, tables.size) * (1 + tables)).astype(np.uint16)
    size, _ = round_trip(symbols, log_lanes, 20, 13, tables)
    ideal = sum(entropy_of(np.bincount(symbols[tables == one])) for one in range(5)) / 8
    assert size <= ideal * 1.002 + 4 + 2 * (1 << log_lanes) / 100


@pytest.mark.parametrize("log_lanes", range(0, 14, 2))
def test_a_lane_costs_next_to_nothing(log_lanes: int) -> None:
    symbols = geometric(400_000)
    bits = entropy_of(np.bincount(symbols))
    size, padding = round_trip(symbols, log_lanes, 20, 15)
    assert padding <= 8
    assert size <= bits / 8 * 1.0005 + 8 + 2 * padding + (1 << log_lanes) * 0.03


def test_padding_where_rows_are_too_few_to_fill_the_lanes() -> None:
    symbols = (np.arange(1 << 14) % 200 == 0).astype(np.uint8)
    size, padding = round_trip(symbols, 10, 1)
    assert padding > 500
    assert round_trip(symbols, 10, 16)[1] < padding
    freqs = freqs_of(symbols, None, 12)
    found = growing.encode(symbols, freqs, 12, 10, 1, None, padding)
    assert found is not None
    assert (len(found[0]), found[1]) == (size, padding)
    assert growing.encode(symbols, freqs, 12, 10, 1, None, padding - 1) is None


@pytest.mark.parametrize(("log_lanes", "rows"), [(0, 1), (1, 2), (4, 3), (8, 5)])
@pytest.mark.parametrize("several", [False, True])
def test_hostile_words(log_lanes: int, rows: int, several: bool) -> None:
    symbols = geometric(growing.tail_of(log_lanes, rows) + 300)
    tables = (np.arange(symbols.size) % 3).astype(np.uint8) if several else None
    freqs = freqs_of(symbols, tables, 12)
    found = growing.encode(symbols, freqs, 12, log_lanes, rows, tables)
    assert found is not None
    data, padding = found
    values = np.resize(np.arange(freqs.shape[1], dtype=np.uint8), freqs.size)
    for bad in damaged(data, 200):
        try:
            back = growing.decode(bad, symbols.size, freqs, values, 12, log_lanes, rows, padding, tables)
        except CorruptFileError:
            continue
        assert back.shape == symbols.shape
        assert len(bad) == len(data)
    for away, more in ((-1, 0), (5, 0), (0, 1), (0, -1)):
        other = None if tables is None else np.resize(tables, symbols.size + away)
        with pytest.raises(CorruptFileError):
            growing.decode(data, symbols.size + away, freqs, values, 12, log_lanes, rows, padding + more, other)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 8), st.integers(1, 4), st.integers(0, 4))
def test_any_words(data: bytes, log_lanes: int, rows: int, padding: int) -> None:
    freqs, values = np.array([[4000, 96]]), np.array([0, 1], np.uint8)
    count = growing.tail_of(log_lanes, rows) + 9
    try:
        found = growing.decode(data, count, freqs, values, 12, log_lanes, rows, padding)
    except CorruptFileError:
        return
    assert found.shape == (count,)


def test_fewer_symbols_than_lanes_need_are_refused() -> None:
    with pytest.raises(CorruptFileError):
        growing.decode(bytes(40), growing.tail_of(3, 4) - 1, np.array([[4095, 1]]), np.zeros(2), 12, 3, 4, 0)
