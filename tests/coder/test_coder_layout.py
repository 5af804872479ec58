from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.coder.bitio import Reader
from bitwidth.coder.layout import (
    WITH_CLASSES,
    Layout,
    Line,
    choose_counting,
    contexts_of,
    counts_in,
    placing,
    read_classes,
    read_side,
    write_classes,
    write_side,
)
from bitwidth.coder.scalar import Decoder, Encoder
from bitwidth.coder.tokens import MANTISSAS
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array
from tests.coder.hostile import damaged

SHAPES = [(), (0,), (9,), (0, 3), (5, 4), (16, 32), (40, 30), (600, 1), (1, 600), (3, 3, 8, 16), (2, 2, 300)]
ORIGINS = [0, 1, -1, 1000, -(1 << 31), (1 << 31) - 1]
Sides = list[tuple[tuple[int, ...], bool]]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """A layout as a writer may have it, classes included."""
    layout = Layout(draw(st.sampled_from(SHAPES)), draw(st.booleans()))
    if not layout.size:
        return layout
    layout.mantissa, layout.origin = draw(st.sampled_from(MANTISSAS)), draw(st.sampled_from(ORIGINS))
    layout.apart = layout.masked and draw(st.booleans())
    layout.own_symbol = layout.masked and not layout.apart and draw(st.booleans())
    if layout.size >= WITH_CLASSES and len(layout.shape) > 1 and not layout.apart:
        for line, size in zip((layout.rows, layout.columns), layout.matrix, strict=True):
            line.number = draw(st.integers(1, min(size, 16)))
            if line.number > 1:
                line.counted = draw(st.integers(0, 2))
                rng = np.random.default_rng(draw(st.integers(0, 99)))
                line.of_line = rng.integers(0, line.number, size).astype(np.uint8)
                line.of_line[-1] = line.number - 1
    return layout


def sides(given_: list[Layout]) -> Sides:
    return [(layout.shape, layout.masked) for layout in given_]


def written(given_: list[Layout]) -> bytes:
    coder = Encoder()
    write_side(coder, given_)
    return coder.finish()


def read(data: bytes, shapes: Sides) -> list[Layout]:
    coder = Decoder(data)
    found = read_side(coder, shapes)
    coder.end()
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(layouts(), max_size=6))
def test_side_information_and_classes_come_back(given_: list[Layout]) -> None:
    found = read(written(given_), sides(given_))
    assert found == given_
    reader = Reader(write_classes(given_))
    read_classes(reader, found)
    reader.end()
    for one, other in zip(given_, found, strict=True):
        for line, back in ((one.rows, other.rows), (one.columns, other.columns)):
            assert back.of_line.dtype == np.uint8
            np.testing.assert_array_equal(back.of_line, line.of_line)


def test_what_tensors_have_in_common_costs_next_to_nothing() -> None:
    assert len(written([Layout((40, 30), True, own_symbol=True) for _ in range(100)])) <= 6
    assert len(written([Layout((40, 30), False, mantissa=0) for _ in range(100)])) <= 6


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30), st.lists(st.tuples(st.sampled_from(SHAPES), st.booleans()), max_size=4))
def test_any_bytes(data: bytes, shapes: Sides) -> None:
    try:
        found = read(data, shapes)
        assert sides(found) == shapes
        read_classes(Reader(data), found)
    except CorruptFileError:
        return
    for layout in found:
        for line, size in zip((layout.rows, layout.columns), layout.matrix, strict=True):
            assert line.of_line.size == (size if line.number > 1 else 0)
            assert line.of_line.max(initial=0) < line.number


def with_classes(shape: tuple[int, ...], rows: Array, columns: Array) -> Layout:
    made = Layout(shape, False)
    for line, of_line in ((made.rows, rows), (made.columns, columns)):
        line.number = int(of_line.max()) + 1
        line.of_line = of_line.astype(np.uint8) if line.number > 1 else np.zeros(0, np.uint8)
    return made


def test_damaged_classes() -> None:
    made = with_classes((60, 30), np.arange(60) % 5, np.arange(30) // 4)
    data = write_classes([made])
    for bad in damaged(data, 300):
        found = read(written([made]), sides([made]))
        try:
            read_classes(Reader(bad), found)
        except CorruptFileError:
            continue
        assert found[0].rows.of_line.max() < 5
        assert found[0].columns.of_line.max() < 8


@pytest.mark.parametrize("number", [2, 5, 16])
def test_classes_are_counted_from_what_predicts_them(number: int) -> None:
    rng = np.random.default_rng(number)
    runs = (np.arange(320) * number // 320).astype(np.uint8)
    period = np.tile(rng.integers(0, number, 32), 10).astype(np.uint8)
    random = rng.integers(0, number, 320).astype(np.uint8)
    random[0] = number - 1
    few = (rng.random(320) < 0.05).astype(np.uint8)
    for of_line, stride, counted in ((runs, 32, 1), (period, 32, 2), (few, 1, 0), (few, 400, 0)):
        choose_counting(line := Line(number, 0, of_line), stride)
        assert line.counted == counted
    choose_counting(line := Line(number, 0, period), 1)
    assert line.counted < 2  # what has no stride is not counted from it


@pytest.mark.parametrize(("counted", "least"), [(0, False), (1, False), (2, True)])
def test_strides_make_classes_of_convolutions_small(counted: int, least: bool) -> None:
    period = np.tile(np.random.default_rng(0).integers(0, 8, 64), 9)
    made = with_classes((3, 3, 64, 4), period, np.zeros(4))
    assert made.stride == 64
    made.rows.counted = counted
    size = len(write_classes([made]))
    assert (size < 64) == least
    assert size < 9 * 64 * 3 / 8 + 20


def test_matrices_and_contexts() -> None:
    for shape, masked, apart, matrix in (
        ((), False, False, (1, 1)),
        ((7,), False, False, (1, 7)),
        ((0, 3), False, False, (1, 0)),
        ((5, 4), True, False, (5, 4)),
        ((5, 4), True, True, (1, 20)),
        ((3, 3, 8, 16), False, False, (72, 16)),
    ):
        layout = Layout(shape, masked, apart=apart)
        assert layout.matrix == matrix
        assert layout.live == layout.size == math.prod(shape)
    assert contexts_of([with_classes((4, 6), np.arange(4), np.arange(6) // 2), Layout((3,), False)]) == 13


@settings(max_examples=80, deadline=None)
@given(st.lists(layouts().filter(lambda layout: layout.size > 0), min_size=1, max_size=4), st.integers(0, 99))
def test_tables_and_counts_by_the_plain_rule(given_: list[Layout], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 5, layout.live).astype(np.uint8) for layout in given_]
    assigned = rng.integers(0, 4, contexts_of(given_)).astype(np.uint8)
    context: list[NDArray[np.int64]] = []
    base = 0
    for layout in given_:
        rows, columns = layout.matrix
        first = layout.rows.of_line if layout.rows.number > 1 else np.zeros(rows, np.int64)
        second = layout.columns.of_line if layout.columns.number > 1 else np.zeros(columns, np.int64)
        joint = base + first.astype(np.int64)[:, None] * layout.columns.number + second.astype(np.int64)
        context.append(joint.reshape(-1))
        base += layout.contexts
    whole = np.concatenate(context)
    np.testing.assert_array_equal(placing(given_)(assigned), assigned[whole])
    plain = np.zeros((contexts_of(given_), 5), np.int64)
    np.add.at(plain, (whole, np.concatenate(parts)), 1)
    np.testing.assert_array_equal(counts_in(given_, parts, 5), plain)
