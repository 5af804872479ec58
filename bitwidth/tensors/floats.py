"""The smallest floating point format that holds an array without changing it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.tensors.dense import Dense, Format

SMALLEST_NORMAL_HALF = 6.104e-05
LARGEST_HALF = 65504.0


def least_format(array: NDArray[np.float32]) -> Dense:
    """The first of float16, bfloat16, float32 that holds every element of `array` exactly, to the bit.

    Example:
        >>> least_format(np.array([0.5, 3.0], np.float32)).format
        'float16'
    """
    for name in ("float16", "bfloat16"):
        if _same_bits(Dense(name).project(array), array):
            return Dense(name)
    return Dense("float32")


def small_format(values: NDArray[Any]) -> Format | None:
    """The 16-bit format that suits `values`: float16 within its normal range, bfloat16 beyond it; None if neither.

    Float16 keeps 11 significant bits but fades below 6e-5, which the variances of a normalisation can reach; bfloat16
    keeps 8 bits over the whole range of float32.

    Example:
        >>> small_format(np.array([0.1, -3.0], np.float32)), small_format(np.array([1e-7, 1.0], np.float32))
        ('float16', 'bfloat16')
    """
    magnitude = np.abs(values[values != 0]) if values.size else values
    if not magnitude.size or (magnitude.max() <= LARGEST_HALF and magnitude.min() >= SMALLEST_NORMAL_HALF):
        return "float16"
    return "bfloat16" if np.isfinite(Dense("bfloat16").project(values)).all() else None


def _same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(left.view(np.uint32), np.ascontiguousarray(right).view(np.uint32)))
