from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import decode_codes, encode_codes, entropy_bits, table_bytes
from bitwidth.coder.codes import Tensor
from bitwidth.errors import CorruptFileError, EncodingError
from tests.coder.hostile import attack, cost, damaged

SHAPES = [(), (0,), (1,), (7,), (300,), (1, 1), (0, 3), (5, 4), (40, 30), (3, 3, 2, 5), (3, 3, 8, 16), (2, 300)]
DTYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16]
KINDS = {
    "zeros": (0, 0),
    "constant": (5, 5),
    "below": (-9, -9),
    "above zero": (3, 9),
    "bits": (0, 1),
    "small": (-8, 7),
    "bytes": (-128, 127),
    "offset": (1000, 1007),
    "wide": (-32768, 32767),
    "wider": (-(1 << 20), 1 << 20),
    "all": (-(1 << 31), (1 << 31) - 1),
    "far": ((1 << 31) - 5, (1 << 31) - 1),
}
MASKS = {"none": -1.0, "all": 1.0, "nothing": 0.0, "sparse": 0.04, "half": 0.5, "dense": 0.95}


def make(shape: tuple[int, ...], kind: str, mask: str, dtype: type[Any], seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    info, (low, high) = np.iinfo(dtype), KINDS[kind]
    low, high = max(low, int(info.min)), min(high, int(info.max))
    low = min(low, high)
    codes = rng.integers(low, high, shape, endpoint=True)
    if kind == "small" and shape:
        codes = codes // rng.integers(1, 5, shape[-1])
    density = MASKS[mask]
    return np.asarray(codes, dtype), None if density < 0 else np.asarray(rng.random(shape) < density)


def round_trip(tensors: list[Tensor]) -> int:
    data = encode_codes(tensors)
    assert data == encode_codes(tensors)
    back = decode_codes(data, [(codes.shape, mask is not None) for codes, mask in tensors])
    assert len(back) == len(tensors)
    for (codes, mask), (found, found_mask) in zip(tensors, back, strict=True):
        assert found.dtype == np.int32
        assert found.shape == codes.shape
        if mask is None:
            assert found_mask is None
            assert (found == codes).all()
        else:
            assert found_mask is not None
            assert found_mask.dtype == np.bool_
            assert found_mask.shape == codes.shape
            assert (found_mask == mask).all()
            assert (found == np.where(mask, codes, 0)).all()
    return len(data)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:

    def pick(values: Iterable[Any]) -> Any:
        return data.draw(st.sampled_from(list(values)))

    count = data.draw(st.integers(0, 6))
    kinds = [pick(KINDS), pick(KINDS)]
    round_trip(
        [
            make(pick(SHAPES), pick(kinds), pick(MASKS), pick(DTYPES), data.draw(st.integers(0, 99)))
            for _ in range(count)
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", MASKS)
def test_every_kind_by_itself(kind: str, mask: str) -> None:
    for shape in SHAPES:
        for seed in range(2):
            round_trip([make(shape, kind, mask, np.int64, seed)])


def test_masked_tensors_of_one_element() -> None:
    for value in (-1, 0, 3, 1000, 1 << 30):
        for kept in (True, False):
            for shape in ((), (1,), (1, 1)):
                assert round_trip([(np.full(shape, value), np.full(shape, kept))]) <= 17


def test_bools_are_codes() -> None:
    assert decode_codes(encode_codes([(np.array([True, False]), None)]), [((2,), False)])[0][0].tolist() == [1, 0]


def gaussian(count: int, scale: float, seed: int = 0) -> NDArray[np.int32]:
    return np.rint(np.random.default_rng(seed).standard_normal(count) * scale).astype(np.int32)


@pytest.mark.parametrize(("scale", "slack"), [(0.6, 24), (2.5, 20), (32.0, 50)])
@pytest.mark.parametrize("count", [300, 5000, 300_000])
def test_sizes_near_entropy(count: int, scale: float, slack: int) -> None:
    codes = gaussian(count, scale)
    assert round_trip([(codes, None)]) <= entropy_bits(codes) / 8 * 1.004 + slack
    shape = (count // 100, 100)
    assert round_trip([(codes.reshape(shape), None)]) <= entropy_bits(codes) / 8 * 1.004 + slack + 10


def test_wide_codes_near_entropy() -> None:
    for scale in (8000.0, 3e6):
        assert round_trip([(gaussian(100_000, scale), None)]) <= 100_000 * (np.log2(scale) + 2.0471) / 8 * 1.005 + 60


def test_masks_cost_their_entropy() -> None:
    rng = np.random.default_rng(2)
    for density in (0.01, 0.1, 0.5, 0.9):
        codes, mask = gaussian(100_000, 3.0), rng.random(100_000) < density
        ideal = entropy_bits(mask) + entropy_bits(codes[mask])
        assert round_trip([(codes, mask)]) <= ideal / 8 * 1.006 + 60


def test_classes_of_rows_and_columns_pay() -> None:
    rng = np.random.default_rng(3)
    scale = 2.0 ** rng.integers(-2, 4, 64)
    codes = np.rint(rng.standard_normal((900, 64)) * scale).astype(np.int32)
    apart = sum(entropy_bits(column) for column in codes.T) / 8
    assert round_trip([(codes, None)]) < apart * 1.03 + 120
    assert round_trip([(codes.T, None)]) < apart * 1.03 + 120
    assert round_trip([(codes, None)]) < entropy_bits(codes) / 8 * 0.93


def test_many_small_tensors_share_their_tables() -> None:
    tensors: list[Tensor] = [(gaussian(64, 3.0, seed), None) for seed in range(100)]
    whole = np.concatenate([codes for codes, _ in tensors])
    assert round_trip(tensors) <= entropy_bits(whole) / 8 * 1.01 + 40


def test_what_cannot_be_coded_is_refused() -> None:
    two = np.array([1, 2])
    for codes, mask in (
        (np.array([0.5]), None),
        (np.array([1 << 31]), None),
        (np.array([-(1 << 31) - 1, 0]), np.array([True, False])),
        (np.array([1 << 63], np.uint64), None),
        (two, np.array([True])),
        (two, np.array([1, 0])),
    ):
        with pytest.raises(EncodingError):
            encode_codes([(codes, mask)])
    round_trip([(np.array([1 << 40, 3]), np.array([False, True]))])


STREAMS: dict[str, list[Tensor]] = {
    "plain": [(gaussian(300, 3.0), None)],
    "mixed": [make((40, 30), "small", "half", np.int64, 1), make((7,), "wide", "none", np.int64, 1)],
    "classes": [make((60, 30), "small", "none", np.int64, 2), make((3, 3, 8, 16), "small", "dense", np.int64, 2)],
    "apart": [make((4000,), "bytes", "sparse", np.int64, 3), make((5, 4), "offset", "half", np.int64, 3)],
    "wide": [make((300,), "all", "none", np.int64, 4), make((40, 30), "wider", "half", np.int64, 4)],
    "lanes": [(gaussian(40_000, 3.0).reshape(400, 100), None)],
    "one": [make((), "small", "all", np.int64, 5), make((0,), "small", "all", np.int64, 5)],
}


@pytest.mark.parametrize("name", STREAMS)
def test_hostile_streams(name: str) -> None:
    tensors = STREAMS[name]
    shapes = [(codes.shape, mask is not None) for codes, mask in tensors]
    forms: list[tuple[np.dtype[Any], tuple[int, ...]]] = []
    for shape, masked in shapes:
        forms += [(np.dtype(np.int32), shape)] + [(np.dtype(np.bool_), shape)] * masked

    def decode(bad: bytes) -> list[NDArray[Any]]:
        return [array for pair in decode_codes(bad, shapes) for array in pair if array is not None]

    attack(encode_codes(tensors), decode, forms, 400)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([(), (1,), (9,), (30, 20), (2, 2, 3, 50)]), st.booleans())
def test_any_bytes(data: bytes, shape: tuple[int, ...], masked: bool) -> None:
    try:
        ((codes, mask),) = decode_codes(data, [(shape, masked)])
    except CorruptFileError:
        return
    assert codes.shape == shape
    assert (mask is not None) == masked


MANY = 1 << 22


@pytest.mark.parametrize("shape", [(MANY,), (2048, 2048), (3, 3, MANY >> 12, 455)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiny_streams_of_many_elements_cost_little(shape: tuple[int, ...], masked: bool) -> None:
    count = int(np.prod(shape))
    small = [
        encode_codes([(np.zeros((60, 10), np.int8) + np.arange(10, dtype=np.int8), None)]),
        encode_codes([make((40, 30), "wide", "half", np.int64, 0)]),
        encode_codes([(np.full(shape, 77_777), np.ones(shape, bool) if masked else None)]),
        encode_codes([(np.zeros(shape, np.int8), np.zeros(shape, bool) if masked else None)]),
        encode_codes([(np.zeros(shape, np.int8) + np.int8(masked), np.arange(count).reshape(shape) == 5)]),
    ]
    rng = np.random.default_rng(0)
    for data in [*small, *(rng.bytes(size) for size in range(1, 30))]:
        seconds, memory = cost(lambda: decode_codes(data, [(shape, masked)]))  # noqa: B023
        assert seconds < 0.5
        assert memory < 12.5 * count


def test_a_large_tensor_takes_nine_bytes_an_element() -> None:
    codes = gaussian(1 << 22, 3.0).reshape(1 << 12, 1 << 10)
    data = encode_codes([(codes, None)])
    assert cost(lambda: decode_codes(data, [(codes.shape, False)]))[1] < 9.2 * codes.size


def test_wide_and_masked_tensors_take_twelve_bytes_an_element() -> None:
    for kind, mask in (("wider", "none"), ("all", "half"), ("offset", "half"), ("bytes", "sparse")):
        codes, kept = make((1 << 11, 1 << 10), kind, mask, np.int64, 0)
        data = encode_codes([(codes, kept)])
        assert cost(lambda: decode_codes(data, [(codes.shape, kept is not None)]))[1] < 12.5 * codes.size + len(data)  # noqa: B023


@pytest.mark.parametrize("name", STREAMS)
def test_tables_are_a_part_of_a_stream(name: str) -> None:
    data, shapes = encode_codes(STREAMS[name]), [(codes.shape, mask is not None) for codes, mask in STREAMS[name]]
    assert 0 < table_bytes(data, shapes) <= len(data)
    for bad in damaged(data, 100):
        with contextlib.suppress(CorruptFileError):
            assert table_bytes(bad, shapes) >= 0


def test_tables_are_what_is_no_symbol() -> None:
    for count, slack in ((600, 3), (2000, 3), (100_000, 40)):
        codes = gaussian(count, 3.0)
        data = encode_codes([(codes, None)])
        rest = len(data) - table_bytes(data, [((count,), False)])
        assert abs(rest - entropy_bits(codes) / 8) < entropy_bits(codes) / 8 * 0.004 + slack
    constant = encode_codes([(np.full(1000, 3), None)])
    assert table_bytes(constant, [((1000,), False)]) == len(constant)
    assert table_bytes(b"", [((0,), True)]) == 0
    columns = np.repeat([[0, 9]], 500, axis=0) + gaussian(1000, 1.0).reshape(500, 2)
    with_classes = encode_codes([(columns, None)])
    assert table_bytes(with_classes, [((500, 2), False)]) < len(with_classes) / 4


def test_a_mask_by_itself_is_no_table() -> None:
    codes, mask = make((4000,), "bytes", "sparse", np.int64, 3)
    data = encode_codes([(codes, mask)])
    assert mask is not None
    assert len(data) - table_bytes(data, [(codes.shape, True)]) > entropy_bits(mask) / 8 - 3
