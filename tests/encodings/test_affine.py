"""Integer codes for exporters: exact to the last bit, or refused for a reason that holds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import (
    Affine,
    Dense,
    Encoding,
    Escaped,
    IntegerLevels,
    LevelRows,
    Levels,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    grid_shape,
    uniform_levels,
)
from bitwidth.encodings.interface import common_step
from bitwidth.errors import Refused

POWERS = TableLevels((-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0))
IRREGULAR = TableLevels((-1.75, -0.3, 0.1, 0.11, 2.5))
TENTHS = TableLevels(tuple(float(np.float32(0.1)) * n for n in (-2, -1, 0, 1, 2, 4)))
LEVELS: list[Levels] = [
    *(uniform_levels(bits) for bits in (1, 2, 4, 8, 16)),
    *(IntegerLevels(), IntegerLevels(0, 15), IntegerLevels(-128, 127), IntegerLevels(3, 9), IntegerLevels(-9, -3)),
    *(PrefixLevels(127, 4), PrefixLevels(11, 1), PrefixLevels(7, 0)),
    *(POWERS, IRREGULAR, TENTHS, LevelRows((POWERS, uniform_levels(1), TENTHS))),  # type: ignore[arg-type]
    LevelRows((POWERS, TableLevels((1.0, 3.0, 7.0)))),
]
FREE = Quantized(POWERS, np.ones((), np.float32), ())
SCALES = (0.0, 0.5, 0.037, 1.7e-3, 1.0, 2e-36, 2e-45)


@st.composite
def encodings(draw: st.DrawFn) -> tuple[Encoding, NDArray[np.float32]]:
    """A grid over any blocks, masked and with escapes or not, and values."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=0, max_size=3)))
    block = () if draw(st.booleans()) and draw(st.booleans()) else tuple(draw(st.integers(1, 7)) for _ in shape)
    counts = grid_shape(shape, block) if len(block) == len(shape) else ()
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    levels = draw(st.sampled_from(LEVELS))
    scale = np.asarray(rng.choice(SCALES, counts), np.float32)
    zero = bias = None
    if levels.is_integer and draw(st.booleans()) and levels.bits < 17:
        zero = np.asarray(rng.integers(*levels.bounds, counts, np.int32, endpoint=True))
    if draw(st.booleans()):
        bias = np.asarray(scale * rng.choice([0, 3, -40, 0.5, 0.3], counts), np.float32)
    row = np.asarray(rng.integers(0, len(levels.tables), counts, np.int32)) if levels.by_block else None
    held: Encoding = Quantized(levels, scale, block, zero, bias, row)
    values = np.asarray(rng.normal(0, 3, shape) * rng.choice([0.01, 1, 40]), np.float32)
    if draw(st.booleans()):
        plane = np.asarray(rng.random(shape) < 0.2)
        held = Escaped.of(values if draw(st.booleans()) else held.project(values), plane, held)
    if draw(st.booleans()):
        held = Masked(np.asarray(rng.random(shape) < 0.6), held)
    return held, values


@settings(max_examples=300, deadline=None)
@given(encodings())
def test_codes_are_exact_or_refused_for_a_reason(drawn: tuple[Encoding, NDArray[np.float32]]) -> None:
    held, values = drawn
    grid = held.grid
    assert grid is not None
    with np.errstate(over="ignore"):  # a value times the reciprocal of a scale that is nearly zero
        found, reason = None, ""
        try:
            found = held.affine(values)
        except Refused as refusal:
            reason = refusal.reason
        if found is None:
            assert true_of(reason, held, grid, values)
        else:
            check(found, held.project(values))


