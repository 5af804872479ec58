from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import IntegerLevels, Masked, Quantized
from bitwidth.errors import EncodingError, ModelError, PromiseError
from bitwidth.graph import Cut, Graph, Parameter, Structure, Value, cut_between, cut_graph
from bitwidth.passes.base import check_kept
from bitwidth.report import compare

KERNEL = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


@st.composite
def kept(draw: st.DrawFn, length: int) -> NDArray[np.intp]:
    chosen = draw(st.sets(st.integers(0, length - 1), min_size=1))
    return np.array(sorted(chosen), np.intp)


@given(st.data())
def test_cuts_compose_and_come_apart_again(data: st.DataObject) -> None:
    first = Cut({"a": {1: data.draw(kept(6))}, "b": {0: data.draw(kept(3))}})
    left = len(first.kept["a"][1])
    second = Cut({"a": {0: data.draw(kept(4)), 1: data.draw(kept(left))}, "c": {0: data.draw(kept(2))}})
    both = first.then(second)
    again = both.since(first)
    for path, shape in {"a": (4, 6), "b": (3,), "c": (2, 2), "d": (5,)}.items():
        array = np.arange(np.prod(shape)).reshape(shape)
        stepwise = second.take(path, first.take(path, array))
        np.testing.assert_array_equal(both.take(path, array), stepwise)
        np.testing.assert_array_equal(again.take(path, first.take(path, array)), stepwise)
        assert both.shape(path, shape) == stepwise.shape
    assert not both.since(both)
    assert both.since(Cut()).kept.keys() == both.kept.keys()


@pytest.mark.parametrize("indices", [[], [1, 1], [2, 0], [-1, 2], [[0, 1]]])
def test_what_is_no_cut_is_refused(indices: Any) -> None:
    with pytest.raises(ModelError, match="ascending"):
        Cut({"a": {0: np.array(indices)}})


def test_what_was_removed_does_not_come_back() -> None:
    first = Cut({"a": {0: np.array([0, 2])}})
    for later in (Cut(), Cut({"a": {0: np.array([0, 1])}}), Cut({"b": {0: np.array([0])}})):
        with pytest.raises(ModelError, match="earlier cut has removed"):
            later.since(first)


def made(*paths: str, of: str = "a") -> Cut:
    """Parameters that were made of one."""
    return Cut(made=dict.fromkeys(paths, (of,)), entrances=((of, paths[0]),))


def test_what_was_made_has_no_entries_of_before() -> None:
    first, second = Cut({"a": {1: np.array([1, 2])}}), made("f", "a")
    third = Cut({"a": {0: np.array([0])}, "f": {1: np.array([3])}, "b": {0: np.array([1])}})
    both = first.then(second).then(third)
    assert {path: {axis: kept.tolist() for axis, kept in axes.items()} for path, axes in both.kept.items()} == {
        "a": {0: [0]},
        "f": {1: [3]},
        "b": {0: [1]},
    }
    assert both.made == {"f": ("a",), "a": ("a",)}
    since = both.since(first)
    assert since.made == both.made
    assert (since.entrance("a"), since.entrance("b")) == ("f", "b")
    assert both.since(first.then(second)).made == {}
    assert both.since(first.then(second)).entrance("a") == "a"
    assert both.since(first.then(second)).kept.keys() == {"a", "f", "b"}
    assert not both.since(both)
    assert Cut.of_all([first, second, third]).kept.keys() == both.kept.keys()


def test_what_was_made_is_made_again() -> None:
    first, second, third = made("f", "a"), made("g", "a"), made("h", "f", of="f")
    twice = first.then(second)
    assert twice.made == {"f": ("a",), "a": ("a", "a"), "g": ("a", "a")}
    assert twice.since(first).made == {"a": ("a",), "g": ("a",)}
    assert (twice.entrance("a"), twice.since(first).entrance("a")) == ("f", "g")
    assert first.then(third).made == {"f": ("a", "f"), "a": ("a",), "h": ("a", "f")}
    assert (first.then(third).entrance("a"), first.then(third).since(first).entrance("f")) == ("h", "h")
    assert first.then(third).since(first).made == {"f": ("f",), "h": ("f",)}
    assert first.then(third).since(Cut()).made == first.then(third).made
    with pytest.raises(ModelError, match="otherwise"):
        Cut(made={"f": ("a",)}).since(Cut(made={"a": ("x",), "f": ("z",)}))


