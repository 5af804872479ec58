from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import EncodingState, IntegerLevels, Levels, Quantized, TableLevels, encoding_from_state
from bitwidth.encodings import uniform_levels as uniform
from bitwidth.errors import EncodingError

finite = st.floats(-1e4, 1e4, width=32)
scales = st.floats(2.0**-20, 2.0**10, width=32)
levels = st.one_of(
    st.integers(1, 16).map(uniform),
    st.just(IntegerLevels()),
    st.tuples(st.integers(-100, 0), st.integers(1, 100)).map(lambda bounds: IntegerLevels(*bounds)),
    st.sets(st.integers(-40, 40), min_size=2, max_size=9).map(lambda s: TableLevels(tuple(v / 8 for v in sorted(s)))),
)


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@settings(max_examples=200, deadline=None)
@given(levels, st.lists(scales, min_size=3, max_size=3), hnp.arrays(np.float32, (5, 3), elements=finite))
def test_laws(grid: Levels, scale: list[float], x: NDArray[np.float32]) -> None:
    held = Quantized(grid, np.array([scale], np.float32), (5, 1))
    codes = held.encode(x)
    low, high = grid.bounds
    assert low <= codes.min() <= codes.max() <= high
    once = held.decode(codes)
    assert same_bits(held.project(once), once)
    assert np.array_equal(held.encode(once), codes)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 300),
    st.lists(scales, min_size=3, max_size=3),
    hnp.arrays(np.float32, (5, 3), elements=finite),
    st.data(),
)
def test_laws_with_a_zero_point(high: int, scale: list[float], x: NDArray[np.float32], data: st.DataObject) -> None:
    zero = np.array([data.draw(st.lists(st.integers(0, high + 1), min_size=3, max_size=3))], np.int32)
    held = Quantized(IntegerLevels(0, high + 1), np.array([scale], np.float32), (5, 1), zero)
    codes = held.encode(x)
    assert 0 <= codes.min() <= codes.max() <= high + 1
    once = held.decode(codes)
    assert np.array_equal(held.encode(once), codes)
    assert same_bits(held.project(np.zeros((5, 3), np.float32)), np.zeros((5, 3), np.float32))
    for column, (point, step) in enumerate(zip(zero[0].tolist(), scale, strict=True)):
        shifted = Quantized(IntegerLevels(-point, high + 1 - point), np.array([step], np.float32), (5,))
        assert np.array_equal(shifted.project(x[:, column]), once[:, column])


@settings(max_examples=150, deadline=None)
@given(levels, scales, st.floats(-100, 100, width=32), hnp.arrays(np.float32, 6, elements=finite))
def test_laws_with_a_bias(grid: Levels, scale: float, bias: float, x: NDArray[np.float32]) -> None:
    assume(abs(bias) < scale * 2.0**16)  # beyond that the bias swallows the steps
    side = np.array([bias], np.float32)
    held = Quantized(grid, np.array([scale], np.float32), (6,), bias=side)
    once = held.project(x)
    assert same_bits(held.project(once), once)
    assert held.project(side.repeat(6)).dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(scales, st.integers(2, 12), st.data())
def test_project_is_monotone(scale: float, bits: int, data: st.DataObject) -> None:
    x = np.sort(np.array(data.draw(st.lists(finite, min_size=2, max_size=20)), np.float32))
    held = Quantized(uniform(bits), np.array([scale], np.float32), (len(x),))
    assert (np.diff(held.project(x)) >= 0).all()


def test_levels_one_unit_apart_are_told_apart_under_any_scale() -> None:
    """Either the table is refused, or a value on one of its levels stays there."""
    one = np.float32(1)
    near = tuple(float(value) for value in (one, np.nextafter(one, np.float32(2)), np.float32(1.5)))
    rng = np.random.default_rng(0)
    try:
        table = TableLevels(near)
    except EncodingError:
        return
    for scale in rng.uniform(0.1, 2, 200).astype(np.float32):
        held = Quantized(table, np.array([scale]), (3,))
        once = held.decode(np.array([0, 1, 2]))
        assert same_bits(held.project(once), once)


