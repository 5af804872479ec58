"""A reader of .bw files of version 3, written from docs/file-format.md: numpy only, nothing of the library.

`read(path)` returns the arrays of a whole file by the path of their parameter. It checks what it needs to go on.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Place = Callable[[Array], Array]
Entry = tuple[str, list[int], Any, list[Any]]  # path, shape, encoding, streams
DICTIONARY = Path(__file__).parents[2] / "bitwidth" / "artifact" / "version3" / "dictionary.txt"


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int | None = None) -> bytes:
        begin, self.at = self.at, len(self.data) if count is None else self.at + count
        assert begin <= self.at <= len(self.data)
        return self.data[begin : self.at]

    def varint(self) -> int:
        byte = self.take(1)[0]
        return byte if byte < 128 else byte - 128 | self.varint() << 7

    def part(self) -> bytes:
        return self.take(self.varint())


class Bit:
    def __init__(self) -> None:
        self.zero, self.seen = 1 << 14, 0

    def learn(self, value: int) -> None:
        zero = self.zero + ((0 if value else 1 << 15) - self.zero) // (self.seen + 2)
        self.zero, self.seen = min(max(zero, 64), (1 << 15) - 64), min(self.seen + 1, 30)


class Number:
    def __init__(self, data: bytes) -> None:
        head = len(data) if len(data) <= 6 else 6 - len(data) % 2
        self.state = int.from_bytes(data[:head], "little")
        self.words = [int.from_bytes(data[at : at + 2], "little") for at in range(len(data) - 2, head - 1, -2)]

    def advance(self, start: int, freq: int) -> None:
        self.state = freq * (self.state >> 15) + (self.state & 0x7FFF) - start
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 16 | self.words.pop()

    def bit(self, model: Bit) -> int:
        value = int((self.state & 0x7FFF) >= model.zero)
        self.advance(*((model.zero, (1 << 15) - model.zero) if value else (0, model.zero)))
        model.learn(value)
        return value

    def bits(self, width: int) -> int:
        value = 0
        while width > 0:
            step = min(width, 12)
            width -= step
            part = (self.state & 0x7FFF) >> 15 - step
            self.advance(part << 15 - step, 1 << 15 - step)
            value = value << step | part
        return value

    def number(self) -> int:
        width = next(width for width in range(99) if not self.bits(1))
        return (1 << width | self.bits(width)) - 1


class Tables:
    def __init__(self, number: Number, precision: int) -> None:
        self.number, self.precision, self.kinds = number, precision, [Bit(), Bit()]
        self.same = [[Bit(), Bit()] for _ in range(22)]
        self.up, self.far = [Bit() for _ in range(22)], [Bit() for _ in range(22)]

    def read(self) -> Array:
        if self.number.bit(self.kinds[0]):
            return np.array([0] * self.number.number() + [1 << self.precision], np.int64)
        return normalised(self.shape() if self.number.bit(self.kinds[1]) else self.explicit(), self.precision)

    def explicit(self) -> Array:
        number = self.number
        weights, size = [0] * number.number(), number.number() + 1
        kept = (1, 2, 3, 4, 6, 8, 12, 16)[number.bits(3)]
        before = earlier = 1
        for _ in range(size):
            length = self.length(before, earlier)
            low = max(length - kept, 0)
            lead = 1 << length - 1 - low if length else 0
            weights.append(lead + number.bits(max(length - 1 - low, 0)) << low)
            before, earlier = length, before
        return np.array(weights, np.int64)

    def length(self, before: int, earlier: int) -> int:
        if not self.number.bit(self.same[before][int(before == earlier)]):
            return before
        up = before == 0 or (before < 21 and self.number.bit(self.up[before]) == 1)
        most, steps = (21 - before if up else before), 1
        while steps < most and self.number.bit(self.far[before]):
            steps += 1
        return before + steps if up else before - steps

    def shape(self) -> Array:
        number = self.number
        first, size, power, scale = number.number(), number.number() + 1, number.bits(3), number.bits(8)
        grain = 1 << max(scale // 16 - 1, 0)
        centre = number.bits(((size - 1) * 16 // grain).bit_length())
        spikes = [(number.bits((size - 1).bit_length()), number.bits(6)) for _ in range(number.bits(2))]
        curve = curve_of(size, power, scale, centre * grain)
        if spikes:
            curve[[index for index, _ in spikes]] = 0
            total = int(curve.sum())
            for index, code in spikes:
                curve[index] = max(total * ((4 + code % 4) << code // 4 >> 2) >> 8, 1)
            curve = np.maximum(curve >> max(int(curve.max()).bit_length() - 40, 0), 1)
        return np.concatenate([np.zeros(first, np.int64), curve])


def normalised(weights: Array, precision: int) -> Array:
    freqs, left, slots = (weights > 0).astype(np.int64), np.flatnonzero(weights), 1 << precision
    while True:
        share = weights[left]
        small = share * slots < int(share.sum())
        if not small.any():
            break
        slots, left = slots - int(small.sum()), left[~small]
    total = int(share.sum())
    whole = share * slots // total
    order = np.argsort(-(share * slots - whole * total), kind="stable")
    whole[order[: slots - int(whole.sum())]] += 1
    freqs[left] = whole
    return freqs


def halving(index: int) -> int:
    value, root = 1 << 60, math.isqrt(1 << 119)
    for place in range(9, -1, -1):
        value = value * root >> 60 if index >> place & 1 else value
        root = math.isqrt(root << 60)
    return value >> 30


HALVINGS = np.array([halving(index) for index in range(1024)], np.int64)


def curve_of(size: int, power: int, scale: int, centre: int) -> Array:
    distance = np.abs(np.arange(size, dtype=np.int64) * 16 - centre)
    ratio = distance * int(HALVINGS[scale % 16 * 64]) >> 30 + 4 + scale // 16 - 1 - 10
    ratio = np.minimum(ratio, 1 << (20 if power < 2 else 15))
    half = np.sqrt((ratio << 10).astype(np.float64)).astype(np.int64)
    quarter, square = np.sqrt((half << 10).astype(np.float64)).astype(np.int64), ratio * ratio >> 10
    raised = [half, half * quarter >> 10, ratio, ratio * quarter >> 10, ratio * half >> 10, square]
    exponents = np.clip([*raised, square * ratio >> 10, square * square >> 10][power], 0, 30 << 10)
    return np.asarray(np.maximum(HALVINGS[exponents & 1023] >> (exponents >> 10), 1))


def table_map(number: Number, contexts: int) -> Array:
    several, fresh, same = Bit(), Bit(), Bit()
    out, made, table = np.zeros(contexts, np.int64), 1, 0
    if contexts > 1 and number.bit(several):
        for index in range(1, contexts):
            if number.bit(same):
                table = number.bits((made - 1).bit_length()) if number.bit(fresh) else made
                made = max(made, table + 1)
            out[index] = table
    return out


def symbols(data: bytes, count: int, contexts: int = 1, place: Place | None = None) -> Array:
    """`place` makes the table of each position of the table of each context."""
    reader = Bytes(data)
    first, precision, log_lanes, rows = reader.take(1)[0], 15, 0, 0
    if first:
        precision, log_lanes, rows, _ = 12 + (first >> 4), reader.take(1)[0], reader.varint(), reader.varint()
    number = Number(reader.part() if first else reader.take())
    assigned = table_map(number, contexts)
    tables = Tables(number, precision)
    freqs = [tables.read() for _ in range(int(assigned.max()) + 1)]
    which = place(assigned) if place is not None else np.zeros(count, np.int64)
    out = np.array([int(row.argmax()) for row in freqs])[which]
    coded = np.array([row.max() < 1 << precision for row in freqs])[which]
    if coded.any() and first:
        out[coded] = lanes(reader.take(), which[coded], freqs, precision, log_lanes, rows)
    elif coded.any():
        out[coded] = one_by_one(number, which[coded], freqs)
    return out


def one_by_one(number: Number, which: Array, freqs: Sequence[Array]) -> list[int]:
    used = [np.flatnonzero(row).tolist() for row in freqs]
    starts = [(np.cumsum(row) - row)[names].tolist() for row, names in zip(freqs, used, strict=True)]
    out = []
    for table in which.tolist():
        place = bisect_right(starts[table], number.state & 0x7FFF) - 1
        out.append(used[table][place])
        number.advance(starts[table][place], int(freqs[table][out[-1]]))
    return out


class Lanes:
    def __init__(self, data: bytes) -> None:
        self.states, self.at = np.frombuffer(data, "<u4", 1).astype(np.uint64), 0
        self.words = np.frombuffer(data, "<u2", offset=4).astype(np.uint64)

    def taken(self, count: int) -> Array:
        self.at += count
        return self.words[self.at - count : self.at]

    def refill(self, states: Array) -> None:
        low = np.flatnonzero(states < 1 << 16)
        states[low] = states[low] << np.uint64(16) | self.taken(low.size)

    def push(self, values: Array) -> None:
        self.at -= values.size
        self.words[self.at : self.at + values.size] = values & np.uint64(0xFFFF)

    def split(self) -> None:
        size, old = self.states & np.uint64(15), self.states >> np.uint64(4)
        self.refill(old)
        lead = np.uint64(1) << size
        high, old = (old & (lead - np.uint64(1))) | lead, old >> size
        self.refill(old)
        self.states = np.concatenate([old, high << np.uint64(16) | self.taken(old.size)])

    def merge(self) -> None:
        old, new = np.split(self.states.copy(), 2)
        high = new >> np.uint64(16)
        size = np.array([int(value).bit_length() - 1 for value in high], np.uint64)
        self.push(new)
        for value, width in ((high ^ (np.uint64(1) << size), size), (size, np.full(size.shape, 4, np.uint64))):
            over = np.flatnonzero(old >> (np.uint64(32) - width))
            moved = old[over]
            self.push(moved)
            old[over] = moved >> np.uint64(16)
            old = (old << width) | value
        self.states = old


def lanes(data: bytes, which: Array, freqs: Sequence[Array], precision: int, log_lanes: int, rows: int) -> Array:
    held, base, out = Lanes(data), which << precision, np.zeros(which.size, np.int64)
    names = np.concatenate([np.repeat(np.arange(row.size), row) for row in freqs])
    starts = np.concatenate([np.repeat(np.cumsum(row) - row, row) for row in freqs])
    sizes = np.concatenate([np.repeat(row, row) for row in freqs])
    for _ in range(log_lanes):
        held.split()
    begin, end = 0, which.size - rows * ((1 << log_lanes) - 1)
    while True:
        for at in range(begin, end, held.states.size):
            row = slice(at, min(at + held.states.size, end))
            states = held.states[: row.stop - at]
            index = base[row] + (states & np.uint64((1 << precision) - 1)).astype(np.int64)
            offset = (index - base[row] - starts[index]).astype(np.uint64)
            states = sizes[index].astype(np.uint64) * (states >> np.uint64(precision)) + offset
            held.refill(states)
            held.states[: states.size], out[row] = states, names[index]
        if held.states.size == 1:
            return out
        held.merge()
        begin, end = end, end + rows * held.states.size


def in_contexts(data: bytes, context: Array) -> Array:
    present, ranks = np.unique(context.reshape(-1), return_inverse=True)
    return symbols(data, context.size, present.size, lambda tables: tables[ranks])


def raw(reader: Bytes, groups: Sequence[tuple[int, int]], in_planes: bool = True) -> list[Array]:
    whole = [np.frombuffer(reader.take(count * (width >> 3)), np.uint8) for count, width in groups]
    total = sum(count * (width & 7) for count, width in groups)
    bits = np.unpackbits(np.frombuffer(reader.take(total + 7 >> 3), np.uint8)).astype(np.int64)
    out, at = [], 0
    for (count, width), octets in zip(groups, whole, strict=True):
        size, odd = width >> 3, width & 7
        low = octets.reshape(size, count).T if in_planes else octets.reshape(count, size)
        high = bits[at : at + count * odd]
        high, at = high.reshape(odd, count).T if in_planes else high.reshape(count, odd)[:, ::-1], at + count * odd
        value = low.astype(np.int64) @ (1 << 8 * np.arange(size)) + high @ (1 << 8 * size + np.arange(odd))
        out.append(value.astype(np.int64))
    return out


def widened(reader: Bytes, tokens: Array, mantissa: int, in_planes: bool = True) -> Array:
    shifts = np.maximum((np.abs(tokens) >> mantissa) - 1, 0)
    away = (np.abs(tokens) - (shifts << mantissa)) << shifts
    widths, sizes = np.unique(shifts[shifts > 0], return_counts=True)
    groups = [(int(size), int(width)) for width, size in zip(widths, sizes, strict=True)]
    for (_, width), extras in zip(groups, raw(reader, groups, in_planes) if groups else [], strict=True):
        away[shifts == width] |= extras
    return np.asarray(np.where(tokens < 0, -away, away))


def integers(data: bytes, count: int) -> Array:
    reader = Bytes(data)
    first, code = reader.take(1)[0], reader.varint()
    origin = code >> 1 ^ -(code & 1)
    if first & 3 < 2:
        width = reader.take(1)[0] if first & 3 else 0
        return raw(reader, [(count, width)], in_planes=False)[0] + origin
    if first & 3 == 2:
        return symbols(reader.take(), count) + origin
    below = reader.varint()
    return widened(reader, symbols(reader.part(), count) - below, first >> 2, in_planes=False) + origin


def mask_of(data: bytes, shape: Sequence[int]) -> Array:
    count, reader = math.prod(shape), Bytes(data)
    mode, option = divmod(reader.take(1)[0], 8)[::-1] if count else (0, 0)
    flat: Array = np.full(count, mode == 1)
    if mode in (2, 3):
        flat = np.unpackbits(np.frombuffer(data[1:], np.uint8))[:count] if mode == 2 else symbols(data[1:], count)
    elif mode == 4:
        flat, size = np.full(count, 1 - option), reader.varint()
        flat[np.cumsum(integers(reader.take(), size) + 1) - 1] = option
    elif mode == 5:
        lengths = count // shape[-1], shape[-1]
        of = [integers(reader.part(), n) if option >> axis & 1 else np.zeros(n, int) for axis, n in enumerate(lengths)]
        flat = in_contexts(reader.take(), of[0][:, None] * (int(of[1].max()) + 1) + of[1][None])
    elif mode == 6:
        runs = symbols(data[2:], count // data[1])[:, None] >> np.arange(data[1]) & 1
        flat = runs if option else runs.reshape(shape[-1], -1).T
    return flat.astype(bool).reshape(shape)


def array_of(data: bytes, dtype: str, shape: Sequence[int]) -> Array:
    word = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
    count, reader = math.prod(shape), Bytes(data)
    if not count or not reader.take(1)[0]:
        return np.frombuffer(reader.take(), word).reshape(shape)
    modes = int.from_bytes(reader.take((word.itemsize + 3) // 4), "little")
    octets, above = np.zeros((count, word.itemsize), np.uint8), np.zeros(0, np.uint8)
    for place in range(word.itemsize - 1, -1, -1):
        if not (mode := modes >> 2 * place & 3):
            above = np.frombuffer(reader.take(count), np.uint8)
        else:
            above = symbols(reader.part(), count) if mode == 1 else in_contexts(reader.part(), above)
        octets[:, place] = above
    return octets.reshape(-1).view(word).reshape(shape)


class Tensor:
    def __init__(self, shape: Sequence[int], masked: bool) -> None:
        self.shape, self.masked, self.size = tuple(shape), masked, math.prod(shape)
        self.mantissa, self.origin, self.apart, self.own, self.live = 6, 0, False, False, self.size
        self.classes, self.lines = [(1, 0), (1, 0)], [np.zeros(0, int), np.zeros(0, int)]
        self.mask: Array | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        alone = len(self.shape) < 2 or self.apart or not self.size
        return (1, self.live) if alone else (self.size // self.shape[-1], self.shape[-1])

    def tables(self, assigned: Array) -> Array:
        grid, lengths = assigned.reshape(self.classes[0][0], self.classes[1][0]), self.matrix
        rows, columns = (self.lines[axis] if self.lines[axis].size else np.zeros(lengths[axis], int) for axis in (0, 1))
        return grid[rows][:, columns].reshape(-1)


def describe(number: Number, tensors: Sequence[Tensor]) -> None:
    mantissa, origin, own, apart, lines, before = Bit(), Bit(), Bit(), Bit(), [Bit(), Bit()], 6
    for tensor in (tensor for tensor in tensors if tensor.size):
        before = (6, 4, 3, 2, 1, 0)[number.bits(3)] if number.bit(mantissa) else before
        tensor.mantissa = before
        tensor.origin = (code := number.number()) >> 1 ^ -(code & 1) if number.bit(origin) else 0
        tensor.apart = tensor.masked and bool(number.bit(apart))
        tensor.own = tensor.masked and not tensor.apart and bool(number.bit(own))
        if tensor.size >= 512 and len(tensor.shape) > 1 and not tensor.apart:
            for axis in range(2):
                if number.bit(lines[axis]):
                    tensor.classes[axis] = number.bits(4) + 1, number.bits(2)


def read_lines(reader: Bytes, tensors: Sequence[Tensor]) -> None:
    found = [(tensor, axis) for tensor in tensors for axis in range(2) if tensor.classes[axis][0] > 1]
    if found:
        context = np.concatenate([np.full(tensor.matrix[axis], tensor.classes[axis][0]) for tensor, axis in found])
        flat, at = in_contexts(reader.part(), context), 0
    for tensor, axis in found:
        (number, counted), size = tensor.classes[axis], tensor.matrix[axis]
        line, at = flat[at : at + size].copy(), at + size
        stride = tensor.shape[-2] if axis == 0 and len(tensor.shape) > 2 else 1
        step = {1: 1, 2: stride}.get(counted, size)
        for place in range(step, size):
            line[place] = (line[place] + line[place - step]) % number
        tensor.lines[axis] = line


def codes_of(data: bytes, shapes: Sequence[tuple[Sequence[int], bool]]) -> list[tuple[Array, Array | None]]:
    tensors, reader = [Tensor(*item) for item in shapes], Bytes(data)
    if not any(tensor.size for tensor in tensors):
        return [(np.zeros(t.shape, np.int64), np.zeros(t.shape, bool) if t.masked else None) for t in tensors]
    number = Number(reader.part())
    describe(number, tensors)
    below = number.number()
    for tensor in (tensor for tensor in tensors if tensor.apart):
        tensor.mask = mask_of(reader.part(), tensor.shape)
        tensor.live = int(tensor.mask.sum())
    read_lines(reader, tensors)
    live, body = [tensor for tensor in tensors if tensor.live], reader.part()
    edges = np.cumsum([0, *(tensor.classes[0][0] * tensor.classes[1][0] for tensor in live)])

    def place(assigned: Array) -> Array:
        return np.concatenate([t.tables(assigned[at:end]) for t, (at, end) in zip(live, pairwise(edges), strict=True)])

    flat = symbols(body, sum(tensor.live for tensor in live), int(edges[-1]), place) if live else np.zeros(0, int)
    zero, at = below + int(any(tensor.own for tensor in tensors)), 0
    out: list[tuple[Array, Array | None]] = []
    for tensor in tensors:
        part, at = flat[at : at + tensor.live], at + tensor.live
        if tensor.masked and not tensor.apart:
            tensor.mask = (part != (0 if tensor.own else zero)).reshape(tensor.shape)
        kept = np.ones(part.size, bool) if tensor.mask is None or tensor.apart else tensor.mask.reshape(-1)
        whole = widened(reader, np.where(kept, part - zero, 0), tensor.mantissa) + tensor.origin
        codes = np.zeros(tensor.size, np.int64)
        codes[tensor.mask.reshape(-1) if tensor.mask is not None and tensor.apart else ...] = np.where(kept, whole, 0)
        out.append((codes.reshape(tensor.shape), tensor.mask))
    return out


def floats_of(data: bytes, sizes: Sequence[int]) -> list[Array]:
    held, reader, whole = [size for size in sizes if size], Bytes(data), np.zeros(0, np.int64)
    if held:
        number, same, zeros, before = Number(reader.part()), Bit(), [], 0
        leading = number.bits(4) + 5
        for _ in held:
            before = number.bits(4) if number.bit(same) else before
            zeros.append(before)
        context = np.repeat(np.arange(len(held)) // -(-len(held) // 1024), held)
        found = symbols(reader.part(), context.size, int(context[-1]) + 1, lambda tables: tables[context])
        whole, cut = found << 16 - leading, np.repeat(zeros, held)
        width = np.maximum(16 - leading - cut, 0)
        groups = [(int((width == size).sum()), int(size)) for size in np.unique(width[width > 0])]
        for (_, size), extras in zip(groups, raw(reader, groups) if groups else [], strict=True):
            whole[width == size] |= extras << cut[width == size]
    return np.split(whole.astype(np.uint16), np.cumsum(sizes)[:-1])


def rest_of(data: bytes, base: Array, step: Array) -> Array:
    """Codes less their zero points, from their base layer, its steps and the second chunk; all 1-D."""
    reader, rest = Bytes(data), np.zeros(base.size, np.int64)
    mode = reader.take(1)[0] if base.size else 0
    if mode == 2:
        rest = codes_of(reader.take(), [((base.size,), False)])[0][0]
    elif mode == 1:
        least, steps = reader.varint(), np.unique(step)
        ranks = np.arange(steps.size) * min(steps.size, 32) // steps.size
        context = np.abs(base) + 8 * ranks[np.searchsorted(steps, step)]
        rest = symbols(reader.take(), base.size, 8 * (int(ranks[-1]) + 1), lambda tables: tables[context]) - least
    return base * step + np.where(base < 0, -rest, rest)


def read(path: Path) -> dict[str, Array]:
    reader, out = Bytes(path.read_bytes()), []
    magic, version, _, stored, _, total, crc = struct.unpack("<8sHHIIQI", reader.take(32))
    assert (magic, version, total) == (b"\x89BW\r\n\x1a\n\0", 3, len(reader.data))
    text = reader.take(stored)
    assert zlib.crc32(reader.data[:28] + text) == crc
    text = zlib.decompressobj(-15, zdict=DICTIONARY.read_bytes()).decompress(text)
    header = json.loads(text)
    firsts = [chunk(reader, lengths) for _, lengths, *_ in header["groups"]]
    for _, size in header.get("assets", []):
        chunk(reader, [size])
    described = entries(header)
    for (count, _, *later), streams in zip(header["groups"], firsts, strict=True):
        out += group([next(described) for _ in range(count)], streams, chunk(reader, later)[0] if later else b"")
    return dict(out)


def chunk(reader: Bytes, lengths: Sequence[int]) -> list[bytes]:
    crc, streams = reader.take(4), [reader.take(length) for length in lengths]
    assert zlib.crc32(b"".join(streams)).to_bytes(4, "little") == crc
    return streams


def entries(header: Any) -> Iterator[Entry]:
    stems: dict[str, str] = {}
    kept, shapes = iter(header["kept"]), iter(header["shapes"])
    for first, *kinds in header["parameters"]:
        if isinstance(first, int):
            stem, last = list(stems.items())[first]
            first = f"{stem}_{int(last[len(stem) + 1 :] or 0) + 1}/"
        stem, _, number = first.removesuffix("/").rpartition("_")
        numbered = stem and number.isdigit() and number[0] != "0"
        stems[stem if numbered else first.removesuffix("/")] = first.removesuffix("/")
        for kind in kinds:
            (last, _, _, _, encoding, streams), shape = header["kinds"][kind], next(shapes)
            encoding, blocks = unfolded(encoding, shape)
            masked = any(coder == "joint" or size == 2 for _, coder, _, size in streams)
            sizes = [shape, blocks, [next(kept) if masked else math.prod(shape)]]
            described = [(*rest, sizes[size] if isinstance(size, int) else size) for *rest, size in streams]
            yield first + last, shape, encoding, described


def unfolded(encoding: Any, shape: Sequence[int]) -> tuple[Any, list[int]]:
    """The encoding with the lengths of its blocks, and how many blocks there are along each axis."""
    if encoding["kind"] == "quantized":
        block = [length or axis for length, axis in zip(encoding["block"], shape, strict=True)]
        counts = [-(-axis // length) if axis else 0 for axis, length in zip(shape, block, strict=True)]
        return {**encoding, "block": block}, counts
    if "parts" not in encoding:
        return encoding, []
    part, counts = unfolded(encoding["parts"]["base"], shape)
    return {**encoding, "parts": {"base": part}}, counts


def group(members: Sequence[Entry], streams: list[bytes], rest: bytes) -> list[tuple[str, Array]]:
    own, shapes, sizes = iter(streams), [], []
    for _, _, _, described in members:
        joint = any(coder == "joint" for _, coder, _, _ in described)
        shapes += [(s, joint and name == "codes") for name, coder, _, s in described if coder in ("codes", "layers")]
        sizes += [math.prod(shape) for _, coder, _, shape in described if coder == "floats"]
    ints = iter(codes_of(next(own), shapes) if shapes else [])
    halves, found = iter(floats_of(next(own), sizes) if sizes else []), []
    for _, _, _, described in members:
        arrays: dict[str, Any] = {}
        for name, coder, dtype, shape in described:
            if coder in ("codes", "layers"):
                arrays[name], mask = next(ints)
                arrays |= {} if mask is None else {"keep": mask}
            elif coder == "mask":
                arrays[name] = mask_of(next(own), shape)
            elif coder != "joint":
                bits = next(halves).reshape(shape) if coder == "floats" else array_of(next(own), dtype, shape)
                upper = dtype == "bfloat16"
                arrays[name] = (bits.astype(np.uint32) << 16).view(np.float32) if upper else bits.view(dtype)
        found.append(arrays)
    pairs = list(zip(members, found, strict=True))
    add_rest([(member, arrays) for member, arrays in pairs if member[3][-1][1] == "layers"], rest)
    return [(path, valued(encoding, held, held["codes"], shape)) for (path, shape, encoding, _), held in pairs]


def add_rest(layered: Sequence[tuple[Entry, dict[str, Any]]], rest: bytes) -> None:
    steps = [spread(arrays["step"], encoding, shape) for (_, shape, encoding, _), arrays in layered]
    kept = [held.get("keep", np.ones(step.shape, bool)) for (_, held), step in zip(layered, steps, strict=True)]
    if layered:
        base = np.concatenate([held["codes"][keep] for (_, held), keep in zip(layered, kept, strict=True)])
        flat = rest_of(rest, base, np.concatenate([step[keep] for step, keep in zip(steps, kept, strict=True)]))
        for (_, held), keep in zip(layered, kept, strict=True):
            held["codes"], held["signed"] = np.zeros(keep.shape, np.int64), True
            held["codes"][keep], flat = flat[: keep.sum()], flat[keep.sum() :]


def spread(array: Array, encoding: Any, shape: Sequence[int]) -> Array:
    while encoding["kind"] != "quantized":
        encoding = encoding["parts"]["base"]
    for axis, length in enumerate(encoding["block"]):
        array = np.repeat(array, length, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    return array


def valued(encoding: Any, arrays: Mapping[str, Any], codes: Array, shape: Sequence[int]) -> Array:
    inner = {name[5:]: array for name, array in arrays.items() if name.startswith("base.")}
    if encoding["kind"] == "masked":
        if codes.shape != arrays["keep"].shape:
            full = np.zeros(shape, codes.dtype)
            full[arrays["keep"]] = codes
            codes = full
        held = valued(encoding["parts"]["base"], {**inner, "signed": "signed" in arrays}, codes, shape)
        return np.where(arrays["keep"], held, np.zeros((), held.dtype))
    if encoding["kind"] == "escaped":
        held = valued(encoding["parts"]["base"], inner, codes, shape).copy()
        held[arrays["plane"]] = arrays["values"].astype(np.float32)
        return held
    if encoding["kind"] == "dense" and encoding["format"] in (None, "float32", "float16"):
        return codes if encoding["format"] is None else codes.astype(np.float32)
    if encoding["kind"] == "dense":
        return (codes.astype(np.uint32) << 16).view(np.float32)
    return on_grid(encoding, arrays, codes, shape)


def on_grid(encoding: Any, arrays: Mapping[str, Any], codes: Array, shape: Sequence[int]) -> Array:
    side = {n: spread(a, encoding, shape) for n, a in arrays.items() if n in ("scale", "zero_point", "bias", "row")}
    levels: Array = codes.astype(np.float32)
    if "zero_point" in side and not arrays.get("signed"):
        levels = (codes - side["zero_point"]).astype(np.float32)
    if "levels" in arrays:
        cuts = np.cumsum(encoding.get("rows", []))[:-1].astype(int)
        row, levels = side.get("row", np.zeros(shape, int)), np.zeros(shape, np.float32)
        for place, table in enumerate(np.split(arrays["levels"].astype(np.float32), cuts)):
            origin = next(iter(np.flatnonzero(table == 0)), 0)
            levels[row == place] = table[codes[row == place] + origin]
    elif "dropped" in encoding:
        step = np.float32(1 << encoding["dropped"])
        levels = levels * step + np.sign(levels) * ((step - np.float32(1)) / np.float32(2))
    found: Array = levels * side["scale"].astype(np.float32)
    return found + side["bias"].astype(np.float32) if "bias" in side else found
