"""Narrowing: true grids of fewer bits out of the codes of wider ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import (
    Dense,
    Encoding,
    Escaped,
    IntegerLevels,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    grid_shape,
    narrow,
    prefix,
    spread,
    steps,
    uniform_levels,
)
from bitwidth.errors import EncodingError
from bitwidth.fitting import fit
from bitwidth.testing import check_encoding

Ints = NDArray[np.int32]


@st.composite
def grids(draw: st.DrawFn) -> tuple[Quantized, Ints, NDArray[np.bool_] | None]:
    """A grid of integers of any kind, codes on it, and a mask or none."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    block = tuple(draw(st.integers(1, length + 1)) for length in shape)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    low = draw(st.sampled_from([None, -127, -128, 0, 3, -32767, -7]))
    levels = IntegerLevels() if low is None else IntegerLevels(low, {-128: 127, 0: 255, 3: 200}.get(low, abs(low)))
    counts = grid_shape(shape, block)
    scale = (rng.random(counts) * draw(st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))).astype(np.float32)
    zero = bias = None
    ends = levels.bounds if low is not None else (-3000, 3000)
    if draw(st.booleans()):
        zero = rng.integers(ends[0], ends[1] + 1, counts).astype(np.int32)
    if draw(st.booleans()):
        bias = rng.standard_normal(counts).astype(np.float32) * np.float32(0.1)
    codes = rng.integers(ends[0], ends[1] + 1, shape).astype(np.int32)
    keep = rng.random(shape) < 0.7 if draw(st.booleans()) else None
    return Quantized(levels, scale, block, zero, bias), codes, keep


def signed_of(grid: Quantized, codes: Ints, keep: NDArray[np.bool_] | None) -> Ints:
    zero = 0 if grid.zero_point is None else spread(grid.zero_point, grid.block, codes.shape)
    found: Ints = (codes - zero) * (1 if keep is None else keep)
    return found


@settings(max_examples=200, deadline=None)
@given(grids(), st.integers(2, 16))
def test_a_true_grid_of_so_many_bits(case: tuple[Quantized, Ints, NDArray[np.bool_] | None], bits: int) -> None:
    grid, codes, keep = case
    encoding: Encoding = grid if keep is None else Masked(keep, grid)
    given_codes = codes if keep is None else np.where(keep, codes, 0).astype(np.int32)
    found, short = narrow(encoding, given_codes, bits)
    if found is encoding:
        assert grid.bits <= bits or np.abs(signed_of(grid, codes, keep)).max() < 1 << (bits - 1)
        assert short is given_codes
        return
    inner = found.unmasked
    assert isinstance(inner, Quantized)
    assert inner.levels == uniform_levels(bits)
    assert (inner.zero_point, inner.block) == (None, grid.block)
    assert inner.bias is grid.bias or np.array_equal(inner.bias, grid.bias)  # type: ignore[arg-type]
    inner.check_codes(short)
    assert short.dtype == np.int32
    assert found.broken_by(found) is None
    if keep is not None:
        assert found.mask is not None
        assert (found.mask == keep).all()
        assert not short[~keep].any()
    step = steps(given_codes, grid, bits, keep)
    assert np.array_equal(inner.scale, grid.scale * step.astype(np.float32))
    values = found.decode(short)
    assert np.isfinite(values).all()
    if grid.bias is None:  # else float32 may round the bias away
        assert np.array_equal(found.project(values)[inner_kept(grid, values)], values[inner_kept(grid, values)])
    again, same = narrow(encoding, given_codes, bits, step)
    assert np.array_equal(same, short)
    assert np.array_equal(again.decode(same), values)


