from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitwidth.encodings import IntegerLevels, LevelRows, Levels, PrefixLevels, TableLevels, uniform_levels
from bitwidth.errors import EncodingError

tables = st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=20, unique=True).map(
    lambda values: tuple(sorted({float(value) + 0.0 for value in values}))
)


@pytest.mark.parametrize("bits", range(2, 17))
def test_symmetric_integers(bits: int) -> None:
    levels = uniform_levels(bits)
    top = 2 ** (bits - 1) - 1
    assert levels.bounds == (-top, top)
    assert levels.bits == bits
    assert levels.extent == top
    codes = levels.nearest(np.array([-1e9, -top - 0.4, 0.4, top - 0.6, 1e9], np.float32))
    assert codes.tolist() == [-top, -top, 0, top - 1, top]
    assert codes.dtype == np.int32


def test_one_bit_is_minus_one_and_plus_one() -> None:
    levels = uniform_levels(1)
    assert levels.bits == 1
    codes = levels.nearest(np.array([-3.0, -0.1, 0.1, 9.0], np.float32))
    assert levels.at(codes).tolist() == [-1, -1, 1, 1]


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_widths_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(EncodingError, match="2 to 16 bits"):
        uniform_levels(bits)
    with pytest.raises(EncodingError, match="2 to 16 bits"):
        IntegerLevels.symmetric(bits)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 1, 1), (0, 15, 4), (-8, 7, 4), (-8, 8, 5), (3, 7, 3), (0, 255, 8)]
)
def test_bits_of_any_range(low: int, high: int, bits: int) -> None:
    assert IntegerLevels(low, high).bits == bits
    assert IntegerLevels(low, high).extent == max(abs(low), abs(high))


def test_integers_round_halves_to_even() -> None:
    codes = IntegerLevels(-7, 7).nearest(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32))
    assert codes.tolist() == [0, 2, 2, 0, -2]


def test_integers_without_bounds() -> None:
    levels = IntegerLevels()
    assert levels.bits == inf
    assert levels.extent == inf
    assert levels.nearest(np.array([1e5, -1e5, 12.4], np.float32)).tolist() == [100000, -100000, 12]
    low, high = levels.bounds
    assert levels.nearest(np.array([1e9, -1e9], np.float32)).tolist() == [high, low]


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((0, 0), "low must be below high"),
        ((3, -3), "low must be below high"),
        ((None, 3), "both bounds or none"),
        ((0, None), "both bounds or none"),
        ((0, 2**20 + 1), "reach to"),
        ((-(2**20) - 1, 0), "reach to"),
    ],
)
def test_bounds_that_make_no_range_are_refused(bounds: tuple[Any, Any], words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        IntegerLevels(*bounds)


@pytest.mark.parametrize("bounds", [(0.5, 3), (0, 7.5), (float("nan"), 3), (0, float("nan"))])
def test_bounds_that_are_no_integers_are_refused(bounds: tuple[Any, Any]) -> None:
    with pytest.raises(EncodingError):
        IntegerLevels(*bounds)


@settings(max_examples=150, deadline=None)
@given(tables, st.lists(st.floats(-2e3, 2e3, width=32), min_size=1, max_size=30))
def test_a_table_gives_its_nearest_level(values: tuple[float, ...], x: list[float]) -> None:
    assume(len(values) >= 2)
    levels = TableLevels(values)
    points = np.array(x, np.float32)
    codes = levels.nearest(points)
    low, high = levels.bounds
    assert low <= codes.min() <= codes.max() <= high
    distance = np.abs(levels.at(codes).astype(np.float64) - points)
    best = np.abs(np.array(values)[:, None] - points).min(axis=0)
    slack = 2.0**-22 * (np.abs(points) + np.abs(values).max())
    assert (distance <= best + slack).all()


@settings(max_examples=100, deadline=None)
@given(tables)
def test_codes_and_levels_of_a_table_are_one_to_one(values: tuple[float, ...]) -> None:
    assume(len(values) >= 2)
    levels = TableLevels(values)
    low, high = levels.bounds
    codes = np.arange(low, high + 1)
    assert levels.at(codes).tolist() == list(values)
    assert levels.nearest(levels.at(codes)).tolist() == codes.tolist()
    assert 2 ** (levels.bits - 1) < len(values) <= 2**levels.bits
    if 0.0 in values:
        assert levels.at(np.array([0])).tolist() == [0.0]


def test_a_value_between_two_levels_goes_to_the_lower() -> None:
    assert TableLevels((-1.0, 0.0, 4.0)).nearest(np.array([-0.5, 2.0, 2.0001], np.float32)).tolist() == [-1, 0, 1]


def test_levels_are_float32() -> None:
    levels = TableLevels((0.1, 0.2))
    assert levels.values == (float(np.float32(0.1)), float(np.float32(0.2)))
    assert levels.extent == float(np.float32(0.2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((), "2 to 65536"),
        ((1.0,), "2 to 65536"),
        (tuple(range(65537)), "2 to 65536"),
        (((1.0, 2.0), (3.0, 4.0)), "2 to 65536"),
        ((0.0, float("nan")), "finite"),
        ((0.0, float("inf")), "finite"),
        ((1.0, 0.0), "sorted"),
        ((0.0, 0.0), "sorted"),
        ((1.0, 1.0 + 2.0**-30), "differ in float32"),
        ((-0.0, 0.0), "differ"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(values: Any, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        TableLevels(values)


def test_the_largest_table() -> None:
    levels = TableLevels(tuple(float(value) for value in range(-32768, 32768)))
    assert levels.bits == 16
    assert levels.bounds == (-32768, 32767)
    assert levels.nearest(np.array([-1e6, 0.3, 1e6], np.float32)).tolist() == [-32768, 0, 32767]


def test_levels_answer_for_themselves() -> None:
    """What is asked of any kind of levels, without asking which kind it is."""
    table = TableLevels((-1.0, 0.0, 2.5))
    rows = LevelRows((table, TableLevels((1.0, 3.0))))
    kinds: dict[str, Levels] = {
        "integers": IntegerLevels(-3, 4),
        "prefix": PrefixLevels(31, 2),
        "table": table,
        "tables": rows,
    }
    assert {name: levels.kind for name, levels in kinds.items()} == {name: name for name in kinds}
    assert [levels.step for levels in kinds.values()] == [1.0, 0.5, 0.5, 0.5]
    assert [levels.is_integer for levels in kinds.values()] == [True, False, False, False]
    assert [levels.by_block for levels in kinds.values()] == [False, False, False, True]
    assert [levels.dropped_bits for levels in kinds.values()] == [0, 2, 0, 0]
    assert [len(levels.tables) for levels in kinds.values()] == [0, 0, 1, 2]
    assert [levels.array.size for levels in kinds.values()] == [0, 0, 3, 5]
    assert (kinds["integers"].integer_bounds, kinds["prefix"].integer_bounds) == ((-3, 4), (-31, 31))
    with pytest.raises(EncodingError, match="not integers in order"):
        _ = table.integer_bounds
    row = np.array([0, 1])
    assert [levels.code_widths(row).tolist() for levels in kinds.values()] == [[3, 3], [4, 4], [2, 2], [2, 1]]
    assert rows.checked_row([0, 1], (2,)) is not None
    assert PrefixLevels(1 << 20, 1).step is None
