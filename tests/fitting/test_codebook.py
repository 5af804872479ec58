from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import Quantized, TableLevels, block_of
from bitwidth.fitting import fit


def normal(seed: int, shape: tuple[int, ...] = (60, 8)) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * np.geomspace(0.01, 1, shape[-1])).astype(np.float32)


def error(held: Quantized, x: NDArray[np.float32], weights: NDArray[Any]) -> float:
    return float((np.square(held.project(x).astype(np.float64) - x) * weights).sum())


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 3, 4, 5, 8, 12]),
    st.sampled_from(["tensor", "channel", 8]),
    st.sampled_from(["normal", "few", "integers", "tiny", "large"]),
    st.booleans(),
    st.booleans(),
)
def test_never_worse_than_uniform(
    seed: int, bits: int, granularity: str | int, kind: str, masked: bool, weighted: bool
) -> None:
    """Whatever the values; errors are summed in float32 there, so as much is granted."""
    rng = np.random.default_rng(seed)
    x = normal(seed, (int(rng.integers(1, 50)), 4))
    x = {"normal": x, "few": np.sign(x), "integers": np.rint(x * 9), "tiny": x * 1e-20, "large": x * 1e6}[kind]
    x = x.astype(np.float32)
    keep = rng.random(x.shape) < 0.7 if masked else None
    weights = rng.random(x.shape) ** 4 if weighted else None
    counted = (1.0 if weights is None else weights) * (np.ones(x.shape) if keep is None else keep)
    block = block_of(x.shape, granularity, (1,), (0,))
    uniform = fit("uniform", bits, x, block, keep=keep, weights=weights)
    learned = fit("codebook", bits, x, block, keep=keep, weights=weights)
    assert error(learned, x, counted) <= error(uniform, x, counted) * (1 + 1e-5)
    assert isinstance(learned.levels, TableLevels)
    assert len(learned.levels.values) <= 2**bits


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.75), (3, 0.8), (4, 0.7), (8, 0.6)])
def test_it_gains_on_weights_with_tails(bits: int, gain: float) -> None:
    x, ones = normal(1, (2000, 16)), np.ones((2000, 16))
    uniform, learned = (fit(rule, bits, x, (2000, 1)) for rule in ("uniform", "codebook"))
    assert error(learned, x, ones) < gain * error(uniform, x, ones)


def test_gaussian_values_reach_the_error_of_the_best_quantizer() -> None:
    """Max 1960, "Quantizing for minimum distortion", table I: 0.009497 at 16 levels, 0.03454 at 8, 0.1175 at 4."""
    x = np.random.default_rng(2).normal(size=(400_000, 1)).astype(np.float32)
    for bits, least in ((2, 0.1175), (3, 0.03454), (4, 0.009497)):
        held = fit("codebook", bits, x, x.shape)
        assert error(held, x, np.ones(x.shape)) / x.size == pytest.approx(least, rel=0.03)


def test_few_distinct_values_are_held_exactly() -> None:
    x = np.random.default_rng(3).choice(np.array([-3.0, 0.0, 0.5, 7.0], np.float32), (50, 3))
    held = fit("codebook", 2, x, (50, 3))
    np.testing.assert_allclose(held.project(x), x, atol=7e-3)  # scales and levels have 11 bits


def test_the_greatest_magnitude_sets_the_scale_where_asked() -> None:
    x = normal(4)
    uniform, learned = (fit(rule, 4, x, (60, 1), scale="max") for rule in ("uniform", "codebook"))
    assert np.array_equal(uniform.scale, learned.scale)
    assert error(learned, x, np.ones(x.shape)) < error(uniform, x, np.ones(x.shape))


def test_a_million_values_take_no_minute() -> None:
    x = normal(5, (1024, 1024))
    start = time.perf_counter()
    fit("codebook", 4, x, (1024, 1))
    assert time.perf_counter() - start < 20
