"""Ten quantization recipes on one opened model, against ten runs that each open it again.

Counted: how often the model is traced, and its input moments and its Fisher information are measured. Timed: the two
ways in turn, a recipe at a time, so that what else the machine does meets both alike.

    python -m benchmarks.opened
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import bitwidth as bw
from benchmarks.fashion import arguments, load_baseline, load_data, write_json
from bitwidth.backends.tensorflow import session
from bitwidth.backends.tensorflow.measuring import probes
from bitwidth.backends.tensorflow.measuring.gradients import SquaredGradients

MODEL = "resnet14"
IMAGES = 2_048
MAX_SHARE = 0.5  # of the time of separate runs
COUNTED = {
    "traces": (session, "traced_for_training"),
    "passes of moments": (probes, "input_moments"),
    "Fishers": (SquaredGradients, "over"),
}


def recipes() -> list[bw.Quantize]:
    """Ten ways to quantize; five of them look at the images."""
    return [
        bw.Quantize(8),
        bw.Quantize(6),
        bw.Quantize(4),
        bw.Quantize(3),
        bw.Quantize(4, rule="power_of_two"),
        bw.Quantize(4, rounding="error_feedback", samples=IMAGES),
        bw.Quantize(3, rounding="error_feedback", samples=IMAGES),
        bw.Quantize(2, rounding="error_feedback", samples=IMAGES),
        bw.Quantize(4, importance="fisher", samples=IMAGES),
        bw.Quantize(3, importance="fisher", samples=IMAGES),
    ]


def counted(counts: Counter[str]) -> None:
    """Count each call of what is to happen once."""
    for what, (place, name) in COUNTED.items():
        setattr(place, name, _counting(getattr(place, name), counts, what))


def _counting(function: Callable[..., Any], counts: Counter[str], what: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        counts[what] += 1
        return function(*args, **kwargs)

    return call


def measured(run: Callable[[], bw.Result]) -> tuple[str, tuple[float, float]]:
    """A digest of the file of a run; the seconds of the run, and those with the file."""
    started = time.perf_counter()
    result = run()
    ran = time.perf_counter() - started
    digest = hashlib.sha256(result._file.packed.data).hexdigest()
    return digest, (ran, time.perf_counter() - started)


def main() -> None:
    args = arguments(__doc__, "opened.json").parse_args()
    images = load_data().train[0][:IMAGES]
    model = load_baseline(args.baselines, MODEL)
    for recipe in (recipes()[0], recipes()[5], recipes()[8]):  # what a process does once, TensorFlow's kernels first
        bw.PassManager([replace(recipe, samples=64)]).run(model, images[:64])
    counts: Counter[str] = Counter()
    counted(counts)
    started = time.perf_counter()
    opened = bw.open(model, images)
    opening = time.perf_counter() - started
    together, same = Counter(counts), []
    shared, apart = [opening, opening], [0.0, 0.0]
    for recipe in recipes():
        manager, before = bw.PassManager([recipe]), Counter(counts)
        first = measured(partial(manager.run, opened))
        together += counts - before
        second = measured(partial(manager.run, model, images))
        same.append(first[0] == second[0])
        for place in (0, 1):
            shared[place] += first[1][place]
            apart[place] += second[1][place]
    share, with_files = shared[0] / apart[0], shared[1] / apart[1]
    passed = all(same) and share <= MAX_SHARE and all(together[what] == 1 for what in COUNTED)
    print(f"{len(same)} recipes, same bytes: {all(same)}; {dict(together)}")
    print(f"opened once {shared[0]:.1f} s, apart {apart[0]:.1f} s: {share:.3f} (limit {MAX_SHARE})")
    print(f"with the files written: {with_files:.3f}")
    row = {"counts": dict(together), "opened_seconds": shared[0], "apart_seconds": apart[0], "share": share}
    written = {**row, "share_with_files": with_files, "same_bytes": all(same), "passed": passed}
    write_json(args.out, {"model": MODEL, "images": IMAGES, **written})


if __name__ == "__main__":
    main()
