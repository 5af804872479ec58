"""Where the scales of nested widths start: between those that suit whole codes and those that suit their first bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.tensors.prefix import prefix
from bitwidth.tensors.quantized import Quantized
from bitwidth.tensors.scales import fit_scale, storage


def between(
    grid: Quantized, bits: int, values: NDArray[Any], keep: NDArray[np.bool_] | None = None, share: float = 1.0
) -> Quantized:
    """`grid` with its scales moved towards those of least squared error for the first `bits` bits of its codes.

    Args:
        grid: the whole grid, over integers.
        bits: of the prefix, at least 2.
        values: the tensor, float32.
        keep: True where a value counts; None for everywhere.
        share: 0 leaves the scales, 1 gives those of the prefix; between them the weighted geometric mean.

    Returns:
        A grid whose scales take two bytes each.

    Raises:
        EncodingError: the mask does not fit the values, or `bits` is no width of a prefix.

    Example:
        >>> from bitwidth.tensors import IntegerLevels
        >>> grid = Quantized(IntegerLevels.symmetric(8), np.array([[0.01]], np.float32), (1, 4))
        >>> short = between(grid, 2, np.array([[1.0, -1.0, 0.1, 0.0]], np.float32))
        >>> np.round(short.scale * 95.5, 2)  # 95.5 is the level of the only code of 2 bits
        array([[1.]], dtype=float32)
    """
    short = prefix(grid, bits)
    if not isinstance(short, Quantized) or short is grid:
        return grid
    narrow = fit_scale(np.asarray(values, np.float32), short.levels, grid.block, "mse", keep).scale  # type: ignore[arg-type]
    mean = np.where(narrow > 0, grid.scale ** (1 - share) * narrow**share, grid.scale).astype(np.float32)
    return replace(grid, scale=storage(mean, 1.0)(mean))
