from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import IntegerLevels, LevelRows, Quantized, TableLevels, block_of
from bitwidth.errors import ConfigError, EncodingError
from bitwidth.fitting import BitRule, Rule, fit, fit_scale, power_levels
from bitwidth.fitting import fitting as module

RAGGED = BitRule([[1, 2, 4, 8], [10, 20], [0, 5]], symmetric=True)
RULES: list[Rule] = ["uniform", "power_of_two", "codebook", "ternary", "binary", RAGGED, BitRule([1, 2, 5], bias="fit")]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule if isinstance(rule, str) else repr(rule))


def normal(seed: int, shape: tuple[int, ...] = (40, 6)) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, shape) * np.geomspace(0.01, 1, shape[-1])).astype(np.float32)


def error(held: Quantized, x: NDArray[Any], weights: Any = 1.0) -> float:
    return float((np.square(held.project(x).astype(np.float64) - x) * weights).sum())


def same(left: Quantized, right: Quantized) -> bool:
    a, b = left.state(), right.state()
    return a.config == b.config and all(np.array_equal(array, b.arrays[name]) for name, array in a.arrays.items())


@every_rule
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel", 16])
def test_laws_of_every_fit(rule: Rule, granularity: str | int, symmetric: bool) -> None:
    """It fits the shape, is stored in two bytes a number, is found again, and does not hang on what does not count."""
    x = normal(0)
    block = block_of(x.shape, granularity, (1,), (0,))
    keep = np.random.default_rng(1).random(x.shape) < 0.6
    weights = np.random.default_rng(2).random(x.shape) * keep
    before = x.copy()
    for how in ({}, {"keep": keep}, {"weights": weights}, {"keep": keep, "weights": weights}):
        held = fit(rule, 3, x, block, symmetric=symmetric, **how)
        held.check(x.shape)
        assert same(held, fit(rule, 3, x, block, symmetric=symmetric, **how))
        sides = held.scale.size * (2 if held.bias is None else 4)
        sides += 0 if held.zero_point is None else held.zero_point.size
        sides += 0 if held.row is None else held.row.size
        levels = held.levels.array.size if isinstance(held.levels, TableLevels | LevelRows) else 0
        assert held.side_bits == 8 * sides + 16 * levels
        once = held.project(x)
        assert np.array_equal(held.project(once), once)
        if how:
            other = np.where(keep, x, np.float32(1e4))
            assert same(held, fit(rule, 3, other, block, symmetric=symmetric, **how))
    assert np.array_equal(before, x)


@every_rule
def test_blocks_of_zeros_and_of_nothing(rule: Rule) -> None:
    x = normal(3)
    x[:, 2] = 0
    keep = np.ones(x.shape, bool)
    keep[:, 4] = False
    for symmetric in (True, False):
        held = fit(rule, 3, x, (40, 1), keep=keep, symmetric=symmetric)
        assert not held.project(x)[:, 2].any()
        nothing = fit(rule, 3, x, (40, 1), keep=np.zeros(x.shape, bool), symmetric=symmetric)
        assert np.isfinite(nothing.project(x)).all()
        empty = fit(rule, 3, np.zeros((0, 3), np.float32), (1, 1), symmetric=symmetric)
        assert empty.scale.shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (12, 2), elements=st.floats(-8, 8, width=32)),
    hnp.arrays(np.float32, (12, 2), elements=st.floats(0, 4, width=16).map(lambda v: float(np.float16(v)))),
    st.booleans(),
)
def test_ternary_is_the_best_of_all_thresholds(x: Any, weights: Any, weighted: bool) -> None:
    x = np.where(np.abs(x) < 1e-2, np.float32(0), x)
    counted = weights if weighted else np.ones_like(x)
    held = fit("ternary", 2, x, (12, 1), weights=weights if weighted else None)
    assert held.levels == IntegerLevels(-1, 1)
    for column in range(2):
        w, v = counted[:, column].astype(np.float64), x[:, column].astype(np.float64)
        best = (w * v * v).sum()
        for threshold in np.abs(v):
            chosen = (np.abs(v) >= threshold) & (w > 0)
            if w[chosen].sum() > 0:
                scale = (w * np.abs(v))[chosen].sum() / w[chosen].sum()
                best = min(best, (w * (v - np.where(chosen, np.sign(v) * scale, 0)) ** 2).sum())
        alone = Quantized(held.levels, held.scale[:, column], (12,))
        slack = 1e-5 * (w * v * v).sum() + 1e-9
        assert error(alone, x[:, column], w) <= best + slack


