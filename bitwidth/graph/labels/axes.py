"""Axes of tensors as labels: one integer for each index, held as factors.

The indices of an axis are the row-major product of its factors, each an array with one label for each of its indices:
an axis of 4 heads of 8 features has two factors, of 4 and of 8 labels. An index is there as long as the units behind
all of its labels are. Label 0 stands for what is no unit: a position. An axis of one index has no factors; a
factor whose size is not known, of the batch above all, is empty: `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.int64]
Axis: TypeAlias = tuple[Labels, ...]

UNKNOWN: Labels = np.zeros(0, np.int64)
"""The factor whose size is only known when the model runs."""


@dataclass(frozen=True)
class Labelled:
    """What is known of one tensor.

    Attributes:
        axes: its axes.
        zero: for each axis, whether the tensor is zero at an index as long as the parameters that make it are zero
            there.
        static: whether it is computed from parameters and constants alone.
    """

    axes: tuple[Axis, ...]
    zero: tuple[bool, ...]
    static: bool = False


@dataclass(eq=False)
class Listed:
    """A list of tensors, as loops keep them: what is known of its elements, once something was put in.

    Attributes:
        element: what its elements have in common; None as long as there are none.
        joined: the list that this one turned out to be the same as.
    """

    element: Labelled | None = None
    joined: Listed | None = None

    def root(self) -> Listed:
        """The list that stands for all that are the same as this one."""
        return self if self.joined is None else self.joined.root()


def positions(size: int | None) -> Axis:
    """An axis on which nothing is a unit.

    Example:
        >>> positions(3), positions(1)
        ((array([0, 0, 0]),), ())
        >>> size_of(positions(None)) is None
        True
    """
    if not size:
        return (UNKNOWN,)
    return () if size == 1 else (np.zeros(size, np.int64),)


def size_of(axis: Axis) -> int | None:
    """How many indices an axis has; None where that is not known."""
    return None if is_open(axis) else prod(len(factor) for factor in axis)


def is_open(axis: Axis) -> bool:
    """Whether the size of an axis is not known."""
    return not all(map(len, axis))


def is_labelled(axis: Axis) -> bool:
    """Whether some index of an axis has a label."""
    return any(factor.any() for factor in axis)


def normal(factors: Iterable[Labels]) -> Axis:
    """Factors without those of one index, and with neighbours of known size that have no labels made one."""
    found: list[Labels] = []
    for factor in factors:
        if len(factor) == 1:
            continue
        plain = bool(found) and not factor.any() and not found[-1].any()
        if plain and len(factor) and len(found[-1]):
            found[-1] = np.zeros(len(found[-1]) * len(factor), np.int64)
        else:
            found.append(factor)
    return tuple(found)


def spread(factors: Sequence[Labels], place: int) -> Labels:
    """The labels of one factor, for each index of the axis.

    Example:
        >>> spread((np.array([1, 2]), np.array([3, 4, 5])), 0)
        array([1, 1, 1, 2, 2, 2])
    """
    outer = prod(len(factor) for factor in factors[:place])
    inner = prod(len(factor) for factor in factors[place + 1 :])
    return np.tile(np.repeat(factors[place], inner), outer)
