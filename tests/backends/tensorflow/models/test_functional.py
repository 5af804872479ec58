"""`bw.functionalize`: what a call may do, what becomes of it, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import bitwidth as bw
from bitwidth.errors import ConfigError, ModelError, SelectionError, UnsupportedModelError
from tests import nets

Model = Any


def is_plain(model: Model) -> bool:
    """Whether a model is made of Keras's own layers, and of nothing else."""
    return all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())


def named(model: Model) -> list[str]:
    """The layers that hold weights."""
    return [layer.name for layer in model.layers if layer.weights]


def filled(model: Model) -> Model:
    """`model` with random values in all weights."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype:
            variable.assign(rng.uniform(0.2, 1.0, variable.shape).astype(np.float32))
    return model


def called(build: Callable[[], Model], *shape: int, dtype: str = "float32") -> Model:
    keras.utils.set_random_seed(0)
    model = build()
    model(np.zeros(shape, dtype))
    return model


def assert_same(model: Model, found: Model, inputs: Any) -> None:
    for one, two in zip(keras.tree.flatten(model(inputs)), keras.tree.flatten(found(inputs)), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(two), rtol=1e-4, atol=1e-5)


class Block(layers.Layer):  # type: ignore[misc]
    """A residual block; its width is that of its inputs."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization()
        self.up, self.down = layers.Dense(2 * width, "gelu"), layers.Dense(width)
        self.drop = layers.Dropout(0.3)

    def build(self, shape: Any) -> None:
        self.norm.build(shape)
        self.up.build(shape)
        self.down.build((*shape[:-1], self.up.units))
        self.built = True

    def call(self, x: Any, training: Any = None) -> Any:
        return x + self.drop(self.down(self.up(self.norm(x))), training=training)


