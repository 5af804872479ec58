from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder.tokens import MANTISSAS, choose_mantissa, least_of, tokens_of

MAGNITUDES = st.one_of(st.integers(0, 1 << 32), st.integers(0, (1 << 64) - 1), st.integers(0, 300))
EDGES = np.array(
    sorted({max((1 << power) + away, 0) for power in range(64) for away in (-1, 0, 1)} | {(1 << 64) - 1}), np.uint64
)


def check(values: NDArray[np.uint64], mantissa: int) -> NDArray[np.int64]:
    """Least magnitude and low bits are the magnitude again; the tokens."""
    tokens, shifts = tokens_of(values, mantissa)
    least, left_out = least_of(tokens, mantissa)
    np.testing.assert_array_equal(left_out, shifts.astype(np.int64))
    np.testing.assert_array_equal(least | (values & ((np.uint64(1) << shifts) - np.uint64(1))), values)
    assert (least <= values).all()
    assert (values - least < np.uint64(1) << shifts).all()
    return tokens


@pytest.mark.parametrize("mantissa", MANTISSAS)
@given(st.lists(MAGNITUDES, max_size=30))
def test_every_magnitude_comes_back(mantissa: int, values: list[int]) -> None:
    check(np.array(values, np.uint64), mantissa)


@pytest.mark.parametrize("mantissa", MANTISSAS)
def test_powers_of_two_and_their_neighbours(mantissa: int) -> None:
    tokens = check(EDGES, mantissa)
    assert (np.diff(tokens) >= 0).all()
    assert tokens.max() < 64 << mantissa << 1


@pytest.mark.parametrize("mantissa", MANTISSAS)
def test_small_magnitudes_are_tokens_of_their_own(mantissa: int) -> None:
    small = np.arange(2 << mantissa).astype(np.uint64)
    tokens, shifts = tokens_of(small, mantissa)
    assert tokens.tolist() == small.tolist()
    assert not shifts.any()
    assert tokens_of(np.array([2 << mantissa], np.uint64), mantissa)[1] == 1


@pytest.mark.parametrize("mantissa", MANTISSAS)
def test_every_token_has_a_magnitude(mantissa: int) -> None:
    tokens = np.arange(30 << mantissa)
    assert tokens_of(least_of(tokens, mantissa)[0], mantissa)[0].tolist() == tokens.tolist()


@given(st.lists(MAGNITUDES, min_size=1, max_size=30))
def test_coarser_tokens_are_unions_of_finer_ones(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    least = least_of(tokens_of(array, MANTISSAS[0])[0], MANTISSAS[0])[0]
    for mantissa in MANTISSAS:
        assert tokens_of(least, mantissa)[0].tolist() == tokens_of(array, mantissa)[0].tolist()


def test_the_mantissa_is_as_fine_as_pays() -> None:
    rng = np.random.default_rng(0)
    positive = np.zeros(5000, np.bool_)
    few = rng.choice(np.array([1000, 1001, 1004], np.uint64), 5000)
    assert choose_mantissa(few, positive)[0] == 6
    uniform = rng.integers(0, 1 << 40, 5000).astype(np.uint64)
    found, cost = choose_mantissa(uniform, positive)
    assert found <= 1
    assert 5000 * 39 < cost < 5000 * 41


@given(st.lists(st.tuples(st.integers(0, 1 << 33), st.booleans(), st.integers(1, 9)), min_size=1, max_size=20))
def test_how_often_each_occurs_may_be_said(values: list[tuple[int, bool, int]]) -> None:
    magnitude = np.array([value for value, _, _ in values], np.uint64)
    negative = np.array([below for _, below, _ in values])
    often = np.array([times for _, _, times in values])
    assert choose_mantissa(magnitude, negative, often) == choose_mantissa(
        np.repeat(magnitude, often), np.repeat(negative, often)
    )
