"""How the tensors of a stream of codes are laid out: what is said of each, and which contexts its elements stand in.

Used by `bitwidth.coder.codes` on both sides. Everything said of a tensor costs a byte or two: adaptive bits for what
most tensors of a stream have in common.

Example:
    >>> coder = Encoder()
    >>> layout = Layout((2, 3), masked=False)
    >>> write_side(coder, [layout])
    >>> read_side(Decoder(coder.finish()), [((2, 3), False)]) == [layout]
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder import classes
from bitwidth.coder.bitio import Reader, varint
from bitwidth.coder.rans import decode_symbols, encode_symbols
from bitwidth.coder.scalar import Bit, Decoder, Encoder
from bitwidth.coder.streams import Placing
from bitwidth.coder.tables import entropy_of
from bitwidth.coder.tokens import MANTISSAS
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

WITH_CLASSES = 1 << 9
"""Tensors of fewer elements have no classes."""

_PLAIN, _NEIGHBOUR, _STRIDE = range(3)  # what the class of a line is counted from
_INT32 = np.iinfo(np.int32)


@final
@dataclass
class Line:
    """The classes of the rows, or of the columns: how many, and uint8, that of each line; none if there is one class.

    `counted` says from what a class is counted, modulo their number: zero, the line before, or the line `stride`
    before.
    """

    number: int = 1
    counted: int = _PLAIN
    of_line: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False)


@final
@dataclass
class Layout:
    """What both ends know of one tensor. `live` is how many of its elements are coded as symbols."""

    shape: tuple[int, ...]
    masked: bool
    mantissa: int = MANTISSAS[0]
    origin: int = 0
    own_symbol: bool = False
    apart: bool = False
    rows: Line = field(default_factory=Line)
    columns: Line = field(default_factory=Line)
    live: int = -1

    def __post_init__(self) -> None:
        self.size = math.prod(self.shape)
        if self.live < 0:
            self.live = self.size

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the elements that are coded as symbols."""
        if len(self.shape) < 2 or self.apart or not self.size:
            return 1, self.live
        return self.size // self.shape[-1], self.shape[-1]

    @property
    def stride(self) -> int:
        """How many rows a position of a convolution has."""
        return self.shape[-2] if len(self.shape) > 2 else 1

    @property
    def contexts(self) -> int:
        """How many contexts it has."""
        return self.rows.number * self.columns.number


def contexts_of(layouts: Sequence[Layout]) -> int:
    """How many contexts several tensors have.

    Example:
        >>> contexts_of([Layout((2, 3), False), Layout((), True)])
        2
    """
    return sum(layout.contexts for layout in layouts)


