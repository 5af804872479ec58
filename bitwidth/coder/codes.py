"""The integer codes of several tensors in one stream, with their masks, in contexts of tensors, rows and columns.

Each tensor is a context of its own, or several: classes of its rows and columns (`bitwidth.coder.classes`), which are
sent where that pays. Contexts with much the same symbols share a table, within a tensor and between tensors, so that
many small tensors cost few tables. A code is a token (`bitwidth.coder.tokens`): itself where it is small, an exponent
and raw bits where it is large. A pruned element is a symbol of its own, or that of zero where no kept code is zero; of
very sparse tensors, the mask is coded by itself (`bitwidth.coder.masks`) where that is smaller.

    side:    its length; a scalar rANS number: of each tensor its token widths, origin, kind of mask, numbers of classes
    masks:   of each tensor whose mask is coded by itself, its length and the stream
    classes: their length and the symbols of all lines of all tensors (differences between neighbours), if any
    symbols: their length and the stream (`bitwidth.coder.streams`)
    raw:     the bits below large tokens, tensor by tensor, by width

Example:
    >>> codes, mask = np.array([[0, 3], [-2, 0]]), np.array([[True, True], [True, False]])
    >>> back = decode_codes(encode_codes([(codes, mask), (codes, None)]), [((2, 2), True), ((2, 2), False)])
    >>> back[0][0].tolist(), back[0][1].tolist(), back[1][1] is None
    ([[0, 3], [-2, 0]], [[True, True], [True, False]], True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import streams
from bitwidth.coder.bitio import Reader, counts_of, pack_raw, unpack_raw, varint
from bitwidth.coder.layout import (
    Layout,
    contexts_of,
    counts_in,
    placing,
    read_classes,
    read_side,
    write_classes,
    write_side,
)
from bitwidth.coder.masks import decode_mask
from bitwidth.coder.plans import plan_tensor
from bitwidth.coder.scalar import Decoder, Encoder
from bitwidth.coder.tables import MAX_SYMBOLS
from bitwidth.errors import CorruptFileError, EncodingError
from bitwidth.typing import Array

_INT32 = np.iinfo(np.int32)
_BLOCK = 1 << 18

Tensor = tuple[Array, NDArray[np.bool_] | None]
"""Codes and, where some are pruned, the mask of those that are kept."""


def encode_codes(tensors: Sequence[Tensor]) -> bytes:
    """Code the integers of one or more tensors, and their masks.

    Args:
        tensors: (codes, mask) of each: codes are integers of any shape within int32, the mask a bool array of that
            shape or None. Codes where the mask is False do not matter.

    Returns:
        A self-contained stream; empty for no elements.

    Raises:
        EncodingError: codes that are not integers within int32, or a mask of another type or shape.

    Example:
        >>> len(encode_codes([(np.full((100, 100), -7), None)])) < 12
        True
    """
    plans = [plan_tensor(*_checked(codes, mask)) for codes, mask in tensors]
    if not any(plan.layout.size for plan in plans):
        return b""
    layouts = [plan.layout for plan in plans]
    pruned = int(any(layout.own_symbol for layout in layouts))
    below = max((plan.below for plan in plans), default=0)
    side = Encoder()
    write_side(side, layouts)
    side.number(below)
    head = side.finish()
    masks = b"".join(varint(len(plan.mask)) + plan.mask for plan in plans if plan.layout.apart)
    parts = [plan.symbols(below + pruned) for plan in plans if plan.layout.live]
    body = b""
    if parts:
        live = [layout for layout in layouts if layout.live]
        flat = np.concatenate(parts) if len(parts) > 1 else parts[0]
        counts = counts_in(live, parts, int(flat.max()) + 1)
        body = streams.encode(flat, counts, placing(live))
    lines = write_classes(layouts)
    raw = b"".join(pack_raw(plan.extras) for plan in plans if plan.extras)
    return varint(len(head)) + head + masks + lines + varint(len(body)) + body + raw


def _checked(codes: Array, mask: NDArray[np.bool_] | None) -> Tensor:
    """Codes as integers within int32, and a mask that leaves something out or None."""
    codes = np.asarray(codes)
    if codes.dtype.kind not in "biu":
        raise EncodingError(f"codes: integers expected, got {codes.dtype}")
    if codes.dtype == np.bool_:
        codes = codes.view(np.uint8)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != codes.shape:
            raise EncodingError(f"mask: bools of shape {codes.shape} expected, got {mask.dtype} of {mask.shape}")
    kept = codes if mask is None else codes[mask]
    if kept.size and codes.dtype.itemsize >= 4:
        low, high = int(kept.min()), int(kept.max())
        if low < _INT32.min or high > _INT32.max:
            raise EncodingError(f"codes: values within int32 expected, got {low} to {high}")
    return codes, mask


def decode_codes(
    data: bytes, shapes: Sequence[tuple[tuple[int, ...], bool]]
) -> list[tuple[NDArray[np.int32], NDArray[np.bool_] | None]]:
    """Decode what `encode_codes` wrote.

    Args:
        data: the whole stream; untrusted.
        shapes: the shape of each tensor and whether it has a mask.

    Returns:
        Of each tensor its codes, int32, 0 where pruned, and its mask or None.

    Raises:
        CorruptFileError: `data` is not a stream of these tensors.

    Example:
        >>> decode_codes(encode_codes([(np.array([5, 5, 6]), None)]), [((3,), False)])[0][0]
        array([5, 5, 6], dtype=int32)
    """
    reader = Reader(data)
    if not any(math.prod(shape) for shape, _ in shapes):
        reader.end()
        return [(np.zeros(shape, np.int32), np.zeros(shape, np.bool_) if has else None) for shape, has in shapes]
    layouts, below, masks, _ = _read_layouts(reader, shapes)
    pruned = int(any(layout.own_symbol for layout in layouts))
    live = [layout for layout in layouts if layout.live]
    body = reader.take(reader.varint())
    symbols: Array = np.zeros(0, dtype=np.uint8)
    if live:
        count = sum(layout.live for layout in live)
        symbols = streams.decode(body, count, contexts_of(live), placing(live))
    elif body:
        raise CorruptFileError("coded codes: symbols of no elements")
    return _place_codes(reader, layouts, masks, symbols, below + pruned)


def _read_layouts(
    reader: Reader, shapes: Sequence[tuple[tuple[int, ...], bool]]
) -> tuple[list[Layout], int, list[NDArray[np.bool_] | None], int]:
    """Everything before the symbols: layouts, the token of zero, masks coded by themselves, and how long those are."""
    side = Decoder(reader.take(reader.varint()))
    layouts = read_side(side, shapes)
    below = side.number(MAX_SYMBOLS)
    side.end()
    masks: list[NDArray[np.bool_] | None] = []
    length = 0
    for layout in layouts:
        mask = None
        if layout.apart:
            stream = reader.take(reader.varint())
            length += len(stream)
            mask = decode_mask(stream, layout.shape).reshape(-1)
            layout.live = int(np.count_nonzero(mask))
        masks.append(mask)
    read_classes(reader, layouts)
    return layouts, below, masks, length


def table_bytes(data: bytes, shapes: Sequence[tuple[tuple[int, ...], bool]]) -> int:
    """How many bytes of a stream are tables, classes and what is said of its tensors, rather than codes and masks.

    Where the tables of a small stream are one number with the symbols, their share of it is counted, rounded to bytes.

    Args:
        data: what `encode_codes` returned; untrusted.
        shapes: as given to `decode_codes`.

    Raises:
        CorruptFileError: `data` is not a stream of these tensors.

    Example:
        >>> table_bytes(encode_codes([(np.arange(600) % 7, None)]), [((600,), False)])
        7
    """
    reader = Reader(data)
    if not any(math.prod(shape) for shape, _ in shapes):
        reader.end()
        return 0
    layouts, _, _, length = _read_layouts(reader, shapes)
    size = reader.varint()
    before = reader.at - length
    body = reader.take(size)
    live = [layout for layout in layouts if layout.live]
    return before + streams.table_bytes(body, contexts_of(live)) if live else before


def _place_codes(
    reader: Reader, layouts: Sequence[Layout], masks: Sequence[NDArray[np.bool_] | None], symbols: Array, zero: int
) -> list[tuple[NDArray[np.int32], NDArray[np.bool_] | None]]:
    """Symbols to codes, tensor by tensor; then the raw bits below them."""
    out: list[tuple[NDArray[np.int32], NDArray[np.bool_] | None]] = []
    at = 0
    for layout, mask in zip(layouts, masks, strict=True):
        part = symbols[at : at + layout.live]
        at += layout.live
        codes = np.subtract(part, np.int32(zero), dtype=np.int32)
        kept = mask
        if layout.masked and mask is None:
            kept = part != (0 if layout.own_symbol else zero)
            np.multiply(codes, kept, out=codes)
        if codes.size and max(-int(codes.min()), int(codes.max())) >= 2 << layout.mantissa:
            _widened(reader, codes, layout.mantissa)
        if layout.origin:
            _move(codes, layout.origin)
            if kept is not None and mask is None:
                np.multiply(codes, kept, out=codes)
        if mask is not None:
            full = np.zeros(layout.size, dtype=np.int32)
            full[mask] = codes
            codes = full
        out.append((codes.reshape(layout.shape), kept.reshape(layout.shape) if kept is not None else None))
    reader.end()
    return out


def _widened(reader: Reader, codes: NDArray[np.int32], mantissa: int) -> None:
    """Make codes, in place, of signed tokens and the raw bits below them."""
    negative = codes < 0
    np.abs(codes, out=codes)
    magnitude, shifts = codes.view(np.uint32), np.empty(codes.size, dtype=np.uint8)
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, codes.size, _BLOCK)]
    for block in blocks:
        by = np.maximum((codes[block] >> mantissa) - 1, 0)
        if int(by.max()) + mantissa > 31:
            raise CorruptFileError("coded codes: a token beyond int32")
        codes[block] -= by << mantissa
        magnitude[block] <<= by.view(np.uint32)
        shifts[block] = by
    groups = [(size, width) for width, size in enumerate(counts_of(shifts).tolist()) if width and size]
    extras = unpack_raw(reader, groups)
    used = [0] * len(groups)
    for block in blocks:
        for index, (_, width) in enumerate(groups):
            places = np.flatnonzero(shifts[block] == width)
            magnitude[block][places] |= extras[index][used[index] : used[index] + places.size]
            used[index] += places.size
    if int(magnitude.max()) >= 1 << 31 and ((magnitude > 1 << 31) | ((magnitude == 1 << 31) & ~negative)).any():
        raise CorruptFileError("coded codes: a token beyond int32")
    np.negative(codes, out=codes, where=negative)


def _move(codes: NDArray[np.int32], origin: int) -> None:
    """Count codes, in place, from an origin."""
    low, high = int(codes.min(initial=0)) + origin, int(codes.max(initial=0)) + origin
    if low < _INT32.min or high > _INT32.max:
        raise CorruptFileError("coded codes: a code beyond int32")
    codes += np.int32(origin)
