"""A gradient that cannot arrive is unknown, and not zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.analysis import Fisher
from bitwidth.analysis.unknown import filled, unknown
from bitwidth.context import Context

X = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)


class Through(L.Layer):  # type: ignore[misc]
    """What no gradient passes."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


class Halves(L.Layer):  # type: ignore[misc]
    """One kernel; half of its outputs are seen through steps."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 16), name="kernel")

    def call(self, x: Any) -> Any:
        left, right = tf.split(self.kernel, 2, axis=1)
        return tf.concat([tf.floor(4 * (x @ left)), x @ right], axis=-1)


def behind(function: Callable[[Any], Any]) -> Any:
    """A Dense layer `blocked` behind a function, and others."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((8,)), L.Dense(16, name="blocked"), Through(function), L.Dense(24, "relu"), L.Dense(3)]
    )


def behind_zero_head() -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8,))
    y = L.Dense(8, "relu", name="blocked")(inputs)
    y = L.Dense(8, kernel_initializer="zeros", name="head")(y)
    return keras.Model(inputs, L.Dense(3)(L.Dense(16, "tanh")(inputs + y)))


BLOCKED: dict[str, Callable[[], Any]] = {
    "floor": lambda: behind(lambda x: tf.floor(4 * x)),
    "sign": lambda: behind(tf.sign),
    "argmax": lambda: behind(lambda x: tf.one_hot(tf.argmax(x, axis=-1), 16)),
    "comparison": lambda: behind(lambda x: tf.cast(x > 0, tf.float32)),
    "cast": lambda: behind(lambda x: tf.cast(tf.cast(4 * x, tf.int32), tf.float32)),
    "stop_gradient": lambda: behind(tf.stop_gradient),
    "zero head": behind_zero_head,
}


def run(model: Any, one: bw.Pass) -> Any:
    result = bw.PassManager([one]).run(model, data=X)
    return result, [remark for remark in result.report.passes[0].remarks if "no gradient arrives" in remark]


@pytest.mark.parametrize("name", BLOCKED)
def test_pruning_by_fisher_takes_no_more_where_no_gradient_arrives(name: str) -> None:
    result, said = run(BLOCKED[name](), bw.Prune(0.5, criterion="fisher"))
    mask = result.graph["blocked/kernel"].encoding.mask
    magnitude = np.abs(BLOCKED[name]().get_layer("blocked").kernel.numpy())
    assert 0.4 <= mask.mean() <= 0.6
    assert magnitude[mask].min() >= magnitude[~mask].max()
    assert any(remark.startswith("blocked/kernel: ") and remark.endswith("pruned by magnitude") for remark in said)


@pytest.mark.parametrize("name", BLOCKED)
def test_grids_weighted_by_fisher_are_those_of_plain_squares_there(name: str) -> None:
    weighted, said = run(BLOCKED[name](), bw.Quantize(4, importance="fisher"))
    plain, _ = run(BLOCKED[name](), bw.Quantize(4))
    np.testing.assert_array_equal(weighted.graph.values["blocked/kernel"], plain.graph.values["blocked/kernel"])
    assert any(remark.startswith("blocked/kernel: ") for remark in said)


@pytest.mark.parametrize("name", BLOCKED)
def test_a_rate_does_not_destroy_what_no_gradient_reaches(name: str) -> None:
    model = BLOCKED[name]()
    result, said = run(model, bw.Quantize(rate=4.0))
    before = model.get_layer("blocked").kernel.numpy()
    error = np.square(result.graph.values["blocked/kernel"] - before).mean() / np.square(before).mean()
    assert error < 0.05
    assert any(remark.startswith("blocked/kernel: ") for remark in said)


def test_half_of_a_kernel_is_unknown() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((8,)), Halves(name="halves"), L.Dense(3)])
    session = bw.backend.backend_for(model).open(model)
    curvature = Context(session, X).ask(Fisher(), session.graph)
    (path,) = unknown(session.graph, curvature, session.graph)
    where = unknown(session.graph, curvature, session.graph)[path]
    assert path == "halves/kernel"
    assert where[:, :8].all()
    assert not where[:, 8:].any()
    assert filled(curvature[path], where)[:, :8] == pytest.approx(curvature[path][:, 8:].mean())
    result, said = run(model, bw.Prune(0.5, criterion="fisher"))
    assert (mask := result.graph[path].encoding.mask) is not None
    assert mask[:, :8].mean() > 0.25
    assert said == [
        "halves/kernel: no gradient arrives at 64 of its 128 weights, so the Fisher information is not known there; "
        "taken as the mean"
    ]


def test_where_nothing_is_known_all_goes_by_magnitude() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((8,)), L.Dense(16), L.Dense(4), Through(tf.round)])
    fisher, said = run(model, bw.Prune(0.5, criterion="fisher"))
    magnitude, _ = run(model, bw.Prune(0.5))
    assert len(said) == 2
    for path in (p.path for p in fisher.graph if p.role == "kernel"):
        np.testing.assert_array_equal(fisher.graph[path].encoding.mask, magnitude.graph[path].encoding.mask)


def test_inputs_that_are_always_zero_are_known_to_be_worthless() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((8,)), L.Dense(16, name="first"), L.Dense(3)])
    result = bw.PassManager([bw.Prune(0.25, criterion="fisher")]).run(model, data=X * (np.arange(8) > 1))
    assert (mask := result.graph["first/kernel"].encoding.mask) is not None
    assert not mask[:2].any()
    assert not any("no gradient" in remark for remark in result.report.passes[0].remarks)
