"""Interim."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.arrays import decode_array, encode_array
from bitwidth.coder.bitio import Reader, varint
from bitwidth.coder.integers import decode_integers, encode_integers
from bitwidth.coder.masks import decode_mask, encode_mask


def encode_residuals(codes: NDArray[Any], base: NDArray[Any], step: NDArray[Any]) -> bytes:
    return encode_integers(codes - base * step)


def decode_residuals(data: bytes, base: NDArray[Any], step: NDArray[Any]) -> NDArray[np.int32]:
    return (decode_integers(data, base.size) + base * step).astype(np.int32)


def encode_floats(arrays: Sequence[NDArray[np.uint16]]) -> bytes:
    out = b""
    for a in arrays:
        e = encode_array(a.reshape(-1))
        out += varint(len(e)) + e
    return out


def decode_floats(data: bytes, sizes: Sequence[int]) -> list[NDArray[np.uint16]]:
    reader = Reader(data)
    out = [decode_array(reader.take(reader.varint()), np.dtype(np.uint16), (n,)) for n in sizes]
    reader.end()
    return out
