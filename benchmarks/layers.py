"""Files whose codes lie in layers: what they cost against whole codes, and the model that their first bits make.

Loading whole codes and loading layers take turns; the ratio is that of the medians.

Run: python -m benchmarks.layers [--baselines DIR] [--out benchmarks/results/layers.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, accuracy, arguments, load_baseline, load_data, median, write_json
from bitwidth.artifact import pack, read_content, write_file

LIMITS = {"bytes": 1.01, "load": 1.05}  # of the file with whole codes
RUNS = 15
PREFIXES = (8, 6, 4, 3, 2)

RECIPES: dict[str, bw.PassManager] = {
    "8 bits": bw.PassManager([bw.Quantize(bits=8)]),
    "90 % pruned, 8 bits": bw.PassManager([bw.Prune(0.9), bw.Quantize(bits=8)]),
    "rate 2": bw.PassManager([bw.Quantize(rate=2.0)]),
}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its seconds."""
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start


def sizes(path: Path, model: Any, recipe: str) -> dict[str, Any]:
    """Bytes of the file with layers and with whole codes, and the seconds that loading each takes."""
    RECIPES[recipe].run(model, progress=False).save(path)
    content = read_content(path)
    files = {"layers": path.with_suffix(".layers"), "whole": path.with_suffix(".whole")}
    for name, file in files.items():
        write_file(file, pack(content, layers=name == "layers").parts())
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(RUNS):
        for name, file in files.items():
            seconds[name].append(timed(partial(bw.load, file))[1])
    bytes_ratio = files["layers"].stat().st_size / files["whole"].stat().st_size
    load_ratio = median(seconds["layers"]) / median(seconds["whole"])
    return {
        "recipe": recipe,
        "file_bytes": path.stat().st_size,
        **{f"{name}_bytes": file.stat().st_size for name, file in files.items()},
        **{f"{name}_seconds": median(seconds[name]) for name in files},
        "bytes_ratio": round(bytes_ratio, 4),
        "load_ratio": round(load_ratio, 3),
        "passed": bytes_ratio <= LIMITS["bytes"] and load_ratio <= LIMITS["load"],
    }


def prefixes(path: Path, test: Split) -> list[dict[str, Any]]:
    """The model of each prefix: bytes read and test accuracy; saved again, its file is whole at those bits."""
    inside = bw.inspect(path)
    rows = []
    for bits in PREFIXES:
        model, seconds = timed(partial(bw.load, path, bits=bits))
        again = bw.PassManager([]).run(model)
        rows.append(
            {
                "bits": bits,
                "bytes_read": inside.prefix_bytes(bits),
                "accuracy": accuracy(model, test),
                "saved_again_bytes": again.size,
                "load_seconds": round(seconds, 3),
            }
        )
    return rows


def measure(folder: Path, name: str, test: Split) -> dict[str, Any]:
    """One baseline."""
    model = load_baseline(folder, name)
    with tempfile.TemporaryDirectory() as place:
        files = [sizes(Path(place) / f"{index}.bw", model, recipe) for index, recipe in enumerate(RECIPES)]
        read = prefixes(Path(place) / "0.bw", test)
    return {"model": name, "float_accuracy": accuracy(model, test), "files": files, "prefixes_of_8_bits": read}


def main() -> None:
    """Measure and write."""
    args = arguments(__doc__, "layers.json").parse_args()
    test = load_data().test
    rows = [measure(args.baselines, name, test) for name in BASELINES]
    for row in rows:
        for file in row["files"]:
            print(row["model"], file)
        for prefix in row["prefixes_of_8_bits"]:
            print(row["model"], prefix)
    write_json(args.out, {"limits": LIMITS, "rows": rows})


if __name__ == "__main__":
    main()
