"""Streams of released files decode to what they held."""

from __future__ import annotations

from typing import Any

import pytest
from numpy.typing import NDArray

from bitwidth.coder import decode_array, decode_integers, decode_mask, decode_planes, decode_symbols
from bitwidth.coder.bitio import Reader
from bitwidth.coder.streams import _Header
from bitwidth.errors import CorruptFileError
from tests.coder import earlier
from tests.coder.hostile import attack

GOLDEN = earlier.golden()
HELD: dict[str, NDArray[Any]] = {
    f"{kind}, {name}": values
    for kind, cases in (
        ("symbols", earlier.SYMBOLS),
        ("contexts", earlier.CONTEXTS),
        ("integers", earlier.INTEGERS),
        ("mask", earlier.MASKS),
        ("planes", earlier.PLANES),
        ("array", earlier.ARRAYS),
    )
    for name, values in cases.items()
}


def decode(name: str, parts: list[bytes]) -> NDArray[Any]:
    values, kind = HELD[name], name.split(",")[0]
    if kind == "symbols":
        return decode_symbols(parts[0], values.size)
    if kind == "contexts":
        return decode_symbols(parts[0], values.size, earlier.places(values.size))
    if kind == "integers":
        return decode_integers(parts[0], values.size)
    if kind == "mask":
        return decode_mask(parts[0], values.shape)
    if kind == "planes":
        return decode_planes(parts, values.size)
    return decode_array(parts[0], values.dtype, values.shape)


def test_all_are_there() -> None:
    assert set(GOLDEN) == set(HELD)
    headers = [_Header(Reader(parts[0])) for name, parts in GOLDEN.items() if name.startswith(("symbols", "contexts"))]
    assert {header.scalar for header in headers} == {False, True}
    assert {header.log_group for header in headers} >= {0, 1, 2}
    assert not any(header.growing for header in headers)


@pytest.mark.parametrize("name", HELD)
def test_a_stream_decodes_to_what_it_held(name: str) -> None:
    back = decode(name, GOLDEN[name])
    assert back.shape == HELD[name].shape
    assert (back == HELD[name]).all()


@pytest.mark.parametrize("name", [name for name in HELD if "lanes" not in name and "planes" not in name])
def test_damaged_streams(name: str) -> None:
    good = decode(name, GOLDEN[name])

    def narrow(bad: bytes) -> list[NDArray[Any]]:
        back = decode(name, [bad])
        return [back.astype(good.dtype) if back.dtype.kind in "iu" else back]

    attack(GOLDEN[name][0], narrow, [(good.dtype, good.shape)], 100)


@pytest.mark.parametrize("name", [name for name in HELD if "lanes" in name])
def test_a_damaged_end_is_noticed(name: str) -> None:
    parts = GOLDEN[name]
    for end in (parts[-1][:-1], parts[-1][:-2], parts[-1] + b"\0\0", parts[-1][: len(parts[-1]) // 2]):
        with pytest.raises(CorruptFileError):
            decode(name, [*parts[:-1], end])
