"""Narrowing: the 4-bit model within an 8-bit file against `Quantize(4)`, and against cutting codes off.

For each model `Quantize(8)`, then each grid narrowed by `bitwidth.encodings.narrow` to 6, 5, 4, 3 and 2 bits, and by
`prefix` (the leading bits of sign and magnitude), beside `Quantize` at that width: accuracy, and the divergence of the
outputs from those of the float model, on the test set. Seconds of `steps` and `narrow` on 25 million codes.

How much the sum of the errors of a block counts (`MEAN` in `bitwidth/encodings/evening.py`) is chosen by the same
divergences at 4 bits on images that are held out: `held` in the results.

Run: python -m benchmarks.progressive [--baselines DIR] [--models NAME ...] [--held-only]
         [--out benchmarks/results/progressive.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    Fashion,
    Split,
    accuracy,
    arguments,
    load_baseline,
    load_data,
    median,
    write_json,
)
from benchmarks.foreign import keywords, mobile, outliers, spoken
from bitwidth.analysis.fidelity import fidelity
from bitwidth.context import Context
from bitwidth.encodings import IntegerLevels, Quantized, evening, narrow, prefix, steps
from bitwidth.extend import Graph

BITS = (6, 5, 4, 3, 2)
MOST = 1.15  # divergence of the 8-bit model narrowed to 4 bits, of that of Quantize(4)
FOREIGN = ("mobile", "outliers", "keywords")
MEANS = (0.0, 0.25, 0.5, 1.0)  # 0: nothing is evened out


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


def divergence(given: NDArray[np.float32], model: Any, images: NDArray[np.float32]) -> float:
    """KL of the outputs from those given."""
    return float(fidelity(["categorical logits"], [given], [outputs(model, images)])["kl"])


def choose(name: str, model: Any, held: Split) -> dict[str, Any]:
    """One model at 4 bits on images that are held out, with each of `MEANS`: KL, of that of `Quantize(4)`."""
    given = outputs(model, held[0])
    eight = bw.PassManager([bw.Quantize(8)]).run(model)
    four = divergence(given, bw.PassManager([bw.Quantize(4)]).run(model).model, held[0])
    ratios = {}
    for mean in MEANS:
        with mock.patch.object(evening, "MEAN", mean):
            narrowed = bw.PassManager([NarrowTo(4)]).run(eight).model
        ratios[str(mean)] = divergence(given, narrowed, held[0]) / four
    print(f"{name:14s}held out: " + ", ".join(f"{mean} {ratio:.3f}" for mean, ratio in ratios.items()), flush=True)
    return {"model": name, "kl_of_quantize": four, "kl_ratio": ratios}


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
            row[kind] = {"kl": divergence(given, one, test[0]), "accuracy": accuracy(one, test)}
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
    """Seconds for 25 million codes of 8 bits with a scale per channel, as a dense kernel and as 50 kernels of
    convolutions; the median of five.
    """
    dense, convolutions = [(5000, 5000)], [(3, 3, 256, 256)] * 30 + [(1, 1, 512, 1024)] * 8 + [(1, 1, 1024, 256)] * 12
    return {"dense": _seconds(dense), "convolutions": _seconds(convolutions)}


def _seconds(shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    rng, held = np.random.default_rng(0), []
    for shape in shapes:
        codes = np.rint(rng.standard_normal(shape, dtype=np.float32) * np.float32(30)).clip(-127, 127).astype(np.int32)
        scale = np.full((*(1 for _ in shape[:-1]), shape[-1]), 0.01, np.float32)
        held.append((Quantized(IntegerLevels.symmetric(8), scale, (*shape[:-1], 1)), codes))
    seconds: dict[str, list[float]] = {"steps": [], "narrow": []}
    for _ in range(5):
        taken = [0.0, 0.0]
        for grid, codes in held:
            start = time.perf_counter()
            found = steps(codes, grid, 4)
            between = time.perf_counter()
            narrow(grid, codes, 4, found)
            taken = [taken[0] + between - start, taken[1] + time.perf_counter() - between]
        seconds["steps"].append(taken[0])
        seconds["narrow"].append(taken[1])
    number = sum(codes.size for _, codes in held)
    return {"codes": number, **{name: round(median(times), 3) for name, times in seconds.items()}}


def model_of(name: str, baselines: Path, data: Fashion) -> Any:
    """The float model of that name, trained here where it is not a baseline."""
    if name in BASELINES:
        return load_baseline(baselines, name)
    return keywords(spoken(8_000, 0)) if name == "keywords" else {"mobile": mobile, "outliers": outliers}[name](data)


def main() -> None:
    parser = arguments(__doc__, "progressive.json")
    parser.add_argument("--models", nargs="*", choices=(*BASELINES, *FOREIGN), default=[*BASELINES, *FOREIGN])
    parser.add_argument("--held-only", action="store_true", help="leave the test set unread, write nothing")
    args = parser.parse_args()
    data = load_data()
    models = {name: model_of(name, args.baselines, data) for name in args.models}
    spoken_parts = {"held": spoken(4_000, 3), "test": spoken(4_000, 1)} if "keywords" in models else {}
    held = [
        choose(name, model, spoken_parts["held"] if name == "keywords" else data.held) for name, model in models.items()
    ]
    worst = {str(mean): max(row["kl_ratio"][str(mean)] for row in held) for mean in MEANS}
    middle = {str(mean): median([row["kl_ratio"][str(mean)] for row in held]) for mean in MEANS}
    print(f"worst {worst}, median {middle}", flush=True)
    if args.held_only:
        return
    rows = [
        measure(name, model, spoken_parts["test"] if name == "keywords" else data.test)
        for name, model in models.items()
    ]
    content = {"limits": {"kl_ratio_at_4_bits": MOST}, "mean": evening.MEAN, "models": rows, "speed": speed()}
    write_json(args.out, {**content, "held": {"models": held, "worst": worst, "median": middle}})


if __name__ == "__main__":
    main()
