"""Runs repeat: what Keras drew when a model was built does not matter."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 128)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
CHAINS: dict[str, list[bw.Pass]] = {
    "nothing trained": [bw.Quantize(4)],
    "trained": [bw.Quantize(4), bw.Finetune(epochs=1, loss=LOSS)],
    "trained twice": [bw.Finetune(epochs=1, loss=LOSS), bw.Prune(0.5), bw.Finetune(epochs=1, loss=LOSS)],
    "a ramp": [bw.Ramp(bw.Prune(0.5), during=bw.Finetune(epochs=1, loss=LOSS))],
}


def network(drawn: int, seed: int | None = None) -> Any:
    """The same weights each time; what Keras draws for its layers differs with `drawn`."""
    random.seed(drawn)
    noise, drop = layers.GaussianNoise(0.2, seed=seed, name="noise"), layers.Dropout(0.5, seed=seed, name="drop")
    x = keras.Input((6,), name="x")
    y = drop(layers.Dense(16, name="hidden")(noise(x)))
    model = keras.Model(x, layers.Dense(3, name="out")(y), name="n")
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def saved(model: Any, chain: list[bw.Pass], path: Path, seed: int = 0) -> bytes:
    bw.PassManager(chain).run(model, (X, Y), seed=seed).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", list(CHAINS))
def test_models_with_the_same_weights_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    files = {saved(network(drawn), CHAINS[name], tmp_path / "m.bw") for drawn in range(3)}
    assert len(files) == 1


def test_another_seed_of_the_run_gives_another_file(tmp_path: Path) -> None:
    chain = CHAINS["trained"]
    assert saved(network(0), chain, tmp_path / "a.bw", 1) != saved(network(0), chain, tmp_path / "b.bw", 2)


def test_a_seed_that_the_user_gave_stays() -> None:
    model = network(0, seed=7)
    states = [v.numpy().tolist() for v in model.non_trainable_variables]
    result = bw.PassManager([bw.Quantize(4)]).run(model)
    assert [v.numpy().tolist() for v in result.model.non_trainable_variables] == states


def test_the_users_model_and_pythons_generator_are_not_touched() -> None:
    model = network(3)
    states = [v.numpy().tolist() for v in model.non_trainable_variables]
    before = random.getstate()
    bw.PassManager(CHAINS["trained"]).run(model, (X, Y))
    assert random.getstate() == before
    assert [v.numpy().tolist() for v in model.non_trainable_variables] == states
