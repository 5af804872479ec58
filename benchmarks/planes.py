"""Files in bit planes: what they cost against whole codes, and the model that their first bits make.

Run: python -m benchmarks.planes [--baselines DIR] [--out benchmarks/results/planes.json]
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

import numpy as np

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, accuracy, arguments, load_baseline, load_data, write_json
from bitwidth.artifact import pack, read_content
from bitwidth.coder import decode_planes, encode_integers, encode_planes

MAX_RATIO = 1.01  # of the file with whole codes
PREFIXES = (8, 6, 4, 3, 2)
LARGE = 25_000_000

RECIPES: dict[str, bw.PassManager] = {
    "8 bits": bw.PassManager([bw.Quantize(bits=8)]),
    "4 bits": bw.PassManager([bw.Quantize(bits=4)]),
    "90 % pruned, 8 bits": bw.PassManager([bw.Prune(0.9), bw.Quantize(bits=8)]),
    "90 % pruned, 4 bits": bw.PassManager([bw.Prune(0.9), bw.Quantize(bits=4)]),
}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its seconds."""
    start = time.perf_counter()
    done = work()
    return done, round(time.perf_counter() - start, 3)


def sizes(path: Path, model: Any, recipe: str) -> dict[str, Any]:
    """Bytes of the file with planes and with whole codes, and the seconds that each takes."""
    RECIPES[recipe].run(model).save(path)
    content = read_content(path)
    planes, seconds = timed(lambda: pack(content))
    whole, whole_seconds = timed(lambda: pack(content, planes=False))
    _, unpack_seconds = timed(lambda: read_content(path))
    ratio = len(planes.data) / len(whole.data)
    return {
        "recipe": recipe,
        "file_bytes": len(planes.data),
        "whole_codes_bytes": len(whole.data),
        "ratio": round(ratio, 5),
        "pack_seconds": seconds,
        "whole_codes_pack_seconds": whole_seconds,
        "unpack_seconds": unpack_seconds,
        "passed": ratio <= MAX_RATIO,
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
                "load_seconds": seconds,
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


def large() -> dict[str, Any]:
    """Normal codes of 8 bits, as many as a large model has."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal(LARGE, dtype=np.float32) * np.float32(36)
    codes = np.rint(drawn).clip(-127, 127).astype(np.int32)
    parts, encoding = timed(lambda: encode_planes(codes, 7))
    back, decoding = timed(lambda: decode_planes(parts, codes.size))
    if not np.array_equal(back, codes):
        raise RuntimeError("decoded to something else")
    size, whole = sum(map(len, parts)), len(encode_integers(codes))
    return {
        "codes": LARGE,
        "bytes": size,
        "ratio": round(size / whole, 5),
        "encode_seconds": encoding,
        "decode_seconds": decoding,
    }


def main() -> None:
    args = arguments(__doc__, "planes.json").parse_args()
    test = load_data().test
    rows = [measure(args.baselines, name, test) for name in BASELINES]
    for row in rows:
        for file in row["files"]:
            print(f"{row['model']:14s}{file['recipe']:22s}{file['file_bytes']:9,d} bytes, ratio {file['ratio']:.4f}")
        for prefix in row["prefixes_of_8_bits"]:
            print(
                f"{row['model']:14s}first {prefix['bits']} bits{prefix['bytes_read']:9,d} bytes read, "
                f"accuracy {prefix['accuracy']:.4f}"
            )
    write_json(args.out, {"limits": {"max_ratio": MAX_RATIO}, "rows": rows, "large": large()})


if __name__ == "__main__":
    main()
