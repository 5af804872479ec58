"""Whether a parameter is described as a writer describes it.

An encoding that was built from a file says of itself what a writer would have put there: its configuration, its arrays
with their dtypes, the dtype of its codes. A file that says anything else would be read as one thing and written again
as another, so it is refused.
"""

from __future__ import annotations

import json

import numpy as np

from bitwidth.artifact.earlier.header import PLANES
from bitwidth.artifact.format.header import CODES, Entry, Stream
from bitwidth.artifact.format.held import codes_dtype, is_code, within
from bitwidth.artifact.format.states import arrays_of, config_of
from bitwidth.encodings import Encoding, ordered
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

_FLOATS = ("float16", "bfloat16", "float32")
_ONCE = "int32"  # the dtype of all integers beside the codes, in files of earlier writers


def check_written(entry: Entry, encoding: Encoding) -> None:
    """Raise unless `entry` describes `encoding`, for its parameter, as a writer does.

    Raises:
        EncodingError: saying what a writer would have put there.
    """
    if not within(entry.encoding, json.loads(json.dumps(config_of(encoding.state())))):
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
    dtype = codes_dtype(encoding.unmasked, entry.dtype)
    shape = entry.shape if encoding.mask is None else (int(np.count_nonzero(encoding.mask)),)
    coders = ["integers" if is_code(dtype or stream.dtype, entry.dtype) else "bytes"]
    if coders[0] == "integers" and ordered(encoding) is not None:
        coders.append(PLANES)
    if stream.coder not in coders or stream.dtype != (dtype or stream.dtype) or stream.shape != shape:
        raise EncodingError(
            f"codes in {stream.coder} of {stream.dtype} {stream.shape}; "
            f"expected {' or '.join(coders)} of {dtype or 'any dtype'} {shape}"
        )
