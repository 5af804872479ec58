"""Models whose units and channels can be removed: the architectures that people have, with random vectors.

`NETS` holds a builder by name, `batch(model, n)` random inputs for a model. A fresh model has zero biases and unit
gammas, which hide errors: all vectors are random, and gammas have both signs. Models end at their logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

APPLICATIONS = {
    "mobilenet_v2": ("MobileNetV2", 96),
    "mobilenet_v3_small": ("MobileNetV3Small", 96),
    "resnet50": ("ResNet50", 64),
    "densenet121": ("DenseNet121", 64),
    "efficientnet_v2_b0": ("EfficientNetV2B0", 64),
    "convnext_tiny": ("ConvNeXtTiny", 64),
    "nasnet_mobile": ("NASNetMobile", 96),
    "xception": ("Xception", 96),
    "inception_v3": ("InceptionV3", 96),
}


def randomised(model: Any, seed: int = 0) -> Any:
    """`model` with random vectors: gammas of both signs, positive variances, biases and means that are not zero.

    Kernels of models without normalisation stay as they were initialised.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" not in variable.dtype or len(variable.shape) > 1:
            continue
        values = rng.normal(0.0, 0.3, variable.shape)
        if "variance" in variable.name:
            values = rng.uniform(0.5, 1.5, variable.shape)
        elif variable.name == "gamma":
            values = rng.uniform(0.5, 1.5, variable.shape) * rng.choice([-1.0, 1.0], variable.shape)
        variable.assign(values.astype(np.float32))
    return model


def mlp() -> Any:
    inputs = keras.Input((20,), name="x")
    x = layers.Dense(32, activation="relu", name="first")(inputs)
    x = layers.Dense(24, activation="tanh", name="second")(x)
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="mlp")


def lenet5() -> Any:
    stack = [
        keras.Input((28, 28, 1)),
        layers.Conv2D(6, 5, padding="same", activation="tanh", name="conv1"),
        layers.AveragePooling2D(2, name="pool1"),
        layers.Conv2D(16, 5, activation="tanh", name="conv2"),
        layers.AveragePooling2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dense(120, activation="tanh", name="fc1"),
        layers.Dense(84, activation="tanh", name="fc2"),
        layers.Dense(10, name="logits"),
    ]
    return keras.Sequential(stack, name="lenet5")


def transformer() -> Any:
    """Two blocks of an encoder: attention and an MLP, each behind a LayerNormalization."""
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 32, name="words")(tokens)
    for block in range(2):
        y = layers.LayerNormalization(name=f"norm_a{block}")(x)
        y = layers.MultiHeadAttention(4, 8, name=f"attention{block}")(y, y)
        x = layers.Add(name=f"sum_a{block}")([x, y])
        y = layers.LayerNormalization(name=f"norm_b{block}")(x)
        y = layers.Dense(64, activation="gelu", name=f"up{block}")(y)
        x = layers.Add(name=f"sum_b{block}")([x, layers.Dense(32, name=f"down{block}")(y)])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, layers.Dense(7, name="logits")(x), name="transformer")


