"""Labels of whole models: garbage in removed units changes nothing, and cut models compute what zeroed ones do."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import bitwidth as bw
from bitwidth.graph import Graph
from bitwidth.graph.labels import couple
from tests import nets, zoo
from tests.graph.labels.garbage import error, filled, half, outputs, shifted, zeroed_in
from tests.graph.labels.smaller import Smaller

CLOSE = 1e-5  # of the root mean square of the outputs
SMALL = [name for name in nets.NETS if name not in nets.APPLICATIONS]
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("lstm_gru_bidirectional", "masked_birnn")]
OF_THE_ZOO = ["nested_shared", "einsum_dense", "frozen_layers", "convnet_bn", *LONG]


def check(model: Any, inputs: Any) -> None:
    """Half of the units of every exact group removed, in four ways; the mutant and the original are far off."""
    graph = bw.read(model, inputs)
    graph = Graph(graph.structure, tuple(graph), {path: np.array(graph.values[path]) for path in graph.values})
    coupling = couple(graph)
    groups = tuple(group for group in coupling.groups if group.exact)
    kept = half(groups)
    expected = outputs(model, graph, coupling.zeroed(graph, kept), inputs)
    noise = filled(graph, groups, kept)
    garbage = outputs(model, graph, zeroed_in(groups, kept, noise, graph), inputs)
    assert error(garbage, expected) <= CLOSE
    mutant = outputs(model, graph, zeroed_in(shifted(groups), kept, noise, graph), inputs)
    assert not error(mutant, expected) <= 100 * CLOSE
    assert not error(outputs(model, graph, {}, inputs), expected) <= 100 * CLOSE
    smaller = Smaller(model, inputs, coupling, kept, graph.values)
    assert error(smaller(inputs), expected) <= CLOSE
    values = smaller.parameters.values()
    held = sum(int(np.prod(value.shape)) for value in values if value.dtype.is_floating)
    assert held == coupling.parameters(kept)
    every = half(coupling.groups)
    if len(every) == len(groups):
        return
    assert np.isfinite(Smaller(model, inputs, coupling, every, graph.values)(inputs)).all()


@pytest.mark.parametrize("name", SMALL)
def test_nets(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = nets.randomised(nets.NETS[name]())
    check(model, nets.batch(model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
@pytest.mark.parametrize("name", nets.APPLICATIONS)
def test_applications(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = nets.randomised(nets.NETS[name]())
    check(model, nets.batch(model))


@pytest.mark.parametrize("name", OF_THE_ZOO)
def test_zoo(name: str) -> None:
    check(zoo.MODELS[name](), zoo.batch(name, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", nets.APPLICATIONS)
def test_only_classifier_and_inputs_of_applications_stay(name: str) -> None:
    coupling = couple(bw.read(nets.NETS[name]()))
    assert {item.reason for item in coupling.frozen} == {"model input", "model output"}
    inexact = [group for group in coupling.groups if not group.exact]
    assert len(inexact) == (4 if name == "convnext_tiny" else 0)
    half_of_all = {group.name: range(max(1, group.size // 2)) for group in coupling.groups}
    assert coupling.parameters(half_of_all) < 0.3 * coupling.parameters({})


class Classed(layers.Layer):  # type: ignore[misc]
    """A class token in front, and learned positions."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.places = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="places")

    def call(self, x: Any) -> Any:
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, self.token.shape[-1]))
        return ops.concatenate([token, x], 1) + self.places


