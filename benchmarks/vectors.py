"""Parameters of one number per channel in few bits: `Quantize(vectors="auto")` against `"16-bit"`.

For each model `Quantize(4)` and `Quantize(8)` with the vectors in 16 bits, with `"auto"` on 2,048 calibration images,
and with `"auto"` without data: bits a number, the divergence of the outputs from those of the float model on the test
set relative to that with 16 bits, and accuracy.

Bits a number: `packed` is the width of the format; `file` is what the `.bw` file grows by when the vectors go into the
streams of its groups, beside the scales of the kernels, tables included.

Run: python -m benchmarks.vectors [--baselines DIR] [--models NAME ...] [--out benchmarks/results/vectors.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    Split,
    accuracy,
    arguments,
    load_baseline,
    load_data,
    median,
    reloaded,
    write_json,
)
from benchmarks.foreign import keywords, mobile, spoken
from benchmarks.progressive import outputs
from bitwidth.analysis import fidelity
from bitwidth.artifact.format.header import CODES
from bitwidth.artifact.version3 import writing
from bitwidth.artifact.version3.fields import FLOATS, TakenApart
from bitwidth.artifact.version3.groups import pack_group
from bitwidth.coder import encode_floats
from bitwidth.encodings import Dense

MOST_BITS, MOST_KL = 10.0, 1.01
BITS = (4, 8)
WAYS: dict[str, tuple[Any, bool]] = {
    "16-bit": ("16-bit", True),
    "auto": ("auto", True),
    "auto without data": ("auto", False),
}


def bits_of(result: bw.Result) -> dict[str, Any]:
    """Bits a number of the vectors, and the format of each role."""
    formats: dict[str, str] = {}
    vectors = []
    for parameter in result.graph:
        held = parameter.encoding.unmasked
        if isinstance(held, Dense) and held.format is not None and parameter.role != "kernel":
            formats[parameter.role] = held.format
            vectors.append(parameter)
    numbers = sum(p.size for p in vectors)
    packed = sum(p.encoding.packed_bits(p.shape) for p in vectors)
    counted, stored = in_file(result)
    if counted != numbers:
        raise ValueError(f"{counted} numbers of vectors in the file, expected {numbers}")
    return {
        "numbers": numbers,
        "formats": formats,
        "packed_bits": packed / numbers,
        "file_bits": 8 * stored / numbers,
    }


def in_file(result: bw.Result) -> tuple[int, int]:
    """How many numbers of vectors the file holds, and in how many bytes: those of streams with them less without."""
    groups: list[list[TakenApart]] = []

    def packed(members: Sequence[TakenApart]) -> tuple[list[bytes], list[bytes]]:
        groups.append(list(members))
        return pack_group(members)

    with mock.patch.object(writing, "pack_group", packed):
        reloaded(result)
    numbers = size = 0
    for members in groups:
        fields = [field for member in members for field in member.fields if field.stream.coder == FLOATS]
        arrays = [field.array.view(np.uint16).reshape(-1) for field in fields]
        others = [array for array, field in zip(arrays, fields, strict=True) if field.stream.name != CODES]
        size += len(encode_floats(arrays)) - len(encode_floats(others))
        numbers += sum(array.size for array in arrays) - sum(array.size for array in others)
    return numbers, size


def measure(name: str, model: Any, calibration: NDArray[np.float32], test: Split, bits: int) -> dict[str, Any]:
    """One model at one width of its kernels."""
    given = outputs(model, test[0])
    rows: dict[str, dict[str, Any]] = {}
    for way, (vectors, with_data) in WAYS.items():
        start = time.perf_counter()
        item = bw.Quantize(bits, vectors=vectors)
        result = bw.PassManager([item]).run(model, data=calibration if with_data else None)
        seconds = time.perf_counter() - start
        kl = fidelity(["categorical logits"], [given], [outputs(result.model, test[0])])["kl"]
        rows[way] = {
            "kl": kl,
            "kl_ratio": kl / rows["16-bit"]["kl"] if rows else 1.0,
            "accuracy": accuracy(result.model, test),
            "seconds": round(seconds, 1),
            "remarks": [words for words in result.report.passes[0].remarks if words.startswith("vectors")],
            **bits_of(result),
        }
        row = rows[way]
        print(
            f"{name:14s}{bits} bits, {way:18s} packed {row['packed_bits']:.2f}, file {row['file_bits']:.2f}; "
            f"KL {kl:.4g}, times {row['kl_ratio']:.4f}; accuracy {row['accuracy']:.4f}; "
            f"{seconds:.1f} s; {' '.join(row['remarks'])}",
            flush=True,
        )
    found = rows["auto"]
    passed = found["kl_ratio"] <= MOST_KL and found["file_bits"] <= MOST_BITS
    return {"model": name, "bits": bits, "float_accuracy": accuracy(model, test), "ways": rows, "passed": passed}


def main() -> None:
    every = (*BASELINES, "keywords", "mobile")
    parser = arguments(__doc__, "vectors.json")
    parser.add_argument("--models", nargs="*", choices=every, default=list(every))
    parser.add_argument("--bits", nargs="*", type=int, default=list(BITS))
    args = parser.parse_args()
    data, rows = load_data(), []
    for name in args.models:
        calibration, test = data.train[0][:2_048], data.test
        if name in BASELINES:
            model = load_baseline(args.baselines, name)
        elif name == "keywords":
            model, calibration, test = keywords(spoken(8_000, 0)), spoken(2_048, 2)[0], spoken(4_000, 1)
        else:
            model = mobile(data)
        rows += [measure(name, model, calibration, test, bits) for bits in args.bits]
    four = [row["ways"]["auto"] for row in rows if row["bits"] == 4]
    limits = {"bits_a_number": MOST_BITS, "kl_ratio": MOST_KL}
    summary = {name: median([row[name] for row in four]) for name in ("packed_bits", "file_bits", "kl_ratio")}
    write_json(args.out, {"limits": limits, "median_at_4_bits": summary if four else {}, "rows": rows})


if __name__ == "__main__":
    main()
