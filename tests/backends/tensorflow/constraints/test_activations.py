"""Inputs of layers on grids, where state is carried from batch to batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import bitwidth as bw

RNG = np.random.default_rng(0)
SEQUENCES = RNG.standard_normal((32, 5, 6)).astype(np.float32)
IMAGES = RNG.standard_normal((16, 3, 5, 5, 2)).astype(np.float32)

STATEFUL: dict[str, tuple[Callable[[], Any], Any]] = {
    "LSTM": (lambda: L.LSTM(4, stateful=True), SEQUENCES),
    "LSTM by gates": (lambda: L.LSTM(4, stateful=True, implementation=1), SEQUENCES),
    "GRU": (lambda: L.GRU(4, stateful=True), SEQUENCES),
    "SimpleRNN": (lambda: L.SimpleRNN(4, stateful=True), SEQUENCES),
    "bidirectional": (lambda: L.Bidirectional(L.LSTM(4, stateful=True)), SEQUENCES),
    "stacked cells": (lambda: L.RNN([L.LSTMCell(4), L.GRUCell(4)], stateful=True), SEQUENCES),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(3, 2, stateful=True), IMAGES),
}


def stateful(name: str) -> tuple[Any, Any]:
    make, x = STATEFUL[name]
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input(batch_shape=(8, *x.shape[1:])), make(), L.Flatten(), L.Dense(3)]), x


@pytest.mark.parametrize("name", STATEFUL)
def test_activations_of_stateful_recurrent_layers(name: str, tmp_path: Any) -> None:
    model, x = stateful(name)
    result = bw.PassManager([bw.Quantize(16, activations=8)]).run(model, data=x)
    assert len(result.graph.activations) >= 2
    result.save(tmp_path / "stateful.bw")
    loaded = bw.load(tmp_path / "stateful.bw")
    for start in (0, 8):  # the second batch goes on from the state of the first
        expected = model.predict_on_batch(x[start : start + 8])
        found = result.model.predict_on_batch(x[start : start + 8])
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
        np.testing.assert_array_equal(loaded.predict_on_batch(x[start : start + 8]), found)


@pytest.mark.parametrize("name", ["LSTM", "ConvLSTM2D"])
def test_stateful_recurrent_layers_train_behind_grids(name: str) -> None:
    model, x = stateful(name)
    passes = [bw.Quantize(8, activations=8), bw.Finetune(epochs=1, loss="mse", batch_size=8)]
    result = bw.PassManager(passes).run(model, data=(x, np.zeros((len(x), 3), np.float32)))
    assert np.isfinite(result.report.passes[1].history["loss"]).all()
