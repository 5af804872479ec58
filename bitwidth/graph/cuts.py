"""Cuts: which entries of parameters are still there after units, channels or inputs were removed.

A cut is the lineage of a graph: by parameter and axis, the indices into the model as it was opened that are left. What
was promised, measured or reported about the model before is compared through it with the model after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings import Encoding
from bitwidth.errors import ModelError
from bitwidth.typing import Array

Kept = Mapping[str, Mapping[int, NDArray[np.intp]]]


@dataclass(frozen=True, eq=False)
class Cut:
    """What is left of parameters; those that are not named are whole.

    Attributes:
        kept: by parameter path and axis, ascending indices into that axis.

    Raises:
        ModelError: indices that are not ascending, negative, or none at all.

    Example:
        >>> first = Cut({"dense/kernel": {1: np.array([0, 2, 3])}})
        >>> second = first.then(Cut({"dense/kernel": {1: np.array([1, 2])}}))
        >>> second.kept["dense/kernel"][1].tolist()
        [2, 3]
        >>> second.since(first).kept["dense/kernel"][1].tolist()
        [1, 2]
        >>> second.take("dense/kernel", np.arange(8).reshape(2, 4)).tolist()
        [[2, 3], [6, 7]]
    """

    kept: Kept = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {path: {axis: _checked(path, i) for axis, i in axes.items()} for path, axes in self.kept.items() if axes}
        object.__setattr__(self, "kept", MappingProxyType(kept))

    def __bool__(self) -> bool:
        return bool(self.kept)

    def then(self, later: Cut) -> Cut:
        """Both cuts, one after the other: `later` has indices into what this one leaves."""
        paths = {**self.kept, **later.kept}
        return Cut({path: self._then(path, later) for path in paths})

    def _then(self, path: str, later: Cut) -> Mapping[int, NDArray[np.intp]]:
        mine, after = self.kept.get(path, {}), later.kept.get(path, {})
        both = {axis: mine[axis].take(after[axis]) for axis in mine if axis in after}
        return {**mine, **after, **both}

    def since(self, earlier: Cut) -> Cut:
        """What was cut after an earlier cut that this one goes on from: indices into what that left.

        Raises:
            ModelError: this one does not go on from it.
        """
        found: dict[str, dict[int, NDArray[np.intp]]] = {}
        for path, axes in self.kept.items():
            before = earlier.kept.get(path, {})
            for axis, indices in axes.items():
                left = before.get(axis)
                places = indices if left is None else np.searchsorted(left, indices)
                if left is not None and not np.array_equal(left.take(places, mode="clip"), indices):
                    raise ModelError(f"{path}: entries of axis {axis} are back that an earlier cut has removed")
                if left is None or len(places) != len(left):
                    found.setdefault(path, {})[axis] = places
        missing = [p for p, axes in earlier.kept.items() if any(axis not in self.kept.get(p, {}) for axis in axes)]
        if missing:
            raise ModelError(f"{missing[0]}: entries are back that an earlier cut has removed")
        return Cut(found)

    def take(self, path: str, array: Array) -> Array:
        """What is left of an array of the parameter's shape before the cut."""
        for axis, indices in self.kept.get(path, {}).items():
            array = array.take(indices, axis=axis)
        return array

    def encoding(self, path: str, encoding: Encoding) -> Encoding:
        """What is left of a parameter's encoding.

        Raises:
            EncodingError: the cut goes through a group that shares a scale.
        """
        for axis, indices in self.kept.get(path, {}).items():
            encoding = encoding.take(axis, indices)
        return encoding

    def shape(self, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that is left of a parameter."""
        axes = self.kept.get(path, {})
        return tuple(len(axes[axis]) if axis in axes else length for axis, length in enumerate(shape))


def _checked(path: str, indices: NDArray[np.intp]) -> NDArray[np.intp]:
    indices = np.array(indices, dtype=np.intp)
    if indices.ndim != 1 or not len(indices) or indices[0] < 0 or (np.diff(indices) <= 0).any():
        raise ModelError(f"{path}: a cut keeps ascending indices, one at least, got {indices.tolist()}")
    indices.setflags(write=False)
    return indices
