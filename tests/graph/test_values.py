from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.graph import Value, Values


class Source:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> NDArray[np.float32]:
        self.reads += 1
        return np.full(2, self.reads, np.float32)


def test_a_value_is_read_once_and_when_it_is_asked_for() -> None:
    source = Source()
    value = Value(source)
    assert source.reads == 0
    first = value.read()
    assert first.tolist() == [1, 1]
    assert value.read() is first
    assert source.reads == 1


def test_a_value_lets_go_of_its_reader() -> None:
    """So that a snapshot does not keep a whole model alive."""
    import gc
    import weakref

    source = Source()
    value, alive = Value(source), weakref.ref(source)
    value.read()
    del source
    gc.collect()
    assert alive() is None
    assert value.read().tolist() == [1, 1]


def test_a_reader_that_fails_can_be_asked_again() -> None:
    tries: list[int] = []

    def read() -> NDArray[np.float32]:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("busy")
        return np.zeros(1, np.float32)

    value = Value(read)
    with pytest.raises(RuntimeError, match="busy"):
        value.read()
    assert value.read().tolist() == [0]


def test_arrays_are_read_only_without_locking_the_one_that_was_given() -> None:
    given = np.zeros(2, np.float32)
    values = Values({"p": given, "q": lambda: np.ones(2, np.float32)})
    for path in values:
        with pytest.raises(ValueError, match="read-only"):
            values[path][0] = 3
    assert given.flags.writeable


def test_replace_shares_the_rest() -> None:
    source = Source()
    before = Values({"p": source, "q": np.zeros(1)})
    after = before.replace({"q": np.ones(1)})
    assert list(after) == ["p", "q"]
    assert len(after) == 2
    assert source.reads == 0
    assert after["p"] is before["p"]
    assert after.value("p") is before.value("p")
    assert after.value("q") is not before.value("q")
    assert before["q"].tolist() == [0]


def test_a_snapshot_keeps_what_it_saw() -> None:
    """A backend reads the value of a variable before it changes the variable."""
    variable = np.zeros(2, np.float32)
    values = Values({"p": lambda: variable.copy()})
    values.value("p").read()
    variable[:] = 5
    assert values["p"].tolist() == [0, 0]


def test_a_path_that_is_not_there() -> None:
    values = Values({"p": np.zeros(1)})
    with pytest.raises(KeyError):
        values["q"]
    with pytest.raises(KeyError):
        values.value("q")
    assert "q" not in values


@pytest.mark.parametrize("locked", [False, True])
def test_nobody_can_write_to_what_a_value_holds(locked: bool) -> None:
    """Not through the array that was given, nor through what a read-only view looks at, for array and master."""
    given, master = np.zeros(2, np.float32), np.ones(2, np.float32)
    views = [array.view() for array in (given, master)]
    for view in views:
        view.setflags(write=not locked)
    value = Value(views[0], views[1])
    given[:] = 7
    master[:] = 7
    assert value.read().tolist() == [0, 0]
    assert value.master is not None
    assert value.master.tolist() == [1, 1]


def test_what_a_value_says_cannot_be_exchanged() -> None:
    value = Value(np.zeros(2, np.float32))
    with pytest.raises(AttributeError):
        value.master = np.ones(2)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        value.token = 3  # type: ignore[misc]


def test_unchanged_is_a_number_and_not_an_object() -> None:
    value = Value(np.zeros(2, np.float32))
    other = value.with_master(np.ones(2, np.float32))
    assert other is not value
    assert other.same(value)
    assert value.master is None
    assert not Value(np.zeros(2, np.float32)).same(value)
    assert Values({"p": value}).token() == Values({"p": other}).token()
    assert Values({"p": value}).token() != Values({"p": value, "q": other}).token()
