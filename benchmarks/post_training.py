"""Quantization after training, with unlabelled images only: real files, loaded again and evaluated.

Widths: 4 and 3 bits with error feedback, powers of two, and 8 bits of weights and activations, from 512 images. Rates:
one step per tensor, integers as wide as they come, from 2,048 images. Codebooks: squared error against a uniform grid
of as many bits, kernel by kernel. Each seed takes other images of the 55,000.

Run: python -m benchmarks.post_training [--models NAME ...] [--seeds N] [--baselines DIR] [--out FILE]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    Fashion,
    accuracy,
    arguments,
    load_baseline,
    load_data,
    median,
    reloaded,
    write_json,
)

FEW, MANY = 512, 2048

# name: (pass, images, most bytes by model or None, most points that accuracy may drop)
RATES = {"lenet300": 2.0, "lenet5_caffe": 2.0, "resnet14": 2.4}
BYTES = {"lenet300": 78_000, "lenet5_caffe": 130_000, "resnet14": 58_000}
WIDTHS: dict[str, tuple[bw.Pass, float]] = {
    "4 bits": (bw.Quantize(4, rounding="error_feedback"), 0.3),
    "3 bits": (bw.Quantize(3, rounding="error_feedback"), 1.0),
    "4 bits, powers of two": (bw.Quantize(4, rule="power_of_two", rounding="error_feedback"), 0.5),
    "8 bits, activations too": (bw.Quantize(8, activations=8), 0.1),
}


def images_of(data: Fashion, count: int, seed: int) -> NDArray[np.float32]:
    """Images to calibrate with, without their labels."""
    chosen = np.random.default_rng(seed).permutation(len(data.train[0]))[:count]
    return data.train[0][np.sort(chosen)]


def trial(model: Any, item: bw.Pass, images: NDArray[np.float32], data: Fashion, given: float) -> dict[str, Any]:
    """One run: bytes of the file, and the accuracy of the model loaded from it."""
    start = time.perf_counter()
    result = bw.PassManager([item]).run(model, data=images)
    seconds = time.perf_counter() - start
    size, loaded, _ = reloaded(result)
    kept = accuracy(loaded, data.test)
    return {
        "bytes": size,
        "accuracy": kept,
        "drop_points": round(100 * (given - kept), 3),
        "seconds": round(seconds, 2),
    }


def summary(name: str, what: str, runs: list[dict[str, Any]], limits: dict[str, float]) -> dict[str, Any]:
    """Medians over the seeds, against the limits."""
    drop, size = median([run["drop_points"] for run in runs]), median([run["bytes"] for run in runs])
    passed = drop <= limits["drop_points"] and size <= limits.get("bytes", np.inf)
    print(f"{name:14s}{what:26s}{size:9,.0f} bytes, drop {drop:+.2f} points{'' if passed else '  MISSED'}", flush=True)
    return {
        "model": name,
        "what": what,
        "limits": limits,
        "bytes": size,
        "drop_points": drop,
        "passed": passed,
        "runs": runs,
    }


def codebooks(model: Any, name: str) -> list[dict[str, Any]]:
    """Squared error of a 3-bit codebook and of a 3-bit uniform grid, of each kernel."""
    grids = bw.PassManager([bw.Quantize(3)]).run(model).graph
    books = bw.PassManager([bw.Quantize(3, rule="codebook")]).run(model).graph
    given = bw.read(model)
    rows = []
    for parameter in given:
        if parameter.role == "kernel":
            float_, path = given.values[parameter.path], parameter.path
            errors = [float(np.square(graph.values[path] - float_).sum()) for graph in (grids, books)]
            rows.append({"model": name, "kernel": path, "uniform": errors[0], "codebook": errors[1]})
    return rows


def measure(
    folder: Path, name: str, data: Fashion, seeds: Sequence[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All that is measured of one baseline."""
    model = load_baseline(folder, name)
    given = accuracy(model, data.test)
    rows = []
    for what, (item, limit) in WIDTHS.items():
        runs = [trial(model, item, images_of(data, FEW, seed), data, given) for seed in seeds]
        rows.append(summary(name, what, runs, {"drop_points": limit}))
    for rounding in ("error_feedback", "entropy"):
        item = bw.Quantize(rate=RATES[name], rounding=rounding)
        runs = [trial(model, item, images_of(data, MANY, seed), data, given) for seed in seeds]
        limits = {"drop_points": 0.2, "bytes": BYTES[name]}
        rows.append(summary(name, f"rate {RATES[name]}, {rounding}", runs, limits))
    return rows, codebooks(model, name)


def main() -> None:
    parser = arguments(__doc__, "post_training.json")
    parser.add_argument("--models", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = load_data()
    found = [measure(args.baselines, name, data, range(args.seeds)) for name in args.models]
    rows = [row for widths, _ in found for row in widths]
    books = [row for _, kernels in found for row in kernels]
    worse = [row["kernel"] for row in books if row["codebook"] >= row["uniform"]]
    print(f"3-bit codebook against uniform: better on {len(books) - len(worse)} of {len(books)} kernels")
    recipes = {what: bw.PassManager([item]).to_recipe() for what, (item, _) in WIDTHS.items()}
    write_json(args.out, {"recipes": recipes, "rates": RATES, "rows": rows, "codebooks": books})


if __name__ == "__main__":
    main()