class Own(layers.Layer):  # type: ignore[misc]
    """A layer with a weight and no layers."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(shape[-1], self.units), name="weight")
        self.built = True

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.weight)

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


class DropPath(layers.Layer):  # type: ignore[misc]
    """Draws random numbers in training."""

    def call(self, x: Any, training: Any = None) -> Any:
        return x * keras.random.bernoulli((ops.shape(x)[0], 1), 0.5) if training else x


# ---- composites


def blocks() -> Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8), name="features")
    x = layers.Dense(8, name="first")(inputs)
    for place in range(2):
        x = Block(8, name=f"block{place}")(x)
    return filled(keras.Model(inputs, layers.Dense(3, name="out")(x), name="blocks"))


def test_composites_in_a_functional_model_are_inlined() -> None:
    model = blocks()
    before = [variable.numpy().copy() for variable in model.variables]
    found = bw.functionalize(model)
    assert is_plain(found)
    assert type(found) is keras.Model or type(found).__name__ == "Functional"
    assert found.name == "blocks"
    assert named(found) == [
        "first",
        *("block0_norm", "block0_up", "block0_down", "block1_norm", "block1_up", "block1_down"),
        "out",
    ]
    assert found.inputs[0].name == "features"
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), value)
    assert not {id(v) for v in model.variables} & {id(v) for v in found.variables}
    assert_same(model, found, np.random.default_rng(0).random((5, 6, 8), np.float32))


def test_dropout_acts_in_training_and_statistics_move() -> None:
    class Normed(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.block, self.out = layers.BatchNormalization(), Block(8), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.block(self.norm(x)))

    model = called(Normed, 4, 8)
    found = bw.functionalize(model)
    x = np.random.default_rng(0).random((64, 8), np.float32)
    first, second = found(x, training=True), found(x, training=True)
    assert not np.allclose(first, second)
    assert not np.allclose(found.get_layer("norm").moving_mean, 0)
    np.testing.assert_array_equal(np.asarray(model.norm.moving_mean), 0)
    found.compile("adam", "mse")
    found.fit(x, np.zeros((64, 2), np.float32), verbose=0)


def test_a_graph_of_keras_comes_back_as_a_copy() -> None:
    for model in (nets.mlp(), nets.lenet5()):
        found = bw.functionalize(model)
        assert type(found) is type(model)
        assert found.get_config() == model.get_config()
        assert_same(model, found, nets.batch(model))
        found.variables[0].assign(found.variables[0] * 0)
        assert np.asarray(model.variables[0]).any()


def test_a_sequential_model_with_a_composite() -> None:
    class Mine(keras.Sequential):  # type: ignore[misc]
        pass

    stack = [layers.Dense(8, name="first"), Block(8, name="block"), layers.Dense(2, name="out")]
    model = filled(Mine([keras.Input((8,)), *stack]))
    found = bw.functionalize(model)
    assert is_plain(found)
    assert named(found) == ["first", "norm", "up", "down", "out"]


def test_models_within_models_stay_where_they_are_of_keras() -> None:
    class Outer(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            inner = keras.Input((8,))
            self.plain = keras.Model(inner, layers.Dense(8, "relu", name="plain_dense")(inner), name="plain")
            self.mixed = keras.Sequential([keras.Input((8,)), Block(8), layers.Dense(4, name="narrow")], name="mixed")

        def call(self, x: Any) -> Any:
            return self.mixed(self.plain(self.plain(x)))

    model = filled(called(Outer, 2, 8))
    found = bw.functionalize(model)
    assert is_plain(found)
    assert named(found) == ["plain", "norm", "up", "down", "narrow"]
    assert len(found.variables) == len(model.variables)


def test_layers_that_are_called_twice_stay_one() -> None:
    class Twice(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.block, self.out = Block(8), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.block(self.block(x)))

    found = bw.functionalize(called(Twice, 2, 8))
    assert named(found) == ["norm", "up", "down", "out"]


def test_code_in_lambda_layers_is_inlined() -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Lambda(lambda x: x * 2 + 1)(inputs)))
    found = bw.functionalize(model)
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in found.layers)
    assert_same(model, found, np.ones((2, 8), np.float32))


def test_precision_stays() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((8,))
        model = keras.Model(inputs, layers.Dense(2, dtype="float32", name="out")(Block(8)(inputs)))
    finally:
        keras.config.set_dtype_policy("float32")
    found = bw.functionalize(model)
    assert found.get_layer("up").compute_dtype == "bfloat16"
    assert found.get_layer("out").compute_dtype == "float32"


def test_what_is_frozen_stays_so() -> None:
    class Tuned(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            inner = keras.Input((8, 8, 3))
            x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(inner))
            self.backbone = keras.Model(inner, layers.GlobalAveragePooling2D()(x), name="backbone")
            self.block, self.out = Block(4), layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.block(self.backbone(x)))

    model = called(Tuned, 2, 8, 8, 3)
    model.backbone.trainable = False
    model.block.trainable = False
    model.block.up.trainable = True
    found = bw.functionalize(model)
    assert len(found.variables) == len(model.variables)
    assert [v.path for v in found.trainable_variables] == ["up/kernel", "up/bias", "out/kernel", "out/bias"]
    assert not found.get_layer("backbone").get_layer("bn").trainable


# ---- inputs, outputs, sizes


class Sides(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.shared = layers.Dense(4), layers.Dense(4), layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        left, right = (inputs["left"], inputs["right"]) if isinstance(inputs, dict) else inputs
        return {"left": self.shared(self.a(left)), "both": [self.shared(self.b(right)), ops.sum(left, -1)]}


@pytest.mark.parametrize("kind", [dict, list])
def test_nested_inputs_and_outputs(kind: Any) -> None:
    rng = np.random.default_rng(0)
    parts = {"left": rng.random((3, 5), np.float32), "right": rng.random((3, 6), np.float32)}
    inputs = parts if kind is dict else list(parts.values())
    model = Sides()
    expected = model(inputs)
    found = bw.functionalize(model)
    assert sorted(named(found)) == ["a", "b", "shared"]
    keras.tree.assert_same_structure(expected, found(inputs))
    assert_same(model, found, inputs)
    if kind is dict:
        assert {tensor.name for tensor in found.inputs} == {"left", "right"}


def test_an_example_says_what_a_model_takes() -> None:
    class Plain(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table, self.block = layers.Embedding(9, 8), Block(8)

        def call(self, inputs: Any) -> Any:
            return self.block(self.table(inputs["tokens"]) * inputs["weights"][..., None])

    model = Plain()
    example = {"tokens": np.ones((2, 4), np.int32), "weights": np.ones((2, 4), np.float32)}
    model(example)
    found = bw.functionalize(model, example)
    assert {tensor.name: tensor.dtype for tensor in found.inputs} == {"tokens": "int32", "weights": "float32"}
    assert bw.functionalize(model, (example, np.ones(2))).count_params() == found.count_params()


class Attention(layers.Layer):  # type: ignore[misc]
    """Heads made by hand, with the sizes that the tensors have."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv, self.out = layers.Dense(3 * width), layers.Dense(width)

    def build(self, shape: Any) -> None:
        self.qkv.build(shape)
        self.out.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        size, length = ops.shape(x)[:2]
        parts = ops.reshape(self.qkv(x), (size, length, 3, self.heads, self.width // self.heads))
        q, k, v = (parts[:, :, place] for place in range(3))
        weights = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(self.width // self.heads))
        causal = ops.arange(length)[:, None] >= ops.arange(length)
        mixed = ops.einsum("bhqk,bkhd->bqhd", ops.where(causal, weights, 0.0), v)
        return self.out(ops.reshape(mixed, (size, length, -1)))


def language(length: int | None) -> Model:
    keras.utils.set_random_seed(0)

    class Language(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="language")
            self.words, self.places = layers.Embedding(30, 16), layers.Embedding(10, 16)
            self.attention, self.block, self.out = Attention(4, 16), Block(16), layers.Dense(5)

        def call(self, tokens: Any) -> Any:
            x = self.words(tokens) + self.places(ops.arange(ops.shape(tokens)[1]))
            return self.out(ops.mean(self.block(x + self.attention(x)), axis=1))

    inputs = keras.Input((length,), dtype="int32")
    return filled(keras.Model(inputs, Language()(inputs)))


@pytest.mark.parametrize("length", [10, None])
def test_sizes_that_the_tensors_have(length: int | None) -> None:
    model = language(length)
    found = bw.functionalize(model)
    assert is_plain(found)
    assert found.input_shape == (None, length)
    for shape in [(1, 10), (3, 10), *([(2, 4)] if length is None else [])]:
        assert_same(model, found, np.random.default_rng(0).integers(0, 30, shape))
    small = bw.PassManager([bw.Shrink(keep=0.5)]).run(found).model
    assert small.get_layer("up").units == 16


class Patches(keras.Model):  # type: ignore[misc]
    """Variables of its own, of any number of axes, and tensors of the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.out = layers.Conv2D(12, 4, 4), layers.Dense(3)
        self.token = self.add_weight(shape=(1, 1, 12), name="token")
        self.place = self.add_weight(shape=(7, 12), name="place", regularizer="l2")
        self.gain = self.add_weight(shape=(12,), name="gain", trainable=False)
        self.more: Any = [
            (self.add_weight(shape=(), name="scale"), 1),
            {"cube": self.add_weight(shape=(2, 3, 2), name="cube")},
        ]
        self.pair = self.add_weight(shape=(12,), name="first"), self.add_weight(shape=(12,), name="second")

    def call(self, images: Any) -> Any:
        x = self.patch(images)
        size, *_, width = ops.shape(x)
        x = ops.reshape(x, [size, -1, width])
        token = ops.tile(self.token, (size, 1, 1)) + ops.broadcast_to(self.token, (size, 1, width))
        seen = ops.concatenate([token, ops.zeros((size, 1, width)), ops.ones((size, 1, width)), x], axis=1)
        seen = (seen + self.place) * self.gain * self.more[0][0] + ops.sum(self.more[1]["cube"])
        seen = seen * self.pair[0] + self.pair[1]
        return self.out(seen[:, 0]) / ops.cast(size, "float32"), seen[:, 1:]


def test_variables_of_a_composite_become_tables() -> None:
    model = filled(called(Patches, 2, 8, 8, 3))
    found = bw.functionalize(model)
    assert is_plain(found)
    assert {name: found.get_layer(name).get_config()["output_dim"] for name in ("token", "place", "gain", "scale")} == {
        "token": 12,
        "place": 12,
        "gain": 12,
        "scale": 1,
    }
    assert found.get_layer("place").input_dim == 7
    assert found.get_layer("place").embeddings_regularizer is not None
    assert found.count_params() == model.count_params()
    assert [v.path for v in found.non_trainable_variables] == ["gain/embeddings"]
    assert_same(model, found, np.random.default_rng(0).random((5, 8, 8, 3), np.float32))


def test_a_table_that_is_multiplied_with_stays_tied() -> None:
    model = nets.randomised(nets.tied_language())
    found = bw.functionalize(model)
    assert named(found) == ["table", "up", "down"]
    assert_same(model, found, nets.batch(model))


def test_another_name_of_a_table() -> None:
    class Alias(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.dense = layers.Embedding(9, 8), layers.Dense(8)

        def build(self, shape: Any) -> None:
            self.words.build(shape)
            self.dense.build((*shape, 8))
            self.table = self.words.embeddings
            self.built = True

        def call(self, tokens: Any) -> Any:
            return ops.matmul(self.dense(self.words(tokens)), ops.transpose(self.table))

    model = called(Alias, 2, 4, dtype="int32")
    assert named(bw.functionalize(model)) == ["words", "dense"]


def test_a_call_within_a_function_of_tensorflow() -> None:
    class Compiled(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.block = Block(8)

        @tf.function  # type: ignore[untyped-decorator]
        def call(self, x: Any) -> Any:
            return self.block(x)

    assert named(bw.functionalize(called(Compiled, 2, 8))) == ["norm", "up", "down"]


def test_words_go_through() -> None:
    class Texts(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
            self.table, self.block = layers.Embedding(4, 8), Block(8)

        def call(self, words: Any) -> Any:
            return self.block(self.table(self.lookup(words)))

    inputs = keras.Input((3,), dtype="string", name="words")
    model = keras.Model(inputs, Texts()(inputs))
    found = bw.functionalize(model)
    assert found.get_layer("lookup").get_vocabulary() == ["[UNK]", "a", "b", "c"]
    assert_same(model, found, tf.constant([["a", "c", "x"]]))


def test_files_hold_what_was_made(tmp_path: Path) -> None:
    found = bw.functionalize(language(None))
    small = bw.PassManager([bw.Shrink(keep=0.5), bw.Quantize(bits=8)]).run(found)
    small.save(tmp_path / "small.bw")
    small.model.save(tmp_path / "small.keras")
    tokens = np.random.default_rng(0).integers(0, 30, (2, 4))
    assert_same(small.model, bw.load(tmp_path / "small.bw"), tokens)
    assert_same(small.model, keras.saving.load_model(tmp_path / "small.keras"), tokens)


# ---- masks


class Masked(layers.Layer):  # type: ignore[misc]
    """Hands the mask of its inputs on, through operations that would lose it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(8), layers.LayerNormalization()
        self.supports_masking = True

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.norm.build(shape)
        self.built = True

    def call(self, x: Any, mask: Any = None) -> Any:
        y = self.norm(x + self.dense(x))
        return y if mask is None else y * ops.cast(mask[..., None], y.dtype)


class Reads(keras.Model):  # type: ignore[misc]
    def __init__(self, ends: bool) -> None:
        super().__init__()
        self.ends = ends
        self.words, self.first = layers.Embedding(20, 8, mask_zero=True), Masked()
        if ends:
            self.out = layers.Dense(3)
        else:
            self.attention, self.rnn = layers.MultiHeadAttention(2, 4), layers.LSTM(6)
            self.last, self.pool = Masked(), layers.GlobalAveragePooling1D()

    def call(self, tokens: Any) -> Any:
        x = self.first(self.words(tokens))
        if self.ends:
            return self.out(x)
        return self.rnn(x), self.pool(self.last(x)), self.attention(x, x), self.attention(x, x, use_causal_mask=True)


@pytest.mark.filterwarnings("ignore:Layer 'mask:UserWarning")  # Keras, of a model that puts a mask on a tensor
def test_masks_reach_what_takes_them() -> None:
    model = filled(called(lambda: Reads(False), 2, 7, dtype="int32"))
    found = bw.functionalize(model)
    tokens = np.random.default_rng(0).integers(0, 3, (4, 7))
    assert_same(model, found, tokens)
    assert not np.allclose(found(tokens)[0], found(np.maximum(tokens, 1))[0])


@pytest.mark.filterwarnings("ignore:Layer 'mask:UserWarning")
def test_masks_of_outputs_weigh_the_loss() -> None:
    model = filled(called(lambda: Reads(True), 2, 7, dtype="int32"))
    found = bw.functionalize(model)
    tokens = np.random.default_rng(0).integers(0, 3, (4, 7))
    losses = []
    for each in (model, found):
        each.compile("sgd", "mse")
        losses.append(each.evaluate(tokens, np.zeros((4, 7, 3), np.float32), verbose=0))
    assert losses[0] == pytest.approx(losses[1])


# ---- a user's own layers, and what is kept


def test_layers_with_weights_and_no_layers_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.own, self.dropped, self.out = Own(6), DropPath(), layers.Dense(2)
            self.unused = layers.Dense(3)
            self.unused.build((None, 6))

        def call(self, x: Any) -> Any:
            return self.out(self.dropped(self.own(x)))

    model = called(Net, 2, 4)
    with caplog.at_level(logging.INFO, "bitwidth"):
        found = bw.functionalize(model)
    assert [type(layer).__name__ for layer in found.layers[1:]] == ["Own", "DropPath", "Dense"]
    assert "own layers in it: dropped, own; left behind" in caplog.text
    assert "unused/kernel" in caplog.text
    found.save(tmp_path / "own.keras")
    again = keras.saving.load_model(tmp_path / "own.keras", custom_objects={"Own": Own, "DropPath": DropPath})
    assert_same(model, again, np.ones((2, 4), np.float32))
    assert bw.PassManager([bw.Shrink(keep=0.5)]).run(found).model.get_layer("own").units == 3


class Sampling(layers.Layer):  # type: ignore[misc]
    """Its configuration does not hold its name: Keras looks for an argument that is called `kwargs`."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs: Any, training: Any = None) -> Any:
        mean, log = inputs
        return mean + ops.exp(log) * (keras.random.normal(ops.shape(mean), seed=self.seeds) if training else 1.0)


def test_a_layer_whose_configuration_does_not_hold_its_name(tmp_path: Path) -> None:
    class Auto(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.mean, self.log = layers.Dense(8), layers.Dense(2), layers.Dense(2)
            self.drawn, self.decode = Sampling(), layers.Dense(4)

        def call(self, x: Any) -> Any:
            y = self.encode(x)
            return self.decode(self.drawn([self.mean(y), self.log(y)]))

    found = bw.functionalize(called(Auto, 2, 4))
    assert "sampling" in [layer.name for layer in found.layers]
    result = bw.PassManager([bw.Shrink(keep=0.5)]).run(found)
    assert result.model.get_layer("encode").units == 4
    result.save(tmp_path / "auto.bw")
    again = bw.load(tmp_path / "auto.bw", custom_objects={"Sampling": Sampling})
    assert_same(result.model, again, np.ones((2, 4), np.float32))


def test_a_backbone_that_is_told_not_to_train() -> None:
    class Head(keras.Model):  # type: ignore[misc]
        def __init__(self, drops: bool) -> None:
            super().__init__()
            inner = keras.Input((8,))
            self.base = keras.Model(inner, layers.BatchNormalization()(layers.Dense(4)(inner)), name="base")
            self.base.trainable = False
            self.drops = layers.Dropout(0.5) if drops else layers.ReLU()
            self.out = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.out(self.drops(self.base(x, training=False)))

    found = bw.functionalize(called(lambda: Head(False), 2, 8))
    x = np.random.default_rng(0).random((16, 8), np.float32)
    np.testing.assert_array_equal(np.asarray(found(x, training=True)), np.asarray(found(x)))
    with pytest.raises(ModelError, match="calls drops, or a layer before it, with training=False"):
        bw.functionalize(called(lambda: Head(True), 2, 8))  # in Keras, that dropout never acts


def test_what_a_model_is_made_of_is_not_touched() -> None:
    model = blocks()
    made = [(operation, len(operation._inbound_nodes), operation.name) for operation in model.operations]
    bw.functionalize(model)
    assert made == [(operation, len(operation._inbound_nodes), operation.name) for operation in model.operations]
    assert "call" not in vars(model)
    assert "symbolic_call" not in vars(model)


@keras.saving.register_keras_serializable(package="functional")
class Odd(layers.Layer):  # type: ignore[misc]
    """Computes with operations of TensorFlow."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return tf.nn.relu(self.dense(x))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)

    def get_config(self) -> Any:
        return {**super().get_config(), "units": self.units}


def odd() -> Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 8))
    x = Odd(8, name="odd")(Block(8, name="block")(inputs))
    x = layers.TimeDistributed(Odd(8, name="inner"), name="each")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="net")


