"""A parameter as what changed since another file, which its reader has.

An array is taken from the base where it is the same there (`base`), or coded as differences from what the base predicts
(`change`): codes from those that the base's values have on the new grid, floats as how many floats of their format lie
between. What shares nothing with the base, or would be longer so, stays whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact.format.header import Stream
from bitwidth.artifact.format.states import arrays_of, config_of
from bitwidth.artifact.format.stored import StoredParameter
from bitwidth.artifact.version3.fields import BASE, CHANGE, JOINT, STEP, Field, TakenApart, stored, stored_codes
from bitwidth.coder import entropy_bits
from bitwidth.encodings import Encoding
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

_INT32 = np.iinfo(np.int32)


def is_same(parameter: StoredParameter, base: StoredParameter) -> bool:
    """Whether a parameter is that of the base: what it is, how it is held, and each bit of its values."""
    described = ((one.path, one.role, one.dtype, one.trainable) for one in (parameter, base))
    if next(described) != next(described):
        return False
    one, other = parameter.encoding.state(), base.encoding.state()
    if config_of(one) != config_of(other) or not same_bits(parameter.values, base.values):
        return False
    if dict(parameter.more) != dict(base.more):
        return False
    first, second = dict(arrays_of(one)) | dict(parameter.arrays), dict(arrays_of(other)) | dict(base.arrays)
    return first.keys() == second.keys() and all(same_bits(array, second[name]) for name, array in first.items())


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays are equal in dtype, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# ---- writing


def against(apart: TakenApart, encoding: Encoding, base: StoredParameter, dtype: str) -> TakenApart:
    """A parameter with each of its arrays as what changed since the base, where that is shorter.

    Args:
        apart: the parameter.
        encoding: how it is held.
        base: what the base has in its place.
        dtype: of the parameter.
    """
    if base.values.shape != apart.codes.shape or base.dtype != dtype:
        return apart
    arrays, known = dict(arrays_of(encoding.state())), dict(arrays_of(base.encoding.state()))
    *sides, codes = apart.fields
    sides = [_side(field, arrays.get(field.stream.name), known.get(field.stream.name)) for field in sides]
    found = _shorter(apart.codes, predicted(encoding, base, dtype), encoding.mask)
    if found is None:  # whole codes keep the mask that is coded with them
        pairs = zip(apart.fields[:-1], sides, strict=True)
        return replace(apart, fields=(*(old if old.stream.coder == JOINT else new for old, new in pairs), codes))
    sides = [field for field in sides if field.stream.name != STEP]
    mask = apart.mask if any(field.stream.coder == JOINT for field in sides) else None
    array = found if mask is not None or encoding.mask is None else found[encoding.mask]
    change = Field(Stream(codes.stream.name, CHANGE, codes.stream.dtype, array.shape), array)
    return replace(apart, fields=(*sides, change), mask=mask, layers=None)


def _side(field: Field, array: Array | None, known: Array | None) -> Field:
    """An array beside the codes: that of the base, a change of it, or whole."""
    if array is None or known is None or known.shape != array.shape or known.dtype != array.dtype:
        return field
    if same_bits(array, known):
        return replace(field, stream=replace(field.stream, coder=BASE), array=array)
    if array.dtype == np.bool_:
        found: Array | None = _flips(array, known)
    else:
        found = _shorter(field.array, stored(known, field.stream.dtype), None)
    return field if found is None else Field(replace(field.stream, coder=CHANGE), found)


def _flips(mask: Array, base: Array) -> NDArray[np.bool_] | None:
    """Where a mask is another than that of the base; None where it is so about as often as either is rare."""
    found: NDArray[np.bool_] = mask ^ base
    kept = int(np.count_nonzero(mask))
    return found if 2 * int(np.count_nonzero(found)) < min(kept, mask.size - kept) else None


def _shorter(array: Array, base: Array, mask: NDArray[np.bool_] | None) -> NDArray[np.int32] | None:
    """The differences of an array from that of the base; None where they are not integers that are shorter."""
    one, other = numbers(array), numbers(base)
    if one is None or other is None or array.dtype != base.dtype or not array.size:
        return None
    found = one - other
    kept, whole = (found, one) if mask is None else (found[mask], one[mask])
    if not kept.size or kept.min() < _INT32.min or kept.max() > _INT32.max:
        return None
    if entropy_bits(kept) >= entropy_bits(whole):
        return None
    narrow: NDArray[np.int32] = found.astype(np.int32)
    return narrow if mask is None else np.where(mask, narrow, np.int32(0))


def predicted(encoding: Encoding, base: StoredParameter, dtype: str) -> Array:
    """The codes that the base's values have, as they are stored."""
    with np.errstate(over="ignore", invalid="ignore"):
        return stored_codes(encoding.encode(base.values), dtype)


# ---- reading


def changed(stream: Stream, difference: Array, base: Array) -> Array:
    """The array that is so different from that of the base.

    Args:
        stream: of the array.
        difference: what was stored, of the array's shape; of a mask, where it is another.
        base: as it is stored.

    Raises:
        EncodingError: they do not make such an array.
    """
    if base.dtype == np.bool_ and difference.dtype == np.bool_ and base.shape == difference.shape:
        return base ^ difference
    other = numbers(base)
    if other is None or difference.dtype == np.bool_ or other.shape != difference.shape:
        raise EncodingError(f"{stream.name} is said to be a change of something else than there is in the base")
    return from_numbers(other + difference, base.dtype)


def side_of(stream: Stream, base: Mapping[str, Array]) -> Array:
    """The array of this name in the base.

    Raises:
        EncodingError: there is none of this shape.
    """
    array = base.get(stream.name)
    if array is None or array.shape != stream.shape:
        raise EncodingError(f"the base has no {stream.name} of shape {stream.shape}")
    return array


def numbers(array: Array) -> NDArray[np.int64] | None:
    """Integers in the order of the array's values, one for each value of its dtype; None where there are none."""
    if array.dtype == np.float16:
        array = array.view(np.uint16)
    if array.dtype == np.float32:
        array = array.view(np.uint32)
    if array.dtype.kind == "i" and array.dtype.itemsize <= 4:
        return array.astype(np.int64)
    if array.dtype not in (np.uint16, np.uint32):
        return None
    sign = np.int64(1) << np.int64(8 * array.dtype.itemsize - 1)
    wide = array.astype(np.int64)
    return np.where(wide < sign, wide, sign - 1 - wide)


def from_numbers(found: NDArray[np.int64], dtype: np.dtype[np.generic]) -> Array:
    """What `numbers` was given.

    Raises:
        EncodingError: an integer that stands for no value.
    """
    floats = {"float16": "uint16", "float32": "uint32"}
    word = np.dtype(floats.get(str(dtype), str(dtype)))
    if word.kind == "u":
        sign = np.int64(1) << np.int64(8 * word.itemsize - 1)
        low, high = -int(sign), int(sign) - 1
        out = np.where(found < 0, sign - 1 - found, found)
    else:
        low, high, out = int(np.iinfo(word).min), int(np.iinfo(word).max), found
    if found.size and (int(found.min()) < low or int(found.max()) > high):
        raise EncodingError(f"a change that leads out of {dtype}")
    return np.ascontiguousarray(out.astype(word)).view(dtype)
