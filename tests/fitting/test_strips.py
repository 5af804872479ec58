from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.encodings import block_reduce, grid_shape
from bitwidth.errors import EncodingError
from bitwidth.fitting import strips as module
from bitwidth.fitting.strips import check_counted, per_block, strips


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 10)), max_size=4), st.sampled_from([1, 7, 1 << 17]), st.data()
)
def test_strips_cover_each_block_once(axes: list[tuple[int, int]], size: int, data: st.DataObject) -> None:
    """Sums over strips are sums over blocks, whatever the shape, the mask and the size of a strip."""
    shape, block = tuple(length for length, _ in axes), tuple(size for _, size in axes)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = np.asarray(rng.normal(size=shape), np.float32)
    keep = np.asarray(rng.random(shape) < 0.7) if data.draw(st.booleans()) else None
    weights = np.asarray(rng.random(shape), np.float32) if data.draw(st.booleans()) else None
    counted: NDArray[np.float64] = np.ones(shape) if weights is None else weights.astype(np.float64)
    counted = counted if keep is None else counted * keep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP", size)
        found = list(strips(x, block, keep, weights))

        def total(strip: module.Strip) -> NDArray[np.float64]:
            return strip.total(lambda v, w: (v if w is None else v * w).sum(axis=1))

        sums = per_block(((s, (total(s),)) for s in found), grid_shape(shape, block), [np.float64])[0]
        spans = per_block(((s, s.span()) for s in found), grid_shape(shape, block), [np.float32, np.float32])
    np.testing.assert_allclose(sums, block_reduce(counted * x, block, np.add), atol=1e-5)
    for span, end, worst in zip(spans, (np.minimum, np.maximum), (np.inf, -np.inf), strict=True):
        expected = block_reduce(np.where(counted > 0, x, worst), block, end)
        np.testing.assert_array_equal(span, np.where(np.isinf(expected), 0, expected))


def test_a_strip_is_a_small_part_of_a_tensor() -> None:
    x = np.zeros((64, 8192), np.float32)
    sizes = [strip.values.size for strip in strips(x, (64, 1))]
    assert max(sizes) <= module.STRIP
    assert sum(sizes) == x.size
    whole = next(strips(x, x.shape))
    assert max(piece.size for piece, _ in whole.pieces()) <= module.STRIP
    assert np.shares_memory(whole.values, x)


def test_a_tensor_without_values_has_no_strips() -> None:
    assert not list(strips(np.zeros((0, 3), np.float32), (1, 1)))


@pytest.mark.parametrize("weights", [[-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [1.0], [[1.0, 1.0]]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    with pytest.raises(EncodingError, match="weights"):
        check_counted((2,), None, np.array(weights))
    with pytest.raises(EncodingError, match="keep"):
        check_counted((2,), np.array([True]), None)
