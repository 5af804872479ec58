"""What stands behind a contraction, and in front of a normalisation."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.graph import Refused, Wiring
from bitwidth.graph.neighbours import Target, in_front, target
from tests import zoo


def found_for(model: Any, path: str) -> Target:
    wiring = Wiring(bw.read(model))
    parameter = wiring.graph[path]
    return target(wiring, parameter.uses[0].op, int(np.prod([parameter.shape[a] for a in parameter.channel_axes])))


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
    found = found_for(zoo.MODELS[name](), kernel)
    assert found.parameter.path == bias
    assert found.sign == (-1 if bias.endswith("mean") else 1)


def test_a_gru_adds_a_row_of_its_bias_to_each_kernel() -> None:
    model = zoo.MODELS["lstm_gru_bidirectional"]()
    total = np.zeros((2, 12))
    for row, kind in enumerate(("kernel", "recurrent_kernel")):
        found = found_for(model, f"gru/cell/{kind}")
        assert found.row == row
        found.add(total, np.full(12, row + 1))
    assert total.sum(1).tolist() == [12, 24]


def test_kernels_without_a_bias_have_a_reason() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.SeparableConv2D(4, 3, name="sep")(inputs)
    x = layers.Conv2D(4, 1, use_bias=False, activation="relu", name="bare")(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1, use_bias=False, name="last")(x))
    with pytest.raises(Refused, match=r"^no bias, but Conv2D in sep follows it$"):
        found_for(model, "sep/depthwise_kernel")
    with pytest.raises(Refused, match=r"^no bias, but Relu in bare follows it$"):
        found_for(model, "bare/kernel")
    with pytest.raises(Refused, match=r"^no bias: its output is a model output$"):
        found_for(model, "last/kernel")
    with pytest.raises(Refused, match=r"^it is looked up$"):
        found_for(zoo.MODELS["tied_language_model"](), "table/embeddings")


def test_the_kernel_in_front_of_a_normalisation() -> None:
    wiring = Wiring(bw.read(zoo.MODELS["convnet_bn"]()))
    (norm,) = wiring.norms
    contraction, bias = in_front(wiring, norm)
    assert contraction.kernel.path == "conv1/kernel"
    assert bias is None


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ([], "no kernel in front of it, but Placeholder"),
        ([layers.ReLU(name="r")], "no kernel in front of it, but Relu in r"),
    ],
)
def test_a_normalisation_without_a_kernel_has_a_reason(between: list[Any], reason: str) -> None:
    model = keras.Sequential([keras.Input((4,)), *between, layers.BatchNormalization(name="bn")])
    wiring = Wiring(bw.read(model))
    with pytest.raises(Refused, match=reason):
        in_front(wiring, wiring.norms[0])
