"""Parameters of one number per channel in few bits: `Quantize(vectors="auto")` against `"16-bit"`.

For each model `Quantize(4)` and `Quantize(8)` with the vectors in 16 bits, with `"auto"` on 2,048 calibration images,
and with `"auto"` without data: bits a number, the divergence of the outputs from those of the float model on the test
set relative to that with 16 bits, and accuracy.

Bits a number: `packed` is the width of the format; `coded` is the order-0 entropy of sign and exponent over all vectors
of a role, with a byte a symbol for its table, and the mantissa bits in full; `file` is what `encode_array` takes of the
codes of each parameter by itself.

Run: python -m benchmarks.vectors [--baselines DIR] [--models NAME ...] [--out benchmarks/results/vectors.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, accuracy, arguments, load_baseline, load_data, median, write_json
from benchmarks.foreign import keywords, mobile, spoken
from benchmarks.progressive import outputs
from bitwidth.analysis import fidelity
from bitwidth.coder import encode_array
from bitwidth.encodings import Dense
from bitwidth.extend import Graph

MOST_BITS, MOST_KL = 10.0, 1.01
BITS = (4, 8)
WAYS: dict[str, tuple[Any, bool]] = {
    "16-bit": ("16-bit", True),
    "auto": ("auto", True),
    "auto without data": ("auto", False),
}


def bits_of(graph: Graph) -> dict[str, Any]:
    """Bits a number of the vectors, and the format of each role."""
    packed = file = numbers = 0
    roles: dict[str, list[NDArray[np.uint16]]] = defaultdict(list)
    formats: dict[str, str] = {}
    for parameter in graph:
        held = parameter.encoding.unmasked
        if not isinstance(held, Dense) or held.format is None or parameter.role == "kernel":
            continue
        codes = held.encode(graph.values[parameter.path])
        numbers += codes.size
        packed += held.width * codes.size
        file += 8 * len(encode_array(codes))
        formats[parameter.role] = str(held.format)
        roles[parameter.role].append(codes.reshape(-1).view(np.uint16))
    coded = sum(_coded(np.concatenate(arrays), formats[role]) for role, arrays in roles.items())
    return {
        "numbers": numbers,
        "formats": formats,
        "packed_bits": packed / numbers,
        "coded_bits": coded / numbers,
        "file_bits": file / numbers,
    }


def _coded(codes: NDArray[np.uint16], name: str) -> float:
    mantissa = 10 if name == "float16" else 7 if name == "bfloat16" else int(name[-1])
    _, counts = np.unique(codes >> (10 if name == "float16" else 7), return_counts=True)
    entropy = float(-(counts * np.log2(counts / codes.size)).sum())
    return entropy + 8 * len(counts) + mantissa * codes.size


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
            **bits_of(result.graph),
        }
        row = rows[way]
        print(
            f"{name:14s}{bits} bits, {way:18s} packed {row['packed_bits']:.2f}, coded {row['coded_bits']:.2f}, file "
            f"{row['file_bits']:.2f}; KL {kl:.4g}, times {row['kl_ratio']:.4f}; accuracy {row['accuracy']:.4f}; "
            f"{seconds:.1f} s; {' '.join(row['remarks'])}",
            flush=True,
        )
    found = rows["auto"]
    passed = found["kl_ratio"] <= MOST_KL and found["coded_bits"] <= MOST_BITS
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
    summary = {name: median([row[name] for row in four]) for name in ("packed_bits", "coded_bits", "kl_ratio")}
    write_json(args.out, {"limits": limits, "median_at_4_bits": summary if four else {}, "rows": rows})


if __name__ == "__main__":
    main()
