"""`EqualizeLayers`: the same function, with channels of equal ranges."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

import bitwidth as bw
from tests import reference, zoo

RNG = np.random.default_rng(2)


def stack(*inside: Any, shape: tuple[int, ...] = (10, 10, 4)) -> Any:
    return zoo.filled(keras.Sequential([keras.Input(shape), *inside]))


def conv(name: str, **settings: Any) -> Any:
    return layers.Conv2D(6, 3, name=name, **settings)


def folded_norms() -> Any:
    model = stack(
        conv("a", use_bias=False),
        layers.BatchNormalization(name="bn", center=False),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, use_bias=False, name="dw"),
        layers.BatchNormalization(),
        layers.ReLU(),
        conv("b"),
    )
    return bw.PassManager([bw.FoldBatchNorm()]).run(model).model


# name: (model, kernels that start a pair)
MODELS: dict[str, tuple[Any, set[str]]] = {
    "convs": (lambda: stack(conv("a", activation="relu"), conv("b")), {"a"}),
    "linear": (lambda: stack(conv("a"), conv("b", use_bias=False)), {"a"}),
    "leaky": (lambda: stack(conv("a"), layers.LeakyReLU(), layers.Dropout(0.1), conv("b")), {"a"}),
    "pooling": (
        lambda: stack(conv("a"), layers.ReLU(), layers.MaxPooling2D(), layers.ZeroPadding2D(), conv("b")),
        {"a"},
    ),
    "average": (lambda: stack(conv("a"), layers.AveragePooling2D(2), layers.ReLU(), conv("b")), {"a"}),
    "flatten": (lambda: stack(conv("a"), layers.ReLU(), layers.Flatten(), layers.Dense(5, name="b")), {"a"}),
    "global": (lambda: stack(conv("a"), layers.GlobalAveragePooling2D(), layers.Dense(5, name="b")), {"a"}),
    "depthwise": (
        lambda: stack(conv("a"), layers.ReLU(), layers.DepthwiseConv2D(3, depth_multiplier=2, name="b"), conv("c")),
        {"a", "b"},
    ),
    "separable": (lambda: stack(layers.SeparableConv2D(6, 3, name="a"), layers.ReLU(), conv("b")), {"a"}),
    "grouped": (lambda: stack(conv("a", groups=2), layers.ReLU(), conv("b", groups=3), conv("c")), {"a", "b"}),
    "transposed": (lambda: stack(conv("a"), layers.Conv2DTranspose(5, 3, name="b"), conv("c")), {"a", "b"}),
    "dilated": (lambda: stack(conv("a", dilation_rate=2), conv("b", dilation_rate=2)), {"a"}),
    "conv1d": (
        lambda: stack(
            layers.Conv1D(5, 3, padding="causal", activation="relu", name="a"),
            layers.Conv1D(4, 3, name="b"),
            shape=(8, 3),
        ),
        {"a"},
    ),
    "dense": (
        lambda: stack(*(layers.Dense(7, activation="relu", name=name) for name in "abc"), shape=(5,)),
        {"a", "b"},
    ),
    "einsum": (
        lambda: stack(
            layers.EinsumDense("ab,bc->ac", 6, bias_axes="c", name="a"), layers.Dense(3, name="b"), shape=(5,)
        ),
        {"a"},
    ),
    "folded": (folded_norms, {"a", "dw"}),
}


def equalized(model: Any, **fields: Any) -> bw.Result:
    return bw.PassManager([bw.EqualizeLayers(**fields)]).run(model)


def assert_same(model: Any, other: Any) -> None:
    x = RNG.normal(size=(16, *model.input_shape[1:])).astype(np.float32)
    a, b = np.asarray(model(x, training=False)), np.asarray(other(x, training=False))
    assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def unbalanced(model: Any) -> Any:
    """The model with channels of very different scales, in every kernel."""
    for layer in model.layers:
        for variable in layer.trainable_variables:
            if "kernel" in variable.name:
                factors = np.exp(RNG.normal(0, 1.5, variable.shape[-1])).astype(np.float32)
                variable.assign(np.asarray(variable.numpy()) * factors)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays(name: str) -> None:
    build, expected = MODELS[name]
    model = unbalanced(build())
    result = equalized(model)
    assert_same(model, result.model)
    skipped = result.report.passes[0].skipped
    for layer in expected:
        path = [p.path for p in result.graph if p.layer == layer and p.role == "kernel"][-1]
        assert path not in skipped, skipped[path]
    pairs = len(expected) + (name == "separable")  # its own two kernels are a pair too
    assert result.report.passes[0].remarks == (f"{pairs} pairs of layers equalized",), skipped


def test_ranges_become_equal() -> None:
    result = equalized(unbalanced(MODELS["dense"][0]()), iterations=100)
    values = {name: np.abs(result.graph.values[f"{name}/kernel"]) for name in "abc"}
    np.testing.assert_allclose(values["a"].max(0), values["b"].max(1), rtol=1e-2)
    np.testing.assert_allclose(values["b"].max(0), values["c"].max(1), rtol=1e-2)


def error(model: Any, *passes: bw.Pass) -> float:
    """Squared error of the outputs after per-tensor 8 bits, over that of a constant."""
    x = np.random.default_rng(5).normal(size=(32, *model.input_shape[1:])).astype(np.float32)
    grid = bw.Quantize(8, granularity="tensor", scale="max", vectors=None)
    other = bw.PassManager([*passes, grid]).run(model).model
    a, b = np.asarray(model(x, training=False)), np.asarray(other(x, training=False))
    return float(np.square(a - b).mean() / np.square(a - a.mean(0)).mean())


def test_per_tensor_grids_gain() -> None:
    """An inverted bottleneck as in MobileNetV2, with ReLU."""
    model = stack(
        layers.Conv2D(12, 1, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(6, 1, use_bias=False),
        layers.BatchNormalization(),
    )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.exp(RNG.normal(0, 1.5, layer.gamma.shape)))
    folded, both = error(model, bw.FoldBatchNorm()), error(model, bw.FoldBatchNorm(), bw.EqualizeLayers())
    assert both < 0.6 * folded


def test_nothing_else_changes() -> None:
    model = stack(conv("a"), layers.ReLU(), conv("b"), layers.Activation("sigmoid"), conv("c"), layers.Softmax())
    result = equalized(model)
    before = bw.read(model).values
    changed = {path for path, array in result.graph.values.items() if not np.array_equal(array, before[path])}
    assert changed == {"a/kernel", "a/bias", "b/kernel"}


def test_masks_stay() -> None:
    pruned = bw.PassManager([bw.Prune(0.7)]).run(MODELS["flatten"][0]())
    result = equalized(pruned)
    assert_same(pruned.model, result.model)
    for path in ("a/kernel", "b/kernel"):
        mask: NDArray[np.bool_] | None = result.graph[path].encoding.mask
        assert mask is not None
        np.testing.assert_array_equal(mask, pruned.graph[path].encoding.mask)


def test_channels_without_weights_stay() -> None:
    model = MODELS["dense"][0]()
    kernel = np.array(model.get_layer("a").kernel.numpy())
    kernel[:, 2] = 0
    model.get_layer("a").kernel.assign(kernel)
    result = equalized(model)
    assert_same(model, result.model)
    assert not result.graph.values["a/kernel"][:, 2].any()


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ([layers.ReLU(6.0, name="six")], "Relu6 in six follows"),
        ([layers.Activation("tanh", name="t")], "Tanh in t follows"),
        ([layers.Softmax(name="s")], "Softmax in s follows"),
        ([layers.BatchNormalization(name="n")], "the batch normalisation n follows, and is not folded"),
        ([layers.Permute((2, 1, 3), name="p")], "Transpose in p follows"),
        ([layers.Reshape((8, 3, -1), name="r")], "Reshape in r follows"),
    ],
)
def test_what_stops_a_chain(between: list[Any], reason: str) -> None:
    result = equalized(stack(conv("a"), *between, conv("b", padding="same")))
    assert result.report.passes[0].skipped["a/kernel"] == f"starts no pair: {reason}"


def test_several_readers_stop_a_chain() -> None:
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.Add(name="sum")([layers.Conv2D(4, 3, padding="same", name="b")(x), x])
    result = equalized(zoo.filled(keras.Model(inputs, layers.Conv2D(4, 3, name="c")(y))))
    skipped = result.report.passes[0].skipped
    assert skipped["a/kernel"] == "starts no pair: 2 operations read its output"
    assert skipped["b/kernel"] == "starts no pair: AddV2 in sum follows"
    assert skipped["c/kernel"] == "starts no pair: its output is a model output"


def test_grids_stay() -> None:
    model = MODELS["convs"][0]()
    result = bw.PassManager([bw.Quantize(4, where="b"), bw.EqualizeLayers()]).run(model)
    assert result.report.passes[1].skipped["a/kernel"].startswith("starts no pair: b/kernel is held already: 4-bit")
    held = bw.PassManager([bw.Quantize(8, activations=8), bw.EqualizeLayers()]).run(model, np.ones((4, 10, 10, 4)))
    assert held.report.passes[1].skipped["a/kernel"] == "starts no pair: its output is quantized"


def test_where() -> None:
    model = MODELS["dense"][0]()
    assert equalized(model, where=["a", "b"]).report.passes[0].remarks == ("1 pairs of layers equalized",)
    inside = bw.PassManager([bw.Where(bw.EqualizeLayers(), ["b", "c"])]).run(model).report.passes[0]
    assert {record.path for record in inside.touched} == {"b/kernel", "b/bias", "c/kernel"}
    left = equalized(model, where="a").report.passes[0].skipped["a/kernel"]
    assert left == "starts no pair: b/kernel is not selected by `where`"


@pytest.mark.parametrize("iterations", [0, True, 2.5])
def test_fields_are_checked(iterations: Any) -> None:
    with pytest.raises(bw.errors.ConfigError, match="iterations must be an integer"):
        bw.EqualizeLayers(iterations)
    with pytest.raises(bw.errors.SelectionError):
        bw.EqualizeLayers(where=7)  # type: ignore[arg-type]


def test_without_a_framework() -> None:
    network = reference.Network([6, 8, 2])
    result = equalized(network)
    x, _ = reference.regression()
    before = network.forward(x, network.weights)[-1]
    after = result.model.forward(x, result.model.weights)[-1]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
