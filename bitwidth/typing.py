"""Names for types: what is meant where Python's own types cannot say it.

Where a framework's object is meant that no stub describes, the name says which; a checker takes anything for it. Here
stands what means the same throughout the package: a type that one module needs belongs in that module, and names for
objects of one framework belong in its backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""

Integers: TypeAlias = NDArray[np.integer[Any]]
"""An array of integers of any width, signed or not."""

Model: TypeAlias = Any
"""A model of a framework: a `keras.Model`, say."""

Data: TypeAlias = Any
"""Data as `model.fit` takes it: arrays, tuples of them, datasets, generators."""

Nest: TypeAlias = Any
"""One thing, or a list, tuple or dict of nests of such things."""

Loss: TypeAlias = Any
"""A loss as `model.compile` takes it, or its name."""

Json: TypeAlias = Any
"""Plain data: None, booleans, numbers, texts, lists and objects of these."""

JsonDict: TypeAlias = dict[str, Any]
"""An object of plain data."""

JsonMapping: TypeAlias = Mapping[str, Any]
"""An object of plain data that is only read."""

CustomObjects: TypeAlias = Mapping[str, Any]
"""Classes and functions of a user's by name, as Keras takes them."""


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, which True and False are to Python.

    Example:
        >>> is_integer(3), is_integer(True), is_integer(3.0)
        (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an integer or a float, and not True or False.

    Example:
        >>> is_number(0.5), is_number(False), is_number("1")
        (True, False, False)
    """
    return is_integer(value) or isinstance(value, float)
