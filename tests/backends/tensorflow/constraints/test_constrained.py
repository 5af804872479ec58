"""A model under constraints that anybody may train: from attach to detach, with a way back."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.backends.tensorflow.constraints.constrained import ConstrainedModel
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.encodings import IntegerLevels, Quantized
from bitwidth.graph import Graph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)


def opened() -> tuple[KerasSession, ConstrainedModel, Graph]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "tanh", name="a"), keras.layers.Dense(1, name="b")]
    )
    session = KerasSession(model)
    grid = Quantized(IntegerLevels(-3, 3), np.full((1, 1), 0.25, np.float32), (6, 8))
    graph = session.graph.update(encodings={"a/kernel": grid})
    session.write(graph)
    return session, session._constrained, graph


def step(model: Any, rate: float = 0.05) -> float:
    """One step of a loop of a user's own."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(X, training=True) - Y))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        variable.assign_sub(rate * gradient)
    return float(loss)


def test_an_own_loop_trains_masters_under_the_encoding() -> None:
    session, constrained, graph = opened()
    constrained.attach(graph)
    losses = [step(session.model, 0.2) for _ in range(40)]
    read = np.asarray(session.model.get_layer("a").kernel.value)
    np.testing.assert_array_equal(read, graph["a/kernel"].encoding.project(read))
    constrained.detach()
    after = constrained.bake()
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(after.values["a/kernel"], read)
    assert not np.array_equal(after.values.value("a/kernel").start, read), "the master stays float"
    np.testing.assert_array_equal(session.model.get_layer("a").kernel.numpy(), read)


@pytest.mark.parametrize("learn", [False, True])
def test_a_state_is_gone_back_to(learn: bool) -> None:
    session, constrained, graph = opened()
    constrained.attach(graph, learn=learn)
    step(session.model)
    state = constrained.state()
    first = [step(session.model) for _ in range(3)]
    milder = graph.update(
        encodings={"a/kernel": Quantized(IntegerLevels(-3, 3), np.full((1, 1), 0.125, np.float32), (6, 8))}
    )
    with constrained.masters() as masters:
        constrained.advance(milder, masters)
    step(session.model)
    constrained.restore(state)
    assert constrained.graph is state.graph
    assert [step(session.model) for _ in range(3)] == first
    assert bool(constrained.learned) == learn
    constrained.detach()
    assert constrained.bake()["a/kernel"].encoding.bits == 3


def test_masters_are_read_within_their_moment_only() -> None:
    session, constrained, graph = opened()
    constrained.attach(graph)
    with constrained.masters() as masters:
        np.testing.assert_array_equal(masters.values["a/bias"], np.zeros(8))
    with pytest.raises(bw.errors.ContractError, match="in that step only"):
        _ = masters.values["b/kernel"]
    constrained.detach()
    assert session.model.get_layer("a").kernel.trainable


def test_an_error_in_training_leaves_a_session_that_can_be_used() -> None:
    class Broken(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("no more")

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    taken = bw.open(model, (X, Y))
    tune = bw.Finetune(epochs=1, loss="mse", learning_rate=0.1)
    good = bw.PassManager([bw.Quantize(4), tune])
    with pytest.raises(RuntimeError, match="no more"):
        bw.PassManager([bw.Prune(0.5), bw.Finetune(loss="mse", callbacks=(Broken(),))]).run(taken)
    after, apart = good.run(taken), good.run(model, (X, Y))
    for one, other in zip(after.model.get_weights(), apart.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
