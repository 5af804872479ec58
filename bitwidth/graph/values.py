"""The values of a snapshot: a read-only mapping from a parameter's path to its array, read when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reader = Callable[[], NDArray[Any]]


class Value:
    """One array, or the way to read it. Snapshots that share a `Value` hold the same array there, read at most once.

    A backend calls `read` on the values of a variable that it is about to change, so that a snapshot keeps what it saw.

    Attributes:
        master: the float array that the value was projected from, where training goes on from it; None where the value
            itself is the start.
    """

    __slots__ = ("_array", "_reader", "master")

    def __init__(self, source: NDArray[Any] | Reader, master: NDArray[Any] | None = None) -> None:
        self.master = None if master is None else _locked(master)
        self._reader: Reader | None = source if callable(source) else None
        self._array: NDArray[Any] | None = None if callable(source) else _locked(source)

    def lend(self, reader: Reader) -> None:
        """Forget the array: `reader` gives the same one when it is asked for again, from where it is held anyway."""
        self._array, self._reader = None, reader

    def read(self) -> NDArray[Any]:
        """The array, read-only."""
        if self._array is None:
            assert self._reader is not None
            self._array, self._reader = _locked(self._reader()), None
        return self._array


class Values(Mapping[str, NDArray[Any]]):
    """Arrays by parameter path, shared between snapshots and never written to.

    Example:
        >>> values = Values({"dense/bias": lambda: np.zeros(3, np.float32)})
        >>> values["dense/bias"]
        array([0., 0., 0.], dtype=float32)
        >>> values["dense/bias"].flags.writeable
        False
    """

    def __init__(self, entries: Mapping[str, NDArray[Any] | Reader | Value]) -> None:
        self._entries = {path: entry if isinstance(entry, Value) else Value(entry) for path, entry in entries.items()}

    def __getitem__(self, path: str) -> NDArray[Any]:
        return self._entries[path].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def value(self, path: str) -> Value:
        """The shared value at `path`: the same object in two snapshots means that it did not change between them."""
        return self._entries[path]

    def replace(self, changes: Mapping[str, NDArray[Any] | Reader | Value]) -> Values:
        """A new mapping with some arrays exchanged; the others are shared."""
        return Values({**self._entries, **changes})


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    if array.flags.writeable:
        array = array.view()
        array.setflags(write=False)
    return array
