"""Masks with a pattern cost what the pattern leaves open."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.coder import decode_codes, decode_mask, encode_codes, encode_mask, entropy_bits
from bitwidth.coder.runs import LENGTHS, Runs, find_runs
from bitwidth.errors import CorruptFileError


def n_of_m(n: int, m: int, shape: tuple[int, int], seed: int = 0) -> Any:
    """A mask that keeps n of every m rows of a column, at random."""
    rng = np.random.default_rng(seed)
    places = rng.random((shape[0] // m, m, shape[1])).argsort(axis=1) < n
    return places.reshape(shape)


def coded(mask: Any) -> int:
    """Bytes of a mask, which comes back."""
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data, mask.shape), mask)
    return len(data)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (1, 4), (1, 3), (4, 8), (3, 5)])
def test_n_of_m_costs_its_information(n: int, m: int) -> None:
    mask = n_of_m(n, m, (m * 100, 300))
    bits = math.log2(math.comb(m, n)) / m * mask.size
    tables = 200 + 12 * math.comb(m, n)
    assert 8 * coded(mask) < 1.01 * bits + tables
    assert 8 * coded(np.ascontiguousarray(mask.T)) < 1.01 * bits + tables
    assert 8 * coded(mask.reshape(m * 10, 10, 300)) < 1.01 * bits + tables


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 1), (1, 4), (8, 1), (16, 1)])
def test_blocks_cost_a_bit_each_at_most(inputs: int, outputs: int) -> None:
    blocks = np.random.default_rng(0).random((400 // inputs, 400 // outputs)) < 0.4
    mask = np.repeat(np.repeat(blocks, inputs, axis=0), outputs, axis=1)
    least = entropy_bits(blocks)
    assert 8 * coded(mask) < 1.01 * least * max(1, inputs * outputs / 8) + 400


def test_masks_without_a_pattern_are_not_cut() -> None:
    rng = np.random.default_rng(0)
    for density in (0.02, 0.3, 0.5, 0.9):
        assert find_runs(rng.random((500, 240)) < density) is None
    assert find_runs(np.zeros((1, 7), np.bool_)) is None
    assert find_runs(n_of_m(2, 4, (400, 307))[:397]) is None  # sides that no run divides


@given(st.integers(0, 6), st.integers(0, 6), st.sampled_from(list(LENGTHS)), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_runs_are_cut_and_joined(rows: int, columns: int, length: int, along_rows: bool, seed: int) -> None:
    shape = (rows, columns * length) if along_rows else (rows * length, columns)
    table = np.random.default_rng(seed).random(shape) < 0.5
    runs = Runs(length, along_rows)
    kinds = runs.cut(table)
    assert kinds.size * length == table.size
    np.testing.assert_array_equal(runs.joined(kinds, shape), table)


def test_codes_under_a_mask_with_a_pattern() -> None:
    rng = np.random.default_rng(0)
    codes = np.rint(2 * rng.normal(size=(400, 200))).astype(np.int8)
    mask = n_of_m(2, 4, codes.shape)
    data = encode_codes([(codes, mask)])
    ((back, kept),) = decode_codes(data, [(codes.shape, True)])
    np.testing.assert_array_equal(kept, mask)
    np.testing.assert_array_equal(back, np.where(mask, codes, 0))
    values = len(encode_codes([(codes[mask], None)]))
    assert 8 * (len(data) - values) < 0.66 * codes.size


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (bytes([6, 5]), "does not divide"),
        (bytes([6, 9]), "does not divide"),
        (bytes([6, 1]), "does not divide"),
        (bytes([6 | 2 << 3, 4]), "unknown header"),
        (bytes([7, 4]), "unknown header"),
    ],
)
def test_malformed_runs_are_refused(stream: bytes, words: str) -> None:
    good = encode_mask(n_of_m(2, 4, (64, 64)))
    assert good[0] & 7 == 6
    with pytest.raises(CorruptFileError, match=words):
        decode_mask(stream + good[2:], (64, 64))


def test_a_kind_that_a_run_cannot_have_is_refused() -> None:
    data = encode_mask(n_of_m(2, 8, (64, 64)))
    assert data[:2] == bytes([6, 8])
    with pytest.raises(CorruptFileError):
        decode_mask(bytes([6, 2]) + data[2:], (64, 16))
