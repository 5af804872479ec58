"""`FoldBatchNorm`: the same function, one multiplication less."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from tests import zoo

RNG = np.random.default_rng(1)


def image(*stack: Any, shape: tuple[int, ...] = (10, 10, 4)) -> Any:
    return zoo.filled(keras.Sequential([keras.Input(shape), *stack]))


def residual() -> Any:
    inputs = keras.Input((8, 8, 4))
    x = layers.ReLU()(layers.BatchNormalization(name="bn0")(layers.Conv2D(6, 3, padding="same", name="c0")(inputs)))
    for block in range(2):
        y = layers.Conv2D(6, 3, padding="same", use_bias=False, name=f"c{block}a")(x)
        y = layers.ReLU()(layers.BatchNormalization(name=f"bn{block}a")(y))
        y = layers.Conv2D(6, 3, padding="same", name=f"c{block}b")(y)
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization(name=f"bn{block}b")(y)]))
    return zoo.filled(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))


def norm(**settings: Any) -> Any:
    return layers.BatchNormalization(name="bn", **settings)


MODELS: dict[str, Any] = {
    "conv": lambda: image(layers.Conv2D(5, 3), norm()),
    "conv without bias": lambda: image(layers.Conv2D(5, 3, use_bias=False), norm(epsilon=0.1)),
    "depthwise": lambda: image(layers.DepthwiseConv2D(3, depth_multiplier=2), norm()),
    "separable": lambda: image(layers.SeparableConv2D(5, 3), norm()),
    "transposed": lambda: image(layers.Conv2DTranspose(5, 3, strides=2, use_bias=False), norm()),
    "grouped": lambda: image(layers.Conv2D(6, 3, groups=2), norm()),
    "dilated": lambda: image(layers.Conv2D(6, 3, dilation_rate=2), norm()),
    "no scale": lambda: image(layers.Conv2D(5, 3, use_bias=False), norm(scale=False)),
    "no center": lambda: image(layers.Conv2D(5, 3, use_bias=False), norm(center=False)),
    "neither": lambda: image(layers.Conv2D(5, 3), norm(center=False, scale=False)),
    "dense": lambda: image(layers.Dense(7), norm(), shape=(6,)),
    "dense on images": lambda: image(layers.Dense(7, use_bias=False), norm()),
    "conv1d": lambda: image(layers.Conv1D(5, 3), norm(), layers.ReLU(), shape=(10, 4)),
    "conv3d": lambda: image(layers.Conv3D(5, 2), norm(), shape=(5, 5, 5, 2)),
    "depthwise1d": lambda: image(layers.DepthwiseConv1D(3, use_bias=False), norm(), shape=(10, 4)),
    "einsum": lambda: image(layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"), norm(), shape=(3, 4)),
    "residual": residual,
}


def batch(model: Any, n: int = 16) -> Any:
    return RNG.normal(size=(n, *model.input_shape[1:])).astype(np.float32)


def assert_same(model: Any, other: Any, x: Any, tolerance: float = 1e-5) -> None:
    a, b = np.asarray(model(x, training=False)), np.asarray(other(x, training=False))
    assert np.abs(a - b).max() <= tolerance * np.abs(a).max()


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays(name: str) -> None:
    model = MODELS[name]()
    result = bw.PassManager([bw.FoldBatchNorm()]).run(model)
    count = sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)
    assert result.report.passes[0].remarks == (f"{count} of {count} batch normalisations folded",)
    assert_same(model, result.model, batch(model))
    for layer in result.model.layers:
        if isinstance(layer, layers.BatchNormalization):
            assert not layer.trainable
            assert (np.asarray(layer.moving_variance.numpy()) + np.float32(layer.epsilon) == 1).all()


def test_mobilenet() -> None:
    settings = {"weights": None, "input_shape": (32, 32, 3), "alpha": 0.35, "classifier_activation": None}
    model = zoo.filled(keras.applications.MobileNetV2(**settings, classes=10))
    x = batch(model, 32)
    model = bw.PassManager([bw.ReestimateBatchNorm()]).run(model, x).model  # so that signals neither vanish nor explode
    result = bw.PassManager([bw.FoldBatchNorm()]).run(model)
    assert result.report.passes[0].remarks == ("52 of 52 batch normalisations folded",)
    assert_same(model, result.model, x, 2e-4)  # random weights: rounding grows over 52 normalisations


def test_masks_stay() -> None:
    pruned = bw.PassManager([bw.Prune(0.6)]).run(MODELS["residual"]())
    folded = bw.PassManager([bw.FoldBatchNorm()]).run(pruned)
    assert_same(pruned.model, folded.model, batch(pruned.model))
    for parameter in pruned.graph:
        if parameter.encoding.mask is not None:
            np.testing.assert_array_equal(folded.graph[parameter.path].encoding.mask, parameter.encoding.mask)


def test_later_training_and_files_keep_the_function(tmp_path: Any) -> None:
    model = MODELS["conv without bias"]()
    x = batch(model)
    result = bw.PassManager([bw.FoldBatchNorm()]).run(model)
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw")
    for folded in (result.model, loaded):
        frozen = [v.path for v in folded.get_layer("bn").trainable_variables]
        assert not frozen
        assert_same(model, lambda x, training, folded=folded: folded(x, training=True), x)
    for given in (result, loaded):
        tuned = bw.PassManager([bw.Finetune(epochs=1, loss="mse", batch_size=8)]).run(given, (x, model(x).numpy()))
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            np.testing.assert_array_equal(tuned.graph.values[f"bn/{name}"], result.graph.values[f"bn/{name}"])
        path = next(p.path for p in tuned.graph if p.role == "kernel")
        assert not np.array_equal(tuned.graph.values[path], result.graph.values[path])
    assert [v.name for v in result.model.variables] == [v.name for v in model.variables]
    assert [p.index for p in result.graph] == list(range(len(model.variables)))


def reasons(model: Any, *before: bw.Pass, **fields: Any) -> dict[str, str]:
    record = bw.PassManager([*before, bw.FoldBatchNorm(**fields)]).run(model).report.passes[-1]
    return {path: reason for path, reason in record.skipped.items() if reason.startswith("not folded: ")}


def test_every_other_one_has_its_reason() -> None:
    inputs = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.BatchNormalization(name="first")(inputs)
    x = layers.BatchNormalization(name="after_relu")(layers.Conv2D(4, 3, activation="relu", name="a")(x))
    y = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.Add()([layers.BatchNormalization(name="two_readers")(y), y])
    x = layers.BatchNormalization(name="of_shared")(shared(shared(x)))
    twice = layers.BatchNormalization(name="twice")
    x = twice(layers.Conv2D(4, 3, name="c")(twice(layers.Conv2D(4, 3, name="d", padding="same")(x))))
    x = layers.BatchNormalization(name="other_axis", axis=1)(layers.Conv2D(4, 1, name="e")(x))
    found = reasons(zoo.filled(keras.Model(inputs, x)))
    assert {path.partition("/")[0]: reason.removeprefix("not folded: ") for path, reason in found.items()} == {
        "first": "no kernel in front of it, but Placeholder",
        "after_relu": "no kernel in front of it, but Relu in a",
        "two_readers": "something else reads its input too",
        "of_shared": "shared/bias is used 2 times",
        "twice": "it is called 2 times",
        "other_axis": "it does not normalise the last axis",
    }


def test_grids_stay() -> None:
    model = MODELS["conv"]()
    assert "is held already: 4-bit" in next(iter(reasons(model, bw.Quantize(4)).values()))
    pruned = reasons(model, bw.Prune(0.5))
    assert not pruned


def test_where() -> None:
    model = MODELS["residual"]()
    result = bw.PassManager([bw.FoldBatchNorm(where=["c0", "bn0"])]).run(model)
    assert result.report.passes[0].remarks == ("1 of 5 batch normalisations folded",)
    inside = bw.PassManager([bw.Where(bw.FoldBatchNorm(), ["c0", "bn0"])]).run(model)
    assert inside.report.passes[0].remarks == ("1 of 5 batch normalisations folded",)
    assert reasons(model, where="bn0")["bn0/gamma"] == "not folded: c0/kernel is not selected by `where`"
    with pytest.raises(bw.errors.SelectionError):
        bw.PassManager([bw.FoldBatchNorm(where="nothing")]).run(model)


def test_folding_twice_changes_nothing() -> None:
    once = bw.PassManager([bw.FoldBatchNorm()]).run(MODELS["conv"]())
    twice = bw.PassManager([bw.FoldBatchNorm()]).run(once)
    for path, array in once.graph.values.items():
        np.testing.assert_allclose(twice.graph.values[path], array, rtol=1e-6)
