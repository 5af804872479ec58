"""Time and memory of quantization.

Interleaved in one process: 8 bits per channel over ResNet50 against Keras's `quantize("int8")` over as many parameters
in Dense layers; error feedback on a 4096 x 4096 kernel against GPTQ written plainly in numpy. Then, each in a process
of its own, whole runs over dense models of 1 to 300 million parameters: seconds, and peak memory above the loaded
model.

Run: python -m benchmarks.quantize_speed [--quick] [--out benchmarks/results/quantize_speed.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import RESULTS, ROOT, median, write_json
from bitwidth.backend import backend_for
from bitwidth.context import Context
from bitwidth.encodings import uniform_levels
from bitwidth.fitting import plain_matrix
from bitwidth.fitting.rounding import feedback
from bitwidth.fitting.scales import fit_scale

Array = NDArray[np.float32]
SIZES = {1: (4, 512), 10: (10, 1024), 100: (24, 2048), 300: (18, 4096)}  # millions: layers, width
ROUNDINGS = {"nearest": (1, 10, 100, 300), "error_feedback": (1, 10, 100)}
LIMITS = {"max_to_keras": 1.0, "mse_to_keras": 5.0, "feedback_to_gptq": 2.0, "feedback_layers": 4.0, "memory": 1.5}


def interleaved(tasks: dict[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """Median seconds of each task, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(times):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(median(values), 3) for name, values in seconds.items()}


def against_keras(times: int) -> dict[str, Any]:
    """The pass alone over an opened ResNet50, against Keras over Dense layers."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    session = backend_for(model).open(model)
    context = Context(session)
    layers, width = round(model.count_params() / 2048**2), 2048
    made: list[Any] = []

    def make() -> None:
        inputs = x = keras.Input((width,))
        for _ in range(layers):
            x = keras.layers.Dense(width, use_bias=False)(x)
        made.append(keras.Model(inputs, x))

    tasks = {
        "make": make,
        "keras": lambda: made.pop().quantize("int8"),
        "max": lambda: bw.Quantize(8, scale="max")(session.graph, context),
        "mse": lambda: bw.Quantize(8, scale="mse")(session.graph, context),
    }
    seconds = interleaved(tasks, times)
    seconds.pop("make")
    ratios = {f"{name}_to_keras": round(seconds[name] / seconds["keras"], 3) for name in ("max", "mse")}
    return {"parameters": model.count_params(), "keras_parameters": layers * width**2, "seconds": seconds, **ratios}


def plain_gptq(weights: Array, gram: Array, damping: float = 0.01, width: int = 128) -> Array:
    """4-bit GPTQ (Frantar et al. 2022, algorithm 1, with the order by the diagonal), row by row of the transpose."""
    w, h = weights.T.copy(), gram.copy()
    scale = np.abs(w).max(1, keepdims=True) / 7
    h[np.diag_indices_from(h)] += damping * h.diagonal().mean()
    order = np.argsort(-h.diagonal())
    w, h = w[:, order], h[order][:, order]
    upper = np.linalg.cholesky(np.linalg.inv(h)).T.copy()
    out = np.zeros_like(w)
    for start in range(0, len(h), width):
        stop = min(start + width, len(h))
        block, errors = w[:, start:stop].copy(), np.zeros((len(w), stop - start), np.float32)
        corner = upper[start:stop, start:stop]
        for k in range(stop - start):
            out[:, start + k] = np.clip(np.rint(block[:, k] / scale[:, 0]), -7, 7) * scale[:, 0]
            errors[:, k] = (block[:, k] - out[:, start + k]) / corner[k, k]
            block[:, k:] -= np.outer(errors[:, k], corner[k, k:])
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return out[:, np.argsort(order)].T


def against_gptq(times: int, size: int) -> dict[str, Any]:
    """Error feedback on one kernel; memory counts the moments, and not the weights."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * size, size), np.float32)
    x += 0.5 * np.roll(x, 1, axis=1)
    gram = (x.T @ x / np.float32(len(x)))[None]
    del x
    weights = rng.standard_normal((size, size), np.float32)
    grid = fit_scale(weights, uniform_levels(4), (size, 1), "max")
    arrangement = plain_matrix((size, size), (1,))
    found: dict[str, Array] = {}

    def ours() -> None:
        found["feedback"] = feedback(weights, grid, arrangement, gram)

    def theirs() -> None:
        found["gptq"] = plain_gptq(weights, gram[0])

    seconds = interleaved({"feedback": ours, "gptq": theirs}, times)
    losses = {name: float(np.einsum("km,km->", w - weights, gram[0] @ (w - weights))) for name, w in found.items()}
    found.clear()
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / weights.nbytes + gram.nbytes / weights.nbytes
    tracemalloc.stop()
    return {
        "size": size,
        "seconds": seconds,
        "feedback_to_gptq": round(seconds["feedback"] / seconds["gptq"], 3),
        "output_error": losses,
        "feedback_layers": round(peak, 2),
    }


def whole_run(millions: int, rounding: Any) -> dict[str, Any]:
    """One run over a dense model, in this process: seconds, and peak memory in units of the model's bytes."""
    import keras

    def model_of(count: int, width: int) -> Any:
        inputs = x = keras.Input((width,))
        for _ in range(count):
            x = keras.layers.Dense(width, activation="relu")(x)
        return keras.Model(inputs, x)

    manager = bw.PassManager([bw.Quantize(4, rounding=rounding)])
    manager.run(model_of(1, 16), data=np.ones((64, 16), np.float32))  # what is only paid once a process
    count, width = SIZES[millions]
    model = model_of(count, width)
    inputs = np.random.default_rng(0).random((512, width), np.float32)
    model(inputs[:2])
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    result = manager.run(model, data=inputs)
    seconds = time.perf_counter() - start
    size = 4 * model.count_params()
    peak = _memory("VmHWM") - before
    return {
        "parameters": model.count_params(),
        "rounding": rounding,
        "seconds": round(seconds, 2),
        "nanoseconds_a_parameter": round(1e9 * seconds / model.count_params(), 1),
        "peak_megabytes": round(peak / 1e6, 1),
        "peak_in_models": round(peak / size, 3),
        "kept_in_models": round((_memory("VmRSS") - before) / size, 3) if result else None,
    }


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def apart(millions: int, rounding: str) -> dict[str, Any]:
    """`whole_run` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.quantize_speed", "--one", str(millions), rounding]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{row['parameters']:12,d} parameters, {rounding:15s}{row['seconds']:8.1f} s, "
        f"{row['nanoseconds_a_parameter']:7.1f} ns each, peak {row['peak_in_models']:.2f} models",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "quantize_speed.json")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--one", nargs=2, metavar=("MILLIONS", "ROUNDING"), help="one run, printed as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(whole_run(int(args.one[0]), args.one[1])))
        return
    keras_row = against_keras(1 if args.quick else 5)
    print(f"8 bits over ResNet50: {keras_row}", flush=True)
    gptq_row = against_gptq(1 if args.quick else 3, 1024 if args.quick else 4096)
    print(f"error feedback: {gptq_row}", flush=True)
    most = 10 if args.quick else 300
    runs = [apart(size, rounding) for rounding, sizes in ROUNDINGS.items() for size in sizes if size <= most]
    write_json(args.out, {"limits": LIMITS, "resnet50": keras_row, "gptq": gptq_row, "runs": runs})


if __name__ == "__main__":
    main()