def shuffled() -> Any:
    """Channels split, and shuffled with those of a branch."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 1)(inputs)
    for _ in range(2):
        first, second = ops.split(x, 2, axis=-1)
        x = layers.Concatenate()([first, layers.Conv2D(6, 3, padding="same", activation="relu")(second)])
        x = ops.transpose(ops.reshape(x, (-1, 8, 8, 2, 6)), (0, 1, 2, 4, 3))
        x = ops.reshape(x, (-1, 8, 8, 12))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def fused_attention() -> Any:
    """Queries, keys and values of one layer; a gated MLP."""
    inputs = keras.Input((7, 16))
    x = ops.transpose(ops.reshape(layers.Dense(48)(inputs), (-1, 7, 3, 4, 4)), (2, 0, 3, 1, 4))
    q, k, v = ops.unstack(x, 3)
    x = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))), v)
    x = layers.Dense(16)(ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, 7, 16)))
    x = layers.Dense(24, activation="silu")(x) * layers.Dense(24)(x)
    return keras.Model(inputs, layers.Dense(5)(x))


def vision_transformer() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = Classed()(layers.Reshape((16, 16))(layers.Conv2D(16, 4, strides=4)(inputs)))
    x = x + layers.MultiHeadAttention(2, 8)(x, x)
    return keras.Model(inputs, layers.Dense(4)(x[:, 0]))


def mixer() -> Any:
    """A Dense layer along positions, whose channels are merged with the batch meanwhile."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 4, strides=4)(inputs))
    y = layers.Dense(16)(layers.Dense(10, "gelu")(layers.Permute((2, 1))(x)))
    x = x + layers.Permute((2, 1))(y)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def grouped_query() -> Any:
    inputs = keras.Input((6, 16))
    x = layers.Dense(16)(inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.GroupQueryAttention(8, 4, 2)(x, x)))


def images() -> Any:
    """Squeeze and excite, PReLU, up-sampling, padding, cropping, dilation, channels padded with zeros."""
    inputs = keras.Input((8, 8, 3))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(10, 3, padding="same")(inputs))
    y = layers.Dense(4, "relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = x * layers.Dense(10, "sigmoid")(y)
    y = layers.Conv2D(14, 3, padding="same")(x)
    x = y + ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 3)))
    x = layers.UpSampling2D(interpolation="bilinear")(layers.UpSampling2D()(x))
    x = layers.PReLU()(layers.Cropping2D()(layers.ZeroPadding2D()(x)))
    x = layers.Conv2D(4, 3, strides=2)(layers.Conv2D(6, 3, dilation_rate=2)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def joined_flat() -> Any:
    """Flattened maps, some of several outputs of each channel, and vectors, normalised together."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(5, 3)(inputs)
    y = layers.Flatten()(x)
    z = layers.Flatten()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = layers.BatchNormalization()(layers.Concatenate()([y, z, layers.Dense(7)(y)]))
    return keras.Model(inputs, layers.Dense(3)(x))


def recurrent() -> Any:
    """Convolutions in a loop, summed directions, an unrolled cell."""
    inputs = keras.Input((4, 8, 8, 2))
    x = layers.ConvLSTM2D(5, 3, padding="same", return_sequences=True)(inputs)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.SimpleRNN(6, unroll=True)(x)))


def uneven() -> Any:
    """Parts of unequal sizes, at constant places."""
    inputs = keras.Input((8,))
    x = layers.Dense(10, "relu")(inputs)
    few, many = ops.split(x, [3], axis=-1)
    y = layers.Dense(6)(x)[:, 1:6]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([few * 2, many, y, x[:, 7:]])))


@pytest.mark.parametrize(
    "build",
    [
        *(shuffled, fused_attention, vision_transformer, mixer, grouped_query, images, joined_flat, uneven),
        pytest.param(recurrent, marks=pytest.mark.slow),
    ],
)
def test_architectures(build: Any) -> None:
    keras.utils.set_random_seed(0)
    model = nets.randomised(build())
    check(model, np.random.default_rng(0).random((4, *model.input_shape[1:]), np.float32))


def test_groups_that_are_not_exact_are_not() -> None:
    """Garbage in a residual width behind a LayerNormalization shows."""
    model = nets.randomised(nets.transformer())
    inputs = nets.batch(model)
    graph = bw.read(model)
    coupling = couple(graph)
    kept = half((coupling["words"],))
    expected = outputs(model, graph, coupling.zeroed(graph, kept), inputs)
    cut = Smaller(model, inputs, coupling, kept, graph.values)(inputs)
    assert error(cut, expected) > 0.01