def test_a_block_with_scale_zero_is_zero() -> None:
    x = np.array([[5.0, -5.0], [1e30, 3.0]], np.float32)
    held = Quantized(IntegerLevels(-7, 7), np.array([[0.0, 1.0]], np.float32), (2, 1))
    assert held.project(x).tolist() == [[0.0, -5.0], [0.0, 3.0]]


@pytest.mark.parametrize("scale", [1e-45, 2e-39, 2.9e-39, 1.2e-38])
def test_scales_too_small_to_divide_by(scale: float) -> None:
    held = Quantized(IntegerLevels(-7, 7), np.array([scale], np.float32), (3,))
    once = held.project(np.array([1.0, -1e-38, 0.0], np.float32))
    assert np.isfinite(once).all()
    assert same_bits(held.project(once), once)


def test_the_arithmetic_is_that_of_float32() -> None:
    """Values times (1 / scale), rounded after each step, as TensorFlow does it; not x / scale."""
    scale = np.float32(0.1)
    x = np.linspace(-1, 1, 2001).astype(np.float32)
    held = Quantized(IntegerLevels(-7, 7), np.array([scale]), (2001,))
    expected = np.clip(np.rint(x * (np.float32(1) / scale)), -7, 7).astype(np.int32)
    assert np.array_equal(held.encode(x), expected)
    assert same_bits(held.decode(expected), expected.astype(np.float32) * scale)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_values_of_other_dtypes_are_cast(dtype: Any) -> None:
    held = Quantized(IntegerLevels(-7, 7), np.array([1.0], np.float32), (3,))
    assert same_bits(held.project(np.array([1, -9, 3]).astype(dtype)), np.array([1, -7, 3], np.float32))


def test_fields_are_copies() -> None:
    scale = np.array([1.0], np.float32)
    zero, bias = np.array([0], np.int32), np.array([0.5], np.float32)
    held = Quantized(IntegerLevels(0, 7), scale, (2,), zero)
    biased = Quantized(IntegerLevels(0, 7), scale, (2,), bias=bias)
    scale[:], zero[:], bias[:] = 9, 5, 9
    assert held.project(np.array([0.0, 2.0], np.float32)).tolist() == [0.0, 2.0]
    assert biased.project(np.array([0.5, 2.6], np.float32)).tolist() == [0.5, 2.5]
    assert not held.scale.flags.writeable


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, -1e-9, 1e300, 1e39])
def test_a_scale_that_is_no_scale_in_float32_is_refused(scale: float) -> None:
    with pytest.raises(EncodingError, match="finite and not negative"):
        Quantized(IntegerLevels(-7, 7), np.array([1.0, scale]), (1,))


@pytest.mark.parametrize("scale", [np.array([True]), np.array([1j]), np.array(["1"]), np.array([None])])
def test_a_scale_of_another_kind_is_refused(scale: Any) -> None:
    with pytest.raises(EncodingError, match="scales must be finite"):
        Quantized(IntegerLevels(-7, 7), scale, (1,))


@pytest.mark.parametrize("block", [(), (1, 1), (0,), (-3,)])
def test_a_block_that_does_not_fit_its_scale_is_refused(block: tuple[int, ...]) -> None:
    with pytest.raises(EncodingError, match="block must have"):
        Quantized(IntegerLevels(-7, 7), ONE, block)


@pytest.mark.parametrize("zero", [-8, 8, 2**31])
def test_a_zero_point_outside_of_the_codes_is_refused(zero: int) -> None:
    with pytest.raises(EncodingError, match="zero points must lie within the codes -7 to 7"):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), np.array([zero]))


def test_a_zero_point_that_is_no_integer_is_refused() -> None:
    with pytest.raises(EncodingError):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), np.array([0.5]))


