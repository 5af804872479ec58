from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import entropy_bits
from bitwidth.encodings import Encoding, Escaped, IntegerLevels, Masked, Quantized, masked, rebased
from bitwidth.errors import EncodingError
from bitwidth.fitting import Arrangement, BitRule, fit, plain_matrix
from bitwidth.fitting.rounding import EntropyPrice, cholesky_in_place, factor, feedback, shrinkage

Array = NDArray[np.float32]


def layer(inputs: int, outputs: int, seed: int = 0, groups: int = 1) -> tuple[Array, Array]:
    """A kernel [groups * inputs, outputs] and the moments of correlated inputs."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((groups, inputs, inputs)) / np.sqrt(inputs) + np.eye(inputs)
    x = rng.standard_normal((groups, 500, inputs)) @ mixing
    gram = (x.transpose(0, 2, 1) @ x / 500).astype(np.float32)
    return rng.standard_normal((groups * inputs, outputs)).astype(np.float32), gram


def loss(error: Array, gram: Array) -> float:
    """Mean squared change of the outputs."""
    return float(np.einsum("km,kl,lm->", error, gram[0], error))


GRIDS: dict[str, Any] = {
    "3 bits": lambda w: fit("uniform", 3, w, (len(w), 1)),
    "groups": lambda w: fit("uniform", 3, w, (8, 1)),
    "zero point": lambda w: fit("uniform", 3, w + 0.5, (len(w), 1), symmetric=False),
    "powers of two": lambda w: fit("power_of_two", 4, w, (len(w), 1)),
    "codebook": lambda w: fit("codebook", 3, w, (len(w), 1)),
    "ternary": lambda w: fit("ternary", 2, w, (len(w), 1)),
    "binary": lambda w: fit("binary", 1, w, (len(w), 1)),
    "rows": lambda w: fit(BitRule([[1, 2, 4], [1, 3]], symmetric=True), 4, w, (len(w), 1)),
    "steps": lambda w: Quantized(IntegerLevels(None, None), np.full((1, 1), 0.5, np.float32), w.shape),
    "escapes": lambda w: Escaped.of(w, np.abs(w) > 2, fit("uniform", 3, w, (len(w), 1))),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("price", [None, EntropyPrice(0.1)])
def test_outputs_change_less_than_by_rounding_to_nearest(name: str, price: EntropyPrice | None) -> None:
    weights, gram = layer(48, 20)
    grid = GRIDS[name](weights)
    found = feedback(weights, grid, plain_matrix(weights.shape, (1,)), gram, price=price)
    np.testing.assert_array_equal(grid.project(found), found)
    nearest = grid.project(weights)
    assert loss(found - weights, gram) < (0.9 if price is None else 1.1) * loss(nearest - weights, gram)


@pytest.mark.parametrize("name", GRIDS)
def test_masked_weights_stay_zero_and_the_others_make_up_for_each_other(name: str) -> None:
    weights, gram = layer(40, 12)
    keep = np.random.default_rng(1).random(weights.shape) < 0.5
    weights = np.where(keep, weights, 0).astype(np.float32)
    base: Encoding = GRIDS[name](weights)
    encoding = Masked(keep, base.within(keep))
    found = feedback(weights, encoding, plain_matrix(weights.shape, (1,)), gram)
    assert not found[~keep].any()
    np.testing.assert_array_equal(encoding.project(found), found)
    assert loss(found - weights, gram) < 1.05 * loss(encoding.project(weights) - weights, gram)


def test_it_is_the_textbook_recursion() -> None:
    """Against optimal brain quantization in a fixed order, with the inverse updated after each weight."""
    weights, gram = layer(10, 4)
    grid = GRIDS["3 bits"](weights)
    damped = gram[0].astype(np.float64) + 0.01 * np.diag(gram[0]).mean() * np.eye(10)
    order = np.argsort(-np.diag(gram[0]), kind="stable")
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    left, found = weights[order].astype(np.float64), np.zeros_like(weights)
    for k in range(10):
        row = np.zeros_like(weights)
        row[0] = left[k]
        found[order[k]] = grid.project(row)[0]
        error = (left[k] - found[order[k]]) / inverse[k, k]
        left[k:] -= np.outer(inverse[k:, k], error)
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    np.testing.assert_allclose(feedback(weights, grid, plain_matrix((10, 4), (1,)), gram), found, atol=1e-6)


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    weights, _ = layer(16, 5)
    grid = GRIDS["3 bits"](weights)
    found = feedback(weights, grid, plain_matrix(weights.shape, (1,)), np.eye(16, dtype=np.float32)[None])
    np.testing.assert_array_equal(found, grid.project(weights))


def test_groups_are_rounded_each_by_its_own_inputs() -> None:
    weights, gram = layer(6, 8, groups=3)
    grid = fit("uniform", 3, weights, (18, 1))
    arrangement = Arrangement((3, 6, 8), (0, 1, 2), (3, 6, 8))
    found = feedback(weights, grid, arrangement, gram)
    for group in range(3):
        rows = slice(6 * group, 6 * group + 6)
        alone = feedback(
            weights[rows],
            Quantized(grid.levels, grid.scale, (6, 1)),
            plain_matrix((6, 8), (1,)),
            gram[group : group + 1],
        )
        np.testing.assert_array_equal(found[rows], alone)


def test_more_inputs_than_a_span() -> None:
    weights, gram = layer(700, 3)
    grid = GRIDS["3 bits"](weights)
    found = feedback(weights, grid, plain_matrix(weights.shape, (1,)), gram)
    assert loss(found - weights, gram) < 0.7 * loss(grid.project(weights) - weights, gram)


def test_elements_outside_of_the_arrangement_are_rounded_to_nearest() -> None:
    weights, gram = layer(6, 4)
    index = np.arange(24).reshape(6, 4)[:, :2][None]
    grid = fit("uniform", 3, weights, (6, 1))
    found = feedback(weights, grid, Arrangement((24,), (0,), (1, 6, 2), index), gram)
    np.testing.assert_array_equal(found[:, 2:], grid.project(weights)[:, 2:])
    whole = feedback(weights, grid, plain_matrix((6, 4), (1,)), gram)
    np.testing.assert_array_equal(found[:, :2], whole[:, :2])


def test_a_price_on_bits_lowers_the_entropy_over_a_mask_too() -> None:
    weights, gram = layer(64, 40)
    keep = np.random.default_rng(2).random(weights.shape) < 0.6
    for mask in (np.ones_like(keep), keep):
        encoding = rebased(
            masked(Quantized(IntegerLevels(None, None), np.ones((1, 1), np.float32), (64, 40)), mask),
            GRIDS["steps"](weights),
        )
        given_ = np.where(mask, weights, 0).astype(np.float32)
        bits = []
        for weight in (0.0, 0.1, 0.5):
            found = feedback(given_, encoding, plain_matrix((64, 40), (1,)), gram, price=EntropyPrice(weight))
            bits.append(entropy_bits(encoding.encode(found)[mask]))
        assert bits[0] > bits[1] > bits[2]


def test_inputs_that_are_always_zero_do_not_disturb() -> None:
    weights, gram = layer(12, 5)
    gram[:, 3], gram[:, :, 3] = 0, 0
    assert np.isfinite(feedback(weights, GRIDS["3 bits"](weights), plain_matrix((12, 5), (1,)), gram)).all()
    silent = np.zeros_like(gram)
    found = feedback(weights, GRIDS["3 bits"](weights), plain_matrix((12, 5), (1,)), silent)
    np.testing.assert_array_equal(found, GRIDS["3 bits"](weights).project(weights))


def test_a_gram_of_one_row_is_damped_until_it_has_a_factor() -> None:
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    upper, pivots = factor(np.outer(x, x)[None].astype(np.float32), np.arange(300)[None], 1e-9)
    assert np.isfinite(upper).all()
    assert (pivots > 0).all()


def test_moments_that_are_not_finite_are_refused() -> None:
    weights, gram = layer(4, 2)
    gram[0, 1, 1] = np.nan
    with pytest.raises(EncodingError, match="not finite"):
        feedback(weights, GRIDS["3 bits"](weights), plain_matrix((4, 2), (1,)), gram)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**31))
def test_the_factor_times_itself_is_the_matrix(size: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2 * size, size)).astype(np.float32)
    matrix = x.T @ x / (2 * size) + 0.01 * np.eye(size, dtype=np.float32)
    found = matrix.copy()
    cholesky_in_place(found)
    lower = np.tril(found)
    np.testing.assert_allclose(lower @ lower.T, matrix, atol=2e-4)


def test_a_matrix_that_is_not_positive_has_no_factor() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        cholesky_in_place(-np.eye(3, dtype=np.float32))


@pytest.mark.parametrize(("inputs", "rank", "noise"), [(320, 60, 0.3), (256, 256, 0.0), (160, 40, 0.1)])
@pytest.mark.parametrize("share", [0.125, 0.5, 1.0, 8.0])
def test_few_rows_for_many_inputs_do_not_fit_their_own_noise(
    inputs: int, rank: int, noise: float, share: float
) -> None:
    """On new inputs feedback never loses to rounding to nearest, and comes near the best damping."""
    rng = np.random.default_rng(0)
    mixing = (
        rng.standard_normal((rank, inputs))
        / np.sqrt(inputs)
        * (1.0 if noise else np.arange(1, rank + 1)[:, None] ** -0.5)
    )

    def drawn(count: int) -> Any:
        x = rng.standard_normal((count, rank)) @ mixing + noise * rng.standard_normal((count, inputs)) / 4
        return x.astype(np.float32)

    weights = (rng.standard_normal((inputs, 48)) / np.sqrt(inputs)).astype(np.float32)
    rows = int(share * inputs)
    x, new = drawn(rows), drawn(3000)
    gram = (x.T @ x / rows).astype(np.float32)[None]
    grid, arrangement = fit("uniform", 3, weights, (inputs, 1)), plain_matrix(weights.shape, (1,))

    def error(held: Any) -> float:
        return float(np.linalg.norm(new @ (held - weights)) / np.linalg.norm(new @ weights))

    found = error(feedback(weights, grid, arrangement, gram, rows=rows))
    tried = [error(feedback(weights, grid, arrangement, gram, damping)) for damping in (0.01, 0.1, 0.3, 1.0, 3.0)]
    assert found < error(grid.project(weights))
    assert found < 1.2 * min(tried)


def test_many_rows_are_not_damped_more() -> None:
    gram = np.diag(np.arange(1, 33, dtype=np.float32))
    assert shrinkage(gram, 10**7) < 1e-4
    assert shrinkage(gram, None) == shrinkage(gram[:1, :1], 3) == 0.0
    assert shrinkage(np.eye(32, dtype=np.float32), 10) == shrinkage(np.zeros((4, 4), np.float32), 10) == 10.0
    assert [shrinkage(gram, rows) for rows in (4, 16, 64)] == sorted(
        (shrinkage(gram, r) for r in (4, 16, 64)), reverse=True
    )
