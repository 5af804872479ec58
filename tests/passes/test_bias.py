"""`CorrectBias`: the mean of what a layer gives stays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from tests import reference, zoo

NEAREST = bw.Quantize(2, vectors=None)


def outputs(model: Any, x: Any) -> Any:
    return np.asarray(model(x, training=False))


def stack(*inside: Any, shape: tuple[int, ...] = (9, 9, 4)) -> Any:
    return zoo.filled(keras.Sequential([keras.Input(shape), *inside]))


FIRST: dict[str, tuple[Any, str]] = {
    "dense": (lambda: stack(layers.Dense(6, name="a"), shape=(5,)), "a/bias"),
    "dense on series": (lambda: stack(layers.Dense(6, name="a"), shape=(7, 5)), "a/bias"),
    "conv": (lambda: stack(layers.Conv2D(6, 3, name="a")), "a/bias"),
    "grouped": (lambda: stack(layers.Conv2D(6, 3, groups=2, name="a")), "a/bias"),
    "depthwise": (lambda: stack(layers.DepthwiseConv2D(3, depth_multiplier=2, name="a")), "a/bias"),
    "conv1d": (lambda: stack(layers.Conv1D(6, 3, strides=2, name="a"), shape=(9, 4)), "a/bias"),
    "heads": (
        lambda: stack(layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="a"), shape=(7, 5)),
        "a/bias",
    ),
    "normalised": (
        lambda: stack(layers.Conv2D(6, 3, use_bias=False), layers.BatchNormalization(name="a")),
        "a/moving_mean",
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_mean_output_stays(name: str) -> None:
    build, moved = FIRST[name]
    model = build()
    x = np.random.default_rng(3).uniform(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
    plain = bw.PassManager([NEAREST]).run(model)
    result = bw.PassManager([bw.CorrectBias(NEAREST, samples=64)]).run(model, x)
    record = result.report.passes[0]
    assert {item.path for item in record.touched} == {p.path for p in plain.report.passes[0].touched} | {moved}
    assert record.remarks == ("biases corrected for 1 of 1 kernels that have changed",)
    channels = model.get_layer("a").output.shape[1:]
    given, off, kept = (outputs(m, x).mean(0) for m in (model, plain.model, result.model))
    axes = tuple(range(len(channels) - (2 if name == "heads" else 1)))
    drift = np.abs((off - given).mean(axes)).max()
    left = np.abs((kept - given).mean(axes)).max()
    assert drift > 1e-2
    assert left < 1e-4


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_cells(kind: str) -> None:
    cell = getattr(layers, kind)(6, return_sequences=True, name="cell")
    model = stack(cell, layers.Dense(2, name="logits"), shape=(8, 4))
    x = np.random.default_rng(3).uniform(0, 1, (64, 8, 4)).astype(np.float32)
    plain = bw.PassManager([NEAREST]).run(model)
    result = bw.PassManager([bw.CorrectBias(NEAREST, samples=64)]).run(model, x)
    assert result.report.passes[0].remarks == ("biases corrected for 3 of 3 kernels that have changed",)
    given, off, kept = (outputs(m, x).mean((0, 1)) for m in (model, plain.model, result.model))
    assert np.abs(kept - given).max() < 0.6 * np.abs(off - given).max()


def test_outputs_of_a_network_gain() -> None:
    model = stack(
        layers.Conv2D(8, 3, activation="relu"),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(5, name="a"),
    )
    x = np.random.default_rng(3).uniform(0, 1, (64, 9, 9, 4)).astype(np.float32)
    grid = bw.Quantize(3)
    plain, result = (bw.PassManager([item]).run(model, x).model for item in (grid, bw.CorrectBias(grid)))
    given, off, kept = (outputs(m, x) for m in (model, plain, result))
    assert np.square(kept - given).mean() < 0.7 * np.square(off - given).mean()


def test_one_layer_after_the_other_makes_up_for_earlier_ones() -> None:
    model = stack(*(layers.Dense(8, activation="tanh") for _ in range(3)), layers.Dense(5), shape=(6,))
    x = np.random.default_rng(3).uniform(0, 1, (64, 6)).astype(np.float32)
    given = outputs(model, x).mean(0)
    drifts = []
    for sequential in (False, True):
        item = bw.CorrectBias(NEAREST, samples=64, sequential=sequential)
        drifts.append(np.abs(outputs(bw.PassManager([item]).run(model, x).model, x).mean(0) - given).max())
    assert drifts[1] < 1e-3 < drifts[0]
    with pytest.raises(bw.errors.ConfigError, match="sequential must be True or False, got 2"):
        bw.CorrectBias(NEAREST, sequential=2)  # type: ignore[arg-type]


def test_biases_stay_in_their_format_and_masks_stay() -> None:
    model = FIRST["dense"][0]()
    x = np.random.default_rng(3).uniform(0, 1, (64, 5)).astype(np.float32)
    chain = bw.PassManager([bw.Prune(0.5), bw.Quantize(3)])
    result = bw.PassManager([bw.CorrectBias(chain)]).run(model, x)
    encoding = result.graph["a/bias"].encoding
    assert encoding.describe() == bw.PassManager([chain]).run(model).graph["a/bias"].encoding.describe()
    bias = result.graph.values["a/bias"]
    np.testing.assert_array_equal(bias, bias.astype(np.float16).astype(np.float32))
    assert result.graph["a/kernel"].encoding.mask is not None


def test_kernels_without_a_bias_are_told() -> None:
    model = stack(layers.SeparableConv2D(4, 3, name="a"), layers.Conv2D(3, 1, use_bias=False, name="b"))
    x = np.ones((4, 9, 9, 4), np.float32)
    remarks = bw.PassManager([bw.CorrectBias(NEAREST)]).run(model, x).report.passes[0].remarks
    assert "a/depthwise_kernel: no bias corrected, no bias, but Conv2D in a follows it" in remarks
    assert "b/kernel: no bias corrected, no bias: its output is a model output" in remarks


def test_only_within_where() -> None:
    network, data = reference.Network([6, 8, 2]), reference.regression()
    inside = bw.PassManager([bw.Where(bw.CorrectBias(NEAREST), "layer0")]).run(network, data)
    assert {record.path for record in inside.report.passes[0].touched} == {"layer0/kernel", "layer0/bias"}
    kernel = bw.PassManager([bw.Where(bw.CorrectBias(NEAREST), "layer0/kernel")]).run(network, data)
    assert {record.path for record in kernel.report.passes[0].touched} == {"layer0/kernel"}
    assert "layer0/bias is not selected by `where`" in kernel.report.passes[0].remarks[0]


def test_what_it_needs_is_checked_before_work_starts() -> None:
    network = reference.Network([6, 8, 2])
    with pytest.raises(bw.errors.ConfigError, match="needs data"):
        bw.PassManager([bw.CorrectBias(NEAREST)]).run(network)
    idle = bw.CorrectBias(bw.Prune(0.5, where="layer0/bias"))
    with pytest.raises(bw.errors.ConfigError, match="nothing to do for where='layer0/bias'"):
        bw.PassManager([idle]).run(network, reference.regression())
    with pytest.raises(bw.errors.ConfigError, match="Finetune trains"):
        bw.CorrectBias(bw.PassManager([bw.Quantize(3), bw.Finetune()]))
    with pytest.raises(bw.errors.ConfigError, match="must be a pass"):
        bw.CorrectBias("quantize")  # type: ignore[arg-type]
    with pytest.raises(bw.errors.ConfigError, match="samples must be an integer"):
        bw.CorrectBias(NEAREST, samples=0)
    plan = bw.PassManager([bw.CorrectBias(NEAREST)]).plan(network)
    assert {record.path for record in plan.passes[0].touched} == {"layer0/kernel", "layer1/kernel"}
