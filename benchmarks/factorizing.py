"""What `Factorize` costs: by the inputs of each layer, by the kernels alone, and with short training behind it.

1,024 unlabelled images of the training set, three draws of them, medians. The divergence of the outputs from those of
the float model is on the held-out images; the drop, in points, on the test set, of the model that `bw.load` builds from
the file, which is read once for each row. `kernels` is the singular value decomposition of the kernels, without data;
it and `trained`, an epoch behind the factors, are run once. Statistics of batch normalisations
are taken anew where nothing trains.

Run: python -m benchmarks.factorizing [--models NAME ...] [--baselines DIR] [--out benchmarks/results/factorizing.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from pathlib import Path
from typing import Any

import keras

import bitwidth as bw
from benchmarks.fashion import (
    Fashion,
    accuracy,
    arguments,
    load_baseline,
    load_data,
    median,
    reloaded,
    write_json,
)
from benchmarks.post_training import images_of
from bitwidth.analysis import fidelity

IMAGES, DRAWS, EPOCHS = 1024, (0, 1, 2), 1
BUDGETS: tuple[tuple[str, bw.Factorize], ...] = (
    ("lenet300", bw.Factorize(parameters=0.5)),
    ("lenet300", bw.Factorize(parameters=0.25)),
    ("lenet5_caffe", bw.Factorize(macs=0.6)),
    ("resnet14", bw.Factorize(macs=0.75)),
    ("resnet14", bw.Factorize(macs=0.5)),
)

TRAINED = (bw.Factorize(parameters=0.25), bw.Factorize(macs=0.5))


def passes(item: bw.Factorize, model: str, epochs: int) -> bw.PassManager:
    """The pass, and what follows it."""
    chain: list[bw.Pass] = [item]
    if epochs:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        chain.append(bw.Finetune(epochs, loss=loss))
    elif model.startswith("resnet"):
        chain.append(bw.ReestimateBatchNorm())
    return bw.PassManager(chain)


def trial(folder: Path, data: Fashion, name: str, item: bw.Factorize, way: str, seed: int) -> dict[str, Any]:
    """One run."""
    model = load_baseline(folder, name)
    given, cost = accuracy(model, data.test), bw.cost(model)
    outputs, start = model.predict(data.held[0], verbose=0), time.perf_counter()
    images = images_of(data, IMAGES, seed)
    if way == "kernels":  # the factors without data; what follows takes the images
        result: Any = bw.PassManager([item]).run(model, progress=False)
        result = bw.PassManager(passes(item, name, 0).passes[1:]).run(result, images, progress=False)
    else:
        epochs = EPOCHS if way == "trained" else 0
        result = passes(item, name, epochs).run(model, data.train if epochs else images, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    size, loaded, _ = reloaded(result)
    now = loaded.predict(data.held[0], verbose=0)
    left = bw.cost(loaded)
    return {
        "kl": fidelity(["categorical logits"], [outputs], [now])["kl"],
        "drop_points": 100 * (given - accuracy(loaded, data.test)),
        "macs": left.macs / cost.macs,
        "parameters": left.parameters / cost.parameters,
        "file_bytes": size,
        "seconds": seconds,
    }


def row(folder: Path, data: Fashion, name: str, item: bw.Factorize, way: str) -> dict[str, Any]:
    """The medians of some runs."""
    trials = [trial(folder, data, name, item, way, seed) for seed in (DRAWS if way == "inputs" else DRAWS[:1])]
    middle = {key: round(median([one[key] for one in trials]), 5) for key in trials[0]}
    budget = f"macs={item.macs}" if item.macs is not None else f"parameters={item.parameters}"
    found = {"model": name, "budget": budget, "way": way, "runs": len(trials), **middle}
    print(found, flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__, "factorizing.json")
    parser.add_argument("--models", nargs="+", default=list(dict.fromkeys(name for name, _ in BUDGETS)))
    args = parser.parse_args()
    data = load_data()
    rows = [
        row(args.baselines, data, name, item, way)
        for name, item in BUDGETS
        if name in args.models
        for way in ("kernels", "inputs", *(["trained"] if item in TRAINED else []))
    ]
    write_json(args.out, {"images": IMAGES, "draws": len(DRAWS), "epochs": EPOCHS, "rows": rows})


if __name__ == "__main__":
    main()
