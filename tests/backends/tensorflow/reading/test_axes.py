import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.backends.tensorflow.reading.axes import fitted, origins, permuted, reshaped, whole


def test_merge_and_split_give_the_axes_back() -> None:
    axes = whole((8, 2, 3))
    merged = reshaped(axes, (8, 6))
    assert merged is not None
    assert origins(merged, [1]) == (1, 2)
    assert reshaped(merged, (8, 2, 3)) == axes


def test_an_uneven_tear_is_not_known() -> None:
    assert reshaped(whole((4, 6)), (3, 8)) is None
    assert reshaped(whole((4, 6)), (4, 5)) is None


def test_a_split_axis_stays_what_it_was() -> None:
    halves = reshaped(whole((4, 6)), (4, 2, 3))
    assert halves is not None
    assert [origins(halves, [axis]) for axis in range(3)] == [(0,), (1,), (1,)]


def test_cut_axes_keep_their_origin_and_one_index_is_no_axis() -> None:
    cut = fitted(whole((4, 6)), (4, 3))
    assert cut is not None
    assert origins(cut, [1]) == (1,)
    one = fitted(whole((2, 6)), (1, 6))
    assert one is not None
    assert origins(one) == (1,)
    assert fitted(whole((4, 6)), (6,)) is None


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_follows_transposes_and_reshapes_as_numpy_does(shape: list[int], data: st.DataObject) -> None:
    """An axis of the result depends on an axis of the parameter just where the indices along it move."""
    order = data.draw(st.permutations(range(len(shape))))
    axes = permuted(whole(shape), order)
    turned = [shape[axis] for axis in order]
    join = data.draw(st.integers(0, len(shape) - 1))
    merged = [*turned[:join], int(np.prod(turned[join:]))]
    found = reshaped(axes, merged)
    assert found is not None
    for place in range(len(merged)):
        expected = {order[place]} if place < join else set(order[join:])
        real = {axis for axis in expected if shape[axis] > 1}
        assert (
            real <= set(origins(found, [place])) <= expected | {axis for axis in range(len(shape)) if shape[axis] == 1}
        )
