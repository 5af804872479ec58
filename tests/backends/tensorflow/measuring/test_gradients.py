"""The Fisher information against closed forms and finite sums."""

from __future__ import annotations

import weakref
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.analysis import Fisher
from bitwidth.context import Context
from bitwidth.encodings import IntegerLevels, Quantized

RNG = np.random.default_rng(5)
X = RNG.standard_normal((32, 4)).astype(np.float32)


def linear(units: int, activation: str | None = None) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation, name="out")])
    model.layers[-1].kernel.assign(RNG.standard_normal((4, units)).astype(np.float32))
    return model


def ask(model: Any, fisher: Fisher, data: Any = X) -> Any:
    session = bw.backend.backend_for(model).open(model)
    return Context(session, data).ask(fisher, session.graph)["out/kernel"]


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_categorical_is_the_expectation_over_labels(activation: str | None) -> None:
    model = linear(3, activation)
    p = tf.nn.softmax(X @ model.layers[-1].kernel.numpy()).numpy()
    exact = ((X**2).T @ (p * (1 - p))) / len(X)
    found = ask(model, Fisher(samples=32 * 60), np.tile(X, (60, 1)))
    np.testing.assert_allclose(found, exact, rtol=0.25)


def test_gaussian_and_bernoulli() -> None:
    model = linear(1)
    tiled = np.tile(X, (60, 1))
    np.testing.assert_allclose(ask(model, Fisher(samples=1920), tiled)[:, 0], (X**2).mean(0), rtol=0.2)
    model = linear(2, "sigmoid")
    p = 1 / (1 + np.exp(-X @ model.layers[-1].kernel.numpy()))
    np.testing.assert_allclose(ask(model, Fisher(samples=1920), tiled), ((X**2).T @ (p * (1 - p))) / 32, rtol=0.2)


def test_given_labels_are_squared_per_sample() -> None:
    model = linear(3)
    labels = RNG.integers(0, 3, 32)
    p = tf.nn.softmax(X @ model.layers[-1].kernel.numpy()).numpy()
    exact = ((X**2).T @ ((np.eye(3)[labels] - p) ** 2)) / 32
    for targets in (labels, np.eye(3, dtype=np.float32)[labels]):
        np.testing.assert_allclose(ask(model, Fisher(labels="data"), (X, targets)), exact, rtol=1e-4)


def test_the_same_seed_draws_the_same_labels() -> None:
    model = linear(3)
    np.testing.assert_array_equal(ask(model, Fisher()), ask(model, Fisher()))


def test_answers_are_kept_until_a_value_changes() -> None:
    model = linear(3)
    session = bw.backend.backend_for(model).open(model)
    context = Context(session, X)
    first = context.ask(Fisher(), session.graph)
    assert context.ask(Fisher(), session.graph) is first
    assert context.ask(Fisher(samples=4), session.graph) is not first
    changed = session.graph.update({"out/bias": np.ones(3, np.float32)})
    assert context.ask(Fisher(), changed) is not first


def test_dead_inputs_are_pruned_by_fisher_and_kept_by_magnitude() -> None:
    model = linear(3)
    dead = X * np.array([0, 1, 1, 1], np.float32)
    model.layers[-1].kernel.assign(np.ones((4, 3), np.float32) * np.array([[2], [1], [1], [1]], np.float32))

    def kept(criterion: Any, data: Any) -> Any:
        return bw.PassManager([bw.Prune(0.25, criterion=criterion)]).run(model, data).graph["out/kernel"].encoding.mask

    assert not kept("fisher", dead)[0].any()
    assert kept("magnitude", None)[0].all()


def test_needs_data_and_targets() -> None:
    model = linear(3)
    with pytest.raises(bw.errors.ConfigError, match="needs data"):
        bw.PassManager([bw.Prune(0.5, criterion="fisher")]).run(model)
    with pytest.raises(bw.errors.DataError, match="no targets"):
        bw.PassManager([bw.Prune(0.5, criterion=Fisher(labels="data"))]).run(model, X)


def test_an_answer_is_forgotten_when_a_grid_of_activations_changes() -> None:
    session = bw.backend.backend_for(model := linear(3)).open(model)
    context, graph = Context(session, X), session.graph
    tensor = graph.layers["out"].calls[0].inputs[0]
    held = graph.update(activations={tensor: Quantized(IntegerLevels(-1, 1), np.asarray(0.5, np.float32), ())})
    assert context.ask(Fisher(), held) is not context.ask(Fisher(), graph)


def test_answers_about_a_model_that_has_changed_are_not_kept() -> None:
    session = bw.backend.backend_for(model := linear(3)).open(model)
    context, graph = Context(session, X), session.graph
    first = weakref.ref(context.ask(Fisher(), graph)["out/kernel"])
    context.ask(Fisher(samples=4), graph.update({"out/bias": np.ones(3)}))
    assert first() is None
