"""Narrowing: the 4-bit model within an 8-bit file against `Quantize(4)`, and against cutting codes off.

For each model `Quantize(8)`, then each grid narrowed by `bitwidth.encodings.narrow` to 6, 5, 4, 3 and 2 bits, and by
`prefix` (the leading bits of sign and magnitude), beside `Quantize` at that width: accuracy, and the divergence of the
outputs from those of the float model. Seconds of `steps` and `narrow` on 25 million codes.

Run: python -m benchmarks.progressive [--baselines DIR] [--models NAME ...] [--out benchmarks/results/progressive.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, accuracy, arguments, load_baseline, load_data, median, write_json
from benchmarks.foreign import keywords, mobile, outliers, spoken
from bitwidth.analysis.fidelity import fidelity
from bitwidth.context import Context
from bitwidth.encodings import IntegerLevels, Quantized, narrow, prefix, steps
from bitwidth.extend import Graph

BITS = (6, 5, 4, 3, 2)
MOST = 1.15  # divergence of the 8-bit model narrowed to 4 bits, of that of Quantize(4)
FOREIGN = ("mobile", "outliers", "keywords")


@dataclass(frozen=True)
class NarrowTo(bw.Pass):
    """Read every grid in so many bits.

    Attributes:
        bits: 2 to 16.
        cut: whether codes are cut off as `prefix` does, in place of being narrowed.
    """

    bits: int
    cut: bool = False

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        values, encodings = {}, {}
        for parameter in graph:
            given = parameter.encoding
            if given.grid is None:
                continue
            if self.cut:
                found = prefix(given, self.bits)
                values[parameter.path] = found.project(graph.values[parameter.path])
            else:
                found, codes = narrow(given, given.encode(graph.values[parameter.path]), self.bits)
                values[parameter.path] = found.decode(codes)
            encodings[parameter.path] = found
        return graph.update(values, encodings)


def outputs(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits."""
    found: NDArray[np.float32] = model.predict(images, batch_size=500, verbose=0)
    return found


def measure(name: str, model: Any, test: Split) -> dict[str, Any]:
    """One model, at each width."""
    given, rows = outputs(model, test[0]), []
    eight = bw.PassManager([bw.Quantize(8)]).run(model)
    for bits in BITS:
        row: dict[str, Any] = {"bits": bits}
        found = {
            "quantize": bw.PassManager([bw.Quantize(bits)]).run(model).model,
            "narrow": bw.PassManager([NarrowTo(bits)]).run(eight).model,
            "prefix": bw.PassManager([NarrowTo(bits, cut=True)]).run(eight).model,
        }
        for kind, one in found.items():
            (divergence,) = fidelity(["categorical logits"], [given], [outputs(one, test[0])]).values()
            row[kind] = {"kl": divergence, "accuracy": accuracy(one, test)}
        row["kl_ratio"] = row["narrow"]["kl"] / row["quantize"]["kl"]
        row["prefix_kl_ratio"] = row["prefix"]["kl"] / row["quantize"]["kl"]
        rows.append(row)
        print(
            f"{name:14s}{bits} bits: accuracy {row['quantize']['accuracy']:.4f}, narrowed "
            f"{row['narrow']['accuracy']:.4f}, cut {row['prefix']['accuracy']:.4f}; KL {row['quantize']['kl']:.4g}, "
            f"times {row['kl_ratio']:.3f}, cut {row['prefix_kl_ratio']:.2f}",
            flush=True,
        )
    four = next(row for row in rows if row["bits"] == 4)
    return {
        "model": name,
        "float_accuracy": accuracy(model, test),
        "accuracy_8_bits": accuracy(eight.model, test),
        "rows": rows,
        "passed": four["kl_ratio"] <= MOST,
    }


def speed() -> dict[str, Any]:
    """Seconds for 25 million codes of 8 bits, one scale per channel; the median of five."""
    rng = np.random.default_rng(0)
    codes = np.rint(rng.standard_normal((5000, 5000), dtype=np.float32) * np.float32(30)).clip(-127, 127)
    held = codes.astype(np.int32)
    grid = Quantized(IntegerLevels.symmetric(8), np.full((1, 5000), 0.01, np.float32), (5000, 1))
    seconds: dict[str, list[float]] = {"steps": [], "narrow": []}
    for _ in range(5):
        start = time.perf_counter()
        found = steps(held, grid, 4)
        between = time.perf_counter()
        narrow(grid, held, 4, found)
        seconds["steps"].append(between - start)
        seconds["narrow"].append(time.perf_counter() - between)
    return {"codes": held.size, **{name: round(median(times), 3) for name, times in seconds.items()}}


def main() -> None:
    parser = arguments(__doc__, "progressive.json")
    parser.add_argument("--models", nargs="*", choices=(*BASELINES, *FOREIGN), default=[*BASELINES, *FOREIGN])
    args = parser.parse_args()
    data, rows = load_data(), []
    for name in args.models:
        if name in BASELINES:
            rows.append(measure(name, load_baseline(args.baselines, name), data.test))
        elif name == "keywords":
            rows.append(measure(name, keywords(spoken(8_000, 0)), spoken(4_000, 1)))
        else:
            rows.append(measure(name, {"mobile": mobile, "outliers": outliers}[name](data), data.test))
    write_json(args.out, {"limits": {"kl_ratio_at_4_bits": MOST}, "models": rows, "speed": speed()})


if __name__ == "__main__":
    main()
