"""Time and memory of saving and loading, against those of Keras with the float model.

Times are medians of runs that take turns; each ratio is to Keras's own time for the same model in float, from the same
process. Memory is measured in a process of its own: the most that was held while loading, less what the loaded model
holds, in units of the largest tensor.

Run: python -m benchmarks.loading [--out benchmarks/results/loading.json] [--without-large]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bitwidth as bw
from benchmarks.fashion import arguments, median, write_json

RUNS = 7
LIMITS = {"load": 2.0, "save": 4.0, "peak": 4.0}
PROBE = """
import os, sys, json
import numpy as np
import keras, bitwidth as bw

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
bw.PassManager([bw.Quantize(8)]).run(small, progress=False).save(sys.argv[1] + ".small")
bw.load(sys.argv[1] + ".small").predict(np.zeros((1, 8)), verbose=0)
os.remove(sys.argv[1] + ".small")
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = bw.load(sys.argv[1])
peak, after = status("VmHWM"), status("VmRSS")
sizes = [int(np.prod(v.shape)) * 4 for v in model.variables]
print(json.dumps({"model_bytes": sum(sizes), "largest_tensor_bytes": max(sizes), "loaded_bytes": after - before,
                  "peak_above_bytes": peak - after}))
"""


def timed(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def saved(passes: list[bw.Pass], model: Any, path: Path) -> float:
    """Seconds to pack and write what a run gave, of which nothing was packed before."""
    result = bw.PassManager(passes).run(model, progress=False)
    return timed(lambda: result.save(path))


def times(name: str, model: Any, folder: Path) -> list[dict[str, Any]]:
    ours, theirs = folder / "m.bw", folder / "m.keras"
    rows = []
    for bits in (8, 4):
        found: dict[str, list[float]] = {"save": [], "load": [], "keras_save": [], "keras_load": []}
        for _ in range(RUNS):
            found["keras_save"].append(timed(lambda: model.save(theirs)))
            found["save"].append(saved([bw.Quantize(bits=bits)], model, ours))
            found["keras_load"].append(timed(lambda: keras.models.load_model(theirs)))
            found["load"].append(timed(lambda: bw.load(ours)))
        seconds = {key: round(median(values), 3) for key, values in found.items()}
        ratios = {key: round(seconds[key] / seconds[f"keras_{key}"], 2) for key in ("save", "load")}
        rows.append(
            {
                "model": name,
                "bits": bits,
                "file_bytes": ours.stat().st_size,
                "keras_bytes": theirs.stat().st_size,
                "seconds": seconds,
                "ratios": ratios,
                "memory": memory(ours),
                "passed": all(ratios[key] <= LIMITS[key] for key in ratios),
            }
        )
        print(rows[-1])
    return rows


def memory(path: Path) -> dict[str, Any]:
    """What loading takes, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    ratio = found["peak_above_bytes"] / found["largest_tensor_bytes"]
    return {**found, "peak_ratio": round(ratio, 2), "passed": ratio <= LIMITS["peak"]}


def large(folder: Path) -> dict[str, Any]:
    """A model of a gigabyte, saved and loaded, and every weight compared."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4096, use_bias=False, name=f"d{place}") for place in range(16)]
    model = keras.Sequential([keras.Input((4096,)), *layers])
    path = folder / "large.bw"
    result = bw.PassManager([bw.Quantize(bits=8)]).run(model, progress=False)
    start = time.perf_counter()
    result.save(path)
    save = time.perf_counter() - start
    expected = [np.asarray(variable) for variable in result.model.variables]
    start = time.perf_counter()
    found = bw.load(path)
    load = time.perf_counter() - start
    same = all(np.array_equal(one, np.asarray(two)) for one, two in zip(expected, found.variables, strict=True))
    del found, expected
    return {
        "file_bytes": path.stat().st_size,
        "save_seconds": round(save, 2),
        "load_seconds": round(load, 2),
        "same": same,
        "memory": memory(path),
    }


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__, "loading.json")
    parser.add_argument("--without-large", action="store_true")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        rows = times("ResNet50", keras.applications.ResNet50(weights=None), Path(folder))
        content: dict[str, Any] = {"limits": LIMITS, "rows": rows}
        if not args.without_large:
            content["large"] = large(Path(folder))
            print(content["large"])
    write_json(args.out, content)


if __name__ == "__main__":
    main()
