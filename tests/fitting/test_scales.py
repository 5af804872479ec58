from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import IntegerLevels, Levels, Quantized, TableLevels, block_of, block_reduce, uniform_levels
from bitwidth.fitting import ScaleMethod, fit_scale

POWERS = TableLevels((-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0))
LEVELS = [*(uniform_levels(bits) for bits in (1, 2, 3, 4, 5, 8, 16)), POWERS, IntegerLevels(-8, 7)]
METHODS: list[ScaleMethod] = ["mse", "max"]
BLOCKS: list[str | int] = ["tensor", "channel", 8]


def normal(seed: int, shape: tuple[int, ...] = (40, 6)) -> NDArray[np.float32]:
    """Columns whose magnitudes differ by a factor of a hundred, with outliers."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(4, shape) * np.geomspace(0.01, 1, shape[-1])
    return values.astype(np.float32)


def error(held: Quantized, x: NDArray[np.float32], keep: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    difference = held.project(x).astype(np.float64) - x
    return block_reduce(difference**2 if keep is None else np.where(keep, difference**2, 0), held.block, np.add)


@pytest.mark.parametrize("granularity", BLOCKS)
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_a_search_is_no_worse_than_the_greatest_magnitude(levels: Levels, granularity: str | int) -> None:
    """Scales are stored in 11 bits, and errors summed in float32: as much is granted."""
    for seed in range(3):
        x = normal(seed)
        block = block_of(x.shape, granularity, (1,), (0,))
        searched, widest = fit_scale(x, levels, block, "mse"), fit_scale(x, levels, block, "max")
        assert searched.scale.shape == widest.scale.shape
        assert (error(searched, x) <= error(widest, x) * 1.0001).all()


@pytest.mark.parametrize("levels", [uniform_levels(bits) for bits in (2, 3, 4)], ids=str)
def test_a_search_gains_on_normal_values(levels: Levels) -> None:
    """At few bits clipping the tails pays: 4 bits lose at least a tenth less, 2 and 3 bits more."""
    x = np.random.default_rng(5).normal(size=(400, 4)).astype(np.float32)
    searched, widest = (fit_scale(x, levels, (400, 1), method) for method in METHODS)
    assert error(searched, x).sum() < 0.9 * error(widest, x).sum()


@pytest.mark.parametrize("levels", [levels for levels in LEVELS if levels.bits <= 8], ids=str)
def test_no_scale_of_a_fine_scan_is_much_better(levels: Levels) -> None:
    x = normal(1)[:, :2]
    searched = fit_scale(x, levels, (40, 1))
    best = np.full((1, 2), np.inf)
    widest = np.abs(x).max(axis=0, keepdims=True) / levels.extent
    for ratio in np.linspace(0.05, 1.0, 400):
        best = np.minimum(best, error(Quantized(levels, (widest * ratio).astype(np.float32), (40, 1)), x))
    assert (error(searched, x) <= 1.05 * best).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 12])
def test_the_scale_of_values_on_a_grid_is_found_again(bits: int, method: ScaleMethod) -> None:
    levels = uniform_levels(bits)
    scale = np.array([[0.125, 0.75, 3.0]], np.float32)
    low, high = levels.bounds
    codes = np.random.default_rng(bits).integers(low, high, (30, 3), endpoint=True)
    codes[0], codes[1] = low, high
    x = Quantized(levels, scale, (30, 1)).decode(codes)
    found = fit_scale(x, levels, (30, 1), method)
    assert np.array_equal(found.scale, scale)
    assert np.array_equal(found.project(x), x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_a_block_of_zeros_has_scale_zero(levels: Levels, method: ScaleMethod) -> None:
    x = normal(2)
    x[:, 3] = 0
    held = fit_scale(x, levels, (40, 1), method)
    assert held.scale[0, 3] == 0
    assert (held.scale[0, [0, 1, 2, 4, 5]] > 0).all()
    assert not held.project(x)[:, 3].any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masked_values_do_not_count(bits: int, method: ScaleMethod) -> None:
    x = normal(3)
    keep = np.random.default_rng(0).random(x.shape) < 0.5
    other = np.where(keep, x, np.float32(1e4))
    first = fit_scale(x, uniform_levels(bits), (40, 1), method, keep)
    second = fit_scale(other.astype(np.float32), uniform_levels(bits), (40, 1), method, keep)
    assert np.array_equal(first.scale, second.scale)
    if bits == 1 and method == "mse":  # else the zeros of the masked half would pull the scale down
        everywhere = fit_scale(np.where(keep, x, np.float32(0)), uniform_levels(1), (40, 1), method)
        assert error(first, x, keep).sum() < error(everywhere, x, keep).sum()


def test_nothing_kept_is_scale_zero() -> None:
    x = normal(4)
    held = fit_scale(x, uniform_levels(4), (40, 1), keep=np.zeros(x.shape, bool))
    assert not held.scale.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(-90, 50), st.sampled_from(LEVELS), st.sampled_from(METHODS), st.integers(0, 99))
def test_scales_fit_in_two_bytes(exponent: int, levels: Levels, method: ScaleMethod, seed: int) -> None:
    """As halves where all are in their normal range, else as bfloat16: never a third byte."""
    x = np.ldexp(np.random.default_rng(seed).normal(size=(6, 3)), exponent).astype(np.float32)
    held = fit_scale(x, levels, (6, 1), method)
    assert np.isfinite(held.scale).all()
    half = held.scale[(held.scale >= 6.2e-5) & (held.scale <= 65504)]
    if half.size == held.scale.size:
        assert np.array_equal(half.astype(np.float16).astype(np.float32), half)
    else:
        assert not (held.scale.view(np.uint32) & 0xFFFF).any()
    assert held.side_bits == held.scale.size * 16 + (16 * len(levels.values) if isinstance(levels, TableLevels) else 0)


def test_one_bit_has_the_mean_magnitude() -> None:
    """The scale of least squared error of -s and +s is the mean of |w| (Rastegari et al. 2016)."""
    x = np.random.default_rng(6).normal(size=(500, 4)).astype(np.float32) * np.array([0.01, 1, 3, 50], np.float32)
    held = fit_scale(x, uniform_levels(1), (500, 1))
    mean = np.abs(x).mean(axis=0, keepdims=True)
    assert np.allclose(held.scale, mean, rtol=2e-3)
    keep = np.random.default_rng(7).random(x.shape) < 0.4
    kept = fit_scale(x, uniform_levels(1), (500, 1), keep=keep)
    assert np.allclose(kept.scale, np.where(keep, np.abs(x), 0).sum(axis=0) / keep.sum(axis=0), rtol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(-60, 60), st.integers(2, 8))
def test_scaling_by_a_power_of_two_scales_the_scale(exponent: int, bits: int) -> None:
    """Unless the scale leaves the range where it is kept in 11 bits."""
    x = normal(8)[:, 4:]
    factor = np.float32(2.0**exponent)
    first = fit_scale(x, uniform_levels(bits), (40, 1))
    second = fit_scale(x * factor, uniform_levels(bits), (40, 1))
    exact = (second.scale >= 1e-3).all() and (second.scale <= 3e3).all()  # scales down to a tenth are tried
    assert np.allclose(second.scale, first.scale * factor, rtol=0 if exact else 2.0**-7)


def test_values_are_not_changed() -> None:
    x = normal(9)
    before = x.copy()
    x.setflags(write=False)
    fit_scale(x, uniform_levels(4), (40, 1), keep=x > 0)
    assert np.array_equal(x, before)


def test_a_tensor_without_values() -> None:
    held = fit_scale(np.zeros((0, 3), np.float32), uniform_levels(4), (1, 1))
    assert held.scale.shape == (0, 3)
    assert held.project(np.zeros((0, 3), np.float32)).shape == (0, 3)
