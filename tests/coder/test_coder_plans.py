from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import plans
from bitwidth.coder.masks import decode_mask
from bitwidth.coder.plans import Plan, plan_tensor
from bitwidth.coder.tokens import MANTISSAS, least_of
from bitwidth.typing import Array

Mask = NDArray[np.bool_] | None
RANGES = [(0, 0), (-1, 1), (5, 9), (-127, 127), (-128, 127), (-3000, 3000), (1000, 90_000), (-(1 << 31), (1 << 31) - 1)]


def rebuilt(plan: Plan, mask: Mask) -> NDArray[np.int64]:
    """The codes of a plan by the plain rule, 0 where the mask drops them."""
    layout, own = plan.layout, int(plan.layout.own_symbol)
    tokens = plan.local.astype(np.int64) - plan.below - own
    if mask is not None:
        if layout.apart:
            assert (decode_mask(plan.mask, layout.shape) == mask).all()
            kept = np.ones(tokens.size, np.bool_)
        else:
            kept = plan.local != (0 if own else plan.below)
            np.testing.assert_array_equal(kept, mask.reshape(-1))
        tokens = tokens[kept]
    magnitude, shifts = least_of(np.abs(tokens), layout.mantissa)
    for values, width in plan.extras:
        assert width > 0
        assert values.max() < 1 << width
        magnitude[shifts == width] |= values
    assert sum(values.size for values, _ in plan.extras) == np.count_nonzero(shifts)
    codes = np.where(tokens < 0, -magnitude.astype(np.int64), magnitude.astype(np.int64)) + layout.origin
    if mask is None:
        return codes.reshape(layout.shape)
    full = np.zeros(layout.shape, np.int64)
    full[mask] = codes
    return full


def check(codes: Array, mask: Mask) -> Plan:
    plan = plan_tensor(codes, mask)
    assert plan.local.dtype in (np.uint8, np.uint16)
    assert plan.local.size == plan.layout.live
    np.testing.assert_array_equal(rebuilt(plan, mask), codes if mask is None else np.where(mask, codes, 0))
    return plan


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([(), (0,), (9,), (0, 3), (20, 30), (40, 50), (3, 3, 8, 9)]),
    st.sampled_from(RANGES),
    st.sampled_from([None, 0.0, 0.03, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_plans_hold_the_codes(shape: tuple[int, ...], ends: tuple[int, int], density: float | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.asarray(rng.integers(*ends, shape, endpoint=True))
    check(codes, None if density is None else np.asarray(rng.random(shape) < density))


@pytest.mark.parametrize("ends", RANGES)
@pytest.mark.parametrize("masked", [False, True])
def test_codes_of_every_range(ends: tuple[int, int], masked: bool) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(*ends, (100, 200), endpoint=True)
    plan = check(codes, rng.random(codes.shape) < 0.6 if masked else None)
    assert plan.layout.own_symbol == (masked and bool((codes == 0).any() or ends[0] > 127))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_codes_of_every_dtype(kind: type[Any]) -> None:
    codes = (np.arange(3000) % 120).astype(kind)
    np.testing.assert_array_equal(check(codes, None).local, codes)


def test_pruned_elements_have_a_symbol_of_their_own_where_zero_is_kept() -> None:
    codes, mask = np.array([-2, 0, 3, 1]), np.array([True, True, True, False])
    plan = check(codes, mask)
    assert plan.layout.own_symbol
    assert plan.symbols(6).tolist() == [4, 6, 9, 0]
    plan = check(np.array([-2, 1, 3, 1]), mask)
    assert not plan.layout.own_symbol
    assert plan.symbols(6).tolist() == [4, 7, 9, 6]


def test_symbols_count_from_the_zero_of_the_stream() -> None:
    plan = check(np.array([-3, 0, 120]), None)
    assert plan.symbols(3) is plan.local
    for zero in (4, 100, 200, 5000):
        found = plan.symbols(zero)
        assert found.astype(np.int64).tolist() == [zero - 3, zero, zero + 120]
        assert found.dtype == (np.uint8 if zero + 120 < 256 else np.uint16)
    assert plan.local.tolist() == [0, 3, 123]


def test_a_sparse_mask_is_coded_by_itself() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(-20, 20, (200, 100))
    sparse, half = np.zeros(codes.shape, np.bool_), rng.random(codes.shape) < 0.5
    sparse[::40, ::2] = rng.random((5, 50)) < 0.5
    blocks = np.zeros(codes.shape, np.bool_)
    blocks[:, :8] = True
    for mask, apart in ((sparse, True), (half, False)):
        plan = check(codes, mask)
        assert plan.layout.apart == apart
        assert bool(plan.mask) == apart
        assert plan.layout.live == (np.count_nonzero(mask) if apart else codes.size)
    check(codes, blocks)


def test_classes_where_lines_differ() -> None:
    scale = np.where(np.arange(64) % 2, 12.0, 1.0)
    codes = np.rint(np.random.default_rng(2).standard_normal((500, 64)) * scale).astype(np.int32)
    for mask in (None, np.random.default_rng(3).random(codes.shape) < 0.7):
        layout = check(codes, mask).layout
        assert layout.rows.number == 1
        assert layout.columns.number >= 2
        assert layout.columns.of_line.shape == (64,)
    layout = check(np.tile(codes.T, (9, 1)).reshape(3, 3, 64, 500), None).layout
    assert layout.rows.number >= 2
    assert layout.rows.counted == 2
    assert check(codes[:7], None).layout.contexts == 1  # too few elements


@pytest.mark.parametrize("ends", [(-3000, 3000), (1000, 9000), (-9000, -200)])
def test_codes_that_are_looked_up_make_the_same_plan(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(*ends, 20_000, endpoint=True)
    found = check(codes, None)
    monkeypatch.setattr(plans, "_LOOKED_UP", 0)
    plain = check(codes, None)
    assert found.layout == plain.layout
    assert found.layout.mantissa < MANTISSAS[0]
    assert found.below == plain.below
    assert found.local.tolist() == plain.local.tolist()
    for (one, width), (other, same) in zip(found.extras, plain.extras, strict=True):
        assert width == same
        assert one.tolist() == other.tolist()
