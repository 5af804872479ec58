"""One file for 8, 4 and 2 bits, against three files trained for one width each, with as many epochs.

Run: python -m benchmarks.nested [--models NAME ...] [--seeds N] [--baselines DIR] [--out FILE]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import bitwidth as bw
from benchmarks.fashion import Fashion, Split, accuracy, arguments, load_baseline, load_data, median, write_json
from benchmarks.trained import training

NAMES = ("lenet300", "lenet5_caffe")
WIDTHS = (8, 4, 2)
EPOCHS = 4


def apart(bits: int) -> bw.PassManager:
    """Trained for one width."""
    return bw.PassManager([bw.Quantize(bits=bits), training(EPOCHS)])


def nested() -> bw.PassManager:
    """Trained for all of them."""
    return bw.PassManager([bw.Nested(of=bw.Quantize(bits=WIDTHS[0]), widths=WIDTHS, during=training(EPOCHS))])


def measure(manager: bw.PassManager, model: Any, data: Fashion, on: Split, seed: int, widths: Any) -> dict[str, Any]:
    """One run: the accuracy of its file at each of `widths`, and how many bytes each reads."""
    images, labels = data.train
    start = time.perf_counter()
    result = manager.run(model, data=(images, np.eye(10, dtype=np.float32)[labels]), seed=seed)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bw"
        result.save(path)
        inside = bw.inspect(path)
        found = {bits: accuracy(bw.load(path, bits=bits), on) for bits in widths}
        read = {bits: inside.prefix_bytes(bits) for bits in widths}
    print(seed, found, round(seconds, 1), flush=True)
    return {"seed": seed, "accuracy": found, "bytes_read": read, "seconds": round(seconds, 1)}


def compared(model: Any, data: Fashion, seeds: int) -> dict[str, Any]:
    """Both ways, for one baseline."""
    together = [measure(nested(), model, data, data.test, seed, WIDTHS) for seed in range(seeds)]
    alone = {bits: [measure(apart(bits), model, data, data.test, s, (bits,)) for s in range(seeds)] for bits in WIDTHS}
    widths = [
        {
            "bits": bits,
            "nested": median([row["accuracy"][bits] for row in together]),
            "apart": median([row["accuracy"][bits] for row in alone[bits]]),
            "nested_bytes_read": median([row["bytes_read"][bits] for row in together]),
            "apart_bytes": median([row["bytes_read"][bits] for row in alone[bits]]),
        }
        for bits in WIDTHS
    ]
    return {"widths": widths, "nested_rows": together, "apart_rows": alone}


def main() -> None:
    parser = arguments(__doc__, "nested.json")
    parser.add_argument("--models", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data, models = load_data(), []
    for name in args.models:
        model = load_baseline(args.baselines, name)
        row = {"model": name, "float_accuracy": accuracy(model, data.test), **compared(model, data, args.seeds)}
        for width in row["widths"]:
            print(name, width)
        models.append(row)
        write_json(args.out, {"epochs": EPOCHS, "recipe": nested().to_recipe(), "models": models})


if __name__ == "__main__":
    main()
