from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.encodings import LevelRows, Quantized, TableLevels
from bitwidth.fitting import BitRule, fit, fit_scale

RAGGED = [[1, 2, 4, 8, 16, 32, 64], [10, 20, 40, 80, 160, 320], [100, 200]]


def table(rule: BitRule, x: NDArray[Any], **how: Any) -> Quantized:
    return fit(rule, 1, x, (len(x), 1), **how)


def normal(seed: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=(50, 4)) * np.geomspace(0.1, 3, 4)).astype(np.float32)


def errors(held: Quantized, x: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.square(held.project(x).astype(np.float64) - x).sum(axis=0)
    return found


def test_each_block_finds_the_row_that_it_was_made_of() -> None:
    rng = np.random.default_rng(0)
    scale = [0.5, 0.25, 2.0]
    x = np.stack([rng.permutation(np.resize(row, 24)) * s for row, s in zip(RAGGED, scale, strict=True)], axis=1)
    held = table(BitRule(RAGGED), x.astype(np.float32))
    assert isinstance(held.levels, LevelRows)
    assert held.row is not None
    assert held.row.tolist() == [[0, 0, 0]] or held.row[0, 0] == 0  # the second row is the first but for its scale
    assert np.array_equal(held.project(x.astype(np.float32)), x)
    assert held.packed_bits((24, 3)) <= 24 * (3 + 3 + 3) + held.side_bits


def test_all_pairs_of_given_scales_and_biases_are_tried() -> None:
    x = normal(1)
    scales, biases, rows = (0.1, 0.7, 2.0), (-1.0, 0.0, 0.3), ((-3.0, -1.0, 2.0), (0.0, 1.0))
    held = table(BitRule(rows, scale=scales, bias=biases), x)
    best = np.full(4, np.inf)
    for row, scale, bias in itertools.product(rows, scales, biases):
        sides = np.full((1, 4), scale, np.float32), np.full((1, 4), bias, np.float32)
        best = np.minimum(best, errors(Quantized(TableLevels(row), sides[0], (50, 1), bias=sides[1]), x))
    np.testing.assert_allclose(errors(held, x), best, rtol=1e-5)
    assert held.bias is not None
    assert set(held.scale.ravel().tolist()) <= {float(np.float32(scale)) for scale in scales}


def test_one_row_with_a_fitted_scale_is_the_search_for_it() -> None:
    x = normal(2)
    held = table(BitRule([1, 2, 4], symmetric=True), x)
    searched = fit_scale(x, TableLevels((-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)), (50, 1))
    assert np.allclose(errors(held, x), errors(searched, x), rtol=1e-3)
    assert held.row is None
    assert held.bias is None


@pytest.mark.parametrize("scale", ["fit", 0.5, (0.25, 0.5, 1.0)])
def test_a_fitted_bias_finds_where_the_values_lie(scale: Any) -> None:
    rng = np.random.default_rng(3)
    x = (rng.choice([1.0, 2.0, 5.0], (60, 4)) * 0.5 + np.array([-20.0, 0.5, 3.0, 100.0])).astype(np.float32)
    held = table(BitRule([1, 2, 5], scale=scale, bias="fit"), x)
    np.testing.assert_allclose(held.project(x), x, rtol=2e-3, atol=2e-3)


def test_a_fitted_bias_is_no_worse_than_none() -> None:
    x = normal(4) + np.float32(0.3)
    assert (errors(table(BitRule([1, 2, 3, 4], bias="fit"), x), x) <= errors(table(BitRule([1, 2, 3, 4]), x), x)).all()


def test_weights_and_masks_count() -> None:
    x = normal(5)
    weights = np.random.default_rng(5).random(x.shape) ** 6
    for rule in (BitRule(RAGGED, symmetric=True), BitRule([1, 2, 5], bias="fit")):
        weighted, plain = table(rule, x, weights=weights), table(rule, x)
        total = [float((np.square(held.project(x) - x) * weights).sum()) for held in (weighted, plain)]
        assert total[0] < total[1]
