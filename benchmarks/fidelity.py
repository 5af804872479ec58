"""Fidelity of post-training rounding where there is no task to score: how far outputs move.

A recurrent classifier (SleepECG 0.6.0), a small vision transformer and MobileNetV2 (96x96), the last two trained here
for a short time on Fashion-MNIST. For 8, 4 and 3 bits, `rounding="nearest"` against `"error_feedback"`: the squared
error of each kernel's output relative to its power (median over kernels), and that of the model's output, both on
inputs held out from calibration.

Rows of models that are not named stay in the file.

Run: python -m benchmarks.fidelity [--models NAME ...] [--out benchmarks/results/fidelity.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import arguments, load_data, median, write_json
from bitwidth.analysis import InputMoments
from bitwidth.backend import backend_for
from bitwidth.context import Context
from bitwidth.fitting import Moments

BITS = (8, 4, 3)
CALIBRATION, HELD = 512, 256
MOST_AT_3 = 0.5  # error feedback against nearest, squared relative error of kernels

Array = NDArray[np.float32]


def sleepecg() -> tuple[Any, Array, Array]:
    """The sleep stage classifier that the package ships, and nights of features drawn by its own statistics.

    No recordings come with it. 36 features follow 8 slow factors and some noise of their own, scaled by the mean and
    variance that its BatchNormalization has learned.
    """
    spec = importlib.util.find_spec("sleepecg")
    if spec is None or spec.origin is None:
        sys.exit("sleepecg is not installed: pip install --no-deps sleepecg==0.6.0")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(spec.origin).parent / "classifiers" / "wrn-gru-mesa.zip") as file:
            file.extract("classifier.keras", folder)
        model = keras.models.load_model(Path(folder, "classifier.keras"), compile=False)
    norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    mean, deviation = norm.moving_mean.numpy(), np.sqrt(norm.moving_variance.numpy())
    rng = np.random.default_rng(0)
    nights, steps = 96, 64
    factors = np.zeros((nights, steps, 8))
    for step in range(steps):
        before = factors[:, step - 1] if step else rng.standard_normal((nights, 8))
        factors[:, step] = 0.95 * before + np.sqrt(1 - 0.95**2) * rng.standard_normal((nights, 8))
    loadings = rng.standard_normal((8, 36)) / np.sqrt(8)
    features = 0.9 * factors @ loadings + np.sqrt(1 - 0.81) * rng.standard_normal((nights, steps, 36))
    x = (mean + deviation * features).astype(np.float32)
    return model, x[:64], x[64:]


def transformer() -> tuple[Any, Array, Array]:
    """Two encoder blocks over the 49 patches of 4x4 pixels, trained for an epoch."""
    data = load_data()
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(64, 4, strides=4, name="patches")(inputs)
    x = layers.Reshape((49, 64))(x)
    x = layers.Dense(64, name="place")(x) + layers.Dense(64, use_bias=False, name="mix")(layers.LayerNormalization()(x))
    for block in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 16, name=f"attention{block}")(y, y)
        y = layers.Dense(128, activation="gelu", name=f"wide{block}")(layers.LayerNormalization()(x))
        x = x + layers.Dense(64, name=f"narrow{block}")(y)
    model = keras.Model(
        inputs, layers.Dense(10, name="head")(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))
    )
    _train(model, data.train[0][:20_000], data.train[1][:20_000])
    return model, data.train[0][20_000 : 20_000 + CALIBRATION], data.train[0][30_000 : 30_000 + HELD]


def mobilenet() -> tuple[Any, Array, Array]:
    """MobileNetV2 (alpha 0.35) from random weights, trained for an epoch on 4,000 enlarged images."""
    data = load_data()
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(96, 96, 3), alpha=0.35, classes=10, classifier_activation=None
    )
    images = data.train[0][: 4_000 + CALIBRATION + HELD]
    large = np.repeat(keras.ops.image.resize(images, (96, 96)).numpy(), 3, axis=-1)
    _train(model, large[:4_000], data.train[1][:4_000], batch_size=50)
    # 80 steps are too few for the moving averages of its normalisations.
    model = bw.PassManager([bw.ReestimateBatchNorm(samples=1024)]).run(model, data=large[:1024]).model
    return model, large[4_000 : 4_000 + CALIBRATION], large[4_000 + CALIBRATION :]


MODELS: dict[str, Callable[[], tuple[Any, Array, Array]]] = {
    "sleepecg": sleepecg,
    "transformer": transformer,
    "mobilenet_v2": mobilenet,
}


def _train(model: Any, x: Array, y: NDArray[np.int64], batch_size: int = 100) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)


def power(matrix: Array, part: Moments) -> float:
    """Mean square of what a kernel, or a change of it, adds to the outputs of its layer."""
    return float(np.einsum("gkm,gkl,glm->", matrix, part.gram, matrix, optimize=True))


def kernel_errors(given: bw.Graph, found: bw.Graph, held: Any) -> dict[str, float]:
    """Squared error of each kernel's output, relative to the output's power."""
    errors = {}
    for path, parts in held.items():
        if parts and given[path].role != "embedding":
            change = found.values[path] - given.values[path]
            off = sum(power(part.arrangement.take(change), part) for part in parts)
            errors[path] = off / sum(power(part.arrangement.take(given.values[path]), part) for part in parts)
    return errors


def model_error(model: Any, other: Any, x: Array) -> float:
    """Squared error of the model's output, relative to its variance."""
    given, found = (one.predict(x, batch_size=32, verbose=0) for one in (model, other))
    return float(np.square(found - given).mean() / np.square(given - given.mean(axis=0)).mean())