def graph(shape: tuple[int, ...] = (4, 6)) -> Graph:
    parameters = [
        Parameter("a/kernel", shape, "float32", "kernel", "a"),
        Parameter("a/bias", (2,), "float32", "bias", "a"),
    ]
    values = {"a/kernel": np.ones(shape, np.float32), "a/bias": np.zeros(2, np.float32)}
    return Graph(Structure("net", (), (), (), (), ()), parameters, values)


def compressed() -> Graph:
    grid = Quantized(IntegerLevels(-7, 7), np.array([[0.5] * 6], np.float32), (4, 1))
    masked = Masked(KERNEL > 0.6, grid)
    held = graph().update({"a/kernel": KERNEL}, {})
    return held.update(encodings={"a/kernel": masked})


def test_a_cut_graph_keeps_values_masters_masks_and_grids() -> None:
    before, cut = compressed(), Cut({"a/kernel": {1: np.array([1, 3, 4])}})
    after = cut_graph(before, cut, graph((4, 3)))
    np.testing.assert_array_equal(after.values["a/kernel"], before.values["a/kernel"][:, [1, 3, 4]])
    np.testing.assert_array_equal(after.values.value("a/kernel").start, KERNEL[:, [1, 3, 4]])
    np.testing.assert_array_equal(after["a/kernel"].encoding.mask, (KERNEL > 0.6)[:, [1, 3, 4]])
    assert after["a/kernel"].encoding.bits == 4
    assert after.values.same(before.values, "a/bias")
    assert cut_between(before, after).kept["a/kernel"][1].tolist() == [1, 3, 4]
    second = cut_graph(after, Cut({"a/kernel": {1: np.array([0, 2])}}), graph((4, 2)))
    assert second.structure.cut.kept["a/kernel"][1].tolist() == [1, 4]
    assert cut_between(after, second).kept["a/kernel"][1].tolist() == [0, 2]


def test_promises_are_compared_through_the_cut() -> None:
    before = compressed()
    after = cut_graph(before, Cut({"a/kernel": {1: np.array([0, 5])}}), graph((4, 2)))
    check_kept(before, after, "Halve")
    (kernel, bias) = compare(before, after, {"a/bias": "not a kernel"})
    assert (kernel.size, kernel.distortion, kernel.reason) == (8, 0.0, "")
    assert kernel.bytes_before is not None
    assert kernel.bytes_after is not None
    assert kernel.bytes_before > kernel.bytes_after
    assert bias.reason == "not a kernel"
    back = after["a/kernel"].encoding
    assert isinstance(back, Masked)
    opened = Graph(
        after.structure,
        [Parameter("a/kernel", (4, 2), "float32", "kernel", "a", encoding=back.unmasked), after["a/bias"]],
        after.values,
    )
    with pytest.raises(PromiseError, match="pruned"):
        check_kept(before, opened, "Halve")


def test_a_cut_through_a_group_or_to_another_model_is_refused() -> None:
    grouped = Quantized(IntegerLevels(-7, 7), np.full((1, 2), 0.5, np.float32), (4, 3))
    before = graph().update(encodings={"a/kernel": grouped})
    with pytest.raises(EncodingError):
        cut_graph(before, Cut({"a/kernel": {1: np.array([0, 4])}}), graph((4, 2)))
    with pytest.raises(ModelError, match=r"\(4, 2\) in the cut model, and \(4, 3\) is left"):
        cut_graph(before, Cut({"a/kernel": {1: np.array([0, 1, 2])}}), graph((4, 2)))
    other = Graph(before.structure, [before["a/kernel"]], {"a/kernel": before.values["a/kernel"]})
    with pytest.raises(ModelError, match="differ in their parameters: a/bias"):
        cut_graph(before, Cut(), other)
    assert isinstance(before.values.value("a/kernel"), Value)
