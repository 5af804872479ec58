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

import math
from collections.abc import Iterator
from typing import Any, final

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
    magnitude = np.asarray(np.minimum((np.abs(codes.astype(np.int64)) + wide // 2) // wide, MOST_BASE), np.int32)
    np.negative(magnitude, out=magnitude, where=codes < 0)
    return np.asarray(magnitude)


def _checked(base: Array, step: Array) -> tuple[NDArray[np.int8], _Steps]:
    """The base, flat, and the steps."""
    base, step = np.asarray(base), np.asarray(step)
    if base.dtype.kind not in "iu" or step.dtype.kind not in "iu":
        raise EncodingError(f"residuals: integers expected, got base {base.dtype} and step {step.dtype}")
    if base.size and max(-int(base.min()), int(base.max())) > MOST_BASE:
        raise EncodingError(
            f"residuals: a base of -{MOST_BASE} to {MOST_BASE} expected, got {base.min()}..{base.max()}"
        )
    if step.size != 1 and not _broadcasts(step.shape, base.shape):
        raise EncodingError(f"residuals: steps that broadcast to {base.shape} expected, got {step.shape}")
    # What is repeated along an axis is kept once.
    few = step[tuple(slice(0, 1) if not by else slice(None) for by in step.strides)] if step.size else step
    if few.size and not (int(few.min()) > 0 and int(few.max()) <= _INT32.max // 8):
        raise EncodingError(f"residuals: positive steps expected, got {few.min()}..{few.max()}")
    return base.astype(np.int8).reshape(-1), _Steps(few.astype(np.int32, copy=False), base.shape)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(one in (1, other) for one, other in pairs)


@final
class _Steps:
    """The step of each element and, for its context, the rank of the step: whole runs of a pattern that repeats."""

    def __init__(self, few: NDArray[np.int32], shape: tuple[int, ...]) -> None:
        self.count, self.number = math.prod(shape), MOST_BASE + 1
        self.block, self.most = _BLOCK, int(few.max(initial=1))
        self._steps: NDArray[np.int32] = few.reshape(-1)[:1]
        self._ranks: NDArray[np.uint8] = np.zeros(1, np.uint8)
        if few.size <= 1 or not self.count:
            return
        first, ranks = _ranked(few)
        self.number *= ranks
        lead = few.ndim
        while lead and few.shape[few.ndim - lead] == 1:
            lead -= 1
        inner = shape[len(shape) - lead :]
        runs = min(max(_BLOCK // max(math.prod(inner), 1), 1), math.prod(shape[: len(shape) - lead]))
        pattern = (runs, *inner)
        self.block = math.prod(pattern)
        self._steps = np.broadcast_to(few.reshape(few.shape[few.ndim - lead :]), pattern).reshape(-1)
        self._ranks = np.broadcast_to(first.reshape(few.shape[few.ndim - lead :]), pattern).reshape(-1)

    def parts(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Blocks of elements and the steps of each."""
        return self._parts(self._steps)

    def _parts(self, pattern: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
        for begin in range(0, self.count, self.block):
            for start in range(begin, min(begin + self.block, self.count), _BLOCK):
                end = min(start + _BLOCK, begin + self.block, self.count)
                yield slice(start, end), pattern if pattern.size == 1 else pattern[start - begin : end - begin]

    def contexts(self, base: NDArray[np.int8]) -> NDArray[np.uint8]:
        """The context of each element: |base| within the rank of the step."""
        out = np.abs(base).view(np.uint8)
        if self.number > MOST_BASE + 1:
            for part, ranks in self._parts(self._ranks):
                out[part] += ranks
        return out


def _ranked(few: NDArray[np.int32]) -> tuple[NDArray[np.uint8], int]:
    """The first context of each step, and how many ranks there are; in blocks, since there may be a step an element."""
    flat = few.reshape(-1)
    different = (
        np.unique(flat)
        if flat.size <= _BLOCK
        else np.unique(
            np.concatenate([np.unique(flat[begin : begin + _BLOCK]) for begin in range(0, flat.size, _BLOCK)])
        )
    )
    ranks = np.arange(different.size) * min(different.size, _MOST_STEPS) // different.size
    first = (ranks * (MOST_BASE + 1)).astype(np.uint8)
    out = np.empty(flat.size, dtype=np.uint8)
    for begin in range(0, flat.size, _BLOCK):
        out[begin : begin + _BLOCK] = first[np.searchsorted(different, flat[begin : begin + _BLOCK])]
    return out.reshape(few.shape), int(ranks[-1]) + 1


def _placing(contexts: NDArray[np.uint8]) -> streams.Placing:
    def place(assigned: NDArray[np.uint8]) -> NDArray[np.uint8]:
        table = np.resize(assigned, 256).tobytes()
        out = np.empty(contexts.size, dtype=np.uint8)
        for begin in range(0, contexts.size, _BLOCK):
            part = contexts[begin : begin + _BLOCK].tobytes().translate(table)
            out[begin : begin + _BLOCK] = np.frombuffer(part, dtype=np.uint8)
        return out

    return place


def _mirrored(codes: Array, base: NDArray[np.int8], steps: _Steps) -> NDArray[np.int32]:
    """Residuals, negated where the base is negative."""
    out = np.empty(base.size, dtype=np.int32)
    beyond = max(-int(codes.min()), int(codes.max())) + MOST_BASE * steps.most >= _INT32.max
    kind = np.int64 if beyond else np.int32
    for part, by in steps.parts():
        rest = np.multiply(base[part], by, dtype=kind)
        np.subtract(codes[part], rest, out=rest, casting="unsafe")
        if beyond and rest.size and not (-_INT32.max < int(rest.min()) and int(rest.max()) < _INT32.max):
            raise EncodingError(f"residuals: values within int32 expected, got {rest.min()} to {rest.max()}")
        sign = base[part] >> np.int8(7)
        rest ^= sign
        np.subtract(rest, sign, out=out[part], casting="unsafe")
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
    if int(codes.min()) < _INT32.min or int(codes.max()) > _INT32.max:
        raise EncodingError(f"residuals: codes within int32 expected, got {codes.min()} to {codes.max()}")
    if codes.dtype.kind == "u" and codes.dtype.itemsize >= 4:
        codes = codes.astype(np.int32)
    rest = _mirrored(codes.reshape(-1), flat, steps)
    low, high = int(rest.min()), int(rest.max())
    if low == high == 0:
        return bytes([_NONE])
    contexts, number = steps.contexts(flat), steps.number
    least = min(low, 0)
    alphabet = high - least + 1
    if alphabet > MAX_SYMBOLS >> 1 or alphabet * number > max(4 * flat.size, 1 << 16):
        return bytes([_CODES]) + encode_codes([(rest, None)])
    symbols: Array = np.subtract(rest, least, dtype=np.int32).astype(np.uint16 if alphabet > 256 else np.uint8)
    joint = np.zeros(number * alphabet, dtype=np.int64)
    for begin in range(0, symbols.size, _BLOCK):
        index = np.multiply(contexts[begin : begin + _BLOCK], alphabet, dtype=np.intp)
        index += symbols[begin : begin + _BLOCK]
        joint += counts_of(index, joint.size)
    stream = streams.encode(symbols, joint.reshape(number, alphabet), _placing(contexts))
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
        >>> base, step = np.array([1]), np.array([3])
        >>> decode_residuals(encode_residuals(np.array([5]), base, step), base, step)
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
        rest = streams.decode(reader.rest(), flat.size, steps.number, _placing(steps.contexts(flat)))
    elif mode == _CODES:
        rest = decode_codes(reader.rest(), [((flat.size,), False)])[0][0]
    elif mode != _NONE:
        raise CorruptFileError("coded residuals: an unknown header")
    reader.end()
    return _restored(flat, steps, rest, least).reshape(shape)


def _restored(base: NDArray[np.int8], steps: _Steps, rest: Array | None, least: int) -> NDArray[np.int32]:
    """Codes of bases and mirrored residuals, in blocks."""
    out = np.empty(base.size, dtype=np.int32)
    for part, by in steps.parts():
        codes = np.multiply(base[part], by, out=out[part])
        if rest is None:
            continue
        if rest.dtype == np.int32 and max(-int(rest[part].min()), int(rest[part].max())) > _INT32.max // 16:
            _check_range(codes, base[part], rest[part])
        fresh = np.subtract(rest[part], np.int32(least), dtype=np.int32)
        sign = base[part] >> np.int8(7)
        fresh ^= sign
        fresh -= sign
        codes += fresh
    return out


def _check_range(codes: NDArray[np.int32], base: NDArray[np.int8], rest: Array) -> None:
    whole = codes.astype(np.int64) + np.where(base < 0, -1, 1) * rest.astype(np.int64)
    if int(whole.min()) < _INT32.min or int(whole.max()) > _INT32.max:
        raise CorruptFileError("coded residuals: a code beyond int32")
