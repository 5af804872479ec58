"""Corrections without labels around 3-bit rounding to nearest: real files, loaded again and evaluated.

`Quantize(3)` alone, with each correction, and with all together: batch normalisations folded, layers equalized, biases
corrected, statistics measured again. 512 unlabelled images of the training set; each seed takes others.

With one scale per output channel (the default) folding and equalizing have little left to do, so everything is also
measured with one scale per tensor.

Run: python -m benchmarks.corrections [--baselines DIR] [--out benchmarks/results/corrections.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from pathlib import Path
from typing import Any

import numpy as np

import bitwidth as bw
from benchmarks.fashion import Fashion, accuracy, arguments, load_baseline, load_data, median, reloaded, write_json
from bitwidth.encodings import Granularity

MODELS = ("lenet5_caffe", "resnet14")
SEEDS = (0, 1, 2)
IMAGES = 512
BITS = 3
GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")


def recipes(granularity: Granularity) -> dict[str, bw.PassManager]:
    """The chains to compare, by name."""
    grid = bw.Quantize(BITS, granularity=granularity)
    corrected = bw.CorrectBias(grid, samples=IMAGES)
    statistics = bw.ReestimateBatchNorm(samples=IMAGES)
    chains: dict[str, list[bw.Pass]] = {
        "none": [grid],
        "FoldBatchNorm": [bw.FoldBatchNorm(), grid],
        "EqualizeLayers": [bw.EqualizeLayers(), grid],
        "FoldBatchNorm, EqualizeLayers": [bw.FoldBatchNorm(), bw.EqualizeLayers(), grid],
        "CorrectBias": [corrected],
        "ReestimateBatchNorm": [grid, statistics],
        "CorrectBias, ReestimateBatchNorm": [corrected, statistics],
        "all": [bw.FoldBatchNorm(), bw.EqualizeLayers(), corrected, statistics],
    }
    return {name: bw.PassManager(chain) for name, chain in chains.items()}


def trial(model: Any, manager: bw.PassManager, data: Fashion, seed: int) -> dict[str, Any]:
    """One run: bytes of the file, and the accuracy of the model loaded from it."""
    chosen = np.random.default_rng(seed).permutation(len(data.train[0]))[:IMAGES]
    start = time.perf_counter()
    result = manager.run(model, data=data.train[0][np.sort(chosen)])
    seconds = time.perf_counter() - start
    size, loaded, _ = reloaded(result)
    return {"seed": seed, "bytes": size, "accuracy": accuracy(loaded, data.test), "seconds": round(seconds, 2)}


def measure(folder: Path, name: str, data: Fashion) -> list[dict[str, Any]]:
    """All chains on one baseline."""
    model = load_baseline(folder, name)
    given = accuracy(model, data.test)
    rows = []
    for granularity in GRANULARITIES:
        for what, manager in recipes(granularity).items():
            runs = [trial(model, manager, data, seed) for seed in SEEDS]
            kept = median([run["accuracy"] for run in runs])
            row: dict[str, Any] = {
                "model": name,
                "granularity": granularity,
                "corrections": what,
                "float_accuracy": given,
            }
            row |= {"accuracy": kept, "bytes": median([run["bytes"] for run in runs]), "runs": runs}
            rows.append(row)
            print(f"{name:14s}{granularity:9s}{what:34s}{given:.4f} -> {kept:.4f}", flush=True)
    return rows


def main() -> None:
    args = arguments(__doc__, "corrections.json").parse_args()
    data = load_data()
    rows = [row for name in MODELS for row in measure(args.baselines, name, data)]
    chains = {what: manager.to_recipe() for what, manager in recipes("channel").items()}
    write_json(args.out, {"bits": BITS, "images": IMAGES, "recipes": chains, "rows": rows})


if __name__ == "__main__":
    main()
