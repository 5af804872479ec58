"""KeptInputs: features that are left, numbered as at first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.errors import ModelError, Refused
from bitwidth.graph import KeptInputs


@st.composite
def cuts(draw: Any) -> tuple[int, list[list[int]]]:
    width = draw(st.integers(2, 12))
    places: list[list[int]] = []
    left = width
    while left > 1 and (not places or draw(st.booleans())):
        count = draw(st.integers(1, left - 1))
        places.append(sorted(draw(st.permutations(range(left)))[:count]))
        left = count
    return width, places


@given(cuts())
def test_columns_of_every_width_are_the_same_features(drawn: tuple[int, list[list[int]]]) -> None:
    width, places = drawn
    data = [np.arange(width)]
    for left in places:
        data.append(data[-1][left])
    kept = KeptInputs(0, width, (tuple(places[0]),))
    for left in places[1:]:
        kept = kept.then(left)
    for row in data:
        columns = kept.of(len(row))
        assert (row if columns is None else row[list(columns)]).tolist() == data[-1].tolist()
    assert kept.columns == tuple(data[-1].tolist())
    other = next(count for count in range(width + 2) if count not in kept.widths)
    with pytest.raises(Refused, match=f"{other} columns"):
        kept.of(other)


@pytest.mark.parametrize(
    "args",
    [
        (0, 4, ()),
        (0, 4, ((),)),
        (0, 4, ((0, 1, 2, 3),)),
        (0, 4, ((1, 0),)),
        (0, 4, ((0, 0),)),
        (0, 4, ((0, 4),)),
        (0, 4, ((-1, 2),)),
        (0, 4, ((0, 1), (2,))),
        (0, 4, ((0, 1), (0, 1))),
        (-1, 4, ((0,),)),
        (0, 1 << 60, ((0, 1 << 60),)),
    ],
)
def test_what_is_no_cut_is_refused(args: Any) -> None:
    with pytest.raises(ModelError, match="cut"):
        KeptInputs(*args)
