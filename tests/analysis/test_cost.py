"""Costs against closed forms of known layers and nets, and of cut models against smaller ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import bitwidth as bw
from bitwidth.analysis import cost_of
from bitwidth.analysis.cost.counting import macs_of
from bitwidth.errors import ConfigError
from bitwidth.graph import Op
from bitwidth.graph.labels import couple
from tests import nets, reference, zoo


def of(layer: Any, *shape: int) -> bw.Cost:
    """The cost of one layer on inputs of a shape."""
    inputs = keras.Input(shape)
    return bw.cost(keras.Model(inputs, layer(inputs)))


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "parameters"),
    [
        (layers.Dense(5), (7,), 35, 40),
        (layers.Dense(5), (3, 7), 105, 40),
        (layers.Dense(5), (2, 3, 7), 210, 40),
        (layers.EinsumDense("abc,cde->abde", (3, 2, 4)), (3, 7), 3 * 7 * 8, 56),
        (layers.Conv2D(6, 3, padding="same"), (8, 8, 4), 64 * 9 * 4 * 6, 9 * 4 * 6 + 6),
        (layers.Conv2D(6, 3, strides=2), (9, 9, 4), 16 * 9 * 4 * 6, 9 * 4 * 6 + 6),
        (layers.Conv2D(6, 3, groups=2, use_bias=False), (8, 8, 4), 36 * 9 * 2 * 6, 9 * 2 * 6),
        (layers.Conv2D(6, 3, dilation_rate=2, use_bias=False), (8, 8, 4), 16 * 9 * 4 * 6, 9 * 4 * 6),
        (layers.Conv1D(6, 3, padding="causal", use_bias=False), (8, 4), 8 * 3 * 4 * 6, 3 * 4 * 6),
        (layers.Conv3D(6, 2, use_bias=False), (4, 4, 4, 3), 27 * 8 * 3 * 6, 8 * 3 * 6),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), (8, 8, 4), 36 * 9 * 8, 72),
        (layers.SeparableConv2D(6, 3, padding="same", use_bias=False), (8, 8, 4), 64 * (9 * 4 + 4 * 6), 60),
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same", use_bias=False), (8, 8, 4), 64 * 9 * 24, 216),
        (layers.LSTM(5), (10, 3), 10 * 4 * 5 * (3 + 5), 4 * 5 * (3 + 5 + 1)),
        (layers.GRU(5), (10, 3), 10 * 3 * 5 * (3 + 5), 3 * 5 * (3 + 5 + 2)),
        (layers.SimpleRNN(5, unroll=True), (10, 3), 10 * 5 * (3 + 5), 5 * (3 + 5 + 1)),
        (layers.Bidirectional(layers.LSTM(5)), (10, 3), 2 * 10 * 4 * 5 * (3 + 5), 2 * 4 * 5 * (3 + 5 + 1)),
        (layers.BatchNormalization(), (8, 4), 0, 16),
    ],
)
def test_closed_forms(layer: Any, shape: tuple[int, ...], macs: int, parameters: int) -> None:
    found = of(layer, *shape)
    assert found.macs == macs
    assert found.parameters == parameters
    assert found.notes == ()


def test_attention() -> None:
    """Four projections, queries times keys, weights times values."""
    inputs = keras.Input((12, 32))
    model = keras.Model(inputs, layers.MultiHeadAttention(4, 8, name="attention")(inputs, inputs))
    found = bw.cost(model)
    assert found.macs == 4 * 12 * 32 * 32 + 2 * 4 * 12 * 12 * 8
    own = {layer.path: layer.macs for layer in found.layers}
    assert own["attention"] == 2 * 4 * 12 * 12 * 8
    assert own["attention/query"] == 12 * 32 * 32


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("ab,bc->ac", [(2, 3), (3, 4)], 24),
        ("...ab,...bc->...ac", [(5, 6, 2, 3), (5, 6, 3, 4)], 30 * 24),
        ("...ab,bc->...ac", [(5, 2, 3), (3, 4)], 5 * 24),
        ("bthd,bshd->bhts", [(1, 7, 2, 4), (1, 9, 2, 4)], 2 * 7 * 9 * 4),
    ],
)
def test_einsums(equation: str, shapes: list[tuple[int, ...]], macs: int) -> None:
    assert macs_of(Op("y", "einsum", "", (), (), attributes=(("equation", equation),)), shapes, ()) == macs


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (keras.applications.MobileNetV2, 300.8),
        pytest.param(keras.applications.ResNet50, 3858, marks=pytest.mark.slow),
        pytest.param(keras.applications.VGG16, 15470, marks=pytest.mark.slow),
        pytest.param(keras.applications.DenseNet121, 2834, marks=pytest.mark.slow),
        pytest.param(keras.applications.InceptionV3, 5713, marks=pytest.mark.slow),
        pytest.param(keras.applications.EfficientNetB0, 385.8, marks=pytest.mark.slow),
    ],
)
def test_nets_that_everybody_knows(build: Callable[..., Any], millions: float) -> None:
    """Multiply-accumulates as their papers have them, at the papers' input sizes."""
    model = build(weights=None)
    found = bw.cost(model)
    assert found.macs / 1e6 == pytest.approx(millions, rel=1e-3)
    assert found.parameters == sum(int(np.prod(w.shape)) for w in model.weights if "float" in w.dtype)


