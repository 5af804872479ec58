"""Code lengths: what codes cost, and the slope of the expected length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.coder import encode_integers
from bitwidth.fitting.codelengths import CodeLengths, code_lengths

RNG = np.random.default_rng(0)


def drawn(width: float, count: int = 20_000) -> np.ndarray:
    return np.rint(RNG.laplace(0, width, count)).astype(int)


def test_the_slope_is_that_of_the_expected_length() -> None:
    found = CodeLengths(bits=0.0, zeros=0.9, first=4.0, further=1.5)
    codes = np.arange(-9, 10)
    table = np.where(codes == 0, 0.0, found.first + found.further * (np.abs(codes) - 1))
    noise = (np.arange(4000) + 0.5) / 4000 - 0.5
    for u in (-5.3, -1.0, -0.2, 0.0, 0.45, 0.9, 2.5, 6.1):
        expected = [np.interp(u + d + noise, codes, table).mean() for d in (-1e-3, 1e-3)]
        assert found.slope(u) == pytest.approx((expected[1] - expected[0]) / 2e-3, abs=2e-3)


@pytest.mark.parametrize("width", [0.3, 1.0, 12.0])
def test_the_bits_are_what_the_coder_takes(width: float) -> None:
    codes = drawn(width)
    assert code_lengths(codes).bits / 8 == pytest.approx(len(encode_integers(codes)), rel=0.03)


@pytest.mark.parametrize("width", [0.5, 3.0, 12.0])
def test_further_out_is_as_much_longer_as_it_is_less_frequent(width: float) -> None:
    found = code_lengths(drawn(width))
    assert found.further == pytest.approx(1 / width / np.log(2), rel=0.1)


def test_zeros_are_shorter_where_there_are_more() -> None:
    codes = drawn(2.0)
    pruned = np.where(RNG.random(codes.size) < 0.9, 0, codes)
    few, many = code_lengths(codes), code_lengths(pruned)
    assert many.first > few.first + 2
    assert many.further == pytest.approx(few.further, rel=0.1)


def test_codes_that_avoid_zero_still_fall_towards_it() -> None:
    """Else weights would gather wherever some happen to be."""
    found = code_lengths(np.repeat([-6, -3, 3, 6], 100))
    assert found.first >= found.further > 0


def test_of_no_codes() -> None:
    assert code_lengths(np.zeros(0, int)).bits == 0


@settings(deadline=None)
@given(st.lists(st.integers(-(1 << 31), 1 << 31), max_size=40))
def test_any_codes(values: list[int]) -> None:
    codes = np.array(values, np.int64)
    found, mirrored = code_lengths(codes), code_lengths(-codes)
    assert found == mirrored
    assert found.bits >= 0
    assert np.isfinite([found.bits, found.first, found.further]).all()
    assert found.first >= found.further > 0
    assert found.slope(-2.5) == -found.slope(2.5)
