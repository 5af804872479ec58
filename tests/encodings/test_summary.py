"""What an encoding is, as values, and the one way to put them into words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bitwidth.artifact.format.summaries import summary_of
from bitwidth.encodings import (
    Dense,
    Encoding,
    EncodingSummary,
    Escaped,
    IntegerLevels,
    LevelRows,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    uniform_levels,
)

KEEP = np.arange(24).reshape(4, 6) % 4 > 0
ONES = np.ones((1, 6), np.float32)
GRID = Quantized(uniform_levels(4), ONES, (4, 1))
TABLE = TableLevels((-1.0, 0.0, 2.0))
ROWS = Quantized(LevelRows((TABLE, uniform_levels(1))), ONES, (4, 1), row=np.zeros((1, 6), np.int32))  # type: ignore[arg-type]
ESCAPED = Escaped.of(np.ones((4, 6), np.float32), ~KEEP, GRID, "float16")
WORDS: dict[str, tuple[Encoding, str]] = {
    "dense": (Dense(), "dense"),
    "float16": (Dense("float16"), "float16"),
    "grid": (GRID, "4-bit x6"),
    "unbounded": (Quantized(IntegerLevels(), ONES, (4, 1)), "integer steps x6"),
    "table": (Quantized(TABLE, ONES, (4, 1)), "2-bit table x6"),
    "rows": (ROWS, "2-bit table of 2 x6"),
    "prefix": (Quantized(PrefixLevels(127, 4), ONES, (4, 1)), "4-bit x6"),
    "masked": (Masked(KEEP, GRID), "25.0% zero, 4-bit x6"),
    "escaped": (ESCAPED, "4-bit x6, 6 as float16"),
    "both": (Masked(np.arange(24).reshape(4, 6) % 2 > 0, ESCAPED), "50.0% zero, 4-bit x6, 0 as float16"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words(name: str) -> None:
    encoding, words = WORDS[name]
    assert encoding.describe() == str(encoding.summary()) == encoding.summary().words() == words


def test_the_dtype_is_shown_in_place_of_dense() -> None:
    assert Dense().summary().words("int64") == "int64"
    assert Masked(KEEP).summary().words("bfloat16") == "25.0% zero, bfloat16"
    assert Dense("float16").summary().words("float32") == "float16"
    assert GRID.summary().words("float32") == "4-bit x6"


def test_values() -> None:
    assert GRID.summary() == EncodingSummary(
        "quantized", 4, None, "integers", 15, symmetric=True, scale_shape=(1, 6), block=(4, 1)
    )
    zero = np.full((1, 6), 8, np.int32)
    found = Quantized(IntegerLevels(0, 15), ONES, (4, 1), zero).summary()
    assert (found.symmetric, found.zero_points, found.biases, found.level_count) == (False, True, False, 16)
    assert Quantized(uniform_levels(4), ONES, (4, 1), bias=ONES).summary().symmetric is False
    assert Quantized(PrefixLevels(127, 4), ONES, (4, 1)).summary().dropped_bits == 4
    rows = ROWS.summary()
    assert (rows.levels, rows.level_count, rows.tables, rows.symmetric) == ("tables", 5, 2, None)
    both = WORDS["both"][0].summary()
    assert (both.sparsity, both.escapes, both.escape_format, both.bits, both.format) == (0.5, 0, "float16", 4, None)
    assert Quantized(IntegerLevels(), ONES, (4, 1)).summary().level_count is None
    assert (Dense("bfloat16").summary().format, Dense().summary().scales) == ("bfloat16", None)


@pytest.mark.parametrize(
    ("scales", "block", "granularity"),
    [
        ((), (), "tensor"),
        ((1, 1), (8, 6), "tensor"),
        ((1, 6), (8, 1), "channel"),
        ((2, 6), (4, 1), "group"),
        ((1, 1), (8, 1), "tensor"),
    ],
)
def test_granularity(scales: tuple[int, ...], block: tuple[int, ...], granularity: str) -> None:
    summary = Quantized(uniform_levels(4), np.ones(scales, np.float32), block).summary()
    assert (summary.granularity, summary.scales) == (granularity, int(np.prod(scales)))
    assert Dense().summary().granularity is None


@pytest.mark.parametrize("name", WORDS)
def test_through_json(name: str) -> None:
    summary = WORDS[name][0].summary()
    assert EncodingSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    assert EncodingSummary.from_dict(summary.to_dict()) == summary
    with pytest.raises(TypeError):
        EncodingSummary.from_dict({"width": 4})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "dense", "format": "float8", "width": "wide"}, "dense"),
        ({"kind": "masked"}, "100.0% zero, dense"),
        ({"kind": "escaped", "format": 3}, "dense, 0 as float32"),
        ({"kind": "quantized"}, "integer steps x1"),
        ({"kind": "quantized", "low": "a", "high": 7, "dropped": None, "block": "x"}, "integer steps x1"),
        ({"kind": "quantized", "rows": [1, "b"], "block": [1.5]}, "integer steps x1"),
        ({"kind": "quantized", "rows": [4, 0, -3]}, "2-bit table of 3 x1"),
        ({"kind": "quantized", "low": -7, "high": 7, "dropped": 1 << 70}, "4-bit x1"),
        ({"kind": "wavelet", "levels": 3}, "wavelet"),
    ],
)
def test_a_header_that_makes_no_sense_has_a_summary(config: dict[str, object], words: str) -> None:
    assert summary_of(config, {}, 10, 0).words() == words
