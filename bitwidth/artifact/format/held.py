"""Whether what was decoded from a file is what the library itself would have written there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.format.states import kinds_of
from bitwidth.encodings import Dense, Encoding, Escaped, Quantized, is_registered
from bitwidth.errors import CorruptFileError, EncodingError, UnknownEncodingError
from bitwidth.typing import Array, Data, JsonMapping

_PIECE = 1 << 16  # values that are looked at together


def check_known(encoding: JsonMapping, where: str) -> None:
    """Raise unless this process knows every kind of encoding in a configuration.

    Raises:
        UnknownEncodingError: naming the first that it does not know.
    """
    unknown = next((kind for kind in kinds_of(encoding) if not is_registered(kind)), None)
    if unknown is not None:
        raise UnknownEncodingError(
            f"{where}: held in an encoding {unknown!r} that is not registered in this process: import the package that "
            "calls register_encoding for it, and read the file again"
        )


def check_dtype(values: Array, dtype: str, where: str) -> None:
    """Raise unless decoded values are of the dtype of their parameter; bfloat16 is decoded to float32.

    Raises:
        CorruptFileError: they are not.
    """
    if str(values.dtype) != ("float32" if dtype == "bfloat16" else dtype):
        raise CorruptFileError(f"{where}: {values.dtype} values for a parameter of {dtype}")


def check_values(encoding: Encoding, values: Array) -> None:
    """Raise unless `values`, decoded from a file, are what the encoding holds of them: else the next file would differ.

    Codes that no values have are of this kind: those of a block whose scale is zero, or too small to be divided by.

    Raises:
        EncodingError: they are not.
    """
    if encoding.summary().is_float:
        return  # holds whatever it decodes
    for part, piece in _pieces(encoding, values):
        with np.errstate(over="ignore", invalid="ignore"):
            again = part.project(piece)
        if again.dtype != values.dtype or not np.array_equal(_octets(again), _octets(piece)):
            raise EncodingError(f"codes that {encoding.describe()} does not give to what they stand for")


def _pieces(encoding: Encoding, values: Array) -> Iterator[tuple[Encoding, Array]]:
    """Values a part of the last axis at a time, so that a large tensor needs little memory; else all of them."""
    length = values.shape[-1] if values.ndim else 1
    step = max(1, length * _PIECE // max(1, values.size))
    try:
        whole = step >= length or encoding.take(values.ndim - 1, np.arange(step)) is None
    except EncodingError:  # the parts would cut through what shares a scale
        whole = True
    if whole:
        yield encoding, values
        return
    for start in range(0, length, step):
        indices = np.arange(start, min(start + step, length))
        yield encoding.take(values.ndim - 1, indices), values[..., indices[0] : indices[-1] + 1]


def _octets(array: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def all_finite(values: Array) -> bool:
    """Whether there is no infinity among floating point numbers, and nothing that is no number."""
    if values.dtype.kind == "V":  # the floats of other packages
        values = values.astype(np.float32)
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def is_code(codes: str, dtype: str) -> bool:
    """Whether codes of a dtype, for a parameter of another, are those of a grid: all else is bytes."""
    return codes == "int32" and dtype == "float32"


def within(found: Data, written: Data) -> bool:
    """Whether all that a file says of an encoding is what a writer says; it may say less, as an earlier one did."""
    if isinstance(found, Mapping) and isinstance(written, Mapping):
        return all(key in written and within(value, written[key]) for key, value in found.items())
    return json.dumps(found) == json.dumps(written)


@singledispatch
def codes_dtype(encoding: Encoding, dtype: str) -> str | None:
    """The dtype of the codes of a parameter; None for an encoding of a user's own, which alone can tell."""
    return None


@codes_dtype.register
def _(encoding: Dense, dtype: str) -> str | None:
    if encoding.format is None:
        return dtype
    _check_float32(encoding, dtype)
    return encoding.format if encoding.mantissa_bits is None else "uint16"


@codes_dtype.register
def _(encoding: Quantized, dtype: str) -> str | None:
    _check_float32(encoding, dtype)
    return "int32"


@codes_dtype.register
def _(encoding: Escaped, dtype: str) -> str | None:
    _check_float32(encoding, dtype)
    return codes_dtype(encoding.base, dtype)


def _check_float32(encoding: Encoding, dtype: str) -> None:
    if dtype != "float32":
        raise EncodingError(f"{encoding.describe()} for a parameter of {dtype}; only float32 is held so")


def placed(codes: Array, mask: NDArray[np.bool_]) -> Array:
    """The codes of the whole tensor, from those that the mask keeps.

    Raises:
        EncodingError: there are more of them, or fewer.
    """
    if codes.size != np.count_nonzero(mask):
        raise EncodingError(f"{codes.size:,} codes for {np.count_nonzero(mask):,} values that the mask keeps")
    full = np.zeros(mask.shape, codes.dtype)
    full[mask] = codes.reshape(-1)
    return full
