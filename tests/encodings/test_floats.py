from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bitwidth.encodings import least_format, small_format

arrays = hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32))
halves = hnp.arrays(np.float16, st.integers(0, 6), elements=st.floats(width=16))


@settings(max_examples=150, deadline=None)
@given(st.one_of(arrays, halves.map(lambda array: array.astype(np.float32))))
def test_the_least_format_holds_every_bit(x: NDArray[np.float32]) -> None:
    assert least_format(x).project(x).tobytes() == x.tobytes()


@settings(max_examples=60, deadline=None)
@given(halves)
def test_what_is_half_precision_needs_no_more(x: NDArray[np.float16]) -> None:
    wide = x.astype(np.float32)
    if not np.isnan(wide).any():
        assert least_format(wide).format == "float16"


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([], "float16"),
        ([-0.0], "float16"),
        ([65504.0], "float16"),
        ([65536.0], "bfloat16"),
        ([2.0**-100, 1.0], "bfloat16"),
        ([2.0**-24], "float16"),  # the least half there is
        ([0.1], "float32"),
        ([65536.0, 1.00048828125], "float32"),  # one is only a bfloat16, the other only a float16
        ([float("inf")], "float16"),
    ],
)
def test_least_format_by_hand(values: list[float], form: str) -> None:
    assert least_format(np.array(values, np.float32)).format == form


def test_least_format_of_a_view_and_of_a_matrix() -> None:
    x = np.full((4, 6), 0.5, np.float32)
    x[1::2] = 0.1
    assert least_format(x[::2, ::2].T).format == "float16"
    assert least_format(x.T).format == "float32"


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([], "float16"),
        ([0.0, -0.0], "float16"),
        ([0.1, -65504.0, 0.0], "float16"),
        ([0.1, 65520.0], "bfloat16"),  # the float16 nearest to it is infinite
        ([1e-7, 3e-7], "bfloat16"),
        ([0.1, 1e-7], "float16"),  # what is lost below 6e-5 is less than three bits of 0.1
        ([3.4e38], None),  # beyond the greatest bfloat16
        ([3.38e38], "bfloat16"),
        ([float("inf")], None),
        ([float("nan")], None),
    ],
)
def test_small_format_by_hand(values: list[float], form: str | None) -> None:
    assert small_format(np.array(values, np.float32)) == form


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 8), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_the_small_format_has_the_lesser_error(x: NDArray[np.float32]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(over="ignore"):
        held = {"float16": x.astype(np.float16), "bfloat16": x.astype(ml_dtypes.bfloat16)}
    errors = {form: ((values.astype(np.float64) - x) ** 2).sum() for form, values in held.items()}
    form = small_format(x)
    if form is None:
        assert not np.isfinite(list(errors.values())).any()
    else:
        assert errors[form] == min(errors.values())
