"""Cuts: which entries of parameters are there after units, channels or inputs were removed, and which were made.

A cut is the lineage of a graph: by parameter and axis, the indices into the model as it was opened that are left; and
which parameters were made of which others, so that nothing is left of those. What was promised, measured or reported
about the model before is compared through it with the model after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        kept: by parameter path and axis, ascending indices into that axis; of a parameter that was made, into that axis
            of it as it was made last.
        made: by path of a parameter that was made of another one, the path of that; where that was made itself, what it
            was made of comes in front, and so on. A parameter may be made of what it was itself before.
        entrances: layers in front of which others were put, each with the one that takes what it took then, in the
            order in which that happened.

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
    made: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    entrances: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        kept = {path: {axis: _checked(path, i) for axis, i in axes.items()} for path, axes in self.kept.items() if axes}
        object.__setattr__(self, "kept", MappingProxyType(kept))
        object.__setattr__(self, "made", MappingProxyType(dict(self.made)))

    def __bool__(self) -> bool:
        return bool(self.kept or self.made)

    @classmethod
    def of_all(cls, cuts: Iterable[Cut]) -> Cut:
        """Cuts one after the other."""
        found = cls()
        for cut in cuts:
            found = found.then(cut)
        return found

    def then(self, later: Cut) -> Cut:
        """Both cuts, one after the other: `later` has indices into what this one leaves."""
        paths = {**self.kept, **later.kept}
        made = {path: (*self.made.get(given[0], ()), *given) for path, given in later.made.items()}
        kept = {path: self._then(path, later) for path in paths}
        return Cut(kept, {**self.made, **made}, (*self.entrances, *later.entrances))

    def _then(self, path: str, later: Cut) -> Mapping[int, NDArray[np.intp]]:
        mine, after = self.kept.get(path, {}), later.kept.get(path, {})
        if path in later.made:
            return after
        both = {axis: mine[axis].take(after[axis]) for axis in mine if axis in after}
        return {**mine, **after, **both}

    def since(self, earlier: Cut) -> Cut:
        """What was cut after an earlier cut that this one goes on from: indices into what that left.

        Raises:
            ModelError: this one does not go on from it.
        """
        made = {path: given for path in self.made if (given := self._made_since(path, earlier))}
        found: dict[str, dict[int, NDArray[np.intp]]] = {}
        for path, axes in self.kept.items():
            before = {} if path in made else earlier.kept.get(path, {})
            for axis, indices in axes.items():
                left = before.get(axis)
                places = indices if left is None else np.searchsorted(left, indices)
                if left is not None and not np.array_equal(left.take(places, mode="clip"), indices):
                    raise ModelError(f"{path}: entries of axis {axis} are back that an earlier cut has removed")
                if left is None or len(places) != len(left):
                    found.setdefault(path, {})[axis] = places
        stayed = {path: axes for path, axes in earlier.kept.items() if path not in made}
        missing = [p for p, axes in stayed.items() if any(axis not in self.kept.get(p, {}) for axis in axes)]
        if missing:
            raise ModelError(f"{missing[0]}: entries are back that an earlier cut has removed")
        return Cut(found, made, self.entrances[len(earlier.entrances) :])

    def _made_since(self, path: str, earlier: Cut) -> tuple[str, ...]:
        """What a parameter was made of since an earlier cut; empty where it was there then.

        Raises:
            ModelError: this one does not go on from it.
        """
        given = self.made[path]
        for count in range(len(given), -1, -1):
            there = path if count == len(given) else given[count]
            if earlier.made.get(there, ()) == given[:count]:
                return given[count:]
        raise ModelError(f"{path}: was made otherwise in an earlier cut")

    def entrance(self, layer: str) -> str:
        """The layer that takes now what a layer took before.

        Example:
            >>> Cut(entrances=(("hidden", "hidden_factor"),)).entrance("hidden")
            'hidden_factor'
        """
        for replaced, first in self.entrances:
            layer = first if layer == replaced else layer
        return layer

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