def check(found: Affine, held: NDArray[np.float32]) -> None:
    """What the docstring says, computed by hand for each value."""
    low = -(2 ** (found.bits - 1)) if found.signed else 0
    assert found.codes.min(initial=low) >= low
    assert found.codes.max(initial=low) <= low + 2**found.bits - 1
    assert (found.scale > 0).all()
    for place in np.ndindex(*held.shape):
        own = tuple(at // size for at, size in zip(place, found.block, strict=True))
        zero = 0 if found.zero_point is None else int(found.zero_point[own])
        assert low <= zero <= low + 2**found.bits - 1
        value = np.float32(int(found.codes[place]) - zero) * found.scale[own]
        assert value == held[place]
        if held[place] == 0 and found.zero_point is None:
            assert found.codes[place] == 0
    assert sum(count > 1 < size for count, size in zip(found.scale.shape, found.block, strict=True)) <= 1


def true_of(reason: str, held: Encoding, grid: Quantized, values: NDArray[np.float32]) -> bool:
    """Whether a refusal is right, in exact arithmetic."""
    if "beside the grid" in reason:
        inner = held.unmasked
        off = grid.project(held.project(values)) != held.project(values)
        return isinstance(inner, Escaped) and bool(off[inner.plane].any())
    if "not multiples of one step" in reason:
        levels = [Fraction(float(level)) for level in grid.levels.array if level]
        return all(any((level * n / other).denominator > 1 for other in levels) for level in levels for n in (1, 2, 4))
    if "its bias" in reason:
        assert grid.bias is not None
        step = Fraction(grid.levels.step or 1)
        pairs = zip(grid.bias.ravel().tolist(), grid.scale.ravel().tolist(), strict=True)
        return any(
            scale > 0 and (ratio := Fraction(bias) / (Fraction(scale) * step)) and ratio.denominator > 1
            for bias, scale in pairs
        )
    if "no scale as small" in reason:
        return bool((grid.scale < 1e-37).any())
    assert "float32 rounds" in reason  # a level times the scale, in one rounding, is not what two make
    factor = grid.levels.step or 1
    return grid.bias is not None or factor != 2.0 ** round(np.log2(factor)) or bool((grid.scale < 1e-37).any())


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        (Dense(), "floating point values"),
        (Dense("bfloat16"), "bfloat16 values"),
        (Masked(np.ones(4, bool)), "floating point values"),
        (Quantized(IRREGULAR, np.ones(1, np.float32), (4,)), "levels of its table"),
        (
            Quantized(LevelRows((IRREGULAR,)), np.ones(1, np.float32), (4,), row=np.zeros(1, int)),
            "levels of its tables",
        ),
        (Quantized(uniform_levels(4), np.ones(1, np.float32), (4,), bias=np.full(1, 0.3, np.float32)), "its bias"),
        (Escaped(np.arange(4) < 1, np.array([0.3], np.float32), FREE), "1 values are"),
    ],
)
def test_what_has_no_codes_is_refused(encoding: Encoding, words: str) -> None:
    with pytest.raises(Refused, match=words):
        encoding.affine(np.array([1.0, 2.0, -0.25, 9.0], np.float32))


def kernel(shape: tuple[int, ...], block: tuple[int, ...], levels: Levels, **sides: Any) -> Affine:
    scale = np.random.default_rng(3).uniform(0.5, 1, grid_shape(shape, block)).astype(np.float16).astype(np.float32)
    values = np.random.default_rng(4).normal(0, 3, shape).astype(np.float32)
    held = Quantized(levels, scale, block, **sides)
    found = held.affine(values)
    np.testing.assert_array_equal(found.values(), held.project(values))
    return found


