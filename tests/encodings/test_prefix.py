from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.encodings import (
    Dense,
    Encoding,
    IntegerLevels,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    magnitude_bits,
    prefix,
)
from bitwidth.encodings.leading import MAX_HIGH
from bitwidth.errors import EncodingError

ONE = np.ones(1, np.float32)


def grid(levels: Any, zero_point: int | None = None) -> Quantized:
    zero = None if zero_point is None else np.array([zero_point], np.int32)
    return Quantized(levels, ONE * np.float32(0.3), (4,), zero)


levels = st.integers(1, MAX_HIGH).flatmap(
    lambda high: st.builds(PrefixLevels, st.just(high), st.integers(0, high.bit_length() - 1))
)


@settings(max_examples=200, deadline=None)
@given(levels, st.floats(2.0**-20, 1e4, width=32))
def test_the_middle_of_a_code_has_the_code_again(levels: PrefixLevels, scale: float) -> None:
    low, high = levels.bounds
    codes = np.unique(np.linspace(low, high, 999).astype(np.int32))
    assert (levels.nearest(levels.at(codes)) == codes).all()
    held = Quantized(levels, np.array([scale], np.float32), (codes.size,))
    assert (held.encode(held.decode(codes)) == codes).all()
    assert levels.extent == levels.at(codes).max()
    assert 2 ** (levels.bits - 1) < high - low + 1 <= 2**levels.bits


@settings(max_examples=200, deadline=None)
@given(levels, st.data())
def test_a_level_is_the_middle_of_the_integers_that_it_stands_for(levels: PrefixLevels, data: st.DataObject) -> None:
    code = data.draw(st.integers(1, levels.high >> levels.dropped))
    first, last = code << levels.dropped, ((code + 1) << levels.dropped) - 1
    assert levels.at(np.array([code, -code])).tolist() == [(first + last) / 2, -(first + last) / 2]
    ends = np.array([first, min(last, levels.high)], np.float32)
    assert levels.nearest(ends).tolist() == [code, code]
    assert levels.nearest(-ends).tolist() == [-code, -code]
    assert levels.at(np.array([0])).tolist() == [0]


@pytest.mark.parametrize("high", [1, 2, 7, 100])
def test_with_nothing_dropped_they_are_the_integers(high: int) -> None:
    x = np.random.default_rng(0).normal(0, high, 500).astype(np.float32)
    whole, same = IntegerLevels(-high, high), PrefixLevels(high, 0)
    assert (whole.nearest(x) == same.nearest(x)).all()
    assert (whole.at(np.arange(-high, high + 1)) == same.at(np.arange(-high, high + 1))).all()
    assert (whole.bits, whole.bounds, whole.extent) == (same.bits, same.bounds, same.extent)


@pytest.mark.parametrize(
    ("high", "dropped"), [(0, 0), (-1, 0), (MAX_HIGH + 1, 0), (7, 3), (7, -1), (7.0, 1), (7, 1.0), (True, 0), (7, None)]
)
def test_levels_that_make_no_sense_are_refused(high: Any, dropped: Any) -> None:
    with pytest.raises(EncodingError):
        PrefixLevels(high, dropped)


CASES: dict[str, tuple[Quantized, int]] = {
    "symmetric": (grid(IntegerLevels(-127, 127)), 7),
    "two's complement": (grid(IntegerLevels(-8, 7)), 4),
    "unsigned": (grid(IntegerLevels(0, 255)), 8),
    "zero point": (grid(IntegerLevels(0, 255), 100), 8),
    "far zero point": (grid(IntegerLevels(-128, 127), -128), 8),
    "no zero": (grid(IntegerLevels(3, 9)), 4),
    "prefix": (grid(PrefixLevels(127, 2)), 5),
    "uneven": (grid(IntegerLevels(-100, 100)), 7),
}


@pytest.mark.parametrize("name", CASES)
def test_a_prefix_reads_the_first_bits_of_the_codes(name: str) -> None:
    whole, planes = CASES[name]
    assert magnitude_bits(whole) == planes
    low, high = whole.levels.bounds
    codes = np.arange(low, high + 1, dtype=np.int32)[: 4 * ((high - low + 1) // 4)].reshape(-1, 4)
    zero = 0 if whole.zero_point is None else int(whole.zero_point[0])
    for bits in range(2, planes + 1):
        short = prefix(whole, bits)
        if whole.bits <= bits:
            assert short is whole
            continue
        assert isinstance(short, Quantized)
        assert short.zero_point is None
        assert short.bits <= bits
        assert whole.broken_by(short) is None
        signed = codes - zero
        cut = np.sign(signed) * (np.abs(signed) >> planes - (bits - 1))
        for row, expected in zip(codes, cut, strict=True):
            short.check_codes(expected)
            assert short.encode(whole.decode(row)).tolist() == expected.tolist()
    assert prefix(whole, planes + 1) is whole


def test_a_prefix_of_a_prefix_is_that_of_the_whole() -> None:
    whole = CASES["symmetric"][0]
    for outer in range(3, 8):
        for inner in range(2, outer):
            twice, once = prefix(prefix(whole, outer), inner), prefix(whole, inner)
            assert isinstance(twice, Quantized)
            assert isinstance(once, Quantized)
            assert twice.levels == once.levels


def test_integers_without_bounds_need_the_number_of_planes() -> None:
    free = grid(IntegerLevels())
    assert magnitude_bits(free) is None
    with pytest.raises(EncodingError, match="planes="):
        prefix(free, 4)
    short = prefix(free, 4, planes=6)
    assert isinstance(short, Quantized)
    assert short.levels == PrefixLevels(63, 3)
    assert prefix(free, 7, planes=6) is free
    with pytest.raises(EncodingError, match="high"):
        prefix(free, 4, planes=25)


def test_a_prefix_looks_under_the_mask() -> None:
    keep = np.array([True, False, True, True])
    short = prefix(Masked(keep, CASES["symmetric"][0]), 4)
    assert isinstance(short, Masked)
    assert (short.keep == keep).all()
    assert short.bits == 4


UNCHANGED: list[Encoding] = [
    Dense(),
    Dense("float16"),
    Masked(np.ones(4, bool)),
    grid(TableLevels((-1.0, 0.0, 1.0))),
    grid(IntegerLevels(-1, 1)),
]


@pytest.mark.parametrize("encoding", UNCHANGED)
def test_what_has_no_ordered_integers_stays(encoding: Encoding) -> None:
    assert prefix(encoding, 2) is encoding


@pytest.mark.parametrize("bits", [1, 0, -1, 2.0, True, "4"])
def test_bad_numbers_of_bits_are_refused(bits: Any) -> None:
    with pytest.raises(EncodingError, match="at least 2"):
        prefix(grid(IntegerLevels(-7, 7)), bits)
