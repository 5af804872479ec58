"""Small nets of kinds that the baselines are not, trained here for a minute each: separable convolutions, outliers.

`mobile` and `outliers` see Fashion-MNIST. `keywords` is a keyword-spotting net of about 25,000 parameters (the DS-CNN
of Zhang et al. 2017, "Hello Edge: Keyword Spotting on Microcontrollers") on synthetic spectrograms: each of 12 words is
a path of three formants with an envelope, at a random place, pace and loudness, in coloured noise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from benchmarks.fashion import Fashion, Split

Images = NDArray[np.float32]


def _train(model: Any, data: Split, epochs: int, batch_size: int = 128) -> None:
    steps = epochs * (len(data[0]) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(*data, batch_size=batch_size, epochs=epochs, verbose=0)


def _normed(x: Any, layer: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layer(x)))


def mobile(data: Fashion) -> Any:
    """Five separable convolutions with normalisations, two epochs on 30,000 images; it gives logits."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((28, 28, 1))
    x = _normed(inputs, layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False))
    for channels, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        x = _normed(x, layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False))
        x = _normed(x, layers.Conv2D(channels, 1, use_bias=False))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name="mobile")
    _train(model, (data.train[0][:30_000], data.train[1][:30_000]), 2)
    return model


def outliers(data: Fashion) -> Any:
    """Two convolutions and two dense layers whose hidden channels were rescaled after training, by a spread of 3.

    What the model computes is the same; each kernel has input channels of greater weights than the others.
    """
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        name="outliers",
    )
    _train(model, (data.train[0][:30_000], data.train[1][:30_000]), 2)
    rng = np.random.default_rng(0)
    trained = [layer for layer in model.layers if layer.weights]
    for layer, after in pairwise(trained):
        kernel, bias = layer.get_weights()
        factor = np.exp(np.log(3) * rng.standard_normal(bias.size)).astype(np.float32)
        layer.set_weights([kernel / factor, bias / factor])
        kernel, bias = after.get_weights()
        own = np.tile(factor, kernel.shape[-2] // factor.size)
        after.set_weights([kernel * own[:, None], bias])
    return model


WORDS = 12


def spoken(count: int, seed: int) -> Split:
    """`count` synthetic words as (49, 10, 1) cepstra-like frames, and which word each is."""
    words, rng = np.random.default_rng(100), np.random.default_rng(seed)
    starts, slopes = words.uniform(0, 9, (WORDS, 3)), words.uniform(-4, 4, (WORDS, 3))
    bends, loudness = words.uniform(-3, 3, (WORDS, 3)), words.uniform(0.5, 1.5, (WORDS, 3))
    labels = rng.integers(0, WORDS, count)
    time = np.arange(49)[None, :]
    begin, length = rng.uniform(2, 18, (count, 1)), rng.uniform(18, 30, (count, 1))
    phase = (time - begin) / length  # 0 to 1 within the word
    inside = np.exp(-(((phase - 0.5) / 0.35) ** 4))
    x = np.zeros((count, 49, 10))
    for formant in range(3):
        place = (starts[labels, formant] + rng.normal(0, 0.5, count))[:, None] + slopes[labels, formant][
            :, None
        ] * phase
        place = place + bends[labels, formant][:, None] * np.sin(np.pi * phase)
        x += (loudness[labels, formant][:, None] * inside)[:, :, None] * np.exp(
            -0.5 * ((np.arange(10)[None, None] - place[:, :, None]) / 0.8) ** 2
        )
    noise = rng.standard_normal((count, 50, 10))
    x = x * rng.uniform(0.6, 1.4, (count, 1, 1)) + 0.35 * (noise[:, 1:] + 0.7 * noise[:, :-1])
    scale = np.linspace(4, 1, 10)  # as cepstra, the first ones greater
    return (x * scale)[..., None].astype(np.float32), labels.astype(np.int64)


def keywords(train: Split) -> Any:
    """A DS-CNN: one convolution, four separable ones, mean over places, a dense layer; four epochs. It gives logits."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((49, 10, 1))
    x = _normed(inputs, layers.Conv2D(64, (10, 4), strides=2, padding="same"))
    for _ in range(4):
        x = _normed(x, layers.DepthwiseConv2D(3, padding="same"))
        x = _normed(x, layers.Conv2D(64, 1))
    model = keras.Model(inputs, layers.Dense(WORDS)(layers.GlobalAveragePooling2D()(x)), name="keywords")
    _train(model, train, 4)
    return model
