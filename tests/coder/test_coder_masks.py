from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.coder import decode_mask, encode_mask, entropy_bits
from bitwidth.errors import CorruptFileError, EncodingError


def round_trip(mask: NDArray[np.bool_]) -> int:
    data = encode_mask(mask)
    assert data == encode_mask(mask)
    back = decode_mask(data, mask.shape)
    assert back.dtype == np.bool_
    assert back.shape == mask.shape
    assert (back == mask).all()
    return len(data)


@settings(max_examples=120, deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12)))
def test_round_trip(mask: NDArray[np.bool_]) -> None:
    assert round_trip(mask) <= entropy_bits(mask) / 8 + 20


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (3, 0), (40, 9), (3, 3, 16, 8)])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.97, 1.0])
def test_shapes_and_densities(shape: tuple[int, ...], density: float) -> None:
    mask = np.asarray(np.random.default_rng(0).random(shape) < density)
    assert round_trip(mask) <= entropy_bits(mask) / 8 + 20
    assert round_trip(mask.T) <= entropy_bits(mask) / 8 + 20


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.98])
def test_random_masks_within_half_a_percent(density: float) -> None:
    mask = np.random.default_rng(1).random((1000, 1000)) < density
    assert round_trip(mask) <= entropy_bits(mask) / 8 * 1.005 + 30


def test_empty_rows_and_columns_are_nearly_free() -> None:
    rng = np.random.default_rng(2)
    mask = rng.random((784, 300)) < 0.2
    dead = rng.random(784) < 0.5
    mask[dead] = False
    live = entropy_bits(mask[~dead]) / 8
    assert round_trip(mask) <= live * 1.01 + 784 / 8 + 40
    assert round_trip(np.ascontiguousarray(mask.T)) <= live * 1.01 + 784 / 8 + 40
    assert round_trip(mask) < entropy_bits(mask) / 8 * 0.85


def test_densities_of_rows_and_columns_are_used() -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((300, 200)) < rng.random((300, 1)) ** 2 * rng.random(200) ** 2
    assert round_trip(mask) < entropy_bits(mask) / 8 * 0.9


def test_not_a_mask_is_refused() -> None:
    with pytest.raises(EncodingError):
        encode_mask(np.zeros(3, np.uint8))


@pytest.mark.parametrize("kind", ["constant", "plain", "gaps", "packed", "classes", "runs"])
def test_corruption(kind: str) -> None:
    rng = np.random.default_rng(4)
    density = {"constant": 0.0, "plain": 0.1, "gaps": 0.01, "packed": 0.5, "classes": 0.4, "runs": 0.5}[kind]
    mask = rng.random((40, 30)) < density
    if kind == "runs":
        mask = np.repeat(mask[::4], 4, axis=0)
    if kind == "classes":
        mask[::3] = False
    data = encode_mask(mask)
    bad = [data[:end] for end in range(len(data))] + [data + b"\0"]
    bad += [data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :] for i in range(len(data)) for flip in (1, 8, 128, 255)]
    for stream in bad:
        with contextlib.suppress(CorruptFileError):
            assert decode_mask(stream, (40, 30)).shape == (40, 30)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([(0,), (1,), (5, 7), (300,)]))
def test_any_bytes_decode_or_are_corrupt(data: bytes, shape: tuple[int, ...]) -> None:
    with contextlib.suppress(CorruptFileError):
        assert decode_mask(data, shape).shape == shape
