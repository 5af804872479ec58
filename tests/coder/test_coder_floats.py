from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder import entropy_bits
from bitwidth.coder.floats import decode_floats, encode_floats
from bitwidth.errors import CorruptFileError, EncodingError
from tests.coder.hostile import attack, cost

Bits = NDArray[np.uint16]
FORMS = ["any", "normal", "bfloat16", "uniform", "constant", "zeros", "one zero bit", "many zero bits", "few"]


def bfloat16(values: NDArray[Any]) -> Bits:
    return (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def make(form: str, size: int, seed: int = 0) -> Bits:
    rng = np.random.default_rng(seed)
    normal, bits = rng.standard_normal(size), rng.integers(0, 1 << 16, size).astype(np.uint16)
    made = {
        "any": bits,
        "normal": (normal / 10).astype(np.float16).view(np.uint16),
        "bfloat16": bfloat16(normal),
        "uniform": rng.random(size).astype(np.float16).view(np.uint16),
        "constant": np.full(size, rng.integers(0, 1 << 16), np.uint16),
        "zeros": np.zeros(size, np.uint16),
        "one zero bit": bits & np.uint16(0xFFFE),
        "many zero bits": bits & np.uint16(0xF000),
        "few": bits[rng.integers(0, min(size, 3), size)] if size else bits,
    }
    return made[form]


def round_trip(arrays: Sequence[Bits]) -> int:
    data = encode_floats(arrays)
    back = decode_floats(data, [array.size for array in arrays])
    assert len(back) == len(arrays)
    for array, found in zip(arrays, back, strict=True):
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, array.reshape(-1))
    return len(data)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, (1 << 16) - 1), max_size=12), max_size=8))
def test_any_bit_patterns(lists: list[list[int]]) -> None:
    round_trip([np.array(each, np.uint16) for each in lists])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FORMS), st.integers(0, 300), st.integers(0, 9)), max_size=8))
def test_arrays_of_every_form(made: list[tuple[str, int, int]]) -> None:
    round_trip([make(*each) for each in made])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_by_itself(form: str) -> None:
    for size in (0, 1, 2, 63, 5000):
        round_trip([make(form, size)])
    round_trip([make(form, 30_000).reshape(3, 100, 100), make("normal", 60)])


def test_every_bit_pattern_at_once() -> None:
    every = np.arange(1 << 16).astype(np.uint16)
    round_trip([every])
    round_trip([every, every[::-1]])


@pytest.mark.parametrize("form", ["any", "many zero bits"])
@pytest.mark.parametrize("count", [1024, 1025, 2100])
def test_more_arrays_than_contexts(form: str, count: int) -> None:
    round_trip([make(form, index % 5, index) for index in range(count)])


def test_no_numbers_take_no_bytes() -> None:
    nothing = np.zeros(0, np.uint16)
    for arrays in ([], [nothing], [nothing.reshape(0, 3)] * 2000):
        assert round_trip(arrays) == 0
    with pytest.raises(CorruptFileError):
        decode_floats(b"\0", [0, 0])


def test_what_is_no_bit_pattern_is_refused() -> None:
    for kind in (np.float16, np.int16, np.uint8, np.float32):
        with pytest.raises(EncodingError):
            encode_floats([np.zeros(3, np.uint16), np.zeros(2, kind)])


def ideal(arrays: Sequence[Bits], mantissa: int) -> float:
    """Bytes of sign and exponent by their entropy in all arrays, and of all mantissa bits."""
    whole = np.concatenate(arrays)
    return (entropy_bits(whole >> np.uint16(mantissa)) + mantissa * whole.size) / 8


@pytest.mark.parametrize(("form", "mantissa"), [("normal", 10), ("bfloat16", 7), ("uniform", 10)])
def test_forty_arrays_take_about_the_entropy_of_their_exponents(form: str, mantissa: int) -> None:
    arrays = [make(form, 64, seed) for seed in range(40)]
    assert round_trip(arrays) <= ideal(arrays, mantissa) * 1.01 + 24


@pytest.mark.parametrize(("form", "mantissa"), [("normal", 10), ("bfloat16", 7), ("uniform", 10)])
def test_a_long_array_takes_no_more_than_the_entropy_of_its_exponents(form: str, mantissa: int) -> None:
    arrays = [make(form, 100_000)]
    assert round_trip(arrays) <= ideal(arrays, mantissa) * 1.002


