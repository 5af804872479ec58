from __future__ import annotations

import numpy as np
import pytest

from bitwidth.encodings import IntegerLevels, Levels, TableLevels
from bitwidth.fitting import power_levels
from bitwidth.fitting.snap import CELLS, snapper

RNG = np.random.default_rng(0)
EVEN = TableLevels(tuple(float(value) for value in np.unique(RNG.normal(size=256).astype(np.float16))))
WIDE = TableLevels(tuple(float(value) for value in range(CELLS * 3)))
CASES: list[Levels] = [
    IntegerLevels(-7, 7),
    IntegerLevels(3, 300),
    IntegerLevels(),
    TableLevels((-1.0, 1.0)),
    power_levels(3),
    power_levels(6),
    EVEN,
    TableLevels(tuple(value / 8 for value in range(-300, 300))),  # a cell for each threshold
    TableLevels((*(value / 1e4 for value in range(70)), 1e4)),  # many thresholds in one cell
    WIDE,
]


@pytest.mark.parametrize("levels", CASES, ids=lambda levels: f"{type(levels).__name__} {levels.bits}")
def test_it_is_the_nearest_level_to_the_bit(levels: Levels) -> None:
    top = min(levels.extent, 1e4)
    x = np.concatenate([RNG.normal(0, top, 3000), RNG.uniform(-2 * top, 2 * top, 3000), [0.0, -0.0, 1e30, -1e30]])
    if isinstance(levels, TableLevels):  # and on the thresholds, and next to them
        middles = levels.thresholds
        x = np.concatenate([x, middles, *(np.nextafter(middles, np.float32(far)) for far in (-1e9, 1e9))])
    values = x.astype(np.float32)
    expected = levels.at(levels.nearest(values))
    np.testing.assert_array_equal(snapper(levels)(values.copy()), expected)
