"""Code lengths: tables of frequencies, and the slope of the expected length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.coder import encode_integers
from bitwidth.fitting.codelengths import REACH, code_lengths

RNG = np.random.default_rng(0)


def lengths(codes: np.ndarray, low: int, high: int) -> np.ndarray:
    counts = np.array([(codes == k).sum() + 0.5 for k in range(low, high + 1)])
    return -np.log2(counts / counts.sum())


def test_the_slope_is_that_of_the_expected_length() -> None:
    codes = np.rint(RNG.laplace(0, 2, 2000)).clip(-7, 7).astype(int)
    table = lengths(codes, -7, 7)
    found = code_lengths(codes, -7, 7)
    noise = (np.arange(4000) + 0.5) / 4000 - 0.5
    for u in (-5.3, -1.0, -0.2, 0.0, 0.45, 2.5, 6.1):
        expected = [np.interp(u + d + noise, np.arange(-7, 8), table).mean() for d in (-1e-3, 1e-3)]
        assert found.slope(u) == pytest.approx((expected[1] - expected[0]) / 2e-3, abs=1e-3)


def test_the_bits_are_the_entropy_of_the_codes() -> None:
    codes = np.rint(RNG.normal(0, 1.5, 20_000)).astype(int)
    found = code_lengths(codes)
    counts = np.unique(codes, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert found.bits == pytest.approx(entropy, rel=2e-3)
    assert found.bits / 8 == pytest.approx(len(encode_integers(codes)), rel=0.02)
    assert found.zeros == pytest.approx((codes == 0).mean())


def test_codes_beyond_the_table_cost_more_the_further_they_are() -> None:
    codes = np.rint(RNG.laplace(0, 12, 20_000)).astype(int)
    found = code_lengths(codes)
    assert (np.abs(codes) > REACH).mean() > 0.2
    assert found.slope(40.0) == pytest.approx(found.slope(500.0))
    assert found.slope(40.0) == pytest.approx(1 / 12 / np.log(2), rel=0.1)  # of a Laplacian of that width
    counts = np.unique(codes, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert found.bits == pytest.approx(entropy, rel=0.01)


def test_nothing_is_to_be_had_outside_of_the_bounds() -> None:
    found = code_lengths(RNG.integers(-3, 4, 100), -3, 3)
    assert found.slope(4.0) == 0.0 == found.slope(-9.0)


def test_of_no_codes() -> None:
    assert code_lengths(np.zeros(0, int)).bits == 0


@given(st.lists(st.integers(-(1 << 18), 1 << 18), max_size=40), st.booleans())
def test_arrays_keep_their_shape_and_mirrored_codes_mirror(values: list[int], bounded: bool) -> None:
    codes = np.array(values, np.int64)
    bounds = (-7, 7) if bounded else (-np.inf, np.inf)
    codes = codes.clip(*bounds).astype(np.int64) if bounded else codes
    found, mirrored = code_lengths(codes, *bounds), code_lengths(-codes, *bounds)
    assert found.slopes.shape == code_lengths(np.zeros(3, int), *bounds).slopes.shape
    assert np.isfinite(found.slopes).all()
    assert found.bits >= 0
    assert np.allclose(found.slopes, -mirrored.slopes[::-1], atol=1e-4)
