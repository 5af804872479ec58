"""Factors of low rank: the best there are for the inputs that a map has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.errors import EncodingError
from bitwidth.fitting.factors import balanced, decompose, joined, separate

Reals = NDArray[np.float64]
sizes = st.integers(1, 7)
seeds = st.integers(0, 2**32 - 1)


def drawn(inputs: int, outputs: int, seed: int, rows: int = 40) -> tuple[Reals, Reals]:
    """A matrix, and the moments of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) @ rng.normal(size=(inputs, inputs))
    return rng.normal(size=(inputs, outputs)), x.T @ x / rows


def power(gram: Reals, matrix: Reals) -> float:
    """E |xT M|^2."""
    return float(np.trace(matrix.T @ gram @ matrix))


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, seeds)
def test_the_error_is_the_one_that_is_told_and_no_other_factors_have_less(inputs: int, outputs: int, seed: int) -> None:
    matrix, gram = drawn(inputs, outputs, seed)
    found = decompose(matrix, gram)
    total = power(gram, matrix)
    root = np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(inputs))
    least = np.linalg.svd(root.T @ matrix, compute_uv=False)
    assert len(found.errors) == min(inputs, outputs)
    for rank in range(1, min(inputs, outputs) + 1):
        first, second = found.factors(rank)
        assert first.shape == (inputs, rank)
        assert second.shape == (rank, outputs)
        error = power(gram, matrix - first @ second)
        assert error <= float(np.square(least[rank:]).sum()) + 1e-6 * total  # Eckart and Young, in the norm of the gram
        np.testing.assert_allclose(error, found.errors[rank - 1] ** 2 * total, atol=1e-6 * total)
        np.testing.assert_allclose(np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds, st.booleans())
def test_without_data_it_is_the_singular_value_decomposition(inputs: int, outputs: int, seed: int, eye: bool) -> None:
    matrix, _ = drawn(inputs, outputs, seed)
    found = decompose(matrix, np.eye(inputs) if eye else None)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    for rank in range(1, len(singular) + 1):
        best = left[:, :rank] * singular[:rank] @ right[:rank]
        off = np.linalg.norm(matrix - joined(*found.factors(rank))) - np.linalg.norm(matrix - best)
        assert abs(off) <= 1e-6 * np.linalg.norm(matrix)
    assert np.all(np.diff(found.errors) <= 1e-12)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds, st.booleans())
def test_at_the_full_rank_nothing_is_lost(inputs: int, outputs: int, seed: int, weighted: bool) -> None:
    matrix, gram = drawn(inputs, outputs, seed)
    found = decompose(matrix, gram if weighted else None)
    assert found.errors[-1] == 0.0
    np.testing.assert_allclose(joined(*found.factors(min(inputs, outputs))), matrix, atol=1e-6)


def test_what_the_inputs_do_not_have_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2)) @ rng.normal(size=(2, 8))
    matrix = rng.normal(size=(8, 6))
    first, second = decompose(matrix, x.T @ x / 100).factors(2)
    np.testing.assert_allclose(x @ first @ second, x @ matrix, atol=1e-8)
    plain = joined(*decompose(matrix).factors(2))
    assert np.linalg.norm(x @ plain - x @ matrix) > 0.1 * np.linalg.norm(x @ matrix)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_a_map_of_nothing_has_no_error(shape: Any) -> None:
    found = decompose(np.zeros(shape), np.eye(shape[0]))
    assert not found.errors.any()
    assert not joined(*found.factors(1)).any()


def kernel_of(first: Reals, second: Reals) -> Reals:
    """The kernel (height, width, inputs, outputs) of two convolutions, one behind the other."""
    return np.asarray(np.einsum("hir,wro->hwio", first, second))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 3), st.integers(2, 3), st.integers(1, 3), st.integers(1, 4), seeds, st.booleans())
def test_separated_windows(height: int, width: int, inputs: int, outputs: int, seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(height, width, inputs, outputs))
    _, gram = drawn(height * width * inputs, 1, seed, rows=200)
    found = separate(kernel, gram if weighted else None)
    flat = kernel.reshape(-1, outputs)
    held = gram if weighted else np.eye(len(flat))
    total = power(held, flat)
    full = min(height * inputs, width * outputs)
    assert len(found.errors) == full
    for rank in range(1, full + 1):
        first, second = found.factors(rank)
        assert first.shape == (height, inputs, rank)
        assert second.shape == (width, rank, outputs)
        error = power(held, flat - kernel_of(first, second).reshape(-1, outputs))
        np.testing.assert_allclose(error, found.errors[rank - 1] ** 2 * total, atol=1e-5 * total)
    assert np.all(np.diff(found.errors) <= 1e-9)
    np.testing.assert_allclose(kernel_of(*found.factors(full)), kernel, atol=1e-3)


def test_the_second_window_is_the_best_one_behind_the_first() -> None:
    rng = np.random.default_rng(1)
    kernel, (_, gram) = rng.normal(size=(3, 3, 2, 4)), drawn(18, 1, 1, rows=200)
    found = separate(kernel, gram)
    first, second = found.factors(2)
    flat = kernel.reshape(-1, 4)

    def error(other: Reals) -> float:
        return power(gram, flat - kernel_of(first, other).reshape(-1, 4))

    least = error(second)
    for _ in range(20):
        assert error(second + 1e-3 * rng.normal(size=second.shape)) > least
    plain = separate(kernel).factors(2)
    assert least < power(gram, flat - kernel_of(*plain).reshape(-1, 4))


def test_ranks_above_a_limit_are_not_looked_at() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5))
    whole, part = separate(kernel), separate(kernel, most=3)
    np.testing.assert_allclose(part.errors, whole.errors[:3])


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EncodingError, match="not finite"):
        decompose(np.full((2, 2), np.nan))
    with pytest.raises(EncodingError, match="not finite"):
        decompose(np.ones((2, 2)), np.full((2, 2), np.inf))


def test_columns_of_zeros_stay() -> None:
    first, second = balanced(np.array([[0.0, 3.0]]), np.array([[2.0], [0.0]]))
    assert first.tolist() == [[0.0, 3.0]]
    assert second.tolist() == [[2.0], [0.0]]
