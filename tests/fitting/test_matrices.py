from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.errors import EncodingError
from bitwidth.fitting import Arrangement, plain_matrix


@given(st.permutations(range(4)), st.integers(0, 2), st.integers(0, 2))
def test_put_undoes_take(order: list[int], groups: int, inputs: int) -> None:
    shape = (2, 3, 4, 5)
    lengths = [shape[axis] for axis in order]
    cut = (groups, groups + inputs)
    parts = [lengths[: cut[0]], lengths[cut[0] : cut[1]], lengths[cut[1] :]]
    matrix = tuple(int(np.prod(part, dtype=int)) for part in parts)
    assert len(matrix) == 3
    arrangement = Arrangement(shape, tuple(order), (matrix[0], matrix[1], matrix[2]))
    values = np.arange(120.0).reshape(shape)
    back = np.zeros(shape)
    arrangement.put(back, arrangement.take(values))
    np.testing.assert_array_equal(back, values)


def test_an_index_reads_and_writes_part_of_a_tensor() -> None:
    index = np.array([[[5, 3], [1, 0]]])
    arrangement = Arrangement((6,), (0,), (1, 2, 2), index)
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(arrangement.take(values), index)
    arrangement.put(values, -arrangement.take(values))
    np.testing.assert_array_equal(values, [[0, -1, 2], [-3, 4, -5]])


def test_a_plain_matrix_sums_over_what_is_no_channel() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(
        plain_matrix((2, 3, 4), (1,)).take(values)[0], values.transpose(0, 2, 1).reshape(8, 3)
    )


def test_a_dense_kernel_is_not_copied() -> None:
    values = np.zeros((6, 4), np.float32)
    assert np.shares_memory(plain_matrix((6, 4), (1,)).take(values), values)


def test_another_tensor_is_refused() -> None:
    with pytest.raises(EncodingError, match="does not fit"):
        plain_matrix((2, 3), (1,)).take(np.zeros((4, 3)))