def test_a_shared_layer_computes_twice_and_is_held_once() -> None:
    shared = layers.Dense(4, use_bias=False)
    inputs = keras.Input((4,))
    found = bw.cost(keras.Model(inputs, shared(shared(inputs))))
    assert (found.macs, found.parameters) == (32, 16)


def test_the_dearest_of_several_branches_counts() -> None:
    import tensorflow as tf

    class Choice(layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.few = self.add_weight(shape=(4, 2), name="few")
            self.many = self.add_weight(shape=(4, 8), name="many")

        def call(self, x: Any) -> Any:
            def dear() -> Any:
                return tf.reduce_sum(tf.matmul(x, self.many), 1)

            return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.reduce_sum(tf.matmul(x, self.few), 1), dear)

    assert of(Choice(), 4).macs == 32


def test_a_loop_of_unknown_length_is_counted_once_and_said_so() -> None:
    inputs = keras.Input((None, 3))
    found = bw.cost(keras.Model(inputs, layers.GRU(5, name="gru")(inputs)))
    assert found.macs == 3 * 5 * (3 + 5)
    assert "how many steps the loop in gru takes is not known: counted for one" in found.notes
    assert any("axes of unknown size besides its batch" in note for note in found.notes)
    assert found.notes[0] in str(found)


def test_memory_of_a_chain_is_that_of_two_neighbours() -> None:
    inputs = keras.Input((100,))
    x = layers.Dense(300, use_bias=False, name="wide")(inputs)
    x = layers.Dense(150, use_bias=False)(layers.Flatten()(layers.Reshape((3, 100))(x)))
    found = bw.cost(keras.Model(inputs, x))
    assert found.peak == 4 * (300 + 150)  # a reshape takes none
    assert of(layers.Dense(300, use_bias=False, name="wide"), 100).peak == 4 * (100 + 300)


def test_memory_of_a_branch_lasts_until_it_is_joined() -> None:
    inputs = keras.Input((100,))
    x = layers.Dense(100, use_bias=False)(inputs)
    x = layers.Dense(100, use_bias=False)(x)
    found = bw.cost(keras.Model(inputs, layers.Add(name="sum")([inputs, x])))
    assert found.peak == 4 * 300


def test_a_recurrent_layer_holds_what_its_steps_return() -> None:
    few, many = (of(layers.LSTM(50, return_sequences=True), steps, 2).peak for steps in (100, 200))
    assert many - few == pytest.approx(100 * 4 * (2 + 50), rel=0.05)


