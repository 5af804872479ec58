from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import contexts as shared
from bitwidth.coder import decode_symbols, encode_symbols, entropy_bits, lanes, shapes, streams, tables
from bitwidth.coder.bitio import Reader, varint
from bitwidth.coder.scalar import Bit, Decoder, Encoder
from bitwidth.errors import CorruptFileError, EncodingError
from tests.coder.released import encode_lanes


def round_trip(symbols: NDArray[Any], context: NDArray[Any] | None = None) -> int:
    data = encode_symbols(symbols, context)
    back = decode_symbols(data, symbols.size, context)
    assert back.shape == (symbols.size,)
    assert (back == symbols.reshape(-1)).all()
    return len(data)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_symbols_round_trip(data: st.DataObject) -> None:
    top = data.draw(st.sampled_from([0, 1, 2, 15, 255, 256, 16383]))
    symbols = np.array(data.draw(st.lists(st.integers(0, top), max_size=200)), dtype=np.int64)
    contexts = data.draw(st.sampled_from([None, 1, 3, 65535]))
    context = None
    if contexts is not None:
        places = st.lists(st.integers(0, contexts), min_size=symbols.size, max_size=symbols.size)
        context = np.array(data.draw(places), dtype=np.int64)
    round_trip(symbols, context)


@pytest.mark.parametrize("count", [70_000, 300_001])
@pytest.mark.parametrize("alphabet", [1, 2, 3, 5, 16, 17, 255, 300, 5000])
def test_large_streams_round_trip_near_their_entropy(count: int, alphabet: int) -> None:
    rng = np.random.default_rng(alphabet)
    symbols = np.minimum(rng.geometric(3 / (alphabet + 3), count) - 1, alphabet - 1)
    size = round_trip(symbols)
    assert size <= entropy_bits(symbols) / 8 * 1.01 + 30 + alphabet


def test_contexts_are_used_in_lanes_and_single_symbol_contexts_are_free() -> None:
    rng = np.random.default_rng(1)
    context = rng.integers(0, 6, 200_000)
    symbols = np.where(context < 3, context, rng.integers(0, 16, context.size))
    assert round_trip(symbols, context) < 100_000 * 0.5 * 1.01 + 60


def test_many_random_contexts_cost_little_more_than_none() -> None:
    rng = np.random.default_rng(2)
    for contexts, count in ((40, 500), (3000, 20_000), (60_000, 100_000)):
        symbols = rng.binomial(15, 0.4, count)
        plain = round_trip(symbols)
        assert round_trip(symbols, rng.integers(0, contexts, count)) < plain * 1.02 + 40


def test_contexts_with_a_large_alphabet_in_lanes() -> None:
    rng = np.random.default_rng(3)
    context = np.arange(1_000_000) % 40
    round_trip((rng.integers(0, 6000, context.size) + context * 100).astype(np.uint16), context)


def test_skewed_large_stream_is_small() -> None:
    symbols = np.zeros(3_000_000, dtype=np.uint8)
    symbols[12345] = 1
    assert round_trip(symbols) < 160
    assert round_trip(np.full(3_000_000, 9, np.uint8)) <= 4


@pytest.mark.parametrize(
    "symbols", [np.array([-1]), np.array([1 << 14]), np.array([1.5]), np.array([1 << 63], np.uint64)]
)
def test_bad_symbols_are_refused(symbols: NDArray[Any]) -> None:
    with pytest.raises(EncodingError):
        encode_symbols(symbols)


@pytest.mark.parametrize("context", [np.array([1]), np.array([-1, 0]), np.array([0, 1 << 16]), np.array([0.5, 1.0])])
def test_bad_contexts_are_refused(context: NDArray[Any]) -> None:
    with pytest.raises(EncodingError):
        encode_symbols(np.array([1, 2]), context)


def corruptions(data: bytes) -> list[bytes]:
    out = [data[:end] for end in range(len(data))] + [data + b"\0"]
    flips = [(place, flip) for place in range(len(data)) for flip in (1, 16, 128, 255)]
    return out + [data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :] for place, flip in flips]


