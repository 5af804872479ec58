"""Layers that a model reaches through a global or a closure: the user's own are never trained."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.errors import UnsupportedModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def built(layer: Any) -> Any:
    layer.build((None, 6))
    return layer


NORM = built(layers.BatchNormalization(name="norm"))
DENSE = built(layers.Dense(6, name="dense"))
HOLDER = SimpleNamespace(norm=built(layers.BatchNormalization(name="held")))


def through_norm(x: Any) -> Any:
    """An activation that hides a layer."""
    return NORM(x)


class Reaching(keras.Model):  # type: ignore[misc]
    """Its call uses a layer of the module."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.out = layers.Dense(2, name="out")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(NORM(x, training=training))


def stack(*parts: Any) -> Any:
    return keras.Sequential([keras.Input((6,)), *parts, layers.Dense(2, name="out")], name="net")


def subclassed() -> Any:
    model = Reaching(name="net")
    model(X[:2])
    return model


SHARED: dict[str, tuple[Callable[[], Any], Any]] = {
    "a global in a lambda": (lambda: stack(layers.Lambda(lambda x: NORM(x))), NORM),
    "a global dense layer": (lambda: stack(layers.Lambda(lambda x: DENSE(x))), DENSE),
    "an object in a global": (lambda: stack(layers.Lambda(lambda x: HOLDER.norm(x))), HOLDER.norm),
    "an activation": (lambda: stack(layers.Activation(through_norm)), NORM),
    "a subclassed model": (subclassed, NORM),
}


@pytest.mark.parametrize("name", list(SHARED))
@pytest.mark.parametrize("chain", [[bw.Finetune(1, loss=LOSS)], [bw.Prune(0.5), bw.Finetune(1, loss=LOSS)]])
def test_a_layer_that_a_copy_shares_is_not_trained(name: str, chain: list[bw.Pass]) -> None:
    make, layer = SHARED[name]
    model, before = make(), [variable.numpy() for variable in layer.variables]
    with pytest.raises(UnsupportedModelError, match=rf"reaches the layer '{layer.name}' through a global"):
        bw.PassManager(chain).run(model, (X, Y))
    for a, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(a, variable.numpy())


@pytest.mark.parametrize("name", list(SHARED))
def test_it_may_be_there_where_nothing_is_trained(name: str) -> None:
    make, layer = SHARED[name]
    model, before = make(), [variable.numpy() for variable in layer.variables]
    result = bw.PassManager([bw.Quantize(8)]).run(model, X)
    for a, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(a, variable.numpy())
    assert any(layer.name in note for note in result.report.notes)


@pytest.mark.parametrize("kind", ["norm", "dense"])
def test_a_layer_in_a_closure_is_copied_and_the_users_stays(kind: str) -> None:
    own = built(layers.BatchNormalization(name="own") if kind == "norm" else layers.Dense(6, name="own"))
    model = stack(layers.Lambda(lambda x: own(x)))
    before = [variable.numpy() for variable in own.variables]
    bw.PassManager([bw.Finetune(1, loss=LOSS)]).run(model, (X, Y))
    for a, variable in zip(before, own.variables, strict=True):
        np.testing.assert_array_equal(a, variable.numpy())