def test_all_that_is_in_the_way_is_named_at_once() -> None:
    with pytest.raises(ModelError) as raised:
        bw.functionalize(odd())
    text = str(raised.value)
    assert (
        "layers of 'net' cannot be inlined: odd (Odd): its call does not run on symbolic tensors (A KerasTensor" in text
    )
    assert "each (TimeDistributed): it calls the layer of the class Odd in it by itself" in text
    assert text.endswith("keep=['odd', 'each']")


def test_what_is_in_the_way_can_be_kept() -> None:
    model = odd()
    found = bw.functionalize(model, keep=["o*", "each"])
    assert [type(layer).__name__ for layer in found.layers if layer.weights] == [
        *("LayerNormalization", "Dense", "Dense"),
        *("Odd", "TimeDistributed", "Dense"),
    ]
    with pytest.raises(SelectionError, match="keep='nowhere' names no layer"):
        bw.functionalize(model, keep="nowhere")
    with pytest.raises(ConfigError, match="keep must be paths of layers, got 3"):
        bw.functionalize(model, keep=[3])  # type: ignore[list-item]


# ---- refused


class Bad(keras.Model):  # type: ignore[misc]
    def __init__(self, does: str) -> None:
        super().__init__()
        self.does = does
        self.dense, self.norm, self.drop = layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="count")
        self.far = _Far(self.add_weight(shape=(4,), name="far"))

    def build(self, shape: Any) -> None:
        self.dense.build(shape)
        self.norm.build(shape)
        self.built = True

    def call(self, x: Any, training: Any = None) -> Any:
        y = self.dense(x)
        if self.does == "loss":
            self.add_loss(ops.mean(y))
        if self.does == "state":
            self.count.assign_add(1)
        if self.does == "branch" and training:
            y = y * 2
        if self.does == "is" and training is True:
            y = y * 2
        if self.does == "fine" and training:
            y = self.drop(y, training=training)
        other: dict[str, Callable[[], Any]] = {
            "value": lambda: y if ops.sum(x) > 1e9 else x,
            "operation": lambda: tf.nn.relu(y),
            "frozen": lambda: self.norm(y, training=False),
            "before": lambda: self.drop(self.dense(y, training=False)),
            "always": lambda: self.drop(y, training=True),
            "random": lambda: y + keras.random.normal((4,)),
            "kernel": lambda: y @ ops.transpose(self.dense.kernel),
            "count": lambda: y + ops.cast(self.count, "float32"),
            "far": lambda: y * self.far.variable,
            "size": lambda: y if ops.shape(x)[0] > 3 else x,
            "repeat": lambda: ops.repeat(y, ops.shape(x)[0], axis=1),
            "constant": lambda: ops.ones((4,)),
        }
        return other.get(self.does, lambda: y)()


