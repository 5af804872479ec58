"""8-bit `Quantize` alone, without data: bytes of the file and test accuracy of the model loaded from it.

Run: python -m benchmarks.quantize_8bit [--baselines DIR] [--out benchmarks/results/quantize_8bit.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, accuracy, arguments, load_baseline, load_data, reloaded, write_json
from bitwidth.artifact import Inspection

MAX_RATIO = 0.245  # of the bytes of the float weights
MAX_DROP = 0.1  # points

MANAGER = bw.PassManager([bw.Quantize(bits=8)])


def bytes_by_role(inside: Inspection) -> dict[str, int]:
    """Bytes of the file by what they hold; they add up to all of it."""
    found: dict[str, int] = defaultdict(int, header=inside.header_bytes)
    for entry in inside.parameters:
        found[entry.role] += entry.bytes
    found["assets and checksums"] = inside.bytes - sum(found.values())
    return dict(found)


def measure(folder: Path, name: str, test: Split) -> dict[str, Any]:
    """One baseline, before and after."""
    model = load_baseline(folder, name)
    start = time.perf_counter()
    result = MANAGER.run(model)
    ran = time.perf_counter()
    size, loaded, inside = reloaded(result)
    done = time.perf_counter()
    given, kept = accuracy(model, test), accuracy(loaded, test)
    float_bytes = 4 * model.count_params()
    drop = round(100 * (given - kept), 3)
    return {
        "model": name,
        "parameters": model.count_params(),
        "float_bytes": float_bytes,
        "file_bytes": size,
        "ratio": round(size / float_bytes, 4),
        "float_accuracy": given,
        "accuracy": kept,
        "drop_points": drop,
        "run_seconds": round(ran - start, 2),
        "save_and_load_seconds": round(done - ran, 2),
        "bytes_by_role": bytes_by_role(inside),
        "passed": drop <= MAX_DROP and size <= MAX_RATIO * float_bytes,
    }


def main() -> None:
    args = arguments(__doc__, "quantize_8bit.json").parse_args()
    test = load_data().test
    rows = [measure(args.baselines, name, test) for name in BASELINES]
    for row in rows:
        print(
            f"{row['model']:14s}{row['file_bytes']:9,d} bytes, {row['ratio']:.4f} of float; "
            f"accuracy {row['float_accuracy']:.4f} -> {row['accuracy']:.4f}, drop {row['drop_points']:+.2f} points"
        )
    limits = {"max_ratio": MAX_RATIO, "max_drop_points": MAX_DROP}
    write_json(args.out, {"recipe": MANAGER.to_recipe(), "limits": limits, "rows": rows})


if __name__ == "__main__":
    main()