def test_bytes_are_those_of_the_encodings() -> None:
    model = zoo.MODELS["mlp"]()
    whole = bw.cost(model)
    assert whole.bytes == 4 * whole.parameters
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(model)
    found = bw.cost(result)
    assert found.bytes == result.report.passes[-1].bytes_after
    assert (found.macs, found.parameters) == (whole.macs, whole.parameters)
    assert bw.cost(bw.open(model)) == whole


def dense_net(widths: tuple[int, ...]) -> Any:
    stack = [keras.Input((20,)), *(layers.Dense(width, "relu", name=f"d{place}") for place, width in enumerate(widths))]
    return keras.Sequential([*stack, layers.Dense(5, name="logits")], name="net")


def conv_net(first: int, second: int) -> Any:
    stack = [
        keras.Input((16, 16, 3)),
        layers.Conv2D(first, 3, padding="same", name="a"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.Conv2D(second, 1, name="b"),
        layers.Flatten(name="flat"),
        layers.Dense(5, name="logits"),
    ]
    return keras.Sequential(stack, name="net")


def lstm_net(first: int, second: int) -> Any:
    stack = [keras.Input((10, 6)), layers.LSTM(first, return_sequences=True, name="a"), layers.LSTM(second, name="b")]
    return keras.Sequential([*stack, layers.Dense(4, name="logits")], name="net")


@pytest.mark.parametrize(
    ("large", "small", "kept"),
    [
        (dense_net((32, 24)), dense_net((10, 7)), {"d0": 10, "d1": 7}),
        (conv_net(12, 8), conv_net(5, 8), {"a": 5}),
        (conv_net(12, 8), conv_net(7, 3), {"a": 7, "b": 3}),
        (lstm_net(16, 12), lstm_net(5, 4), {"a/cell": 5, "b/cell": 4}),
    ],
)
def test_a_cut_costs_what_the_smaller_model_costs(large: Any, small: Any, kept: dict[str, int]) -> None:
    graph = bw.read(large)
    units = {name: np.arange(count) for name, count in kept.items()}
    assert cost_of(graph, couple(graph), units) == bw.cost(small)


def test_a_cut_through_a_shared_scale_costs_its_share() -> None:
    """Of blocks that a cut goes through nothing is known but the share that is left."""
    model = dense_net((32,))
    result = bw.PassManager([bw.Quantize(4, granularity=bw.PerGroup(32))]).run(model)
    coupling = couple(result.graph)
    half = cost_of(result.graph, coupling, {"d0": range(0, 32, 2)})
    whole = bw.cost(result)
    assert half.bytes is not None
    assert whole.bytes is not None
    assert 0.4 < half.bytes / whole.bytes < 0.7


def test_units_that_are_not_there() -> None:
    graph = bw.read(zoo.MODELS["mlp"]())
    with pytest.raises(ConfigError, match="no group 'none'"):
        cost_of(graph, None, {"none": [0]})


def test_a_table_and_plain_data() -> None:
    found = bw.cost(nets.lenet5())
    assert "conv2" in str(found)
    assert "416,520" in str(found).splitlines()[-1]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["macs"] == 416_520
    assert plain["parameters"] == 61_706
    assert plain["layers"][0] == {"path": "conv1", "kind": "Conv2D", "macs": 117_600, "parameters": 156, "bytes": 624}
    assert plain["notes"] == []


def test_graphs_of_other_backends_are_counted() -> None:
    found = bw.cost(reference.Network([3, 5, 2]))
    assert (found.macs, found.parameters) == (25, 32)


def test_products_of_features_with_features_are_counted() -> None:
    inputs = keras.Input((6, 4))
    x = layers.Dense(4)(inputs)
    found = bw.cost(keras.Model(inputs, ops.matmul(x, ops.transpose(x, (0, 2, 1)))))
    assert found.macs == 6 * 4 * 4 + 6 * 6 * 4
