"""Shrunk and trained: ResNet-14 at half its MACs, ten dense layers of 100 units cut to 10, and the time that is saved.

`resnet14`: cut, trained for at most 10 epochs, saved, loaded again; the drop on the test set, in points. `narrow`: a
network of ten Dense layers of 100 units, cut to 10 each and trained on, against the best of five networks of that
size trained from scratch for as many epochs as both trainings of the cut one together (the network before it is the
same for all seeds of the cut). `latency`: medians of alternating calls of the model and the cut one on one thread, as
a ratio; each in a process of its own.

Run: python -m benchmarks.shrunk [--only PART ...] [--seeds N] [--baselines DIR]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bitwidth as bw
from benchmarks.fashion import (
    ROOT,
    Fashion,
    accuracy,
    arguments,
    distilled,
    load_baseline,
    load_data,
    measured,
    median,
    reloaded,
    write_json,
)

EPOCHS, MAX_DROP = 10, 0.5
LAYERS, WIDTH, NARROW, BEFORE, AFTER, SCRATCH = 10, 100, 10, 6, 6, 5
TIMED = {"resnet14": 28, "mobilenet_v2": 128}
LIMITS = {("resnet14", "litert"): 0.78, ("resnet14", "keras"): 0.80, ("mobilenet_v2", "litert"): 0.65}
CALLS = {"litert": 400, "keras": 30}


def resnet14(folder: Path, data: Fashion, seeds: int) -> dict[str, Any]:
    """Half of the MACs, and training towards the original, without labels; the test set is read at the end."""
    model = load_baseline(folder, "resnet14")
    given = accuracy(model, data.test)
    manager = bw.PassManager([bw.Shrink(macs=0.5), bw.Distill(EPOCHS, batch_size=128)])
    rows = []
    for seed in range(seeds):
        row, result, loaded = distilled(manager, model, given, data, seed)
        macs = round(bw.cost(result.model).macs / bw.cost(model).macs, 3)
        rows.append({**row, "macs": macs, "held": round(accuracy(loaded, data.held), 4)})
        print(rows[-1], flush=True)
    drop = median([row["drop_points"] for row in rows])
    return {"epochs": EPOCHS, "rows": rows, "drop_points": drop, "limit": MAX_DROP, "passed": drop <= MAX_DROP}


def network(width: int) -> Any:
    """Ten dense layers, He initialisation; logits."""
    import keras

    hidden = [
        keras.layers.Dense(width, "relu", kernel_initializer="he_normal", name=f"dense_{place}")
        for place in range(LAYERS)
    ]
    stack = [keras.Input((28, 28, 1)), keras.layers.Flatten(), *hidden, keras.layers.Dense(10, name="logits")]
    return keras.Sequential(stack)


def trained(model: Any, data: Fashion, epochs: int) -> Any:
    """The model, trained as `Finetune` trains below."""
    import keras

    steps = epochs * -(-len(data.train[0]) // 128)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(*data.train, batch_size=128, epochs=epochs, verbose=0)
    return model


def narrow(data: Fashion, seeds: int) -> dict[str, Any]:
    """Ten layers of 100 units cut to 10 each, against networks of 10 from scratch."""
    import keras

    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        wide = trained(network(WIDTH), data, BEFORE)
        tune = bw.Finetune(
            AFTER,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(),
            learning_rate=1e-3,
            decay="cosine",
            batch_size=128,
        )
        cut = bw.PassManager([bw.ShrinkDense(units=NARROW), tune]).run(wide, data=data.train, seed=seed, progress=False)
        _, loaded, _ = reloaded(cut)
        found = []
        for draw in range(SCRATCH):
            keras.utils.set_random_seed(100 * (seed + 1) + draw)
            found.append(round(accuracy(trained(network(NARROW), data, BEFORE + AFTER), data.test), 4))
        row = {"seed": seed, "wide": round(accuracy(wide, data.test), 4), "shrunk": accuracy(loaded, data.test)}
        rows.append({**row, "scratch": found, "best": max(found)})
        print(rows[-1], flush=True)
    shrunk, best = (median([row[key] for row in rows]) for key in ("shrunk", "best"))
    settings = {"before": BEFORE, "after": AFTER, "scratch": BEFORE + AFTER}
    return {"epochs": settings, "rows": rows, "shrunk": shrunk, "best": best, "passed": shrunk >= best}


def _alternating(calls: list[Callable[[], Any]], count: int) -> list[float]:
    """The median time of each, in microseconds."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(count + 3):
        for place, call in enumerate(calls):
            started = time.perf_counter()
            call()
            if turn >= 3:
                times[place].append(time.perf_counter() - started)
    return [1e6 * float(np.median(found)) for found in times]


def _litert(model: Any) -> Callable[[], Any]:
    """A call of the model in LiteRT, on one image and one thread."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], [1, *given["shape"][1:]])
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], np.random.default_rng(0).random((1, *given["shape"][1:]), np.float32))
    return interpreter.invoke  # type: ignore[no-any-return]


def _run(call: Callable[[Any], Any], images: Any) -> Any:
    return call(images).numpy()


def timed(folder: Path, name: str, runtime: str) -> dict[str, Any]:
    """The time of a model and of the one cut to half its MACs, in this process."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    if name == "resnet14":
        model = load_baseline(folder, name)
    else:
        model = keras.applications.MobileNetV2((128, 128, 3), weights=None, classifier_activation=None)
    cut = bw.PassManager([bw.Shrink(macs=0.5, multiple_of=8)]).run(model, progress=False).model
    if runtime == "litert":
        calls = [_litert(model), _litert(cut)]
    else:
        images = tf.constant(np.random.default_rng(0).random((64, *model.input_shape[1:]), np.float32))
        compiled = [tf.function(lambda x, net=net: net(x, training=False)) for net in (model, cut)]
        calls = [partial(_run, call, images) for call in compiled]
    before, after = _alternating(calls, CALLS[runtime])
    macs = bw.cost(cut).macs / bw.cost(model).macs
    return {"model": name, "runtime": runtime, "microseconds": [round(before, 1), round(after, 1)], "macs": macs}


def latency(folder: Path) -> list[dict[str, Any]]:
    """Each in a process of its own, three times; the median of the ratios."""
    rows = []
    for (name, runtime), limit in LIMITS.items():
        found = []
        for _ in range(3):
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.shrunk", "--time", name, runtime]
            done = subprocess.run(
                [*command, "--baselines", str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
        ratio = median([one["microseconds"][1] / one["microseconds"][0] for one in found])
        rows.append({**found[0], "macs": round(found[0]["macs"], 3), "ratio": round(ratio, 3), "limit": limit})
        rows[-1] |= {"batch": 1 if runtime == "litert" else 64, "passed": ratio <= limit}
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write; parts that are not measured stay as they are in the file."""
    parser = arguments(__doc__, "shrunk.json")
    parser.add_argument("--only", nargs="+", choices=("latency", "narrow", "resnet14"), default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time", nargs=2, default=None, help="one model and runtime, printed as JSON")
    args = parser.parse_args()
    if args.time:
        print(json.dumps(timed(args.baselines, *args.time)))
        return
    parts = args.only or ["latency", "narrow", "resnet14"]
    found = measured(args.out)
    if "latency" in parts:
        found["latency"] = latency(args.baselines)
    if "narrow" in parts:
        found["narrow"] = narrow(load_data(), args.seeds)
        write_json(args.out, found)
    if "resnet14" in parts:
        found["resnet14"] = resnet14(args.baselines, load_data(), args.seeds)
    write_json(args.out, found)


if __name__ == "__main__":
    main()