@pytest.mark.parametrize("alphabet", [2, 16, 200])
@pytest.mark.parametrize("contexts", [None, 5])
def test_corrupt_small_streams(alphabet: int, contexts: int | None) -> None:
    rng = np.random.default_rng(4)
    context = None if contexts is None else rng.integers(0, contexts, 150)
    symbols = rng.binomial(alphabet - 1, 0.5, 150)
    if context is not None:
        symbols = (symbols + context) % alphabet
    for bad in corruptions(encode_symbols(symbols, context)):
        with contextlib.suppress(CorruptFileError):
            assert decode_symbols(bad, 150, context).shape == (150,)


@pytest.mark.parametrize("alphabet", [2, 16, 200])
def test_corrupt_lanes(alphabet: int) -> None:
    rng = np.random.default_rng(5)
    symbols = rng.binomial(alphabet - 1, 0.5, 300_000)
    data = encode_symbols(symbols)
    heads = [data[:end] for end in range(0, 200, 7)] + [data[:-1], data[:-2], data + b"\0\0"]
    heads += [data[:place] + bytes([data[place] ^ 85]) + data[place + 1 :] for place in range(0, 160, 5)]
    for bad in heads:
        with contextlib.suppress(CorruptFileError):
            assert decode_symbols(bad, symbols.size).shape == symbols.shape


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 300), st.booleans())
def test_any_bytes_decode_or_are_corrupt(data: bytes, count: int, contexts: bool) -> None:
    context = np.arange(count) % 7 if contexts else None
    with contextlib.suppress(CorruptFileError):
        assert decode_symbols(data, count, context).shape == (count,)


def test_cutting_a_lane_stream_is_noticed() -> None:
    data = encode_symbols(np.random.default_rng(6).integers(0, 200, 100_000))
    for bad in (data[:-2], data[:-1], data + b"\0\0", data[: len(data) // 2]):
        with pytest.raises(CorruptFileError):
            decode_symbols(bad, 100_000)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=60), st.integers(6, 15))
def test_normalise_sums_to_its_slots(weights: list[int], bits: int) -> None:
    array = np.array(weights, dtype=np.int64)
    if not array.any():
        array[0] = 1
    freqs = tables.normalise(array, bits)
    assert freqs.sum() == 1 << bits
    assert ((freqs > 0) == (array > 0)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=80))
def test_tables_round_trip(counts: list[int]) -> None:
    array = np.array(counts, dtype=np.int64)
    if not array.any():
        array[-1] = 3
    coder = Encoder()
    models = tables.TableModels()
    written = [tables.write_table(coder, models, row, 12) for row in (array, array[::-1], array)]
    decoder, models = Decoder(coder.finish()), tables.TableModels()
    for freqs in written:
        back = tables.read_table(decoder, models, 12)
        size = max(back.size, freqs.size)
        assert (np.resize(np.append(back, np.zeros(size)), size) == np.append(freqs, np.zeros(size))[:size]).all()
        assert freqs.sum() == 1 << 12
    decoder.end()


def test_smooth_tables_are_cheap() -> None:
    rng = np.random.default_rng(7)
    codes = np.rint(rng.standard_normal(5000) * 32).astype(np.int64)
    codes -= codes.min()
    assert len(encode_symbols(codes)) < entropy_bits(codes) / 8 + 50
    curve = shapes.weights(shapes.Shape(0, 101, power=5, scale=16 * 5, centre=50))
    expected = 2.0 ** -(((np.arange(101) - 50) / 16) ** 2)
    assert curve[50] == 1 << 30
    np.testing.assert_allclose(curve / 2**30, expected, rtol=0.05, atol=0.005)