def placing(layouts: Sequence[Layout]) -> Placing:
    """Makes the table of each element, tensor by tensor, of the table of each context.

    Example:
        >>> placing([Layout((2, 2), False), Layout((1,), False)])(np.array([0, 1], np.uint8)).tolist()
        [0, 0, 0, 0, 1]
    """

    def place(assigned: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = np.empty(sum(layout.live for layout in layouts), dtype=np.uint8)
        at = base = 0
        for layout in layouts:
            part = out[at : at + layout.live]
            tables = assigned[base : base + layout.contexts].reshape(layout.rows.number, layout.columns.number)
            at, base = at + layout.live, base + layout.contexts
            _fill(part, tables, layout)
        return out

    return place


def _fill(part: NDArray[np.uint8], tables: NDArray[np.uint8], layout: Layout) -> None:
    """The table of each element of one tensor."""
    if (tables == tables[0, 0]).all():
        part[:] = tables[0, 0]
        return
    matrix = part.reshape(layout.matrix)
    by_row = tables[layout.rows.of_line] if layout.rows.number > 1 else tables
    if layout.columns.number == 1:
        matrix[:] = by_row
    elif layout.rows.number == 1:
        matrix[:] = by_row[0][layout.columns.of_line]
    else:
        # A row of tables for each class of rows, then whole rows.
        tables[:, layout.columns.of_line].take(layout.rows.of_line, axis=0, out=matrix, mode="clip")


def counts_in(layouts: Sequence[Layout], parts: Sequence[Array], alphabet: int) -> NDArray[np.int64]:
    """How often each symbol stands in each context: int64 [context, symbol].

    Example:
        >>> counts_in([Layout((3,), False)], [np.array([0, 1, 1])], 2).tolist()
        [[1, 2]]
    """
    out = np.zeros((contexts_of(layouts), alphabet), dtype=np.int64)
    base = 0
    for layout, part in zip(layouts, parts, strict=True):
        matrix = part.reshape(layout.matrix)
        lines = [
            line.of_line if line.number > 1 else np.zeros(size, np.uint8)
            for line, size in zip((layout.rows, layout.columns), layout.matrix, strict=True)
        ]
        joint = classes.histogram_of(matrix, lines[0], lines[1], alphabet)
        out[base : base + layout.contexts] = joint.reshape(layout.contexts, alphabet)
        base += layout.contexts
    return out


@final
class _Models:
    """The adaptive probabilities of what is said of tensors."""

    def __init__(self) -> None:
        self.mantissa, self.origin, self.own, self.apart = (Bit() for _ in range(4))
        self.lines = [Bit(), Bit()]


def write_side(coder: Encoder, layouts: Sequence[Layout]) -> None:
    """Write what is said of each tensor, its classes excepted.

    Example:
        >>> write_side(coder := Encoder(), [Layout((9,), False)] * 40)
        >>> len(coder.finish())
        0
    """
    models, before = _Models(), MANTISSAS[0]
    for layout in layouts:
        if not layout.size:
            continue
        coder.bit(models.mantissa, int(layout.mantissa != before))
        if layout.mantissa != before:
            coder.bits(MANTISSAS.index(layout.mantissa), 3)
        before = layout.mantissa
        coder.bit(models.origin, int(layout.origin != 0))
        if layout.origin:
            coder.number(2 * layout.origin if layout.origin > 0 else -2 * layout.origin - 1)
        if layout.masked:
            coder.bit(models.apart, int(layout.apart))
            if not layout.apart:
                coder.bit(models.own, int(layout.own_symbol))
        if layout.size >= WITH_CLASSES and len(layout.shape) > 1 and not layout.apart:
            for model, line in zip(models.lines, (layout.rows, layout.columns), strict=True):
                coder.bit(model, int(line.number > 1))
                if line.number > 1:
                    coder.bits(line.number - 1, 4)
                    coder.bits(line.counted, 2)


def read_side(coder: Decoder, shapes: Sequence[tuple[tuple[int, ...], bool]]) -> list[Layout]:
    """Read what `write_side` wrote; the classes of lines are still missing.

    Raises:
        CorruptFileError: nothing that it writes.

    Example:
        >>> read_side(Decoder(b""), [((0, 3), False)])[0].live
        0
    """
    models, before, out = _Models(), MANTISSAS[0], []
    for shape, masked in shapes:
        layout = Layout(tuple(shape), masked)
        out.append(layout)
        if not layout.size:
            continue
        if coder.bit(models.mantissa):
            index = coder.bits(3)
            if index >= len(MANTISSAS):
                raise CorruptFileError("coded codes: unknown token widths")
            before = MANTISSAS[index]
        layout.mantissa = before
        if coder.bit(models.origin):
            code = coder.number(1 << 32)
            layout.origin = -(code + 1 >> 1) if code & 1 else code >> 1
        if masked:
            layout.apart = bool(coder.bit(models.apart))
            if not layout.apart:
                layout.own_symbol = bool(coder.bit(models.own))
        if layout.size >= WITH_CLASSES and len(shape) > 1 and not layout.apart:
            for index, line in enumerate((layout.rows, layout.columns)):
                if coder.bit(models.lines[index]):
                    _read_line(coder, line, layout.matrix[index])
    return out


def _read_line(coder: Decoder, line: Line, lines: int) -> None:
    line.number, line.counted = coder.bits(4) + 1, coder.bits(2)
    if not 1 < line.number <= min(lines, classes.MOST_CLASSES) or line.counted > _STRIDE:
        raise CorruptFileError("coded codes: classes of lines that nothing writes")


def _lines(layouts: Sequence[Layout]) -> list[tuple[Line, int, int]]:
    """Every line that has classes, with how many rows or columns it has, and its stride."""
    out = []
    for layout in layouts:
        pairs = zip((layout.rows, layout.columns), layout.matrix, (layout.stride, 1), strict=True)
        out += [(line, size, stride) for line, size, stride in pairs if line.number > 1]
    return out


def write_classes(layouts: Sequence[Layout]) -> bytes:
    """The classes of all rows and columns; empty where no tensor has any.

    Example:
        >>> write_classes([Layout((2, 3), False)])
        b''
    """
    parts, contexts = [], []
    for line, size, stride in _lines(layouts):
        parts.append(_counted(line.of_line, line.counted, stride, line.number))
        contexts.append(np.full(size, line.number, np.uint8))
    if not parts:
        return b""
    stream = encode_symbols(np.concatenate(parts), np.concatenate(contexts))
    return varint(len(stream)) + stream


def _counted(classes_: NDArray[np.uint8], counted: int, stride: int, number: int) -> NDArray[np.uint8]:
    """Classes as they are, or as differences from an earlier line."""
    if counted == _PLAIN:
        return classes_
    step = 1 if counted == _NEIGHBOUR else stride
    out = classes_.astype(np.int16)
    out[step:] -= classes_[:-step]
    return (out % number).astype(np.uint8)


def choose_counting(line: Line, stride: int) -> None:
    """Set from what the classes of a line are best counted.

    Example:
        >>> choose_counting(line := Line(4, 0, np.arange(8, dtype=np.uint8) // 2), 1)
        >>> line.counted
        1
    """
    choices = (_PLAIN, _NEIGHBOUR) if stride < 2 or stride >= line.of_line.size else (_PLAIN, _NEIGHBOUR, _STRIDE)
    prices = [entropy_of(np.bincount(_counted(line.of_line, kind, stride, line.number))) for kind in choices]
    line.counted = choices[int(np.argmin(prices))]


def read_classes(reader: Reader, layouts: Sequence[Layout]) -> None:
    """Read what `write_classes` wrote into the layouts.

    Raises:
        CorruptFileError: not the classes of these lines.

    Example:
        >>> read_classes(Reader(b""), [Layout((2, 3), False)])
    """
    lines = _lines(layouts)
    if not lines:
        return
    contexts = np.concatenate([np.full(size, line.number, np.uint8) for line, size, _ in lines])
    symbols = decode_symbols(reader.take(reader.varint()), contexts.size, contexts)
    if (symbols >= contexts).any():
        raise CorruptFileError("coded codes: a line of a class that does not exist")
    at = 0
    for line, size, stride in lines:
        part = symbols[at : at + size].astype(np.int64)
        at += size
        if line.counted != _PLAIN:
            step = 1 if line.counted == _NEIGHBOUR else stride
            padded = np.concatenate([part, np.zeros(-size % step, np.int64)]).reshape(-1, step)
            part = (padded.cumsum(axis=0) % line.number).reshape(-1)[:size]
        line.of_line = part.astype(np.uint8)
