"""Whether a parameter is described as a writer describes it.

An encoding that was built from a file says of itself what a writer would have put there: its configuration, its arrays
with their dtypes, the dtype of its codes. A file that says anything else would be read as one thing and written again
as another, so it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.header import CODES, PLANES, Entry, Stream
from bitwidth.artifact.states import arrays_of, config_of
from bitwidth.encodings import Dense, Encoding, Escaped, Quantized, ordered
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

_FLOATS = ("float16", "bfloat16", "float32")
_ONCE = "int32"  # the dtype of all integers beside the codes, in files of earlier writers


def coder_of(codes: str, dtype: str) -> str:
    """The coder of codes of a dtype, for a parameter of another: codes of a grid are integers, all else is bytes."""
    return "integers" if codes == "int32" and dtype == "float32" else "bytes"


def check_written(entry: Entry, encoding: Encoding) -> None:
    """Raise unless `entry` describes `encoding`, for its parameter, as a writer does.

    Raises:
        EncodingError: saying what a writer would have put there.
    """
    if not _within(entry.encoding, json.loads(json.dumps(config_of(encoding.state())))):
        raise EncodingError(f"{encoding.describe()} is not described as {str(dict(entry.encoding))[:200]}")
    arrays = dict(arrays_of(encoding.state()))
    names = {stream.name for stream in entry.streams}
    if names != {*arrays, CODES}:
        raise EncodingError(f"{encoding.describe()} has the streams {', '.join([*arrays, CODES])}")
    for stream in entry.streams:
        if stream.name == CODES:
            _check_codes(stream, entry, encoding)
        else:
            _check_array(stream, arrays[stream.name])


def check_values(encoding: Encoding, values: Array) -> None:
    """Raise unless `values`, decoded from a file, are what the encoding holds of them: else the next file would differ.

    Codes that no values have are of this kind: those of a block whose scale is zero, or too small to be divided by.

    Raises:
        EncodingError: they are not.
    """
    if encoding.summary().is_float:
        return  # holds whatever it decodes
    with np.errstate(over="ignore", invalid="ignore"):
        again = encoding.project(values)
    if again.dtype != values.dtype or not np.array_equal(_octets(again), _octets(values)):
        raise EncodingError(f"codes that {encoding.describe()} does not give to what they stand for")


def _octets(array: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _within(found: Any, written: Any) -> bool:
    """Whether all that a file says of an encoding is what a writer says; it may say less, as an earlier one did."""
    if isinstance(found, Mapping) and isinstance(written, Mapping):
        return all(key in written and _within(value, written[key]) for key, value in found.items())
    return json.dumps(found) == json.dumps(written)


def _check_array(stream: Stream, array: Array) -> None:
    coder = "mask" if array.dtype == np.bool_ else "bytes"
    dtypes = _FLOATS if array.dtype == np.float32 else (str(array.dtype),)
    if array.dtype.kind in "iu":
        dtypes = (*dtypes, _ONCE)
    if stream.coder != coder or stream.dtype not in dtypes or stream.shape != array.shape:
        raise EncodingError(
            f"{stream.name} in {stream.coder} of {stream.dtype} {stream.shape}; "
            f"expected {coder} of {' or '.join(dtypes)} {array.shape}"
        )


def _check_codes(stream: Stream, entry: Entry, encoding: Encoding) -> None:
    dtype = _codes_dtype(encoding.unmasked, entry.dtype)
    shape = entry.shape if encoding.mask is None else (int(np.count_nonzero(encoding.mask)),)
    coders = [coder_of(dtype or stream.dtype, entry.dtype)]
    if coders[0] == "integers" and ordered(encoding) is not None:
        coders.append(PLANES)
    if stream.coder not in coders or stream.dtype != (dtype or stream.dtype) or stream.shape != shape:
        raise EncodingError(
            f"codes in {stream.coder} of {stream.dtype} {stream.shape}; "
            f"expected {' or '.join(coders)} of {dtype or 'any dtype'} {shape}"
        )


@singledispatch
def _codes_dtype(encoding: Encoding, dtype: str) -> str | None:
    """The dtype of the codes of a parameter; None for an encoding of a user's own, which alone can tell."""
    return None


@_codes_dtype.register
def _(encoding: Dense, dtype: str) -> str | None:
    if encoding.format is None:
        return dtype
    _check_float32(encoding, dtype)
    return encoding.format if encoding.mantissa_bits is None else "uint16"


@_codes_dtype.register
def _(encoding: Quantized, dtype: str) -> str | None:
    _check_float32(encoding, dtype)
    return "int32"


@_codes_dtype.register
def _(encoding: Escaped, dtype: str) -> str | None:
    _check_float32(encoding, dtype)
    return _codes_dtype(encoding.base, dtype)


def _check_float32(encoding: Encoding, dtype: str) -> None:
    if dtype != "float32":
        raise EncodingError(f"{encoding.describe()} for a parameter of {dtype}; only float32 is held so")
