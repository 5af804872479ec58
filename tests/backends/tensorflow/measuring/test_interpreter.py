from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

from bitwidth.backends.tensorflow.measuring.interpreter import Replay
from bitwidth.backends.tensorflow.measuring.observing import observed
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.backends.tensorflow.session import KerasSession


class Branching(keras.Model):  # type: ignore[misc]
    """A branch, a loop and a called function of TensorFlow's own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(3)
        self.square = tf.function(lambda x: x * x + 1.0)

    def call(self, inputs: Any) -> Any:
        x = self.dense(inputs)
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)
        x = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(y)), [0, x])[1]
        x = tf.switch_case(tf.shape(x)[0] % 2, [lambda: x, lambda: -x])
        return self.square(x)


def models() -> dict[str, tuple[Any, Any]]:
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    text = rng.integers(0, 9, (5, 7)).astype(np.int32)
    sequence = rng.standard_normal((5, 7, 4)).astype(np.float32)
    i = keras.Input((7, 4))
    y = L.MultiHeadAttention(2, 3)(i, i)
    y = L.Conv1D(5, 3, padding="causal")(L.LayerNormalization()(y + i))
    attention = keras.Model(i, L.Dense(2)(L.Flatten()(y)))
    branching = Branching()
    branching(np.ones((2, 4), np.float32))
    return {
        "recurrent": (
            keras.Sequential(
                [
                    keras.Input((7,), dtype="int32"),
                    L.Embedding(9, 4, mask_zero=True),
                    L.Bidirectional(L.LSTM(3, return_sequences=True)),
                    L.GRU(4),
                    L.Dense(2),
                ]
            ),
            text,
        ),
        "attention": (attention, sequence),
        "branches": (branching, rng.standard_normal((5, 4)).astype(np.float32)),
        "convolution": (
            keras.Sequential(
                [
                    keras.Input((8, 8, 3)),
                    L.Conv2D(4, 3),
                    L.BatchNormalization(),
                    L.ReLU(),
                    L.MaxPooling2D(),
                    L.Flatten(),
                ]
            ),
            rng.standard_normal((5, 8, 8, 3)).astype(np.float32),
        ),
    }


@pytest.mark.parametrize("name", ["recurrent", "attention", "branches", "convolution"])
def test_a_replay_gives_what_the_model_gives(name: str) -> None:
    model, x = models()[name]
    expected = tf.nest.flatten(model(x, training=False))
    for _ in range(2):
        found = Replay(traced(model, x)).run(x)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6, atol=1e-6)


def test_an_operation_in_a_loop_is_seen_at_every_step() -> None:
    model, x = models()["recurrent"]
    trace = traced(model, x)
    seen: list[str] = []
    names = [
        frame.name(op) for frame in trace.frame.walk() for op in frame.graph.get_operations() if op.type == "MatMul"
    ]
    watch = {name: (lambda op, inputs, outputs, name=name: seen.append(name)) for name in names}
    Replay(trace).run(x, watch)
    inside = [name for name in names if "/body/" in name]
    assert inside
    assert {seen.count(name) for name in inside} == {7}


def test_an_edited_tensor_takes_the_place_of_the_computed_one() -> None:
    model, x = models()["convolution"]
    trace = traced(model, x)
    relu = next(op.outputs[0].name for op in trace.frame.graph.get_operations() if op.type == "Relu")
    (found,) = Replay(trace).run(x, edit={relu: tf.zeros_like})
    assert not found.numpy().any()


def test_what_is_observed_is_what_flows() -> None:
    model, x = models()["convolution"]
    session = KerasSession(model)
    relu = next(op.outputs[0] for op in session.graph.ops if op.kind == "relu")
    seen = observed(session._trace, [relu, session.graph.structure.inputs[0]], [x[:2], x[2:]])
    outputs = keras.Model(model.inputs, model.layers[2].output)([x]).numpy()
    assert seen[relu].low == outputs.min()
    assert seen[relu].high == outputs.max()
    np.testing.assert_allclose(np.sort(seen[relu].values), np.sort(outputs.ravel()))
    assert seen[session.graph.structure.inputs[0]].values.size == x.size
