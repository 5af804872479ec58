"""Encodings of scaled values."""

from __future__ import annotations

import numpy as np
import pytest

from bitwidth.encodings import Dense, Encoding, Escaped, IntegerLevels, Masked, Quantized, TableLevels, scaled
from bitwidth.errors import EncodingError

SCALE = np.array([[0.5, 2.0]], np.float32)
VALUES = np.array([[1.6, -3.0], [0.1, 2.4]], np.float32)
MASK = np.array([[True, False], [True, True]])


@pytest.mark.parametrize("factor", [0.25, 0.7, 3.0])
@pytest.mark.parametrize(
    "encoding",
    [
        Quantized(IntegerLevels.symmetric(4), SCALE, (2, 1)),
        Quantized(IntegerLevels(0, 15), SCALE, (2, 1), np.array([[3, 5]], np.int32), SCALE - 1),
        Quantized(TableLevels((-3.0, -1.0, 0.0, 2.0)), SCALE, (2, 1)),
        Masked(MASK, Quantized(IntegerLevels.symmetric(4), SCALE, (2, 1))),
    ],
    ids=lambda encoding: encoding.describe() if isinstance(encoding, Encoding) else str(encoding),
)
def test_the_same_codes_stand_for_scaled_values(encoding: Encoding, factor: float) -> None:
    values = encoding.project(VALUES)
    found = scaled(encoding, factor)
    np.testing.assert_allclose(found.project(values * np.float32(factor)), values * factor, rtol=1e-6)
    assert found.bits == encoding.bits
    assert (found.mask is None) == (encoding.mask is None)


def test_plain_floats_need_no_change() -> None:
    for held in (Dense(), Masked(MASK)):
        assert scaled(held, 3.0) is held


@pytest.mark.parametrize(
    "encoding",
    [
        Dense("bfloat16"),
        Escaped(np.array([True, False]), SCALE[0, :1], Quantized(IntegerLevels(-7, 7), SCALE[0, :1], (2,))),
    ],
    ids=["format", "escape"],
)
def test_what_cannot_be_scaled_is_refused(encoding: Encoding) -> None:
    with pytest.raises(EncodingError, match="cannot be scaled"):
        scaled(encoding, 2.0)