def plainly(signed: Ints, step: Ints, bits: int) -> Ints:
    """Signed codes over steps, halves away from zero, clipped."""
    level = np.minimum((np.abs(signed).astype(np.int64) + step // 2) // step, (1 << (bits - 1)) - 1)
    found: Ints = (np.sign(signed) * level).astype(np.int32)
    return found


def inner_kept(grid: Quantized, values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the scale can be divided by."""
    kept: NDArray[np.bool_] = np.broadcast_to(
        spread(np.asarray(grid.scale > 1e-37), grid.block, values.shape), values.shape
    )
    return kept


@settings(max_examples=100, deadline=None)
@given(grids(), st.integers(2, 16))
def test_codes_are_as_near_as_the_step_allows(
    case: tuple[Quantized, Ints, NDArray[np.bool_] | None], bits: int
) -> None:
    """What is left is half a step, or less than a whole one where a code was rounded to the other side; zero stays."""
    grid, codes, keep = case
    step, signed, top = steps(codes, grid, bits, keep), signed_of(grid, codes, keep), (1 << (bits - 1)) - 1
    assert step.shape == grid.scale.shape
    assert step.dtype == np.int32
    assert step.min() >= 1
    _, short = narrow(Masked(keep, grid) if keep is not None else grid, codes, bits, step)
    if short is codes:
        return
    wide = np.broadcast_to(spread(step, grid.block, codes.shape), codes.shape)
    left = signed - wide * short
    inside = np.abs(signed) <= top * wide
    assert (np.abs(left)[inside] < wide[inside]).all()
    assert not short[signed == 0].any()
    assert (np.sign(signed[~inside]) * short[~inside] >= top - 1).all()
    plain = plainly(signed, wide, bits)
    assert (np.abs(plain - short) <= 1).all()
    assert np.abs(plain).max(initial=0) <= top


def test_no_step_where_codes_are_narrow_enough() -> None:
    grid = Quantized(IntegerLevels.symmetric(8), np.ones((1, 3), np.float32), (4, 1))
    codes = np.array([[7, 100, 0]] * 4, np.int32)
    step = steps(codes, grid, 4)
    assert step[0, 0] == step[0, 2] == 1
    assert step[0, 1] > 1
    assert steps(codes, grid, 2).tolist()[0][0] == 7
    assert steps(codes, grid, 16).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(("bits", "most"), [(2, 1.02), (3, 1.03), (4, 1.05), (5, 1.1)])
@pytest.mark.parametrize("shape", [(600, 20), (9000, 4), (3, 3, 40, 12)])
def test_nearly_as_good_as_a_fit_at_once(bits: int, most: float, shape: tuple[int, ...]) -> None:
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    block = (*shape[:-1], 1)
    wide = fit("uniform", 8, w, block, scale="max")
    found, codes = narrow(wide, wide.encode(w), bits)

    def error(held: NDArray[np.float32]) -> float:
        return float(np.square(held - w).sum())

    at_once = error(fit("uniform", bits, w, block).project(w))
    assert error(found.decode(codes)) <= most * at_once
    assert error(found.decode(codes)) < 0.8 * error(prefix(wide, bits).project(w))


def test_errors_of_a_block_are_evened_out() -> None:
    w = np.random.default_rng(1).laplace(size=(500, 30)).astype(np.float32)
    wide = fit("uniform", 8, w, (500, 1), scale="max")
    codes = wide.encode(w)
    found, short = narrow(wide, codes, 4)
    step = steps(codes, wide, 4)
    plain = np.abs((plainly(codes, step, 4) * step - codes).sum(axis=0))
    even = np.abs((short * step - codes).sum(axis=0))
    assert (even <= plain).all()
    assert (even <= 1.5 * step[0]).all()
    assert even.sum() < 0.2 * plain.sum()
    assert found.bits == 4


def test_an_outlier_is_clipped_where_that_errs_less() -> None:
    codes = np.concatenate([np.arange(-9, 10), [127]] * 500).astype(np.int32)[:, None]
    codes[39::20] = 3  # one outlier is left
    grid = Quantized(IntegerLevels.symmetric(8), np.ones((1, 1), np.float32), codes.shape)
    assert steps(codes, grid, 4).item() < 12
    assert steps(codes, grid, 8).item() == 1


UNCHANGED: list[Encoding] = [
    Dense(),
    Dense("e8m3"),
    Masked(np.ones(4, bool)),
    Quantized(TableLevels((-1.0, 0.0, 1.0)), np.ones(1, np.float32), (4,)),
    Quantized(IntegerLevels(-1, 1), np.ones(1, np.float32), (4,)),
    Quantized(IntegerLevels(), np.ones(1, np.float32), (4,)),
    Escaped(
        np.array([True, False, False, False]),
        np.ones(1, np.float32),
        Quantized(IntegerLevels.symmetric(8), np.ones(1, np.float32), (4,)),
    ),
]


@pytest.mark.parametrize("encoding", UNCHANGED, ids=lambda encoding: encoding.describe())
def test_what_has_no_wider_integers_stays(encoding: Encoding) -> None:
    codes = np.array([1, 0, -1, 1], np.int32)
    found, same = narrow(encoding, codes, 2)
    assert found is encoding
    assert same is codes


def test_of_a_prefix_the_first_bits_are_read() -> None:
    whole = Quantized(PrefixLevels(127, 1), np.ones(1, np.float32), (5,))
    codes = np.array([-63, -20, 0, 7, 63], np.int32)
    found, short = narrow(whole, codes, 4)
    assert isinstance(found, Quantized)
    assert found.levels == PrefixLevels(127, 4)
    assert short.tolist() == [-7, -2, 0, 0, 7]


def test_blocks_of_nothing_and_of_zeros() -> None:
    for shape in ((0, 3), (3, 0), (2, 2)):
        block = (max(1, shape[0]), 1)
        grid = Quantized(IntegerLevels.symmetric(8), np.zeros(grid_shape(shape, block), np.float32), block)
        found, codes = narrow(grid, np.zeros(shape, np.int32), 4)
        assert found.bits == 4
        assert codes.shape == shape
        assert not codes.any()


def test_one_scale_for_any_shape() -> None:
    grid = Quantized(IntegerLevels.symmetric(8), np.array(0.5, np.float32), ())
    found, codes = narrow(grid, np.array([[70, 50], [-30, 14]], np.int32), 4)
    assert codes.tolist() == [[7, 5], [-3, 1]]
    assert found.decode(codes).tolist() == [[35.0, 25.0], [-15.0, 5.0]]


def test_values_stay_within_the_range_of_floats() -> None:
    grid = Quantized(IntegerLevels.symmetric(8), np.full(1, 2.6e36, np.float32), (3,))
    found, codes = narrow(grid, np.array([127, 126, -127], np.int32), 4)
    assert np.isfinite(found.decode(codes)).all()


@pytest.mark.parametrize("bits", [1, 17, 4.0, True, None, "4"])
def test_bad_numbers_of_bits_are_refused(bits: Any) -> None:
    grid, codes = Quantized(IntegerLevels.symmetric(8), np.ones(1, np.float32), (4,)), np.zeros(4, np.int32)
    with pytest.raises(EncodingError, match="2 to 16"):
        narrow(grid, codes, bits)
    with pytest.raises(EncodingError, match="2 to 16"):
        steps(codes, grid, bits)


@pytest.mark.parametrize("step", [np.zeros(1, int), np.ones(2, int), np.ones(1), np.array([1 << 23]), 3])
def test_bad_steps_are_refused(step: Any) -> None:
    grid = Quantized(IntegerLevels.symmetric(8), np.ones(1, np.float32), (4,))
    with pytest.raises(EncodingError, match="steps are"):
        narrow(grid, np.full(4, 100, np.int32), 4, step)


def test_codes_of_another_shape_are_refused() -> None:
    grid = Quantized(IntegerLevels.symmetric(8), np.ones((1, 1), np.float32), (4, 4))
    with pytest.raises(EncodingError, match="shape"):
        narrow(grid, np.zeros((5, 5), np.int32), 4)
    with pytest.raises(EncodingError, match="shape"):
        steps(np.zeros((5, 5), np.int32), grid, 4)


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_what_it_makes_is_an_encoding(bits: int) -> None:
    grid = Quantized(IntegerLevels(0, 255), np.array([[0.1, 0.02]], np.float32), (6, 1), np.array([[100, 3]], np.int32))
    codes = np.random.default_rng(0).integers(0, 256, (6, 2)).astype(np.int32)
    keep = np.random.default_rng(1).random((6, 2)) < 0.6
    check_encoding(narrow(grid, codes, bits)[0], (6, 2))
    check_encoding(narrow(Masked(keep, grid), np.where(keep, codes, 0).astype(np.int32), bits)[0], (6, 2))
