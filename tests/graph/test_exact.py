"""What a layer looks up, compares, casts to integers or takes as a mask is never put on a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.graph.exact import exact_inputs

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 1000, (64, 10)).astype(np.float32)


class Own(L.Layer):  # type: ignore[misc]
    """A layer with a kernel that does something with its input first."""

    def __init__(self, first: Callable[[Any, Any], Any], shape: tuple[int, ...] = (10, 6)) -> None:
        super().__init__(name="own")
        self.first = first
        self.kernel = self.add_weight(shape=shape, name="kernel")

    def call(self, x: Any) -> Any:
        return self.first(x, self.kernel)


def embedded() -> Any:
    inputs = keras.Input((10,))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(L.Embedding(1000, 8, name="table")(inputs))))


def own(first: Callable[[Any, Any], Any], shape: tuple[int, ...] = (10, 6)) -> Any:
    inputs = keras.Input((10,))
    return keras.Model(inputs, L.Dense(3)(Own(first, shape)(inputs)))


def shared() -> Any:
    """Ids that a table takes, and a Dense layer too."""
    inputs = keras.Input((10,))
    looked_up = L.GlobalAveragePooling1D()(L.Embedding(1000, 8, name="table")(inputs))
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([looked_up, L.Dense(4, name="beside")(inputs / 1000)])))


def nested() -> Any:
    inner = keras.Sequential([keras.Input((10,)), L.Embedding(1000, 8, name="table"), L.Flatten(), L.Dense(3)])
    inputs = keras.Input((10,))
    return keras.Model(inputs, inner(inputs))


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "embedding": (embedded, "table casts it to integers"),
    "embedding beside a dense layer": (shared, "table casts it to integers"),
    "embedding in a nested model": (nested, "casts it to integers"),
    "gather": (
        lambda: own(lambda x, k: tf.reduce_sum(tf.gather(k, tf.cast(x, tf.int32)), 1), (1001, 6)),
        "own casts it to integers",
    ),
    "gather of shifted ids": (
        lambda: own(
            lambda x, k: tf.reduce_sum(tf.gather(k, tf.cast(tf.reshape(x, (-1, 10)) + 1, tf.int32)), 1), (1002, 6)
        ),
        "own casts it to integers",
    ),
    "one-hot": (
        lambda: own(lambda x, k: tf.reduce_sum(tf.one_hot(tf.cast(x, tf.int32), 1000), 1) @ k, (1000, 6)),
        "own casts it to integers",
    ),
    "comparison": (lambda: own(lambda x, k: tf.cast(x >= 500, tf.float32) @ k), "own compares it"),
    "padding": (lambda: own(lambda x, k: tf.where(tf.equal(x[:, ::2], 0), 0.0, 1.0) @ k, (5, 6)), "own compares it"),
    "truth values": (
        lambda: own(lambda x, k: tf.cast(tf.cast(x, tf.bool), tf.float32) @ k),
        "own casts it to truth values",
    ),
    "buckets": (
        lambda: own(lambda x, k: tf.cast(tf.raw_ops.Bucketize(input=x, boundaries=[100.0, 300.0]), tf.float32) @ k),
        "own compares it",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_must_be_exact_stays_so(name: str) -> None:
    keras.utils.set_random_seed(0)
    model, reason = MODELS[name][0](), MODELS[name][1]
    result = bw.PassManager([bw.Quantize(16, activations=8)]).run(model, data=TOKENS)
    said = [remark for remark in result.report.passes[0].remarks if "not held on a grid" in remark]
    assert any(reason in remark for remark in said)
    error = np.abs(result.model(TOKENS).numpy() - model(TOKENS).numpy()).max()
    assert error <= 0.02 * np.abs(model(TOKENS).numpy()).max()


@pytest.mark.parametrize("name", MODELS)
def test_only_the_inputs_of_the_model_are_exact_there(name: str) -> None:
    graph = bw.read(MODELS[name][0]())
    assert set(exact_inputs(graph)) == set(graph.structure.inputs)


class Pool(L.Layer):  # type: ignore[misc]
    """Attention pooling with a kernel of its own, under a mask of floating point numbers."""

    def __init__(self) -> None:
        super().__init__(name="pool")
        self.kernel = self.add_weight(shape=(8, 1), name="kernel")

    def call(self, x: Any, padding_mask: Any) -> Any:
        scores = (x @ self.kernel)[..., 0] - 1e9 * (1 - padding_mask)
        return tf.einsum("bs,bsd->bd", tf.nn.softmax(scores), x)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_float_mask_is_exact(by_name: bool) -> None:
    x, mask = keras.Input((5, 8)), keras.Input((5,))
    pool = Pool()
    model = keras.Model([x, mask], L.Dense(2)(pool(x, padding_mask=mask) if by_name else pool(x, mask)))
    data = [RNG.standard_normal((32, 5, 8)).astype(np.float32), (RNG.random((32, 5)) > 0.3).astype(np.float32)]
    result = bw.PassManager([bw.Quantize(16, activations=8)]).run(model, data=data)
    assert any("pool takes it as a mask" in remark for remark in result.report.passes[0].remarks)
    assert len(result.graph.activations) == 2
    assert np.abs(result.model(data).numpy() - model(data).numpy()).max() < 0.1


@pytest.mark.parametrize("make", [lambda: L.Dense(4), lambda: L.LSTM(4), lambda: L.Conv1D(4, 3)])
def test_what_is_only_computed_with_is_not_exact(make: Any) -> None:
    inputs = keras.Input((10, 4))
    y = L.LeakyReLU()(make()(inputs))
    assert exact_inputs(bw.read(keras.Model(inputs, L.Dense(2)(y)))) == {}
