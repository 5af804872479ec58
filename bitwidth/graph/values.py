"""The values of a snapshot: a read-only mapping from a parameter's path to its array, read when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
from typing_extensions import override

from bitwidth.encodings import Encoding
from bitwidth.typing import Array

Reader = Callable[[], Array]
_TOKENS = count()


class Value:
    """One array, or the way to read it, and the float array behind it. What it says never changes.

    A backend calls `read` on the values of a variable that it is about to change, so that a snapshot keeps what it saw.

    Example:
        >>> held = Value(np.zeros(2, np.float32))
        >>> trained = held.with_master(np.full(2, 0.1, np.float32))
        >>> trained.same(held), held.master is None
        (True, True)
    """

    __slots__ = ("_array", "_encoding", "_master", "_reader", "_token")

    def __init__(self, source: Array | Reader, master: Array | None = None, encoding: Encoding | None = None) -> None:
        """Hold an array.

        Args:
            source: the array, copied if anybody could still write to it, or a function that returns it.
            master: the float array that it was projected from, copied likewise.
            encoding: what projected it, if anything did.
        """
        self._encoding = encoding
        self._master = None if master is None else _kept(master)
        self._reader: Reader | None = source if callable(source) else None
        self._array: Array | None = None if callable(source) else _kept(source)
        self._token = next(_TOKENS)

    @property
    def master(self) -> Array | None:
        """The float array that the array was projected from: training goes on from it. None where it is the array."""
        return self._master

    def is_on(self, encoding: Encoding) -> bool:
        """Whether the array is known to be what an encoding holds, since that made it."""
        return self._encoding is encoding

    @property
    def start(self) -> Array:
        """What training starts from: the master, or the array itself where there is none."""
        return self.read() if self._master is None else self._master

    @property
    def token(self) -> int:
        """A number that stands for the array, not for its master: equal numbers in a process, equal arrays."""
        return self._token

    def same(self, other: Value) -> bool:
        """Whether the two are known to hold the same array; their masters may differ."""
        return self._token == other._token

    def with_master(self, master: Array, encoding: Encoding | None = None) -> Value:
        """The same array, from which training goes on elsewhere; `encoding` projects the master to it, if given."""
        value = Value(self.read(), master, encoding or self._encoding)
        value._token = self._token
        return value

    def lend(self, reader: Reader) -> None:
        """Forget the array: `reader` returns the same one when it is asked for again, from where it is held anyway."""
        self._array, self._reader = None, reader

    def read(self) -> Array:
        """The array, read-only."""
        if self._array is None:
            assert self._reader is not None
            self._array, self._reader = _locked(self._reader()), None
        return self._array


class Values(Mapping[str, Array]):
    """Arrays by parameter path, shared between snapshots and never written to.

    Example:
        >>> values = Values({"dense/bias": lambda: np.zeros(3, np.float32)})
        >>> values["dense/bias"]
        array([0., 0., 0.], dtype=float32)
        >>> values["dense/bias"].flags.writeable
        False
    """

    def __init__(self, entries: Mapping[str, Array | Reader | Value]) -> None:
        self._entries = {path: entry if isinstance(entry, Value) else Value(entry) for path, entry in entries.items()}

    @override
    def __getitem__(self, path: str) -> Array:
        return self._entries[path].read()

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @override
    def __len__(self) -> int:
        return len(self._entries)

    def value(self, path: str) -> Value:
        """The value at `path`, with its master; `same` compares it with that of another snapshot."""
        return self._entries[path]

    def same(self, other: Values, path: str) -> bool:
        """Whether two snapshots are known to hold the same array at `path`."""
        return self._entries[path].same(other._entries[path])

    def token(self) -> tuple[int, ...]:
        """Numbers that stand for all arrays: equal in two snapshots where every array is known to be the same."""
        return tuple(entry.token for entry in self._entries.values())

    def masters(self) -> dict[str, Array]:
        """The float arrays behind the values, by path, where they differ from the values."""
        found = {path: entry.master for path, entry in self._entries.items() if entry.master is not None}
        return {path: master for path, master in found.items() if not np.array_equal(master, self[path])}

    def replace(self, changes: Mapping[str, Array | Reader | Value]) -> Values:
        """A new mapping with some arrays exchanged; the others are shared."""
        return Values({**self._entries, **changes})


def _kept(array: Array) -> Array:
    """`array` as nobody can change it: a copy, unless it and all that it is a view of are read-only already."""
    array = np.asarray(array)
    holder: Any = array
    while isinstance(holder, np.ndarray):
        if holder.flags.writeable:
            return _locked(array.copy())
        holder = holder.base
    return array


def _locked(array: Array) -> Array:
    array = np.asarray(array)
    if array.flags.writeable:
        array = array.view()
        array.setflags(write=False)
    return array