def measure(name: str) -> dict[str, Any]:
    """All widths of one model."""
    model, calibration, held_inputs = MODELS[name]()
    session = backend_for(model).open(model)
    kernels = tuple(p.path for p in session.graph if p.role in ("kernel", "recurrent_kernel"))
    held = Context(session, data=held_inputs).ask(InputMoments(len(held_inputs), kernels), session.graph)
    rows = []
    for bits in BITS:
        row: dict[str, Any] = {"bits": bits}
        for rounding in ("nearest", "error_feedback"):
            start = time.perf_counter()
            item = bw.Quantize(bits, rounding=rounding, vectors=None)
            result = bw.PassManager([item]).run(model, data=calibration)
            errors = kernel_errors(session.graph, result.graph, held)
            row[rounding] = {
                "kernel_error": median(list(errors.values())),
                "model_error": model_error(model, result.model, held_inputs),
                "seconds": round(time.perf_counter() - start, 1),
                "kernels": errors,
            }
        row["kernel_ratio"] = row["error_feedback"]["kernel_error"] / row["nearest"]["kernel_error"]
        row["model_ratio"] = row["error_feedback"]["model_error"] / row["nearest"]["model_error"]
        rows.append(row)
        near, fed = row["nearest"], row["error_feedback"]
        print(
            f"{name:14s}{bits} bits: "
            f"kernels {near['kernel_error']:.2e} -> {fed['kernel_error']:.2e} ({row['kernel_ratio']:.2f}), "
            f"model {near['model_error']:.2e} -> {fed['model_error']:.2e} ({row['model_ratio']:.2f})",
            flush=True,
        )
    return {"model": name, "kernels": len(kernels), "rows": rows, "passed": rows[-1]["kernel_ratio"] <= MOST_AT_3}


def main() -> None:
    parser = arguments(__doc__, "fidelity.json")
    parser.add_argument("--models", nargs="*", choices=tuple(MODELS), default=list(MODELS))
    args = parser.parse_args()
    given = json.loads(args.out.read_text())["models"] if args.out.is_file() else []
    rows = [row for row in given if row["model"] not in args.models] + [measure(name) for name in args.models]
    rows.sort(key=lambda row: list(MODELS).index(row["model"]))
    limits = {"kernel_ratio_at_3_bits": MOST_AT_3}
    write_json(args.out, {"limits": limits, "error": "squared, relative to the power of the output", "models": rows})


if __name__ == "__main__":
    main()
