"""What a Fisher information costs in accuracy where no gradient arrives: no more than magnitudes and plain squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812
from numpy.typing import NDArray

import bitwidth as bw
from bitwidth.data import digits

TRAIN, TEST = ((x.reshape(-1, 64), y) for x, y in (digits().train, digits().test))
STEPS: dict[str, Callable[[Any], Any]] = {
    "floor": lambda x: tf.floor(2 * x),
    "sign": tf.sign,
    "argmax": lambda x: tf.reshape(tf.one_hot(tf.argmax(tf.reshape(x, (-1, 16, 4)), axis=-1), 4), (-1, 64)),
    "stop_gradient": tf.stop_gradient,
}


@cache
def trained(name: str) -> Any:
    """A network whose layer `blocked` no gradient reaches, with a head that was fitted by least squares."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((64,))
    if name == "zero head":
        y = L.Dense(64, kernel_initializer="zeros", name="closed")(L.Dense(64, "relu", name="blocked")(inputs))
        x = L.Add()([inputs, y])
    else:
        x = L.Lambda(STEPS[name])(L.Dense(64, name="blocked")(inputs))
    x = L.Dense(160, "relu", name="wide")(x)
    model = keras.Model(inputs, L.Dense(10, name="logits")(x))
    features = keras.Model(inputs, x)(TRAIN[0], training=False).numpy()
    features = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1).astype(np.float64)
    gram = features.T @ features
    targets = 10 * np.eye(10)[TRAIN[1]]
    fitted = np.linalg.solve(gram + 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram)), features.T @ targets)
    model.get_layer("logits").set_weights([fitted[:-1], fitted[-1]])
    return model


def accuracy(model: Any) -> float:
    outputs: NDArray[np.float32] = model(TEST[0], training=False).numpy()
    return float((outputs.argmax(-1) == TEST[1]).mean())


def after(name: str, one: bw.Pass) -> float:
    return accuracy(bw.PassManager([one]).run(trained(name), data=TRAIN[0][:128]).model)


@pytest.mark.parametrize("name", [*STEPS, "zero head"])
def test_fisher_loses_no_more_than_magnitude_where_no_gradient_arrives(name: str) -> None:
    whole = accuracy(trained(name))
    assert whole > 0.7
    pruned, by_magnitude = after(name, bw.Prune(0.5, criterion="fisher")), after(name, bw.Prune(0.5))
    assert pruned >= by_magnitude - 0.02, f"{whole} before, {by_magnitude} by magnitude"
    held, plain = after(name, bw.Quantize(3, importance="fisher")), after(name, bw.Quantize(3))
    assert held >= plain - 0.02, f"{whole} before, {plain} by plain squares"