def test_shape_spikes_are_written_and_read() -> None:
    counts = np.rint(1000 * np.exp(-((np.arange(41) - 20) ** 2) / 60)).astype(np.int64)
    counts[20] = 9000
    counts[40] = 700
    shape = shapes.fit(counts)
    assert {index + shape.first for index, _ in shape.spikes} >= {20, 40}
    coder = Encoder()
    shapes.write(coder, shape)
    assert shapes.read(Decoder(coder.finish()), 64) == shape


def test_clustering_maps_round_trip() -> None:
    rng = np.random.default_rng(8)
    for most in (1, 2, 9, 64):
        assigned = np.minimum(np.arange(200) // 3, rng.integers(0, most, 200))
        fresh = np.unique(assigned, return_index=True)[1]
        assigned = np.argsort(np.argsort(fresh))[np.unique(assigned, return_inverse=True)[1]]
        coder = Encoder()
        shared.write_map(coder, assigned)
        assert (shared.read_map(Decoder(coder.finish()), 200, 64) == assigned).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.booleans(), st.integers(0, 40)), max_size=40))
def test_scalar_coder_round_trip(items: list[tuple[int, bool, int]]) -> None:
    coder, model = Encoder(), Bit()
    for number, bit, width in items:
        coder.number(number)
        coder.bit(model, int(bit))
        coder.bits(number & (1 << width) - 1, width)
    data = coder.finish()
    assert len(data) <= coder.cost() / 8 + 3
    decoder, model = Decoder(data), Bit()
    for number, bit, width in items:
        assert decoder.number(1 << 20) == number
        assert decoder.bit(model) == bit
        assert decoder.bits(width) == number & (1 << width) - 1
    decoder.end()


def test_lanes_are_exact_for_extreme_frequencies() -> None:
    rng = np.random.default_rng(9)
    for bits in (12, 15):
        freqs = np.array([1, (1 << bits) - 3, 2])
        symbols = rng.integers(0, 3, 20_000).astype(np.uint8)
        for count in (1, 7, 8, 9, 20_000):
            data = encode_lanes(symbols[:count], freqs, bits, 8)
            assert (lanes.decode(data, count, freqs, np.arange(3), bits, 8) == symbols[:count]).all()


def forged(header: int, count: int) -> bytes:
    """A stream of one table of two symbols, whatever follows."""
    coder = Encoder()
    shared.write_map(coder, np.zeros(1, np.intp))
    tables.write_table(coder, tables.TableModels(), np.array([3, 1]), 15 if header & 15 == 0 else 12)
    if header & 15 == 0:
        coder.spans += [(0, 3 << 13)] * count
        return bytes([header]) + coder.finish()
    side = coder.finish()
    return bytes([header]) + varint(len(side)) + side + bytes(4 << (header & 15))


@pytest.mark.parametrize(
    ("steps", "log_lanes"),
    [((1 << 17) + 1, 0), (1 << 31, 0), (1, 1), (1 << 24, 3), (1 << 21, 4), (1 << 31, 12), (1, 14)],
)
def test_steps_that_no_encoder_takes_are_refused(steps: int, log_lanes: int) -> None:
    with pytest.raises(CorruptFileError, match="nothing writes"):
        streams._check_steps(steps, log_lanes)


def test_the_steps_that_encoders_take_are_possible() -> None:
    for steps in [1 << 12, 1 << 17, (1 << 17) + 1, 1 << 20, 1 << 24, 1 << 31]:
        for coded in (steps / 1000, steps / 8, float(steps)):
            for rows in (2, 30, 1 << 12):
                log_lanes = streams._choose_lanes(coded, steps, rows)
                header = streams._Header(Reader(bytes([1, log_lanes, 1, 0])))
                if rows == 2 or steps >= 1 << 20:
                    header.check(steps)


def test_a_small_stream_of_many_steps_is_no_stream() -> None:
    many = 1 << 18
    with pytest.raises(CorruptFileError, match=r"262,144 steps in 1 lanes"):
        decode_symbols(forged(0, 4), many)
    with pytest.raises(CorruptFileError, match=r"in 4 lanes"):
        decode_symbols(forged(2, 4), many)
