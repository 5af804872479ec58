"""What the writer of a stream of codes chooses for one tensor: tokens, the kind of mask, classes of rows and columns.

Example:
    >>> plan = plan_tensor(np.array([[1, -2], [0, 1]]), None)
    >>> plan.below, plan.symbols(2).tolist(), plan.layout.contexts
    (2, [3, 0, 2, 3], 1)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import classes
from bitwidth.coder.bitio import counts_of
from bitwidth.coder.layout import WITH_CLASSES, Layout, choose_counting
from bitwidth.coder.masks import encode_mask
from bitwidth.coder.runs import find_runs
from bitwidth.coder.tables import entropy_of
from bitwidth.coder.tokens import MANTISSAS, choose_mantissa, tokens_of
from bitwidth.typing import Array

_SPARSE = 0.12  # below this density a mask may be smaller by itself; one in runs may be at any
_LOOKED_UP = 1 << 16  # codes that are looked up in a table
_APART_BITS = 40.0  # what a mask of its own costs besides, roughly


@final
@dataclass
class Plan:
    """A tensor as symbols: `local` counts from the tensor's own least token; pruned ones are 0 if they have a symbol.

    Attributes:
        layout: what both ends know.
        local: uint8 or uint16 [live]: token + below, one more where pruned elements have a symbol of their own.
        below: minus the least token; 0 or more.
        extras: (values, width) of the raw bits.
        mask: the stream of the mask, if it is coded by itself.
    """

    layout: Layout
    local: Array
    below: int
    extras: list[tuple[NDArray[np.uint32], int]] = field(default_factory=list)
    mask: bytes = b""

    def symbols(self, zero: int) -> Array:
        """The symbols of a stream in which token 0 is symbol `zero`."""
        own = int(self.layout.own_symbol)
        shift = zero - self.below - own
        top = int(self.local.max()) + shift
        out: Array = self.local
        if top > 255 and out.dtype == np.uint8:
            out = out.astype(np.uint16)
        if shift and own:
            out = out.copy()
            np.add(out, shift, out=out, where=out != 0)
        elif shift:
            out = np.add(out, shift, dtype=out.dtype)
        return out


def plan_tensor(codes: Array, mask: NDArray[np.bool_] | None) -> Plan:
    """Choose how to code one tensor.

    Args:
        codes: integers within int32, of any shape.
        mask: bool of that shape, or None.

    Returns:
        The plan, whose symbols are to be coded with those of other tensors.

    Example:
        >>> plan_tensor(np.zeros((0, 3), np.int8), None).layout.live
        0
    """
    layout = Layout(codes.shape, mask is not None)
    kept = codes.reshape(-1) if mask is None else codes[mask]
    if not layout.size:
        return Plan(layout, np.zeros(0, np.uint8), 0)
    tokens, extras = _tokenise(kept, layout)
    zeros = mask is not None and bool((tokens == 0).any())
    layout.own_symbol = zeros
    below = max(-int(tokens.min(initial=0)), 0)
    kind = np.uint8 if below + int(tokens.max(initial=0)) < 255 else np.uint16
    local = np.add(tokens, below + int(zeros), dtype=np.int32 if kind == np.uint16 else np.int16).astype(kind)
    if mask is None:
        plan = Plan(layout, local, below, extras)
        _add_classes(plan)
        return plan
    full = np.full(layout.size, 0 if zeros else below, dtype=kind)
    full[mask.reshape(-1)] = local
    plan = Plan(layout, full, below, extras)
    if kept.size < _SPARSE * layout.size or (len(codes.shape) > 1 and find_runs(mask.reshape(layout.matrix))):
        stream = encode_mask(mask)
        symbols = counts_of(local)
        rival = entropy_of(symbols) + 4.0 * np.count_nonzero(symbols) + 8 * len(stream) + _APART_BITS
        if not _add_classes(plan, rival):
            apart = Layout(codes.shape, True, layout.mantissa, layout.origin, apart=True, live=kept.size)
            return Plan(apart, np.subtract(local, int(zeros), dtype=kind), below, extras, stream)
        return plan
    _add_classes(plan)
    return plan


def _tokenise(kept: Array, layout: Layout) -> tuple[Array, list[tuple[NDArray[np.uint32], int]]]:
    """The signed tokens of kept codes, and the raw bits below them; sets the layout's origin and token widths."""
    low, high = int(kept.min(initial=0)), int(kept.max(initial=0))
    if max(-low, high) < 2 << MANTISSAS[0]:
        return kept.astype(np.int16), []
    low, high = int(kept.min()), int(kept.max())
    layout.origin = 0 if low <= 0 <= high else low if low > 0 else high
    if high - low < min(_LOOKED_UP, kept.size):
        return _looked_up(kept, low, high, layout)
    away = kept.astype(np.int64) - layout.origin
    negative = away < 0
    magnitude = np.abs(away).astype(np.uint64)
    layout.mantissa = choose_mantissa(magnitude, negative)[0]
    tokens, shifts = tokens_of(magnitude, layout.mantissa)
    extras = magnitude & ((np.uint64(1) << shifts) - np.uint64(1))
    widths = [int(width) for width in np.unique(shifts) if width]
    groups = [(extras[shifts == width].astype(np.uint32), width) for width in widths]
    return np.where(negative, -tokens, tokens).astype(np.int16), groups


def _looked_up(kept: Array, low: int, high: int, layout: Layout) -> tuple[Array, list[tuple[NDArray[np.uint32], int]]]:
    """What `_tokenise` finds, by a table of all codes from the least to the greatest."""
    away = np.arange(low, high + 1) - layout.origin
    negative, magnitude = away < 0, np.abs(away).astype(np.uint64)
    index = np.subtract(kept, low, dtype=np.int32 if kept.dtype.itemsize <= 4 else np.int64, casting="unsafe")
    layout.mantissa = choose_mantissa(magnitude, negative, counts_of(index, away.size))[0]
    tokens, shifts = tokens_of(magnitude, layout.mantissa)
    extras = (magnitude & ((np.uint64(1) << shifts) - np.uint64(1))).astype(np.uint32)
    each = shifts.astype(np.uint8).take(index)
    widths = [width for width, count in enumerate(counts_of(each).tolist()) if width and count]
    groups = [(extras.take(index[each == width]), width) for width in widths]
    return np.where(negative, -tokens, tokens).astype(np.int16).take(index), groups


def _add_classes(plan: Plan, rival: float | None = None) -> bool:
    """Give a plan classes of rows and columns where they pay; false, where a rival of so many bits costs less."""
    layout = plan.layout
    if layout.size < WITH_CLASSES or len(layout.shape) < 2 or min(layout.matrix) < 2:
        return rival is None or rival >= entropy_of(counts_of(plan.local))
    symbols = plan.local.reshape(layout.matrix)
    zero = plan.below + int(layout.own_symbol)
    magnitudes = np.abs(np.subtract(symbols, zero, dtype=np.int16)) if zero else symbols
    if layout.own_symbol:
        magnitudes = np.where(symbols == 0, 0, magnitudes)
    found = classes.choose(symbols, magnitudes)
    if rival is not None and rival < found.bits:
        return False
    for line, of_line, stride in ((layout.rows, found.rows, layout.stride), (layout.columns, found.columns, 1)):
        line.number = int(of_line.max()) + 1
        if line.number > 1:
            line.of_line = of_line
            choose_counting(line, stride)
    return True
