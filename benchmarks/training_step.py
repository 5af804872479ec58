"""Time of one training step under 4-bit views with learned steps, against the float step of the same model.

Both steps are the train function that `model.fit` calls, on one batch that is in memory, with Adam. They take turns in
one process, and the median of the ratios of neighbouring steps counts, which other load on the machine moves little.

Run: python -m benchmarks.training_step [--baselines DIR] [--steps N] [--out benchmarks/results/training_step.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import BASELINES, Split, arguments, load_baseline, load_data, median, write_json
from bitwidth.backends.tensorflow.constraints.lowering import Lowering, lower
from bitwidth.backends.tensorflow.constraints.views import attached
from bitwidth.backends.tensorflow.models.copying import copy_model

BITS = 4
BATCHES = (32, 256)
WARM_UP = 5
LIMIT = 1.25

Step = Callable[[], None]


def lowerings_of(model: Any) -> dict[int, Lowering]:
    """By index in `model.variables`: a lowering for every parameter that `Quantize` holds otherwise than as it was."""
    graph = bw.PassManager([bw.Quantize(bits=BITS)]).run(model).graph
    found = {p.index: lower(p.encoding, p.shape) for p in graph if p.dtype == "float32"}
    return {index: lowering for index, lowering in found.items() if lowering is not None}


def step_of(model: Any, batch: Split, jit: bool) -> Step:
    """One training step of the model; it returns when the step is done."""
    import keras
    import tensorflow as tf

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=loss, jit_compile=jit)
    model.make_train_function()
    train = model.train_function
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step() -> None:
        float(train(batches)["loss"])

    return step


@contextmanager
def steps_of(model: Any, batch: Split, jit: bool) -> Iterator[tuple[Step, Step]]:
    """The float step and the step under views, of two copies of the model."""
    plain, viewed = copy_model(model), copy_model(model)
    with attached(viewed, lowerings_of(model)):
        yield step_of(plain, batch, jit), step_of(viewed, batch, jit)


def seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(folder: Path, name: str, batch: Split, jit: bool, count: int) -> dict[str, Any]:
    """One row of the table."""
    model = load_baseline(folder, name)
    times: list[tuple[float, float]] = []
    with steps_of(model, batch, jit) as (plain, viewed):
        first = seconds(plain), seconds(viewed)
        for turn in range(WARM_UP + count):
            if turn % 2:
                under = seconds(viewed)
                times.append((seconds(plain), under))
            else:
                times.append((seconds(plain), seconds(viewed)))
    kept = times[WARM_UP:]
    ratio = median([under / alone for alone, under in kept])
    return {
        "model": name,
        "batch": len(batch[0]),
        "xla": jit,
        "steps": count,
        "float_ms": round(1000 * median([alone for alone, _ in kept]), 3),
        "views_ms": round(1000 * median([under for _, under in kept]), 3),
        "median_ratio": round(ratio, 3),
        "first_step_seconds": {"float": round(first[0], 2), "views": round(first[1], 2)},
        "passed": ratio <= LIMIT,
    }


def main() -> None:
    parser = arguments(__doc__, "training_step.json")
    parser.add_argument("--steps", type=int, default=60, help="interleaved steps of each kind per row")
    args = parser.parse_args()
    images, labels = load_data().train
    rows = []
    for name in BASELINES:
        for size in BATCHES:
            for jit in (False, True):
                row = measure(args.baselines, name, (images[:size], labels[:size]), jit, args.steps)
                print(
                    f"{name:14s}batch {size:4d}  XLA {'on' if jit else 'off':4s}float {row['float_ms']:9.3f} ms  "
                    f"views {row['views_ms']:9.3f} ms  ratio {row['median_ratio']:.3f}",
                    flush=True,
                )
                rows.append(row)
    write_json(args.out, {"bits": BITS, "optimizer": "adam", "limit_ratio": LIMIT, "rows": rows})


if __name__ == "__main__":
    main()