def test_forms_of_exporters() -> None:
    """Per tensor, per channel (LiteRT's quantized dimension, ONNX's axis), blockwise, and depthwise kernels."""
    whole = kernel((6, 4), (6, 4), uniform_levels(8))
    assert (whole.axis, whole.group, whole.bits, whole.signed, whole.zero_point) == (None, None, 8, True, None)
    dense = kernel((6, 4), (6, 1), uniform_levels(4))
    assert (dense.axis, dense.group, dense.bits, dense.scale.shape) == (1, None, 4, (1, 4))
    convolution = kernel((3, 3, 2, 5), (3, 3, 2, 1), uniform_levels(8))
    assert (convolution.axis, convolution.scale.ravel().shape) == (3, (5,))
    blockwise = kernel((64, 4), (32, 1), uniform_levels(4))
    assert (blockwise.axis, blockwise.group_axis, blockwise.group, blockwise.scale.shape) == (1, 0, 32, (2, 4))
    depthwise = kernel((3, 3, 5, 2), (3, 3, 1, 1), uniform_levels(8))
    assert (depthwise.axis, depthwise.axes, depthwise.group) == (None, (2, 3), None)


def test_blocks_along_several_axes_become_groups_along_one() -> None:
    found = kernel((6, 8), (2, 4), uniform_levels(4))
    assert (found.group_axis, found.group, found.axis, found.scale.shape) == (1, 4, 0, (6, 2))


@pytest.mark.parametrize(
    ("levels", "bits", "signed"),
    [
        (uniform_levels(1), 2, True),
        (uniform_levels(2), 2, True),
        (IntegerLevels(-8, 7), 4, True),
        (IntegerLevels(0, 255), 8, False),
        (IntegerLevels(3, 9), 4, False),
        (POWERS, 5, True),
        (PrefixLevels(7, 1), 5, True),
        (TENTHS, 4, True),
    ],
)
def test_widths(levels: Levels, bits: int, signed: bool) -> None:
    held = Quantized(levels, np.ones((), np.float32), ())
    found = held.affine(np.linspace(-9, 9, 50, dtype=np.float32))
    assert (found.bits, found.signed) == (bits, signed)


def test_a_bias_is_a_zero_point_where_it_can_be() -> None:
    held = Quantized(uniform_levels(4), np.array([0.5], np.float32), (3,), bias=np.array([1.25], np.float32))
    x = np.array([1.3, -2.0, 9.0], np.float32)
    found = held.affine(x)  # 1.25 is two and a half scales: codes count halves of them
    assert (found.scale.tolist(), found.codes.tolist()) == ([0.25], [0, -12, 14])
    assert found.zero_point is not None
    assert (found.zero_point.tolist(), found.bits) == ([-5], 5)
    np.testing.assert_array_equal(found.values(), held.project(x))


def test_masked_values_have_the_code_of_zero() -> None:
    zero = np.array([[8], [2]], np.int32)
    grid = Quantized(IntegerLevels(0, 15), np.array([[0.5], [0.25]], np.float32), (1, 3), zero)
    keep = np.array([[True, False, True], [False, True, True]])
    found = Masked(keep, grid).affine(np.full((2, 3), 1.0, np.float32))
    assert found.codes.tolist() == [[10, 8, 10], [2, 6, 6]]
    signed = found.as_signed()
    assert (signed.codes - 8 + 16 == found.codes).all()
    np.testing.assert_array_equal(signed.values(), found.values())
    assert signed.as_signed() is signed


def test_a_block_of_zeros_has_a_positive_scale() -> None:
    grid = Quantized(uniform_levels(4), np.array([0.0, 0.5], np.float32), (1,))
    found = grid.affine(np.array([3.0, 1.0], np.float32))
    assert (found.codes.tolist(), found.scale.tolist()) == ([0, 2], [1.0, 0.5])


@pytest.mark.parametrize(
    ("levels", "step"),
    [
        ([0.0], 1.0),
        ([2.0, -6.0], 2.0),
        ([0.75, 2.0], 0.25),
        ([1.0, 32768.0], 1.0),
        ([1.0, 32769.0], None),
        ([0.1, 0.2], float(np.float32(0.1))),
        ([0.1, 0.3], None),
        ([1e-38, 1e38], None),
    ],
)
def test_steps(levels: list[float], step: float | None) -> None:
    assert common_step(np.array(levels, np.float32)) == step