class _Far:
    def __init__(self, variable: Any) -> None:
        self.variable = variable


@pytest.mark.parametrize(
    ("does", "match"),
    [
        ("value", r"cannot be traced .* as a Python `bool` is not allowed"),
        (
            "operation",
            r"does not run on symbolic tensors \(A KerasTensor cannot be used as input to a TensorFlow function",
        ),
        ("loss", r"does not run on symbolic tensors \(`add_loss"),
        ("state", r"does not run on symbolic tensors \(.*assign_add.*needs no values, tf operations and states"),
        ("branch", r"differs .* Bad does in inference what cannot be followed: it branches on training"),
        ("is", r"differs .* Bad does in training what cannot be followed: it branches on training"),
        ("frozen", r"calls norm, or a layer before it, with training=False, .*: freeze it"),
        ("before", r"calls drop, or a layer before it, with training=False, which in Keras holds from there on: leave"),
        ("always", r"calls drop, or a layer before it, with training=True, .*: leave the argument out"),
        ("random", r"draws random numbers itself; layers such as Dropout"),
        ("kernel", r"reads dense/kernel itself: of Dense only the layer as a whole can be called"),
        ("count", r"reads count itself: int32 variables are state"),
        ("far", r"far is read in a way that cannot be followed"),
        ("size", r"cannot be traced .* as a Python `bool` is not allowed"),
        ("repeat", r"a size that is only known when the model runs, in Repeat"),
        ("constant", r"an output of 'bad\w*' \(Bad\) is no tensor that depends on its inputs"),
    ],
)
def test_a_call_that_cannot_be_followed_is_refused(does: str, match: str) -> None:
    model = called(lambda: Bad(does), 2, 4)
    with pytest.raises(ModelError, match=f"(?s){match}"):
        bw.functionalize(model, np.ones((4, 4), np.float32))


