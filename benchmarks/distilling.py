"""What `Distill` gives and costs: a recipe typed without further arguments, widths halved, and the time of a step.

`typed`: LeNet-300-100 pruned to 90 % in a ramp, at 5 bits, each step distilled, no labels; the drop on the test set of
the model loaded from the file. `halved`: ResNet-14 cut to half of its widths, with logits alone and with features of
its blocks. `step`: a training step under masks, 4-bit grids and a teacher, against one written by hand in Keras with
the same masks, straight-through grids and teacher; the two take turns.

Run: python -m benchmarks.distilling [--only PART ...] [--seeds N] [--baselines DIR]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    Fashion,
    accuracy,
    arguments,
    distilled,
    load_baseline,
    load_data,
    measured,
    median,
    write_json,
)

MAX_DROP = 0.6
STEP, STEPS, WARM_UP, BATCH = 1.15, 60, 5, 128


def typed(folder: Path, data: Fashion, seeds: int) -> dict[str, Any]:
    """No argument but how far and how long."""
    model = load_baseline(folder, "lenet300")
    given = accuracy(model, data.test)
    manager = bw.PassManager([bw.Ramp(bw.Prune(0.9), during=bw.Distill(6)), bw.Quantize(5), bw.Distill(2)])
    rows = []
    for seed in range(seeds):
        row, _, _ = distilled(manager, model, given, data, seed)
        print(row, flush=True)
        rows.append(row)
    drop = median([row["drop_points"] for row in rows])
    return {
        "recipe": manager.to_recipe(),
        "rows": rows,
        "drop_points": drop,
        "limit": MAX_DROP,
        "passed": drop <= MAX_DROP,
    }


def halved(folder: Path, data: Fashion, seeds: int, epochs: int = 4) -> dict[str, Any]:
    """Logits alone, and with the features of all residual sums."""
    model = load_baseline(folder, "resnet14")
    given = accuracy(model, data.test)
    sums = [layer.name for layer in model.layers if type(layer).__name__ == "Add"]
    found: dict[str, list[float]] = {"logits": [], "features": []}
    for seed in range(seeds):
        for name, features in (("logits", None), ("features", sums)):
            tune = bw.Distill(epochs, features=features, batch_size=BATCH)
            result = bw.PassManager([bw.Shrink(0.5), tune]).run(model, data=data.train[0], seed=seed, progress=False)
            found[name].append(round(100 * (given - accuracy(result.model, data.test)), 2))
            print(seed, name, found[name][-1], flush=True)
    drops = {name: median(values) for name, values in found.items()}
    return {"epochs": epochs, "layers": sums, "drops": found, **drops, "passed": drops["features"] <= drops["logits"]}


def _by_hand(model: Any, teacher: Any, graph: Any, images: Any) -> Any:
    """A step in Keras with the same masks, straight-through grids and teacher, as a function of a batch."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)
    held = {}
    for parameter in graph:
        grid = parameter.encoding.grid
        if grid is not None and parameter.encoding.mask is not None:
            scale = np.broadcast_to(grid.scale, [1] * (len(parameter.shape) - 1) + [parameter.shape[-1]])
            held[parameter.index] = tf.constant(scale, tf.float32), tf.constant(parameter.encoding.mask, tf.float32)
    variables = model.variables
    masters = {index: tf.Variable(variables[index].numpy()) for index in held}

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: Any) -> Any:
        for index, (scale, mask) in held.items():
            codes = tf.clip_by_value(tf.round(masters[index] / scale), -7, 7) * scale * mask
            variables[index].assign(codes)
        with tf.GradientTape() as tape:
            wanted, now = (
                tf.nn.log_softmax(teacher(x, training=False) / 2),
                tf.nn.log_softmax(model(x, training=True) / 2),
            )
            loss = 4 * tf.reduce_mean(tf.reduce_sum(tf.exp(wanted) * (wanted - now), -1))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for index, (_, mask) in held.items():
            masters[index].assign_add((variables[index].value - masters[index]) * mask)
        return loss

    return lambda: float(step(images))


def _turns(hand: Callable[[], Any], times: list[tuple[float, float]]) -> Any:
    """A callback that takes a step by hand after each of the library's, and notes the seconds of both."""
    import keras

    started = [0.0]

    def begin(batch: int, logs: Any = None) -> None:
        started[0] = time.perf_counter()

    def end(batch: int, logs: Any = None) -> None:
        own, begun = time.perf_counter() - started[0], time.perf_counter()
        hand()
        times.append((own, time.perf_counter() - begun))

    return keras.callbacks.LambdaCallback(on_train_batch_begin=begin, on_train_batch_end=end)


def step(folder: Path, data: Fashion) -> list[dict[str, Any]]:
    """The time of a step that `Distill` takes, over that of one by hand."""
    import keras
    import tensorflow as tf

    rows = []
    images = tf.constant(data.train[0][:BATCH])
    for name in BASELINES:
        model = load_baseline(folder, name)
        made = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(model, progress=False)
        hand = _by_hand(keras.models.clone_model(model), load_baseline(folder, name), made.graph, images)
        times: list[tuple[float, float]] = []

        tune = bw.Distill(
            1, batch_size=BATCH, steps_per_epoch=WARM_UP + STEPS, callbacks=(_turns(hand, times),), jit_compile=False
        )
        bw.PassManager([tune]).run(made, data=tf.data.Dataset.from_tensors(images).repeat(), progress=False)
        kept = times[WARM_UP:]
        ratio = median([own / other for own, other in kept])
        row = {"model": name, "batch": BATCH, "ratio": round(ratio, 3), "limit": STEP, "passed": ratio <= STEP}
        row |= {key: round(1000 * median([pair[i] for pair in kept]), 3) for i, key in enumerate(("own_ms", "hand_ms"))}
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure and write; parts that are not measured stay as they are in the file."""
    parser = arguments(__doc__, "distilling.json")
    parser.add_argument("--only", nargs="+", choices=("typed", "halved", "step"), default=["typed", "halved", "step"])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    found = measured(args.out)
    data = load_data()
    for part in args.only:
        if part == "step":
            found[part] = step(args.baselines, data)
        else:
            found[part] = {"typed": typed, "halved": halved}[part](args.baselines, data, args.seeds)
        write_json(args.out, found)


if __name__ == "__main__":
    main()
