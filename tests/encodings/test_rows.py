from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import EncodingState, LevelRows, Masked, Quantized, TableLevels, encoding_from_state
from bitwidth.errors import EncodingError

tables = st.sets(st.integers(-40, 40), min_size=2, max_size=9).map(
    lambda s: TableLevels(tuple(v / 8 for v in sorted(s)))
)
ragged = st.lists(tables, min_size=1, max_size=4).map(lambda rows: LevelRows(tuple(rows)))
TWO = LevelRows((TableLevels((1.0, 2.0, 4.0, 8.0)), TableLevels((-10.0, 0.0, 20.0))))
ONES = np.ones((1, 3), np.float32)
HELD = Quantized(TWO, ONES, (4, 1), row=np.array([[0, 1, 0]]))


@settings(max_examples=200, deadline=None)
@given(ragged, hnp.arrays(np.float32, (5, 3), elements=st.floats(-1e3, 1e3, width=32)), st.booleans(), st.data())
def test_laws(levels: LevelRows, x: NDArray[np.float32], biased: bool, data: st.DataObject) -> None:
    """Each column is held as by its own table; and the laws of every encoding hold."""
    row = np.array([data.draw(st.lists(st.integers(0, len(levels.rows) - 1), min_size=3, max_size=3))])
    scale = np.array([data.draw(st.lists(st.floats(2.0**-9, 2.0**9, width=32), min_size=3, max_size=3))], np.float32)
    bias = scale * np.float32(3.5) if biased else None
    held = Quantized(levels, scale, (5, 1), bias=bias, row=row)
    codes = held.encode(x)
    held.check_codes(codes)
    once = held.decode(codes)
    assert held.project(once).tobytes() == once.tobytes()
    for column in range(3):
        shift = None if bias is None else bias[:, column]
        alone = Quantized(levels.rows[row[0, column]], scale[:, column], (5,), bias=shift)
        assert alone.project(x[:, column]).tobytes() == once[:, column].tobytes()
        assert np.array_equal(alone.encode(x[:, column]), codes[:, column])
    state = held.state()
    config = json.loads(json.dumps(dict(state.config)))
    again = encoding_from_state(EncodingState(state.kind, config, state.arrays))
    assert again.project(x).tobytes() == once.tobytes()
    assert again.packed_bits((5, 3)) == held.packed_bits((5, 3))


def test_each_block_is_packed_at_its_own_width() -> None:
    shape = (4, 3)
    side = 3 * 16 + 7 * 16 + 3 * 8
    assert HELD.packed_bits(shape) == 12 * 2 + side
    narrow = LevelRows((TWO.rows[0], TableLevels((100.0, 200.0))))
    held = Quantized(narrow, ONES, (4, 1), row=HELD.row)
    assert held.packed_bits(shape) == 8 * 2 + 4 * 1 + side - 16
    keep = np.zeros(shape, bool)
    keep[:, 1] = True
    assert Masked(keep, held).packed_bits(shape) == 12 + 4 * 1 + side - 16
    assert held.bits == 2
    assert held.describe() == "2-bit table of 2 x3"
    assert narrow.extent == 200


def test_a_selection_takes_its_rows_along() -> None:
    taken = HELD.take(1, np.array([1, 1, 0]))
    assert taken.row is not None
    assert taken.row.tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("levels", "row", "words"),
    [
        (TWO, None, "row must be integers"),
        (TWO, np.zeros((1, 2), np.int32), "scale's shape"),
        (TWO, np.zeros((1, 3)), "integers"),
        (TWO, np.array([[0, 2, 0]]), "0 to 1"),
        (TWO, np.array([[0, -1, 0]]), "0 to 1"),
        (TWO.rows[0], np.zeros((1, 3), np.int32), "belongs to several rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(levels: Any, row: Any, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        Quantized(levels, ONES, (4, 1), row=row)


@pytest.mark.parametrize("rows", [(), (TWO.rows[0],) * 257, ((1.0, 2.0),)])
def test_rows_that_are_none_are_refused(rows: Any) -> None:
    with pytest.raises(EncodingError, match="1 to 256 tables"):
        LevelRows(rows)


def test_a_zero_point_has_no_place_in_rows() -> None:
    with pytest.raises(EncodingError, match="belongs to integer levels"):
        Quantized(TWO, ONES, (4, 1), np.zeros((1, 3), np.int32), row=HELD.row)


def test_codes_of_another_row_are_refused() -> None:
    good = HELD.encode(np.full((4, 3), 3.0, np.float32))
    HELD.check_codes(good)
    bad = good.copy()
    bad[0, 1] = 3
    HELD.check_codes(bad)  # as they come from a file, it is not known yet which block each belongs to
    with pytest.raises(EncodingError, match="its row of levels"):
        HELD.decode(bad)
    with pytest.raises(EncodingError, match="codes must be integers"):
        HELD.check_codes(good + 9)


GOOD = HELD.state()


@pytest.mark.parametrize("lengths", [[7], [4, 4], [4, 0, 3], [4, True], ["a"], 7, [4.0, 3.0], [-1, 8], [1, 6], [1] * 7])
def test_lengths_that_do_not_fit_the_levels_are_refused(lengths: Any) -> None:
    config = {**GOOD.config, "rows": lengths}
    with pytest.raises(EncodingError):
        encoding_from_state(EncodingState("quantized", config, GOOD.arrays))
