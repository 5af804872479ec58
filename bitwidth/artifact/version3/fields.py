"""A parameter taken apart into arrays, each with the coder that suits it, and put together again.

What the coders are called in a file:

- `codes`: 32-bit integers, coded together with all those of their group;
- `layers`: codes of a grid as a base layer of 4 bits and the rest, see `bitwidth.artifact.version3.layers`;
- `joint`: a mask that is coded with the codes under it;
- `floats`: 16-bit floating point numbers, coded together with all those of their group;
- `mask`, `bytes`: any other mask or array, each in a stream of its own;
- `base`, `change`: an array of the base, or one coded as what changed in it, see `bitwidth.artifact.version3.changes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.format.header import CODES, Stream
from bitwidth.artifact.format.held import is_code
from bitwidth.artifact.format.states import arrays_of, config_of
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.artifact.version3.layers import Layers, layered
from bitwidth.encodings import Dense, least_format
from bitwidth.errors import EncodingError
from bitwidth.typing import Array, JsonDict

JOINT, LAYERS, FLOATS, MASK, BYTES, BASE, CHANGE = "joint", "layers", "floats", "mask", "bytes", "base", "change"
KEEP = "keep"
MORE = "more:"  # before the names of arrays that are not the encoding's
STEP = "step"  # of the base layer: an array beside those of the encoding
_SMALL = tuple(np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32"))
_FEW = 1 << 16  # 16-bit floats that are coded together with others; more have a stream of their own


@final
@dataclass(frozen=True)
class Field:
    """One array of a parameter with what the file says of it.

    Attributes:
        stream: its description.
        array: what is coded: int32, uint16 for 16-bit floats, bool, or any dtype for `bytes`.
    """

    stream: Stream
    array: Array


@final
@dataclass(frozen=True)
class TakenApart:
    """A parameter as arrays.

    Attributes:
        config: of its encoding, as JSON.
        fields: its arrays; the codes are the last.
        codes: all of them, as they are stored.
        mask: of the codes, where it is coded with them.
        layers: the base layer and the rest of the codes, where they are coded so.
    """

    config: JsonDict
    fields: tuple[Field, ...]
    codes: Array
    mask: NDArray[np.bool_] | None = None
    layers: Layers | None = None


def taken_apart(parameter: StoredParameter, in_layers: bool | None) -> TakenApart:
    """The arrays of one parameter.

    Args:
        parameter: the parameter.
        in_layers: whether codes of grids of more than 4 bits are coded in layers; None where there are many of them.

    Raises:
        EncodingError: values of a dtype that a file cannot hold.
    """
    encoding, dtype = parameter.encoding, parameter.dtype
    codes = stored_codes(encoding.encode(parameter.values), dtype)
    arrays = dict(arrays_of(encoding.state()))
    whole = is_code(str(codes.dtype), dtype)
    together = whole and KEEP in arrays and encoding.mask is not None and np.array_equal(arrays[KEEP], encoding.mask)
    layers = layered(encoding, codes, in_layers) if whole else None
    fields = [Field(stream_of(name, array, together), stored(array)) for name, array in arrays.items()]
    fields += [Field(stream_of(MORE + name, array, False), stored(array)) for name, array in parameter.arrays.items()]
    if layers is not None:
        step = layers.step
        fields.append(Field(Stream(STEP, CODES, "int32", step.shape), step))
        last = Field(Stream(CODES, LAYERS, "int32", codes.shape), layers.base)
    else:
        kept = codes if encoding.mask is None or together else codes[encoding.mask]
        coder = CODES if whole else coder_of(str(kept.dtype), kept.size)
        last = Field(Stream(CODES, coder, _named(kept, dtype), kept.shape), kept)
    mask = encoding.mask if together else None
    return TakenApart(config_of(encoding.state()), (*fields, last), codes, mask, layers)


def stream_of(name: str, array: Array, together: bool) -> Stream:
    """How an array beside the codes is described.

    Args:
        name: its name.
        array: the array.
        together: whether a mask of the whole encoding is coded with the codes.
    """
    if array.dtype == np.bool_:
        return Stream(name, JOINT if name == KEEP and together else MASK, "bool", array.shape)
    if array.dtype in _SMALL:
        return Stream(name, CODES, str(array.dtype), array.shape)
    dtype = str(least_format(array).format) if array.dtype == np.float32 else str(array.dtype)
    return Stream(name, coder_of(dtype, array.size), dtype, array.shape)


def coder_of(dtype: str, size: int) -> str:
    """The coder of an array that holds no codes of a grid: its dtype as it is stored, and how many numbers it has."""
    return FLOATS if dtype in ("uint16", "float16", "bfloat16") and size <= _FEW else BYTES


def restored(stream: Stream, array: Array) -> Array:
    """The array that was described so, from what was decoded: integers as bits become the floats that they are."""
    if stream.dtype == "float16" and array.dtype == np.uint16:
        return array.view(np.float16).reshape(stream.shape)
    if stream.dtype == "bfloat16":
        return Dense("bfloat16").decode(array).reshape(stream.shape)
    if stream.coder == CODES and str(array.dtype) != stream.dtype:
        narrow = array.astype(stream.dtype)
        if not np.array_equal(narrow, array):
            raise EncodingError(f"{stream.name}: integers that {stream.dtype} does not hold")
        array = narrow
    return array.reshape(stream.shape)


def stored(array: Array, dtype: str | None = None) -> Array:
    """As the coders take it: floats in the smallest format that holds them, or in that of a dtype."""
    if array.dtype != np.float32:
        return _storable(array)
    held = least_format(array) if dtype is None else Dense(dtype)  # type: ignore[arg-type]
    return _storable(held.encode(array))


def stored_codes(codes: Array, dtype: str) -> Array:
    """The codes of a parameter of a dtype as the coders take them, and as they come back from a file.

    Raises:
        EncodingError: they are of a dtype that a file cannot hold.
    """
    if dtype == "bfloat16" and codes.dtype == np.float32:
        codes = _as_bfloat16(codes)
    codes = _storable(codes)
    if codes.dtype.kind in "OSU":
        raise EncodingError(f"values of dtype {codes.dtype} cannot be stored")
    return codes


def _named(codes: Array, dtype: str) -> str:
    return "bfloat16" if dtype == "bfloat16" and codes.dtype == np.uint16 else str(codes.dtype)


def _as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    held = Dense("bfloat16")
    bits: NDArray[np.uint16] = held.encode(values)
    if not np.array_equal(held.decode(bits), values, equal_nan=True):
        raise EncodingError("values of a bfloat16 parameter that bfloat16 does not hold")
    return bits


def _storable(array: Array) -> Array:
    """`array` in a dtype that numpy itself knows: the 2-byte floats of other packages as their bits."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return array.view(np.uint16)
    return array
