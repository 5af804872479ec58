"""Training that pays for code length, on Keras models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bitwidth as bw
from bitwidth.backends.tensorflow.training.pricing import _read
from bitwidth.encodings import IntegerLevels
from bitwidth.errors import ConfigError
from bitwidth.fitting.codelengths import CodeLengths

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1024, 16)).astype("float32")
Y = X[:, :4].argmax(axis=1).astype("int32")
FAST: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 16, "jit_compile": False}


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((16,)), layers.Dense(64, "relu", name="hidden"), layers.Dense(48, "relu", name="second")]
    found = keras.Sequential([*stack, layers.Dense(4, name="out")])
    found.compile(keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
    found.fit(X, Y, epochs=6, verbose=0)
    return found


def trained(model: Any, *passes: Any, data: Any = X, **kwargs: Any) -> Any:
    return bw.PassManager(list(passes)).run(model, data, progress=False, **kwargs)


def share_of_zeros(result: Any, path: str) -> float:
    return float((result.graph.values[path] == 0).mean())


# ---- the slope


def test_the_slope_in_tensorflow_is_that_in_numpy() -> None:
    lengths = CodeLengths(bits=0.0, zeros=0.5, first=3.0, further=0.7)
    u = np.linspace(-9, 9, 101, dtype=np.float32)
    ends = tf.constant(-4.0), tf.constant(4.0)
    units, slope = _read(tf.constant(u), *ends, tf.constant(lengths.first), tf.constant(lengths.further))
    assert np.allclose(units, u.clip(-4, 4))
    assert np.allclose(slope, [lengths.slope(float(x)) for x in u.clip(-4, 4)], atol=1e-5)


# ---- a price


@pytest.mark.parametrize("grid", [bw.Quantize(rate=3), bw.Quantize(4), bw.Quantize(8, symmetric=False)])
def test_a_price_makes_the_file_smaller(model: Any, grid: Any) -> None:
    before = trained(model, grid)
    paid = trained(before, bw.Distill(4, price=3e-4, **FAST))
    assert paid.size < 0.85 * before.size
    assert share_of_zeros(paid, "hidden/kernel") > share_of_zeros(before, "hidden/kernel") + 0.1
    history = paid.report.passes[0].history
    assert history["code_bytes"][-1] < 0.8 * history["code_bytes"][0]
    assert history["price"] == pytest.approx([3e-4 * share for share in (0.83, 1, 1, 1)], rel=0.05)
    assert history["zeros"][-1] > history["zeros"][0]


@pytest.mark.slow
def test_a_price_of_nothing_trains_as_without(model: Any) -> None:
    """But for the learning rate, which falls when the price has risen."""
    same: dict[str, Any] = {"learn_steps": True, "jit_compile": False, "decay": "constant"}
    tunes = (bw.Distill(1, price=price, **same) for price in (0.0, None))
    with_, without = (trained(model, bw.Quantize(4), tune) for tune in tunes)
    for path in without.graph.values:
        assert np.array_equal(with_.graph.values[path], without.graph.values[path])


def test_the_loss_has_the_price(model: Any) -> None:
    result = trained(model, bw.Quantize(rate=3), bw.Distill(3, price=1e-5, **FAST))
    history = result.report.passes[1].history
    bits = 8 * history["code_bytes"][-1]
    assert history["loss"][-1] == pytest.approx(history["distillation"][-1] + 1e-5 * bits, rel=0.03)


@pytest.mark.slow
def test_labels_can_pay_too_and_validation_is_of_the_model_alone(model: Any) -> None:
    tune = bw.Finetune(3, price=1e-4, **FAST)
    result = trained(model, bw.Quantize(rate=3), tune, data=(X, Y), validation=(X, Y))
    history = result.report.passes[1].history
    assert history["val_loss"][-1] < history["loss"][-1]
    assert history["val_loss"][-1] == pytest.approx(result.report.passes[1].metrics["loss"], rel=0.05)


def test_masks_stay_and_other_weights_come_back(model: Any) -> None:
    pruned = trained(model, bw.Prune(0.5), bw.Quantize(step=1.5))
    mask = pruned.graph["second/kernel"].encoding.mask
    after = trained(pruned, bw.Distill(2, price=1e-6, **FAST))
    before, now = (result.graph.values["second/kernel"] for result in (pruned, after))
    assert mask is not None
    assert not now[~mask].any()
    assert ((before == 0) & (now != 0) & mask).any()


def test_steps_are_learned_and_what_is_left_is_on_the_grid(model: Any, tmp_path: Path) -> None:
    start = trained(model, bw.Quantize(rate=3))
    result = trained(start, bw.Distill(2, price=1e-3, **FAST))
    before, now = (found.graph["hidden/kernel"].encoding.grid for found in (start, result))
    assert now.scale > before.scale
    assert now.levels == IntegerLevels(None, None)
    result.save(tmp_path / "small.bw")
    assert (tmp_path / "small.bw").stat().st_size == result.size
    loaded = bw.load(tmp_path / "small.bw")
    assert np.array_equal(loaded(X[:32]), result.model(X[:32]))
    assert any("hidden/kernel: about" in line for line in result.report.passes[0].remarks)


@pytest.mark.slow
def test_it_is_the_same_again(model: Any) -> None:
    one, two = (trained(model, bw.Quantize(4), bw.Distill(1, price=1e-5, jit_compile=False)) for _ in range(2))
    assert all(np.array_equal(one.graph.values[path], two.graph.values[path]) for path in one.graph.values)


def test_in_a_ramp_and_for_a_part(model: Any) -> None:
    ramp = bw.Ramp(bw.Quantize(4), during=bw.Distill(1, price=1e-4, **FAST))
    assert "code_bytes" in trained(model, ramp).report.passes[0].history
    start = trained(model, bw.Quantize(rate=3))
    result = trained(start, bw.Where(bw.Distill(2, price=1e-3, **FAST), "hidden"))
    assert share_of_zeros(result, "hidden/kernel") > share_of_zeros(start, "hidden/kernel") + 0.1
    assert share_of_zeros(result, "second/kernel") == share_of_zeros(start, "second/kernel")


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_convolutions_with_and_without_xla(jit_compile: bool) -> None:
    keras.utils.set_random_seed(1)
    stack = [keras.Input((8, 8, 1)), layers.Conv2D(8, 3, name="conv"), layers.Flatten(), layers.Dense(3, name="out")]
    images = RNG.standard_normal((128, 8, 8, 1)).astype("float32")
    start = trained(keras.Sequential(stack), bw.Quantize(4), data=images)
    result = trained(start, bw.Distill(6, price=1e-2, **{**FAST, "jit_compile": jit_compile}), data=images)
    assert share_of_zeros(result, "out/kernel") > share_of_zeros(start, "out/kernel") + 0.1


# ---- a size


@pytest.mark.parametrize("grid", [bw.Quantize(rate=3), bw.Quantize(4)])
def test_the_file_ends_at_the_size(model: Any, grid: Any) -> None:
    start = trained(model, grid)
    asked = int(0.85 * start.size)
    result = trained(start, bw.Distill(8, size=asked, **FAST))
    assert 0.98 * asked <= result.size <= asked
    assert f"{asked:,} asked for" in result.report.passes[0].remarks[-1]


def test_a_file_that_is_small_enough_pays_nothing(model: Any) -> None:
    result = trained(model, bw.Quantize(rate=2), bw.Distill(2, size="1 MB"))
    assert result.report.passes[1].history["price"] == [0.0, 0.0]
    assert "the price stayed at 0" in result.report.passes[1].remarks[-1]


@pytest.mark.slow
def test_what_training_cannot_do_rounding_does(model: Any) -> None:
    """One epoch is much too short for so small a file."""
    start = trained(model, bw.Quantize(rate=3))
    asked = int(0.7 * start.size)
    result = trained(start, bw.Distill(1, size=asked))
    assert 0.98 * asked <= result.size <= asked
    assert any("rounded again" in line for line in result.report.passes[0].remarks)


# ---- what is refused


def refused(words: str, model: Any, *passes: Any, data: Any = X) -> None:
    manager = bw.PassManager(list(passes))
    with pytest.raises(ConfigError, match=words):
        manager.run(model, data, progress=False)
    if len(passes) > 1:
        with pytest.raises(ConfigError, match=words):
            manager.plan(model)


def test_nothing_to_pay_for(model: Any) -> None:
    refused("uniform grid", model, bw.Distill(1, price=1e-6))
    refused("uniform grid", model, bw.Prune(0.5), bw.Distill(1, price=1e-6))
    refused("uniform grid", model, bw.Quantize(3, rule="codebook"), bw.Distill(1, size="9 kB"))
    refused("uniform grid", model, bw.Quantize(4), bw.Distill(1, price=1e-6, only="norms_and_biases"))


def test_a_size_that_no_file_has(model: Any) -> None:
    refused("every code at zero", model, bw.Quantize(rate=3), bw.Distill(1, size=100))


def test_a_loss_of_its_own() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **_: Any) -> Any:
            return keras.ops.mean(keras.ops.square(y_pred))

    own = Own()
    own(X[:2])
    own.compile("adam", "mse")
    refused("computes its loss itself", own, bw.Quantize(rate=3), bw.Finetune(1, price=1e-6), data=(X, X[:, :4]))


def test_data_of_unknown_length(model: Any) -> None:
    data = tf.data.Dataset.from_tensor_slices(X).batch(64).filter(lambda x: True)
    manager = bw.PassManager([bw.Quantize(rate=3), bw.Distill(1, price=1e-6)])
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        manager.run(model, data, progress=False)