def test_sides_that_do_not_fit_are_refused() -> None:
    two = np.zeros(2, np.int32)
    with pytest.raises(EncodingError, match="zero_point must be finite and of the scale's shape"):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), two)
    with pytest.raises(EncodingError, match="bias must be finite and of the scale's shape"):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), bias=two.astype(np.float32))
    with pytest.raises(EncodingError, match="bias must be finite"):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), bias=np.array([np.nan], np.float32))
    with pytest.raises(EncodingError, match="belongs to integer levels"):
        Quantized(TableLevels((0.0, 1.0)), ONE, (1,), np.zeros(1, np.int32))


def test_a_bias_that_is_not_finite_in_float32_is_refused() -> None:
    with pytest.raises(EncodingError, match="bias must be finite"):
        Quantized(IntegerLevels(-7, 7), ONE, (1,), bias=np.array([1e300]))


def test_packed_bits_by_hand() -> None:
    shape = (10, 2)
    halves = np.full((3, 2), 0.5, np.float32)
    grid = Quantized(IntegerLevels(0, 15), halves, (4, 1))
    assert grid.packed_bits(shape) == 20 * 4 + 6 * 16
    assert Quantized(IntegerLevels(0, 15), halves * np.float32(0.1), (4, 1)).packed_bits(shape) == 20 * 4 + 6 * 32
    zeros = np.zeros((3, 2), np.int32)
    assert Quantized(IntegerLevels(0, 15), halves, (4, 1), zeros).packed_bits(shape) == 20 * 4 + 6 * 16 + 6 * 8
    table = TableLevels((-1.0, 0.0, 0.5))
    assert Quantized(table, halves, (4, 1), bias=halves).packed_bits(shape) == 20 * 2 + 12 * 16 + 3 * 16


def test_words() -> None:
    assert Quantized(uniform(4), np.ones((1, 3), np.float32), (2, 1)).describe() == "4-bit x3"
    assert Quantized(TableLevels((0.0, 1.0, 2.0)), ONE, (1,)).describe() == "2-bit table x1"
    assert Quantized(IntegerLevels(), ONE, (1,)).describe() == "integer steps x1"


GOOD: dict[str, Any] = {"low": -7, "high": 7, "block": [1]}
BAD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"scale": ONE}),
    (GOOD, {}),
    ({**GOOD, "block": None}, {"scale": ONE}),
    ({**GOOD, "block": ["x"]}, {"scale": ONE}),
    ({**GOOD, "block": [float("inf")]}, {"scale": ONE}),
    ({**GOOD, "block": [2**70, 1]}, {"scale": ONE}),
    ({**GOOD, "low": "a"}, {"scale": ONE}),
    ({**GOOD, "low": [0]}, {"scale": ONE}),
    ({**GOOD, "low": None}, {"scale": ONE}),
    ({**GOOD, "low": 10**400, "high": 10**401}, {"scale": ONE}),
    ({**GOOD, "low": -7.5}, {"scale": ONE}),
    (GOOD, {"scale": np.array([np.nan], np.float32)}),
    (GOOD, {"scale": np.array(["a"])}),
    (GOOD, {"scale": ONE, "zero_point": np.array([9])}),
    (GOOD, {"scale": ONE, "bias": np.zeros((2, 2), np.float32)}),
    (GOOD, {"scale": ONE, "levels": np.array([2.0, 1.0], np.float32)}),
    (GOOD, {"scale": ONE, "levels": np.array(1.0, np.float32)}),
]


@pytest.mark.parametrize(("config", "arrays"), BAD)
def test_a_state_that_makes_no_sense_is_refused(config: dict[str, Any], arrays: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        encoding_from_state(EncodingState("quantized", config, arrays))


def test_codes_beyond_the_levels_are_refused() -> None:
    """As a file might hold: neither may they wrap around in the table."""
    held = Quantized(TableLevels((-1.0, 0.0, 5.0)), ONE, (1,))
    assert held.decode(np.array([-1])).tolist() == [-1.0]
    for code in (-2, 2, 100):
        with pytest.raises(EncodingError, match="codes must be integers from -1 to 1"):
            held.check_codes(np.array([code]))
