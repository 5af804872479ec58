"""What a base layer leaves of wide integer codes, coded in contexts of the base.

A base layer holds codes in steps: `base = clip(round(code / step), -7, 7)`. What is left, `code - step * base`, is
small, and where it lies depends on the base: around zero the density is even, further out it falls away from zero, and
the outermost base holds the tail. Residuals are mirrored where the base is negative, so that one table serves both
signs, and coded in the contexts of |base| and of the step; contexts with much the same residuals share a table. Base
and residuals together cost what the codes themselves cost, up to their tables.

    stream: the stream of `streams.encode` over mirrored residuals less the least one (a varint before it: minus that);
            empty where every step is 1 or all residuals are 0; residuals beyond 2**13 are coded as `encode_codes` does

Source: embedded (layered) quantizers with successive refinement, W. Equitz and T. Cover, "Successive refinement of
information", IEEE Trans. IT 37 (1991), section II: no rate is lost where the base is a function of the code.

Example:
    >>> codes, step = np.array([-40, 3, 0, 17]), np.array(6)
    >>> base = base_of(codes, step)
    >>> base.tolist()
    [-7, 1, 0, 3]
    >>> decode_residuals(encode_residuals(codes, base, step), base, step).tolist()
    [-40, 3, 0, 17]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import streams
from bitwidth.coder.bitio import Reader, counts_of, varint
from bitwidth.coder.codes import decode_codes, encode_codes
from bitwidth.coder.tables import MAX_SYMBOLS
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

MOST_BASE = 7
"""The largest magnitude in a base layer."""

_NONE, _SYMBOLS, _CODES = range(3)
_MOST_STEPS = 32  # so many steps have contexts of their own; of more, neighbours share one
_BLOCK = 1 << 18
_INT32 = np.iinfo(np.int32)


def base_of(codes: Array, step: Array) -> NDArray[np.int32]:
    """The base layer of integer codes: codes in steps, rounded half away from zero, at most 7 from zero.

    Args:
        codes: integers within int32, of any shape.
        step: positive integers, one for all or of a shape that broadcasts to that of the codes.

    Returns:
        int32, of the shape of the codes.

    Example:
        >>> base_of(np.array([-9, 8, 200]), np.array(18))
        array([-1,  0,  7], dtype=int32)
    """
    codes = np.asarray(codes)
    wide = np.asarray(step, dtype=np.int64)
    magnitude = np.minimum((np.abs(codes.astype(np.int64)) + wide // 2) // wide, MOST_BASE).astype(np.int32)
    return np.where(codes < 0, -magnitude, magnitude).astype(np.int32)


def _checked(base: Array, step: Array) -> tuple[NDArray[np.int8], Array]:
    """Base and step as flat arrays; a step for all stays one."""
    base, step = np.asarray(base), np.asarray(step)
    if base.dtype.kind not in "iu" or step.dtype.kind not in "iu":
        raise EncodingError(f"residuals: integers expected, got base {base.dtype} and step {step.dtype}")
    if base.size and max(-int(base.min()), int(base.max())) > MOST_BASE:
        raise EncodingError(
            f"residuals: a base of -{MOST_BASE} to {MOST_BASE} expected, got {base.min()}..{base.max()}"
        )
    if step.size and not (int(step.min()) > 0 and int(step.max()) <= _INT32.max // 8):
        raise EncodingError(f"residuals: positive steps expected, got {step.min()}..{step.max()}")
    flat = step.reshape(1) if step.size == 1 else np.broadcast_to(step, base.shape).reshape(-1)
    return base.astype(np.int8).reshape(-1), flat


def _contexts(base: NDArray[np.int8], step: Array) -> tuple[NDArray[np.uint16], int]:
    """The context of each element, and how many there are: |base| within the rank of the step."""
    magnitude = np.abs(base).view(np.uint8)
    steps = np.unique(step)
    if steps.size == 1:
        return magnitude, MOST_BASE + 1
    ranks = np.arange(steps.size) * min(steps.size, _MOST_STEPS) // steps.size
    out = np.empty(base.size, dtype=np.uint16)
    for begin in range(0, base.size, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        out[part] = ranks[np.searchsorted(steps, step[part])] * (MOST_BASE + 1) + magnitude[part]
    return out, (int(ranks[-1]) + 1) * (MOST_BASE + 1)


def _mirrored(codes: Array, base: NDArray[np.int8], step: Array) -> NDArray[np.int32]:
    """Residuals, negated where the base is negative."""
    out = np.empty(base.size, dtype=np.int32)
    for begin in range(0, base.size, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        by = step if step.size == 1 else step[part]
        rest = codes[part] - by.astype(np.int64) * base[part]
        np.negative(rest, out=rest, where=base[part] < 0)
        if rest.size and not (_INT32.min < int(rest.min()) and int(rest.max()) <= _INT32.max):
            raise EncodingError(f"residuals: values within int32 expected, got {rest.min()} to {rest.max()}")
        out[part] = rest
    return out


def encode_residuals(codes: Array, base: Array, step: Array) -> bytes:
    """Code what a base layer leaves of integer codes.

    Args:
        codes: integers within int32, any shape: of one or more tensors.
        base: integers -7..7, of that shape, that the decoder will know; see `base_of`.
        step: positive integers, one for all or of a shape that broadcasts to that of the base.

    Returns:
        A self-contained stream; empty for no codes.

    Raises:
        EncodingError: not integers, or a base, a step or a residual out of range.

    Example:
        >>> len(encode_residuals(np.full(1000, 36), np.full(1000, 2), np.array(18)))
        1
    """
    codes = np.asarray(codes)
    flat, steps = _checked(base, step)
    if codes.dtype.kind not in "iu" or codes.size != flat.size:
        raise EncodingError(f"residuals: {flat.size} integers expected, got {codes.size} of {codes.dtype}")
    if not flat.size:
        return b""
    rest = _mirrored(codes.reshape(-1), flat, steps)
    low, high = int(rest.min()), int(rest.max())
    if low == high == 0:
        return bytes([_NONE])
    contexts, number = _contexts(flat, steps)
    least = min(low, 0)
    alphabet = high - least + 1
    if alphabet > MAX_SYMBOLS >> 1 or alphabet * number > max(4 * flat.size, 1 << 16):
        return bytes([_CODES]) + encode_codes([(rest, None)])
    symbols = rest.astype(np.uint16 if alphabet > 256 else np.uint8)
    symbols -= symbols.dtype.type(least % (1 << 8 * symbols.itemsize))
    joint = np.zeros(number * alphabet, dtype=np.int64)
    for begin in range(0, symbols.size, _BLOCK):
        index = np.multiply(contexts[begin : begin + _BLOCK], alphabet, dtype=np.intp)
        index += symbols[begin : begin + _BLOCK]
        joint += counts_of(index, joint.size)
    stream = streams.encode(symbols, joint.reshape(number, alphabet), lambda assigned: assigned[contexts])
    return bytes([_SYMBOLS]) + varint(-least) + stream


def decode_residuals(data: bytes, base: Array, step: Array) -> NDArray[np.int32]:
    """Decode what `encode_residuals` wrote.

    Args:
        data: the whole stream; untrusted.
        base: as given to `encode_residuals`.
        step: as given to `encode_residuals`.

    Returns:
        The codes, int32, of the shape of the base.

    Raises:
        CorruptFileError: `data` is not a stream of residuals of this base.
        EncodingError: a base or a step out of range.

    Example:
        >>> decode_residuals(encode_residuals(np.array([5]), np.array([1]), np.array([3])), np.array([1]), np.array([3]))
        array([5], dtype=int32)
    """
    flat, steps = _checked(base, step)
    reader, shape = Reader(data), np.shape(base)
    if not flat.size:
        reader.end()
        return np.zeros(shape, dtype=np.int32)
    mode, least, rest = reader.byte(), 0, None
    if mode == _SYMBOLS:
        least = reader.varint()
        if least > MAX_SYMBOLS:
            raise CorruptFileError("coded residuals: a residual out of range")
        contexts, number = _contexts(flat, steps)
        rest = streams.decode(reader.rest(), flat.size, number, lambda assigned: assigned[contexts])
    elif mode == _CODES:
        rest = decode_codes(reader.rest(), [((flat.size,), False)])[0][0]
    elif mode != _NONE:
        raise CorruptFileError("coded residuals: an unknown header")
    reader.end()
    return _restored(flat, steps, rest, least).reshape(shape)


def _restored(base: NDArray[np.int8], step: Array, rest: Array | None, least: int) -> NDArray[np.int32]:
    """Codes of bases and mirrored residuals, in blocks."""
    out = np.empty(base.size, dtype=np.int32)
    for begin in range(0, base.size, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        by = step.astype(np.int32) if step.size == 1 else step[part].astype(np.int32)
        codes = np.multiply(base[part], by, out=out[part])
        if rest is None:
            continue
        if rest.dtype == np.int32 and max(-int(rest[part].min()), int(rest[part].max())) > _INT32.max // 8:
            _check_range(codes, base[part], rest[part])
        fresh = np.subtract(rest[part], np.int32(least), dtype=np.int32)
        np.multiply(fresh, np.sign(base[part]) | (base[part] == 0), out=fresh)
        codes += fresh
    return out


def _check_range(codes: NDArray[np.int32], base: NDArray[np.int8], rest: Array) -> None:
    whole = codes.astype(np.int64) + np.where(base < 0, -1, 1) * rest.astype(np.int64)
    if int(whole.min()) < _INT32.min or int(whole.max()) > _INT32.max:
        raise CorruptFileError("coded residuals: a code beyond int32")