def test_blocks_too_large_to_sort_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(5, (500, 1))
    exact = fit("ternary", 2, x, (500, 1))
    monkeypatch.setattr(module, "LARGEST_SORTED", 100)
    assert error(fit("ternary", 2, x, (500, 1)), x) <= 1.02 * error(exact, x)


def test_binary_has_the_mean_magnitude() -> None:
    x, weights = normal(6), np.random.default_rng(6).random((40, 6))
    held = fit("binary", 1, x, (40, 1))
    assert np.allclose(held.scale, np.abs(x).mean(axis=0), rtol=1e-3)
    assert held.bits == 1
    weighted = fit("binary", 1, x, (40, 1), weights=weights)
    assert np.allclose(weighted.scale, (np.abs(x) * weights).sum(axis=0) / weights.sum(axis=0), rtol=1e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_zero_point_holds_values_of_one_sign_better(bits: int) -> None:
    x = np.abs(normal(7)) + np.float32(0.1)
    held = fit("uniform", bits, x, (40, 1), symmetric=False)
    assert held.zero_point is not None
    assert held.bits == bits
    assert not held.project(np.zeros_like(x)).any()
    assert error(held, x) < error(fit("uniform", bits, x, (40, 1)), x)
    widest = fit("uniform", bits, x, (40, 1), symmetric=False, scale="max")
    assert error(held, x) <= error(widest, x) * 1.0001
    reach = widest.decode(np.full(x.shape, widest.levels.bounds[1], np.int32))
    assert np.allclose(reach, x.max(axis=0), rtol=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_search_with_a_zero_point_gains_on_normal_values(bits: int) -> None:
    x = np.random.default_rng(8).normal(0.5, 1, size=(400, 4)).astype(np.float32)
    held, widest = (fit("uniform", bits, x, (400, 1), symmetric=False, scale=how) for how in ("mse", "max"))
    assert error(held, x) < 0.85 * error(widest, x)


def test_weights_are_what_the_error_is_weighted_with() -> None:
    x, weights = normal(9, (400, 6)), np.random.default_rng(9).random((400, 6)) ** 4
    for rule in ("uniform", "power_of_two", "codebook", "ternary", "binary"):
        plain, weighted = fit(rule, 3, x, (400, 1)), fit(rule, 3, x, (400, 1), weights=weights)
        assert error(weighted, x, weights) < error(plain, x, weights)
        ones = fit(rule, 3, x, (400, 1), weights=np.ones_like(x))
        assert np.allclose(error(ones, x), error(plain, x), rtol=1e-3)


def test_names_and_methods() -> None:
    x = normal(10)
    for symmetric in (True, False):  # only a uniform grid has zero points
        assert fit("power_of_two", 4, x, (40, 1), symmetric=symmetric).levels == power_levels(4)
    assert same(fit("uniform", 4, x, (40, 1)), fit_scale(x, IntegerLevels.symmetric(4), (40, 1)))
    for rule in ("ternary", "binary", "power_of_two", "uniform"):
        widest = fit(rule, 3, x, (40, 1), scale="max")
        assert np.allclose(widest.scale * widest.levels.extent, np.abs(x).max(axis=0), rtol=1e-3)


def test_what_cannot_be_fitted_is_refused() -> None:
    x = normal(11)
    with pytest.raises(ConfigError, match="rule must be"):
        fit("octal", 3, x, (40, 1))  # type: ignore[arg-type]
    for bits in (0, 17):
        with pytest.raises(EncodingError, match="1 to 16 bits"):
            fit("uniform", bits, x, (40, 1))
    for rule in RULES:
        with pytest.raises(EncodingError, match="weights must be finite"):
            fit(rule, 3, x, (40, 1), weights=-x)
        with pytest.raises(EncodingError, match="keep: expected the shape"):
            fit(rule, 3, x, (40, 1), keep=np.ones(3, bool))
