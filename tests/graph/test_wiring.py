"""Following tensors from operation to operation."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.graph import Contraction, Wiring
from bitwidth.graph.wiring import Target
from tests import reference, zoo


def wiring(model: Any) -> Wiring:
    return Wiring(bw.read(model))


def target(model: Any, path: str) -> Target | str:
    found = wiring(model)
    parameter = found.graph[path]
    return found.target(parameter.uses[0].op, int(np.prod([parameter.shape[a] for a in parameter.channel_axes])))


@pytest.mark.parametrize(
    ("name", "kernel", "bias"),
    [
        ("mlp", "hidden/kernel", "hidden/bias"),
        ("convnet_bn", "conv2/kernel", "conv2/bias"),
        ("convnet_bn", "conv1/kernel", "bn1/moving_mean"),
        ("all_convs", "grouped/kernel", "grouped/bias"),
        ("all_convs", "depthwise/kernel", "depthwise/bias"),
        ("all_convs", "separable/pointwise_kernel", "separable/bias"),
        ("all_convs", "transpose/kernel", "transpose/bias"),
        ("all_convs", "conv1d/kernel", "conv1d/bias"),
        ("all_convs", "transpose1d/kernel", "transpose1d/bias"),
        ("all_convs", "transpose3d/kernel", "transpose3d/bias"),
        ("einsum_dense", "heads/kernel", "heads/bias"),
        ("lstm_gru_bidirectional", "lstm/cell/kernel", "lstm/cell/bias"),
        ("lstm_gru_bidirectional", "lstm/cell/recurrent_kernel", "lstm/cell/bias"),
        ("attention_encoder", "attention/query/kernel", "attention/query/bias"),
    ],
)
def test_the_bias_behind_a_kernel(name: str, kernel: str, bias: str) -> None:
    graph = bw.read(zoo.MODELS[name]())
    kernels = [p.path for p in graph if p.path.endswith(kernel.rpartition("/")[2]) and p.path.startswith(kernel[:4])]
    assert kernel in kernels, kernels
    found = target(zoo.MODELS[name](), kernel)
    assert isinstance(found, Target), found
    assert found.parameter.path == bias
    assert found.sign == (-1 if bias.endswith("mean") else 1)


def test_a_gru_adds_a_row_of_its_bias_to_each_kernel() -> None:
    model = zoo.MODELS["lstm_gru_bidirectional"]()
    total = np.zeros((2, 12))
    for row, kind in enumerate(("kernel", "recurrent_kernel")):
        found = target(model, f"gru/cell/{kind}")
        assert isinstance(found, Target), found
        assert found.row == row
        found.add(total, np.full(12, row + 1))
    assert total.sum(1).tolist() == [12, 24]


def test_kernels_without_a_bias_have_a_reason() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.SeparableConv2D(4, 3, name="sep")(inputs)
    x = layers.Conv2D(4, 1, use_bias=False, activation="relu", name="bare")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, use_bias=False, name="last")(x))
    assert target(model, "sep/depthwise_kernel") == "no bias, but Conv2D in sep follows it"
    assert target(model, "bare/kernel") == "no bias, but Relu in bare follows it"
    assert target(zoo.MODELS["tied_language_model"](), "table/embeddings") == "it is looked up"


def test_contractions_of_the_numpy_backend() -> None:
    found = list(wiring(reference.Network([6, 8, 2])).contractions())
    assert [item.kernel.path for item in found if isinstance(item, Contraction)] == ["layer0/kernel", "layer1/kernel"]


def test_a_kernel_that_is_computed_is_no_plain_one() -> None:
    @keras.saving.register_keras_serializable(package="tests.wiring")
    class Standardised(layers.Dense):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return keras.ops.matmul(inputs, self.kernel - keras.ops.mean(self.kernel, axis=0)) + self.bias

    model = keras.Sequential([keras.Input((4,)), Standardised(3, name="s"), layers.BatchNormalization(name="bn")])
    ((parameter, reason),) = list(wiring(model).contractions())  # type: ignore[misc]
    assert parameter.path == "s/kernel"
    assert reason == "s/kernel is not used as it is: the kernel is computed from it"


def test_normalisations() -> None:
    (norm,) = wiring(zoo.MODELS["convnet_bn"]()).norms
    assert norm.layer.path == "bn1"
    assert norm.epsilon == pytest.approx(1e-3)
    assert [p.path for p in norm.parameters] == ["bn1/gamma", "bn1/beta", "bn1/moving_mean", "bn1/moving_variance"]


def test_readers() -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    model = keras.Model(inputs, [layers.Add(name="sum")([layers.Dense(4, name="b")(x), x]), layers.ReLU()(x)])
    found = wiring(model)
    bias_add = next(op for op in found.graph.ops if op.kind == "BiasAdd" and op.layer == "a")
    assert found.only_reader(bias_add.outputs[0]) == "3 operations read what it gives"
    product = next(op for op in found.graph.ops if op.kind == "MatMul" and op.layer == "a")
    assert found.only_reader(product.outputs[0]) is found.makers[bias_add.outputs[0]]
    assert found.features(product) == (found.graph.structure.inputs[0],)
    assert found.only_reader("none") == "nothing reads what it gives"
