"""Which weights go when tensors compete."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.passes.ranking import GONE, Candidates, Units, alike, guard, keep_most_important, lamp, output_channels

SCORES = arrays.arrays(np.float64, arrays.array_shapes(max_dims=2, max_side=8), elements=st.floats(0, 10))


@given(st.lists(SCORES, min_size=1, max_size=4), st.floats(0, 0.99))
def test_the_least_important_go_and_one_stays(scores: list[Any], sparsity: float) -> None:
    guards = [guard(score, 1) for score in scores]
    total = sum(score.size for score in scores)
    keeps = keep_most_important([Candidates.of(score) for score in scores], round(sparsity * total), guards)
    assert [keep.shape for keep in keeps] == [score.shape for score in scores]
    kept = sum(int(keep.sum()) for keep in keeps)
    assert kept == max(total - round(sparsity * total), len(scores))
    assert all(keep.any() for keep in keeps)
    dropped = [score[~keep].max(initial=GONE) for score, keep in zip(scores, keeps, strict=True)]
    free = [keep & ~guarded for keep, guarded in zip(keeps, guards, strict=True)]
    assert max(dropped) <= min(score[keep].min(initial=np.inf) for score, keep in zip(scores, free, strict=True))


@given(SCORES, st.floats(0.1, 100))
def test_lamp_keeps_the_order_and_knows_no_scale(scores: Any, factor: float) -> None:
    found = lamp(scores)
    order = np.argsort(scores, axis=None, kind="stable")
    assert (np.diff(found.reshape(-1)[order]) >= 0).all() or not scores.any()
    assert found.max() == pytest.approx(1.0 if scores.any() else 0.0)
    np.testing.assert_allclose(lamp(scores * factor), found, rtol=1e-6, atol=1e-12)


def test_lamp_by_hand_and_under_a_mask() -> None:
    np.testing.assert_allclose(lamp(np.array([1.0, 4.0, 4.0])), [1 / 9, 4 / 8, 4 / 4])
    np.testing.assert_allclose(lamp(np.array([1.0, GONE, 4.0])), [1 / 5, GONE, 1])
    assert not lamp(np.zeros(3)).any()


def test_scores_that_are_alike_lose_their_fair_share() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random(1000), 1e-9 * rng.random((20, 50))
    keeps = keep_most_important([Candidates.of(one), Candidates.of(alike(two, [one]))], 600)
    assert [keep.mean() for keep in keeps] == pytest.approx([0.7, 0.7], abs=0.01)
    assert two[keeps[1]].min() >= two[~keeps[1]].max()


@pytest.mark.parametrize("channels", [[(1,)], [(0,)], [(0, 1)], [(0,), (1,)], []])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_what_is_guarded(channels: Any, count: int) -> None:
    scores = np.random.default_rng(1).random((4, 5))
    kept = guard(scores, count, channels)
    assert kept.sum() >= count
    for axes in channels:
        others = tuple(axis for axis in range(2) if axis not in axes)
        assert kept.any(axis=others).all()
        assert (kept & (scores == scores.max(axis=others, keepdims=True))).sum() >= np.prod([(4, 5)[a] for a in axes])


def channels_of(outputs: Any, inputs: Any) -> Any:
    model = keras.Model(inputs, outputs)
    return output_channels(bw.read(model))


def test_the_kernels_in_front_of_the_outputs() -> None:
    x = keras.Input((8,))
    hidden = L.Dense(6, "relu", name="hidden")(x)
    assert channels_of(L.Dense(3, "softmax", name="head")(hidden), x) == {"head/kernel": [(1,)]}
    two = [L.Dense(3, name="one")(hidden), L.Dense(1, "sigmoid", name="two")(hidden)]
    assert channels_of(two, x) == {"one/kernel": [(1,)], "two/kernel": [(1,)]}
    beside = L.Dense(6, name="beside")(hidden) + hidden
    assert set(channels_of(beside, x)) == {"beside/kernel", "hidden/kernel"}


def test_convolutions_and_recurrent_layers_in_front_of_the_outputs() -> None:
    image = keras.Input((6, 6, 2))
    last = L.Conv2DTranspose(3, 2, name="last")(L.Conv2D(4, 3, name="first")(image))
    assert channels_of(last, image) == {"last/kernel": [(2,)]}
    steps = keras.Input((5, 2))
    assert set(channels_of(L.GRU(3, name="gru")(L.Dense(4, name="d")(steps)), steps)) >= {"gru/cell/recurrent_kernel"}


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 30), st.integers(0, 99))
def test_units_go_as_a_whole_the_cheapest_first(count: int, size: int, going: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(count), size))
    scores = np.where(rng.random(count * size) < 0.2, GONE, rng.normal(size=count * size))
    units = Units((count * size,), labels)
    candidates = Candidates.of(scores, units)
    (keep,) = keep_most_important([candidates], going)
    kept = units.sums(keep)
    assert set(kept.tolist()) <= {0.0, float(size)}
    zeros = int((~keep | (scores == GONE)).sum())
    assert zeros <= max(going, int((scores == GONE).sum()))
    living = candidates.scores > GONE
    left = candidates.scores[living & (kept > 0)]
    if left.size:
        assert candidates.scores[living & (kept == 0)].max(initial=GONE) <= left.min()
        assert zeros + candidates.sizes[living & (kept > 0)][left.argmin()] > going