def test_arrays_of_unlike_numbers_have_tables_of_their_own() -> None:
    """Apart they take their own entropy; scales far from each other cost little besides."""
    rng = np.random.default_rng(0)
    arrays = [(rng.standard_normal(4000) * 0.01**index).astype(np.float16).view(np.uint16) for index in range(3)]
    apart = sum(ideal([array], 10) for array in arrays)
    assert round_trip(arrays) <= apart * 1.005 + 60
    assert round_trip(arrays) < ideal(arrays, 10) * 0.95


def test_trailing_zero_bits_cost_nothing() -> None:
    bits = make("any", 2000)
    for cut in range(12):
        assert round_trip([bits & np.uint16(0x10000 - (1 << cut))]) <= 2000 * (16 - cut) / 8 + 70


def test_numbers_that_are_all_the_same_take_few_bytes() -> None:
    for size in (1, 64, 1 << 17):
        assert round_trip([np.full(size, 0x3C00, np.uint16)] * 40) < 12
        assert round_trip([np.zeros(size, np.uint16)]) < 9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 10, 100, 1000, 10_000])
def test_never_much_larger_than_raw(form: str, size: int) -> None:
    """One array a few bytes, long ones nothing to speak of; numbers of a layer never, but for the table of few."""
    for seed in range(3):
        assert round_trip([make(form, size, seed)]) <= 2 * size + min(20 + size // 2, 40)
    for count in (5, 100):
        arrays = [make(form, size, seed) for seed in range(count)] if size <= 100 else []
        of_layers = 1.1 if form in ("normal", "bfloat16") else 1.35
        assert round_trip(arrays) <= 2 * size * count * of_layers + 24


def test_the_same_arrays_are_the_same_bytes() -> None:
    for arrays in STREAMS.values():
        assert encode_floats(arrays) == encode_floats([array.copy() for array in arrays])


STREAMS: dict[str, list[Bits]] = {
    "one": [make("any", 1)],
    "forty": [make("normal", 64, seed) for seed in range(40)],
    "unlike": [make(form, 50, 1) for form in FORMS],
    "constant": [np.full(64, 0x3C00, np.uint16)] * 40,
    "long": [make("bfloat16", 20_000), make("normal", 20_000)],
    "many": [make("many zero bits", index % 3, index) for index in range(1500)],
    "with empty": [make("any", 0), make("normal", 300), make("any", 0)],
}


@pytest.mark.parametrize("name", STREAMS)
def test_hostile_streams(name: str) -> None:
    arrays = STREAMS[name]
    sizes = [array.size for array in arrays]
    attack(
        encode_floats(arrays), lambda bad: decode_floats(bad, sizes), [(np.dtype(np.uint16), (n,)) for n in sizes], 150
    )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.sampled_from([[1], [0, 3], [64] * 40, [5000], [1] * 1100]))
def test_any_bytes(data: bytes, sizes: list[int]) -> None:
    try:
        found = decode_floats(data, sizes)
    except CorruptFileError:
        return
    assert [array.size for array in found] == sizes


@pytest.mark.parametrize("name", ["forty", "long"])
def test_other_sizes_are_refused(name: str) -> None:
    arrays = STREAMS[name]
    data, sizes = encode_floats(arrays), [array.size for array in arrays]
    for other in (sizes[:-1], [*sizes, 9], [sizes[0] + 3, *sizes[1:]], []):
        with pytest.raises(CorruptFileError):
            decode_floats(data, other)


MANY = 1 << 22


@pytest.mark.parametrize("sizes", [[MANY], [MANY >> 6] * 64, [MANY >> 11] * 2048], ids=len)
def test_tiny_streams_of_many_numbers_cost_little(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    same = [np.full(size, 0x3C00, np.uint16) for size in sizes]
    rare = [np.zeros(sizes[0], np.uint16), *same[1:]]
    rare[0][5] = 1
    small = [encode_floats(same), encode_floats(rare)]
    small += [encode_floats([make(form, 40) for _ in sizes[:64]])[:3000] for form in ("normal", "any")]
    for data in [*small, *(rng.bytes(size) for size in range(1, 30))]:
        seconds, memory = cost(lambda: decode_floats(data, sizes))  # noqa: B023
        assert seconds < 0.5
        assert memory < 14 * MANY


def test_a_large_array_takes_few_bytes_a_number() -> None:
    bits = make("normal", 1 << 21)
    data = encode_floats([bits])
    tracemalloc.start()
    try:
        decode_floats(data, [bits.size])
        assert tracemalloc.get_traced_memory()[1] < 15 * bits.size
    finally:
        tracemalloc.stop()