@keras.saving.register_keras_serializable(package="nets")
class ResidualCNN(keras.Model):  # type: ignore[misc]
    """A subclassed network of residual blocks, written in Python."""

    def __init__(self, width: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.stem = layers.Conv2D(width, 3, padding="same", use_bias=False)
        self.norms = [layers.BatchNormalization() for _ in range(5)]
        self.convs = [layers.Conv2D(width, 3, padding="same", use_bias=False) for _ in range(4)]
        self.head = layers.Dense(10)

    def call(self, inputs: Any) -> Any:
        x = keras.ops.relu(self.norms[0](self.stem(inputs)))
        for first in (0, 2):
            y = keras.ops.relu(self.norms[first + 1](self.convs[first](x)))
            x = keras.ops.relu(x + self.norms[first + 2](self.convs[first + 1](y)))
        return self.head(keras.ops.mean(x, axis=(1, 2)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def residual_cnn() -> Any:
    model = ResidualCNN(name="residual_cnn")
    model(np.zeros((1, 16, 16, 3), np.float32))
    return model


def lstms() -> Any:
    stack = [
        keras.Input((5, 6)),
        layers.LSTM(16, return_sequences=True, name="first"),
        layers.LSTM(12, name="second"),
        layers.Dense(4, name="logits"),
    ]
    return keras.Sequential(stack, name="lstms")


def grus() -> Any:
    stack = [
        keras.Input((5, 6)),
        layers.Bidirectional(layers.GRU(8, return_sequences=True), name="both"),
        layers.GRU(12, reset_after=False, name="second"),
        layers.Dense(4, name="logits"),
    ]
    return keras.Sequential(stack, name="grus")


@keras.saving.register_keras_serializable(package="nets")
class TiedLanguage(keras.Model):  # type: ignore[misc]
    """One table looked up for the tokens and multiplied with the features for the logits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = layers.Embedding(40, 24)
        self.up = layers.Dense(48, activation="gelu")
        self.down = layers.Dense(24)

    def call(self, tokens: Any) -> Any:
        x = self.table(tokens)
        x = x + self.down(self.up(x))
        return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings))


def tied_language() -> Any:
    model = TiedLanguage(name="tied_language")
    model(np.zeros((2, 9), np.int32))
    return model


class EncoderBlock(layers.Layer):  # type: ignore[misc]
    """A block that makes its layers when it is built, and finds the width of its heads from that of its inputs."""

    def __init__(self, heads: int, middle: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.middle = heads, middle
        self.supports_masking = True

    def build(self, shape: Any) -> None:
        width = shape[-1]
        self.attention = layers.MultiHeadAttention(self.heads, width // self.heads, dropout=0.1, name="attention")
        self.attention.build(shape, shape)
        self.norms = [layers.LayerNormalization(name=f"norm{place}") for place in range(2)]
        self.up = layers.Dense(self.middle, activation="gelu", name="up")
        self.down = layers.Dense(width, name="down")
        self.drop = layers.Dropout(0.1, name="drop")
        for layer, size in ((self.norms[0], width), (self.norms[1], width), (self.up, width), (self.down, self.middle)):
            layer.build((*shape[:-1], size))
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = self.norms[0](inputs + self.drop(self.attention(inputs, inputs, training=training), training=training))
        return self.norms[1](x + self.drop(self.down(self.up(x)), training=training))


class SubclassedEncoder(keras.Model):  # type: ignore[misc]
    """Words, positions and a token of its own in front of them, two blocks, and the token's features."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = layers.Embedding(50, 32)
        self.places = layers.Embedding(12, 32)
        self.first = self.add_weight(shape=(1, 1, 32), name="first")
        self.blocks = [EncoderBlock(4, 64) for _ in range(2)]
        self.logits = layers.Dense(7)

    def call(self, tokens: Any, training: Any = None) -> Any:
        size, length = keras.ops.shape(tokens)
        x = self.words(tokens) + self.places(keras.ops.arange(length))
        x = keras.ops.concatenate([keras.ops.tile(self.first, (size, 1, 1)), x], axis=1)
        for block in self.blocks:
            x = block(x, training=training)
        return self.logits(x[:, 0])


def subclassed_encoder() -> Any:
    model = SubclassedEncoder(name="subclassed_encoder")
    model(np.zeros((2, 12), np.int32))
    return model


def medley() -> Any:
    """Shared, nested, grouped, split, depthwise, separable, transposed: one of each."""
    inner_in = keras.Input((16, 16, 12), name="inner_in")
    inner = layers.Conv2D(12, 3, padding="same", groups=3, name="grouped")(inner_in)
    nested = keras.Model(inner_in, layers.ReLU(name="inner_relu")(inner), name="nested")
    shared = layers.Conv2D(12, 1, activation="relu", name="shared")
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(12, 3, padding="same", name="stem")(inputs)
    x = shared(nested(shared(x)))
    gate, value = keras.ops.split(layers.Conv2D(16, 1, name="gated")(x), 2, axis=-1)
    x = keras.ops.sigmoid(gate) * value
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(10, 3, padding="same", activation="relu", name="separable")(x)
    y = layers.Conv2D(10, 3, strides=2, padding="same", name="down")(x)
    y = layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu", name="upwards")(y)
    x = layers.Concatenate(name="joined")([x, y])
    x = layers.GroupNormalization(4, name="groupnorm")(layers.Conv2D(8, 1, name="mixed")(x))
    x = layers.Flatten(name="flatten")(layers.MaxPooling2D(4, name="pool")(x))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="medley")


def application(name: str) -> Any:
    """A network of `keras.applications` without weights, up to its logits."""
    builder, size = APPLICATIONS[name]
    given: dict[str, Any] = {"classifier_activation": None, "classes": 100}
    if builder == "NASNetMobile":  # it has no argument for the activation
        given = {"include_top": False, "pooling": "avg"}
    model = getattr(keras.applications, builder)(input_shape=(size, size, 3), weights=None, **given)
    if builder == "NASNetMobile":
        model = keras.Model(model.inputs, layers.Dense(100, name="logits")(model.outputs[0]), name=model.name)
    return model


def _application(name: str) -> Callable[[], Any]:
    return lambda: application(name)


NETS: dict[str, Callable[[], Any]] = {
    "mlp": mlp,
    "lenet5": lenet5,
    "transformer": transformer,
    "residual_cnn": residual_cnn,
    "lstms": lstms,
    "grus": grus,
    "tied_language": tied_language,
    "subclassed_encoder": subclassed_encoder,
    "medley": medley,
    **{name: _application(name) for name in APPLICATIONS},
}


def batch(model: Any, n: int = 2, seed: int = 0) -> Any:
    """Random inputs of a model of `NETS`."""
    rng = np.random.default_rng(seed)
    if model.name in ("transformer", "subclassed_encoder"):
        return rng.integers(0, 50, (n, 12)).astype(np.int32)
    if model.name == "tied_language":
        return rng.integers(0, 40, (n, 9)).astype(np.int32)
    shape = (16, 16, 3) if model.name == "residual_cnn" else model.input_shape[1:]
    scale = 255.0 if any(isinstance(layer, layers.Rescaling) for layer in model.layers) else 1.0
    return (scale * rng.random((n, *shape))).astype(np.float32)
