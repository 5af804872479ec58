from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import base_of, decode_residuals, encode_codes, encode_residuals
from bitwidth.errors import EncodingError
from tests.coder.hostile import attack


def round_trip(codes: NDArray[Any], step: NDArray[Any]) -> int:
    base = base_of(codes, step)
    data = encode_residuals(codes, base, step)
    whole = np.broadcast_to(step, codes.shape) if step.size > 1 else step
    assert data == encode_residuals(codes, base, np.array(whole)), "a view is coded as what it shows"
    back = decode_residuals(data, base, whole)
    assert back.dtype == np.int32
    assert back.shape == codes.shape
    assert (back == codes).all()
    return len(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(), (0,), (1,), (7,), (5, 4), (3, 3, 2, 5), (40, 30)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    scale = data.draw(st.sampled_from([0.0, 1.0, 9.0, 300.0, 1e5, 1e8]))
    codes = np.clip(np.rint(rng.standard_cauchy(shape) * scale), -(2**31) + 400, 2**31 - 400)
    dtype: type[Any] = data.draw(st.sampled_from([np.int64, np.int32]))
    per = data.draw(st.sampled_from(["one", "last", "first", "element", "inner"]))
    kind = {"one": (), "last": shape[-1:], "first": (*shape[:1], *(1 for _ in shape[1:])), "element": shape}
    steps = kind.get(per, tuple(1 if index in (0, 3) else size for index, size in enumerate(shape)))
    step = np.asarray(rng.integers(1, data.draw(st.sampled_from([2, 4, 41])), steps), np.int32)
    round_trip(codes.astype(dtype), step)


@pytest.mark.parametrize("steps", ["one", "channel", "element"])
def test_base_and_residuals_cost_what_the_codes_cost(steps: str) -> None:
    rng = np.random.default_rng(0)
    scale = rng.integers(3, 12, 64)
    codes = np.rint(rng.standard_normal((4000, 64)) * scale * 2).astype(np.int32)
    step = {"one": np.int32(13), "channel": scale, "element": np.broadcast_to(scale, codes.shape).copy()}[steps]
    base = base_of(codes, np.asarray(step))
    apart = round_trip(codes, np.asarray(step)) + len(encode_codes([(base, None)]))
    assert apart < len(encode_codes([(codes, None)])) * 1.01 + 100


def test_zeros_and_steps_of_one_cost_a_byte() -> None:
    assert round_trip(np.zeros(1000, np.int32), np.arange(1000) % 9 + 1) == 1
    assert round_trip(np.arange(-7, 8), np.array(1)) == 1


@pytest.mark.parametrize("size", [40, 5000])
@pytest.mark.parametrize("step", [np.array(9), np.array([3, 8, 1, 30])])
def test_hostile_streams(size: int, step: NDArray[Any]) -> None:
    rng = np.random.default_rng(1)
    codes = np.rint(rng.standard_normal((size, 4)) * 20).astype(np.int32)
    for values in (codes, codes * 40_000):
        base = base_of(values, step)
        data = encode_residuals(values, base, step)
        attack(data, lambda bad: [decode_residuals(bad, base, step)], [(np.dtype(np.int32), codes.shape)])  # noqa: B023


def test_what_cannot_be_coded_is_refused() -> None:
    one = np.array([1])
    for codes, base, step in (
        (np.array([1.0]), one, one),
        (one, np.array([8]), one),
        (one, np.array([0.5]), one),
        (one, one, np.array([0])),
        (one, one, np.array([1 << 29])),
        (one, one, np.array([1, 2])),
        (np.array([1, 2]), one, one),
        (np.array([1 << 31]), one, one),
        (np.array([1 << 63], np.uint64), one, one),
        (np.array([-(1 << 31)]), one, np.array([1 << 27])),
    ):
        with pytest.raises(EncodingError):
            encode_residuals(codes, base, step)
