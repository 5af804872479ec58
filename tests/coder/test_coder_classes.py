from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder.classes import MOST_CLASSES, Classes, choose, histogram_of, side_bits
from bitwidth.coder.tables import entropy_of


def symbols_of(scale: NDArray[np.float64], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Gaussian codes of a scale for each element, as symbols; and their magnitudes."""
    codes = np.rint(np.random.default_rng(seed).standard_normal(scale.shape) * scale).astype(np.int16)
    return (codes - codes.min()).astype(np.uint8), np.abs(codes)


def apart(symbols: NDArray[np.uint8], found: Classes) -> float:
    joint = histogram_of(symbols, found.rows, found.columns, int(symbols.max()) + 1)
    return sum(entropy_of(row) for row in joint.reshape(-1, joint.shape[-1]))


SCALES = np.array([0.4, 2.0, 9.0])


@pytest.mark.parametrize("count", [200, 3000])
@pytest.mark.parametrize("turned", [False, True])
def test_lines_that_differ_are_told_apart(count: int, turned: bool) -> None:
    kinds = np.arange(90) % 3
    scale = np.repeat(SCALES[kinds][:, None], count, axis=1)
    symbols, magnitudes = symbols_of(scale.T if turned else scale)
    found = choose(symbols, magnitudes)
    here, there = (found.columns, found.rows) if turned else (found.rows, found.columns)
    assert found.counts == ((1, here.max() + 1) if turned else (here.max() + 1, 1))
    assert not there.any()
    for one in range(here.max() + 1):  # a class holds lines of one kind
        assert np.unique(kinds[here == one]).size == 1
    assert found.bits < entropy_of(np.bincount(symbols.reshape(-1))) * 0.9
    assert apart(symbols, found) <= found.bits


def test_rows_and_columns_at_once() -> None:
    rows, columns = 2.0 ** (np.arange(120) % 4), 2.0 ** -(np.arange(96) // 48)
    symbols, magnitudes = symbols_of(rows[:, None] * columns)
    found = choose(symbols, magnitudes)
    assert found.counts[0] >= 4
    assert found.counts[1] >= 2
    assert (found.columns[:48] != found.columns[48:]).all()


def test_classes_are_numbered_by_magnitude() -> None:
    scale = np.repeat(SCALES[np.arange(60) % 3][:, None], 500, axis=1)
    symbols, magnitudes = symbols_of(scale)
    found = choose(symbols, magnitudes)
    means = [magnitudes[found.rows == one].mean() for one in range(found.counts[0])]
    assert means == sorted(means)


@pytest.mark.parametrize("shape", [(100, 100), (2000, 7), (3, 5000), (1200, 1000)])
def test_none_where_lines_do_not_differ(shape: tuple[int, int]) -> None:
    symbols, magnitudes = symbols_of(np.full(shape, 3.0))
    found = choose(symbols, magnitudes)
    assert found.counts == (1, 1)
    assert (found.rows.shape, found.columns.shape) == ((shape[0],), (shape[1],))
    assert found.bits >= entropy_of(np.bincount(symbols.reshape(-1))) * 0.999


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (2, 3), (20, 20)])
def test_none_of_few_elements(shape: tuple[int, int]) -> None:
    symbols = (np.arange(shape[0] * shape[1]) // 7 % 5).reshape(shape).astype(np.uint8)
    assert choose(symbols, symbols).counts == (1, 1)


def test_none_of_one_symbol_or_of_many() -> None:
    one = np.full((80, 80), 7, np.uint8)
    assert choose(one, one).counts == (1, 1)
    many = (np.arange(6400).reshape(80, 80) // 80 * 9).astype(np.uint16)
    assert choose(many, many).counts == (1, 1)


def test_a_sample_of_large_matrices_is_enough() -> None:
    kinds = np.arange(3000) // 7 % 3
    symbols, magnitudes = symbols_of(np.repeat(SCALES[kinds][:, None], 800, axis=1))
    found = choose(symbols, magnitudes)
    assert found.counts[0] >= 3
    assert apart(symbols, found) < entropy_of(np.bincount(symbols.reshape(-1))) * 0.9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 6), st.integers(0, 99))
def test_classes_of_anything_are_few(rows: int, columns: int, spread: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    symbols = (rng.integers(0, 30, (rows, columns)) // rng.integers(1, spread + 1, (rows, 1))).astype(np.uint8)
    found = choose(symbols, symbols)
    for line, size in ((found.rows, rows), (found.columns, columns)):
        assert line.shape == (size,)
        assert line.dtype == np.uint8
        assert np.unique(line).tolist() == list(range(line.max() + 1))
        assert line.max() < MOST_CLASSES
    assert apart(symbols, found) <= found.bits + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_histogram_is_the_plain_count(rows: int, columns: int, first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, 7, (rows, columns)).astype(np.uint8)
    of_rows = (np.arange(rows) % first).astype(np.uint8)
    of_columns = (np.arange(columns) % second).astype(np.uint8)
    plain = np.zeros((of_rows.max() + 1, of_columns.max() + 1, 7), np.int64)
    np.add.at(plain, (of_rows[:, None], of_columns[None], symbols), 1)
    np.testing.assert_array_equal(histogram_of(symbols, of_rows, of_columns, 7), plain)


def test_what_classes_cost() -> None:
    assert side_bits(np.zeros(500, np.uint8)) == 0
    runs = (np.arange(512) // 128).astype(np.uint8)
    mixed = np.random.default_rng(0).permutation(runs)
    assert side_bits(runs) < 100 < side_bits(mixed) < 2 * 512 + 100
