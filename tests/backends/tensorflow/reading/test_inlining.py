"""Models with a `tf.function` around a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812
from typing_extensions import override

import bitwidth as bw

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 6)).astype(np.float32), np.zeros((32, 3), np.float32)


class Model(keras.Model):  # type: ignore[misc]
    """A model whose layers are first built inside of its decorated call."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.first, self.norm, self.last = L.Dense(8, "relu"), L.BatchNormalization(), L.Dense(3)

    @tf.function  # type: ignore[untyped-decorator]
    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.norm(self.first(x), training=training))


class Jitted(Model):
    """The same, with settings."""

    @tf.function(autograph=False, reduce_retracing=True)  # type: ignore[untyped-decorator]
    @override
    def call(self, x: Any) -> Any:
        return self.last(self.norm(self.first(x)))


class Inner(L.Layer):  # type: ignore[misc]
    """A layer with a decorated call."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.first, self.last = L.Dense(8, "relu"), L.Dense(4)

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.last.build((*shape[:-1], 8))

    @tf.function  # type: ignore[untyped-decorator]
    def call(self, x: Any) -> Any:
        return self.last(self.first(x))


def around_an_instance() -> Any:
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dense(3)])
    model.call = tf.function(model.call)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "model": Model,
    "with settings": Jitted,
    "layer": lambda: keras.Sequential([keras.Input((6,)), Inner(), L.Dense(3)]),
    "instance": around_an_instance,
}
FEEDBACK = bw.Quantize(4, rounding="error_feedback")
PASSES: dict[str, list[bw.Pass]] = {
    "weights": [bw.Quantize(8)],
    "activations": [bw.Quantize(8, activations=8)],
    "gradients, then features": [bw.Prune(0.3, criterion=bw.Fisher(samples=8)), FEEDBACK],
    "training, then features": [bw.Finetune(epochs=1, loss="mse"), FEEDBACK],
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("passes", PASSES)
def test_the_loaded_model_is_the_result(name: str, passes: str, tmp_path: Any) -> None:
    model = MODELS[name]()
    before = model(X).numpy()
    result = bw.PassManager(PASSES[passes]).run(model, data=(X, Y), validation=(X, Y), loss="mse")
    np.testing.assert_array_equal(model(X).numpy(), before)
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw", custom_objects={c.__name__: c for c in (Model, Jitted, Inner)})
    np.testing.assert_array_equal(loaded(X).numpy(), result.model(X).numpy())
    if "training" not in passes:
        assert not np.array_equal(result.model(X).numpy(), before)
        assert np.abs(result.model(X).numpy() - before).max() < (0.2 if "gradients" not in passes else 10)


@pytest.mark.parametrize("name", MODELS)
def test_grids_and_training_reach_what_is_inside(name: str) -> None:
    model = MODELS[name]()
    model(X)
    plain, held = (bw.PassManager([bw.Quantize(16, activations=bits)]).run(model, data=X) for bits in (None, 3))
    assert np.abs(plain.model(X).numpy() - held.model(X).numpy()).max() > 1e-3
    tune = bw.Finetune(epochs=3, loss="mse", learning_rate=0.05)
    result = bw.PassManager([bw.Prune(0.3, scope="local"), tune]).run(model, data=(X, Y))
    assert not result.report.passes[1].skipped.keys() & {p.path for p in result.graph if p.role == "kernel"}
    for kernel in (p for p in result.graph if p.role == "kernel"):
        mask = kernel.encoding.mask
        assert mask is not None
        assert not result.graph.values[kernel.path][~mask].any()