def test_a_branch_that_only_calls_what_acts_in_training_is_fine() -> None:
    found = bw.functionalize(called(lambda: Bad("fine"), 2, 4))
    assert [layer.name for layer in found.layers[1:]] == ["dense", "drop"]
    x = np.ones((64, 4), np.float32)
    assert not np.allclose(found(x, training=True), found(x))


def test_what_is_no_model_for_it() -> None:
    class Two(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x: Any, y: Any) -> Any:
            return self.dense(x + y)

    model = Two()
    model(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    with pytest.raises(ModelError, match="all in the first argument of its call"):
        bw.functionalize(model)
    with pytest.raises(ConfigError, match="expected a model, got None"):
        bw.functionalize(None)
    with pytest.raises(UnsupportedModelError, match="expected a Keras 3 model"):
        bw.functionalize(3)


def test_a_constraint_of_a_table_that_has_another_shape() -> None:
    class Kept(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gain = self.add_weight(shape=(4,), name="gain", constraint="non_neg")
            self.dense = layers.Dense(4)

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.gain

    with pytest.raises(ModelError, match="gain: a constraint on a variable of 1 axes"):
        bw.functionalize(called(Kept, 2, 4))


def test_two_layers_with_one_variable() -> None:
    class Tied(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layers.Dense(4), layers.Dense(4, use_bias=False)

        def build(self, shape: Any) -> None:
            self.first.build(shape)
            self.second._kernel, self.second.bias = self.first._kernel, None
            self.second.built = self.built = True

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    with pytest.raises(ModelError, match=r"two layers hold one variable \(first, second\)"):
        bw.functionalize(called(Tied, 2, 4))


# ---- with runs


def test_promises_go_along() -> None:
    model = blocks()
    x = np.random.default_rng(0).random((32, 6, 8), np.float32)
    result = bw.PassManager([bw.Quantize(bits=4, activations=8)]).run(model, x)
    found = bw.functionalize(result)
    graph = bw.read(found)
    assert graph["block0_up/kernel"].encoding.bits == 4
    assert set(graph.activations)
    assert_same(result.model, found, x)
    opened = bw.open(result)
    assert bw.read(bw.functionalize(opened))["out/kernel"].encoding.bits == 4
    assert bw.read(bw.functionalize(found))["out/kernel"].encoding.bits == 4


def test_a_promise_that_does_not_fit() -> None:
    model = filled(called(Patches, 2, 8, 8, 3))
    result = bw.PassManager([bw.Quantize(bits=4, where="token")]).run(model)
    with pytest.raises(ModelError, match=r"token is held as 4-bit .* make the model functional before"):
        bw.functionalize(result)


@pytest.fixture(autouse=True)
def _names_of_layers_start_at_zero() -> None:
    keras.backend.clear_session()
