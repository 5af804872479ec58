"""What removing weights costs, and what the others make up for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.errors import EncodingError
from bitwidth.fitting.compensation import damped, power_left, refit, removal_costs


def gram_of(inputs: int, rows: int = 400, seed: int = 0, groups: int = 1) -> Any:
    """Mean of x xT of correlated inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, rows, inputs)) @ rng.normal(size=(groups, inputs, inputs)) + 0.5
    return (np.swapaxes(x, 1, 2) @ x / rows).astype(np.float32)


def error(weights: Any, given_: Any, gram: Any) -> float:
    """The squared error of the outputs."""
    e = (weights - given_).astype(np.float64)
    return float((e * (gram.astype(np.float64) @ e)).sum())


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 99), st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_what_stays_is_the_least_squares_solution(inputs: int, outputs: int, seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    gram = gram_of(inputs, seed=seed)
    weights = rng.normal(size=(1, inputs, outputs)).astype(np.float32)
    keep = rng.random(weights.shape) < density
    found = refit(weights, keep, gram, steps=200)
    assert not found[~keep].any()
    whole = damped(gram[0], None).astype(np.float64)
    for output in range(outputs):
        kept = keep[0, :, output]
        best = np.zeros(inputs)
        if kept.any():
            target = whole[kept] @ weights[0, :, output]
            best[kept] = np.linalg.solve(whole[np.ix_(kept, kept)], target)
        assert error(found[0, :, output], weights[0, :, output], whole) <= 1.01 * error(
            best, weights[0, :, output], whole
        ) + 1e-4 * error(0 * best, weights[0, :, output], whole)


@pytest.mark.parametrize("inputs", [2, 7, 128, 129, 300])
def test_the_cost_of_one_weight_is_the_error_that_is_left(inputs: int) -> None:
    gram = gram_of(inputs, rows=4 * inputs, groups=2)
    weights = np.random.default_rng(1).normal(size=(2, inputs, 3)).astype(np.float32)
    costs = removal_costs(weights, gram)
    wholes = [damped(one, None).astype(np.float64) for one in gram]
    left = [1 / np.diag(np.linalg.inv(w)) - (w[0, 0] - g[0, 0]) for w, g in zip(wholes, gram, strict=True)]
    np.testing.assert_allclose(power_left(gram), left, rtol=3e-2)
    place = inputs // 2
    keep = np.ones((1, inputs, 3), np.bool_)
    keep[0, place] = False
    fitted = refit(weights[1:], keep, gram[1:], steps=2000)
    whole = damped(gram[1], None)
    for output in range(3):
        expected = error(fitted[0, :, output], weights[1, :, output], whole)
        added = (whole[0, 0] - gram[1, 0, 0]) * float(weights[1, place, output]) ** 2
        assert costs[1, place, output] == pytest.approx(expected - added, rel=0.05)


def test_inputs_that_are_always_zero_cost_nothing_and_stay_as_they_are() -> None:
    gram = gram_of(6)
    gram[:, 2] = gram[:, :, 2] = 0
    weights = np.ones((1, 6, 2), np.float32)
    costs = removal_costs(weights, gram)
    assert costs[0, 2].max() < 1e-6 * np.delete(costs[0], 2, axis=0).min()
    nothing = removal_costs(weights, np.zeros_like(gram))
    assert (nothing < 1e-9).all()
    np.testing.assert_allclose(refit(weights, np.ones(weights.shape, np.bool_), np.zeros_like(gram)), weights)


def test_a_group_of_one_input_has_nothing_that_makes_up_for_it() -> None:
    weights = np.ones((3, 1, 2), np.float32)
    gram = np.array([0.0, 1.0, 4.0], np.float32)[:, None, None]
    costs = removal_costs(weights, gram, damping=0.0)
    np.testing.assert_allclose(costs[:, 0, 0], [0, 1, 4], atol=1e-9)
    keep = np.ones(weights.shape, np.bool_)
    keep[1] = False
    np.testing.assert_array_equal(refit(weights, keep, gram), weights * keep)


def test_few_rows_are_damped_more() -> None:
    gram = gram_of(40, rows=10)
    assert np.einsum("kk->k", damped(gram[0], 10)).sum() > np.einsum("kk->k", damped(gram[0], None)).sum()
    assert np.isfinite(removal_costs(np.ones((1, 40, 1), np.float32), gram, 10)).all()


def test_moments_that_are_not_finite_are_refused() -> None:
    gram = gram_of(3)
    gram[0, 0, 0] = np.nan
    weights = np.ones((1, 3, 1), np.float32)
    with pytest.raises(EncodingError, match="not finite"):
        removal_costs(weights, gram)
    with pytest.raises(EncodingError, match="not finite"):
        refit(weights, np.ones(weights.shape, np.bool_), gram)


def test_a_start_that_is_near_needs_fewer_steps() -> None:
    rng, gram = np.random.default_rng(0), gram_of(60)
    weights = rng.normal(size=(1, 60, 5)).astype(np.float32)
    keep = rng.random(weights.shape) < 0.5
    best = refit(weights, keep, gram, steps=300)
    near = refit(weights, keep, gram, start=best, steps=1)
    far = refit(weights, keep, gram, steps=1)
    assert error(near, weights, gram) < error(far, weights, gram)
