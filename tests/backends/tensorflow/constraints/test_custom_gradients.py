"""What a run makes is freed with its result: graphs, views, grids, masters."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import ops

import bitwidth as bw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRAIN = bw.Finetune(epochs=1, loss=LOSS)
CHAINS: dict[str, list[bw.Pass]] = {
    "masks and grids": [bw.Prune(0.5), bw.Quantize(4), TRAIN],
    "a ramp": [bw.Ramp(bw.Prune(0.8, criterion="fisher"), during=bw.Finetune(epochs=2, loss=LOSS)), TRAIN],
    "activations": [bw.Quantize(8, activations=8), TRAIN],
    "learned steps": [bw.Quantize(4), bw.Finetune(epochs=1, loss=LOSS, learn_steps=True)],
    "XLA": [bw.Quantize(4), bw.Finetune(epochs=1, loss=LOSS, jit_compile=True)],
}


def network() -> Any:
    gru = layers.GRU(4, name="gru")
    stack = [keras.Input((8,)), layers.Dense(16, activation="relu", name="hidden"), layers.Reshape((4, 4)), gru]
    return keras.Sequential([*stack, layers.Dense(3, name="out")])


def registered() -> set[str]:
    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")}


@pytest.mark.parametrize("name", list(CHAINS))
def test_a_run_leaves_no_gradient_behind(name: str) -> None:
    model, before = network(), registered()
    result = bw.PassManager(CHAINS[name]).run(model, (X, Y))
    assert registered() == before
    assert result.graph is not None


@pytest.mark.parametrize("name", list(CHAINS))
def test_what_a_run_made_is_freed_with_its_result(name: str) -> None:
    result = bw.PassManager(CHAINS[name]).run(network(), (X, Y))
    inside = [weakref.ref(layer) for layer in result.model.layers]
    held = [weakref.ref(variable._value) for variable in result.model.variables]
    graph = weakref.ref(result.graph)
    del result
    for _ in range(3):
        gc.collect()
    assert not [ref() for ref in (*inside, *held, graph) if ref() is not None]


def test_gradients_of_others_stay() -> None:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def doubled(x: Any) -> Any:
        return 2 * x, lambda upstream: 3 * upstream

    function = tf.function(lambda x: tf.gradients(doubled(x), x)[0])
    concrete = function.get_concrete_function(tf.TensorSpec((), tf.float32))
    before = registered()
    bw.PassManager([bw.Quantize(4), TRAIN]).run(network(), (X, Y))
    assert registered() == before
    assert float(concrete(tf.constant(1.0))) == 3


def test_a_result_trains_on_as_a_model_of_its_own() -> None:
    result = bw.PassManager([bw.Quantize(8, activations=8), TRAIN]).run(network(), (X, Y))
    result.model.compile("adam", LOSS)
    before = result.model.get_weights()
    result.model.fit(X, Y, verbose=0)
    assert any((a != b).any() for a, b in zip(before, result.model.get_weights(), strict=True))
    again = bw.PassManager([TRAIN]).run(result.model, (X, Y))
    assert again.graph.activations


GROWTH = """
import gc, json, sys
import keras, numpy as np
import bitwidth as bw

x, y = np.ones((64, 256), np.float32), np.zeros(64, np.int64)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
base = keras.Sequential([keras.Input((256,)), keras.layers.Dense(512), keras.layers.Dense(512), keras.layers.Dense(4)])
held = []
for _ in range(30):
    if sys.argv[1] == "keras":
        model = keras.models.clone_model(base)
        model.compile("adam", loss)
        model.fit(x, y, verbose=0)
        del model
    else:
        bw.PassManager([bw.Prune(0.5), bw.Quantize(4), bw.Finetune(1, loss=loss)]).run(base, (x, y))
    gc.collect()
    with open("/proc/self/statm") as file:
        held.append(4096 * int(file.read().split()[1]))
print(json.dumps((held[-1] - held[5]) / 24))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_thirty_runs_grow_no_more_than_keras() -> None:
    grown = {}
    for mode in ("keras", "bitwidth"):
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, mode],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[4],
        )
        grown[mode] = json.loads(done.stdout.splitlines()[-1])
    assert grown["bitwidth"] <= max(1.2 * grown["keras"], 1 << 20)
