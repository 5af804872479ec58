"""The smallest floating point format that holds an array without changing it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.dense import Dense, Format
from bitwidth.typing import Array

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


def small_format(values: Array) -> Format | None:
    """The 16-bit format of less squared error for `values`; None where they leave the range of both.

    Float16 keeps 11 significant bits but fades below 6e-5, which small variances of a normalisation reach; bfloat16
    keeps 8 bits over the whole range of float32.

    Example:
        >>> small_format(np.array([0.1, -3.0], np.float32)), small_format(np.array([1e-7, 3e-7], np.float32))
        ('float16', 'bfloat16')
    """
    names: tuple[Format, ...] = ("float16", "bfloat16")
    errors = {}
    for name in names:
        held = Dense(name).project(values).astype(np.float64)
        if np.isfinite(held).all():
            errors[name] = float(np.square(held - values).sum())
    return min(errors, key=lambda name: errors[name], default=None)


def _same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(left.view(np.uint32), np.ascontiguousarray(right).view(np.uint32)))
