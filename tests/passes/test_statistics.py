"""`ReestimateBatchNorm`: the statistics that the compressed model meets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.data import digits
from tests import reference, zoo

RNG = np.random.default_rng(4)
IMAGES, LABELS = digits().train
REESTIMATE = bw.ReestimateBatchNorm(samples=512, batch_size=128)


def network() -> Any:
    """A small convolutional network, whose statistics are those of the digits."""
    stack: list[Any] = [keras.Input((8, 8, 1))]
    for width in (8, 12):
        stack += [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.Dropout(0.5, seed=1), layers.MaxPooling2D()]
    model = zoo.filled(keras.Sequential([*stack, layers.Flatten(), layers.Dense(10)]))
    return bw.PassManager([REESTIMATE]).run(model, IMAGES).model


def error(model: Any, other: Any) -> float:
    a, b = (np.asarray(m(IMAGES[512:1024], training=False)) for m in (model, other))
    return float(np.square(a - b).mean() / np.square(a - a.mean(0)).mean())


def test_corrupted_statistics_are_restored() -> None:
    model = network()
    broken = keras.models.clone_model(model)
    broken.set_weights(model.get_weights())
    for layer in broken.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.1, 9, layer.moving_variance.shape))
    assert error(model, broken) > 0.1
    seeds = [np.array(v.numpy()) for v in broken.variables if "seed" in v.path]
    result = bw.PassManager([REESTIMATE]).run(broken, IMAGES)
    assert error(model, result.model) < 1e-6
    assert result.report.passes[0].remarks == ("2 batch normalisations, 512 samples at most",)
    touched = {record.path.rpartition("/")[2] for record in result.report.passes[0].touched}
    assert touched == {"moving_mean", "moving_variance"}
    for variable, seed in zip((v for v in result.model.variables if "seed" in v.path), seeds, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.numpy()), seed)


def test_they_are_those_of_all_batches_together() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.BatchNormalization(name="bn", momentum=0.7)(inputs))
    x = RNG.normal(2, 3, (100, 3)).astype(np.float32)
    result = bw.PassManager([bw.ReestimateBatchNorm(samples=90, batch_size=40)]).run(model, x)
    np.testing.assert_allclose(result.graph.values["bn/moving_mean"], x[:90].mean(0), rtol=1e-4)
    np.testing.assert_allclose(result.graph.values["bn/moving_variance"], x[:90].var(0), rtol=1e-4)
    assert result.model.get_layer("bn").momentum == 0.7


@pytest.mark.parametrize("bits", [2, 3])
def test_few_bits_gain(bits: int) -> None:
    model = network()
    grid = bw.Quantize(bits)
    plain, result = (bw.PassManager(chain).run(model, IMAGES) for chain in ([grid], [grid, REESTIMATE]))
    assert error(model, result.model) < 0.9 * error(model, plain.model)
    mean = result.graph.values[next(p.path for p in result.graph if p.role == "mean")]
    np.testing.assert_array_equal(mean, mean.astype(np.float16).astype(np.float32))


def test_activations_on_grids_count() -> None:
    model = network()
    chain: list[bw.Pass] = [bw.Quantize(3, activations=2, samples=256)]
    plain, result = (bw.PassManager(c).run(model, IMAGES) for c in (chain, [*chain, REESTIMATE]))
    assert error(model, result.model) < error(model, plain.model)
    assert result.graph.activations.keys() == plain.graph.activations.keys()
    again = bw.PassManager([REESTIMATE]).run(result, IMAGES)
    for path, array in result.graph.values.items():
        np.testing.assert_array_equal(again.graph.values[path], array)


def test_frozen_ones_stay() -> None:
    model = network()
    first = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    first.trainable = False
    result = bw.PassManager([bw.Quantize(3), REESTIMATE]).run(model, IMAGES)
    skipped = result.report.passes[1].skipped
    assert [reason for path, reason in skipped.items() if path == f"{first.name}/moving_mean"] == ["it is frozen"]
    folded = bw.PassManager([bw.FoldBatchNorm(), REESTIMATE]).run(model, IMAGES)
    assert folded.report.passes[1].remarks == ("0 batch normalisations, 512 samples at most",)


def test_only_within_where() -> None:
    model = network()
    paths = [p.path for p in bw.read(model) if p.role in ("mean", "variance")]
    result = bw.PassManager([bw.Where(bw.ReestimateBatchNorm(samples=64), paths[0])]).run(model, IMAGES)
    assert {record.path for record in result.report.passes[0].touched} == {paths[0]}


def test_what_it_needs() -> None:
    network = reference.Network([6, 8, 2])
    with pytest.raises(bw.errors.ConfigError, match="ReestimateBatchNorm needs data"):
        bw.PassManager([REESTIMATE]).run(network)
    for field in ("samples", "batch_size"):
        with pytest.raises(bw.errors.ConfigError, match=f"{field} must be an integer"):
            bw.ReestimateBatchNorm(**{field: 0})
    assert not bw.PassManager([REESTIMATE]).plan(network).passes[0].touched
