"""The demo's own network: what a user brings, here trained on the digits in a few seconds."""

from __future__ import annotations

from typing import Any

import keras

from bitwidth.data import Split
from bitwidth.typing import Model


def train_network(train: Split, seed: int = 0) -> Any:
    """A small convolutional network, trained on the digits; logits out.

    Args:
        train: images and labels.
        seed: of the initial weights and of the order of the samples.
    """
    initial = [keras.initializers.GlorotUniform(seed=seed + layer) for layer in range(4)]
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False, kernel_initializer=initial[0], name="conv1"),
            keras.layers.BatchNormalization(momentum=0.9, name="norm1"),
            keras.layers.ReLU(),
            keras.layers.Conv2D(64, 3, padding="same", use_bias=False, kernel_initializer=initial[1], name="conv2"),
            keras.layers.BatchNormalization(momentum=0.9, name="norm2"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu", kernel_initializer=initial[2], name="hidden"),
            keras.layers.Dense(10, kernel_initializer=initial[3], name="logits"),
        ],
        name="digits",
    )
    model.compile(
        optimizer=keras.optimizers.Adam(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*train, epochs=15, batch_size=64, shuffle=False, verbose=0)
    return model


def accuracy(model: Model, split: Split) -> float:
    """Share of a split that the model classifies rightly."""
    return float((model.predict(split[0], verbose=0).argmax(-1) == split[1]).mean())
