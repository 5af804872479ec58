from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import FEW_MANTISSA_BITS, Dense, EncodingState, encoding_from_state
from bitwidth.errors import EncodingError

floats = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(width=32))


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@settings(max_examples=60, deadline=None)
@given(floats)
def test_dense_without_a_format_and_float32_hold_every_bit(x: NDArray[np.float32]) -> None:
    assert same_bits(Dense().project(x), x)
    assert same_bits(Dense("float32").project(x), x)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", "complex64"])
def test_dense_without_a_format_keeps_the_dtype(dtype: str) -> None:
    x = np.array([0, 1, 1]).astype(dtype)
    assert same_bits(Dense().project(x), x)


@settings(max_examples=200, deadline=None)
@given(floats)
def test_bfloat16_is_the_one_of_ml_dtypes(x: NDArray[np.float32]) -> None:
    """An independent implementation: round to nearest even, overflow to infinity, NaN stays NaN."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    got = Dense("bfloat16").project(x)
    nan = np.isnan(x)
    assert np.isnan(got[nan]).all()
    assert same_bits(got[~nan], expected[~nan])


@settings(max_examples=100, deadline=None)
@given(floats)
def test_float16_is_that_of_numpy(x: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    assert np.array_equal(Dense("float16").project(x), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (1.00390625, 1.0),  # a tie between 1 and 1 + 2^-7: to even
        (1.01171875, 1.015625),  # a tie between 1 + 2^-7 and 1 + 2^-6: to even
        (1.00390637, 1.0078125),  # just above the tie
        (3.4e38, float("inf")),  # above the greatest bfloat16
        (-0.0, -0.0),
        (1e-45, 0.0),
        (float("-inf"), float("-inf")),
    ],
)
def test_bfloat16_by_hand(value: float, held: float) -> None:
    got = Dense("bfloat16").project(np.array([value], np.float32))
    assert same_bits(got, np.array([held], np.float32))


def test_a_signalling_nan_stays_nan_in_bfloat16() -> None:
    """Its payload lies in the bits that are cut off, and must not leave an infinity."""
    x = np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(Dense("bfloat16").project(x)).all()


def test_bfloat16_of_a_view_that_is_not_contiguous() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert same_bits(Dense("bfloat16").project(x.T[::2]), np.ascontiguousarray(x.T[::2]))


FEW: list[tuple[Any, int]] = [(name, int(name[-1])) for name in FEW_MANTISSA_BITS]


def test_the_formats_of_few_mantissa_bits() -> None:
    assert FEW_MANTISSA_BITS == ("e8m6", "e8m5", "e8m4", "e8m3", "e8m2", "e8m1")
    assert [Dense(name).mantissa_bits for name, _ in FEW] == [6, 5, 4, 3, 2, 1]
    assert [Dense(name).bits for name, _ in FEW] == [15, 14, 13, 12, 11, 10]
    assert Dense("bfloat16").mantissa_bits == 7
    assert Dense("float16").mantissa_bits is None
    assert Dense().mantissa_bits is None


@settings(max_examples=150, deadline=None)
@given(floats, st.sampled_from(FEW))
def test_few_mantissa_bits_are_the_nearest_with_halves_to_the_even_one(
    x: NDArray[np.float32], form: tuple[Any, int]
) -> None:
    """By arithmetic on 64-bit floats, subnormal values of float32 included."""
    name, mantissa = form
    got = Dense(name).project(x)
    kept = np.isfinite(x) & (x != 0)
    wide = x[kept].astype(np.float64)
    exponent = np.maximum(np.floor(np.log2(np.abs(wide))), -126)
    unit = 2.0 ** (exponent - mantissa)
    with np.errstate(over="ignore"):
        expected = (np.rint(wide / unit) * unit).astype(np.float32)
    assert same_bits(got[kept], expected)
    assert np.array_equal(got[~kept], x[~kept], equal_nan=True)
    assert same_bits(Dense(name).project(got), got)


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("e8m1", 1.25, 1.0),  # a tie between 1 and 1.5: to even
        ("e8m1", 1.75, 2.0),
        ("e8m1", -1.2500001, -1.5),
        ("e8m2", 1.125, 1.0),
        ("e8m2", 1.375, 1.5),
        ("e8m6", 1.0078125, 1.0),
        ("e8m6", 1.0234375, 1.03125),
        ("e8m6", 3.3895314e38, float("inf")),  # the greatest bfloat16
        ("e8m1", 2.5521177e38, 2.5521177e38),  # the greatest of its own
        ("e8m1", float("-inf"), float("-inf")),
        ("e8m1", -0.0, -0.0),
        ("e8m1", 1e-45, 0.0),
    ],
)
def test_few_mantissa_bits_by_hand(name: Any, value: float, held: float) -> None:
    assert same_bits(Dense(name).project(np.array([value], np.float32)), np.array([held], np.float32))


@pytest.mark.parametrize(("name", "mantissa"), FEW)
def test_codes_of_few_mantissa_bits_are_those_of_a_bfloat16(name: Any, mantissa: int) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3), np.float32)
    held = Dense(name)
    codes = held.encode(x)
    assert codes.dtype == np.uint16
    assert not (codes & ((1 << (7 - mantissa)) - 1)).any()
    assert same_bits(held.decode(codes), Dense("bfloat16").decode(codes))
    held.check_codes(codes)
    held.check_codes(codes[:0])
    with pytest.raises(EncodingError, match=f"more than the {mantissa} mantissa bits of {name}"):
        held.check_codes(codes | np.uint16(1))


@pytest.mark.parametrize(("name", "mantissa"), FEW)
def test_nan_stays_nan_in_few_mantissa_bits(name: Any, mantissa: int) -> None:
    x = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFC00000], np.uint32).view(np.float32)
    codes = Dense(name).encode(x)
    assert np.isnan(Dense(name).decode(codes)).all()
    Dense(name).check_codes(codes)


@pytest.mark.parametrize(("name", "mantissa"), FEW)
def test_words_and_state_of_few_mantissa_bits(name: Any, mantissa: int) -> None:
    held = Dense(name)
    assert held.describe() == f"{9 + mantissa}-bit float {name}"
    assert held.state() == EncodingState("dense", {"format": name, "width": 9 + mantissa})
    assert encoding_from_state(held.state()).state() == held.state()
    summary = held.summary()
    assert (summary.kind, summary.bits, summary.format) == ("dense", 9 + mantissa, name)
    assert held.take(0, np.array([0])) is held


@pytest.mark.parametrize("form", ["float16", "bfloat16", "float32", "e8m3"])
def test_other_dtypes_are_cast(form: Any) -> None:
    assert same_bits(Dense(form).project(np.array([1, 2, 3])), np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize(
    ("form", "bits"), [(None, 32), ("float32", 32), ("float16", 16), ("bfloat16", 16), ("e8m4", 13)]
)
def test_width_follows_from_the_format(form: Any, bits: int) -> None:
    assert Dense(form).bits == bits
    assert Dense(form).packed_bits((3, 5)) == 15 * bits
    assert Dense(form, width=7).bits == (7 if form is None else bits)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"float16.*'float8'"):
        Dense("float8")  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0, -1, 129])
def test_a_width_out_of_range_is_refused(width: int) -> None:
    with pytest.raises(EncodingError, match="width must be 1 to 128"):
        Dense(width=width)


WIDTHS: list[Any] = ["many", None, float("inf"), float("nan"), [], 0]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"format": None},
        {"format": ["float16"], "width": 16},
        *({"format": None, "width": width} for width in WIDTHS),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        encoding_from_state(EncodingState("dense", config))
