"""Pruning: untrained by several criteria and in patterns, LeNet-300-100 to 95 % with training, and masks in files.

Untrained: 1,024 unlabelled images of the training set (each seed takes others); the divergence of the outputs from
those of the float model and the drop in accuracy, on the test set. Trained: 20 epochs at most, and the file's bytes.

`--choose` compares variants of the training on the held-out images, with a stand-in for the baseline that has not seen
them (see `lenet300_pipeline`).

Run: python -m benchmarks.pruning [--choose] [--only PART] [--models NAME ...] [--seeds N] [--baselines DIR]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import time
from math import comb, log2
from pathlib import Path
from typing import Any

import numpy as np

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    RESULTS,
    Fashion,
    Split,
    accuracy,
    arguments,
    load_baseline,
    load_data,
    median,
    reloaded,
    write_json,
)
from benchmarks.lenet300_pipeline import stand_in
from bitwidth.analysis import fidelity
from bitwidth.coder import encode_mask, entropy_bits

IMAGES = 1024
CRITERIA: tuple[Any, ...] = ("magnitude", "activation", "compensation")
WAYS: dict[str, dict[str, Any]] = {
    "50 %": {"sparsity": 0.5},
    "70 %": {"sparsity": 0.7},
    "2:4": {"pattern": "2:4"},
    "blocks 4x1, 50 %": {"sparsity": 0.5, "pattern": "block"},
}
LIMITS = {"50 %": {"kl_to_magnitude": 0.3, "drop_points": 0.3}, "70 %": {"kl_to_magnitude": 0.3, "drop_points": 0.9}}
TRAINED = "lenet300"
SPARSITY, EPOCHS, MAX_DROP = 0.95, 20, 0.8
CANDIDATES: tuple[dict[str, Any], ...] = (
    {"criterion": "activation"},
    {"criterion": "fisher"},
    {"criterion": "magnitude"},
    {"criterion": "movement"},
    {"criterion": "activation", "end": 0.7},
    {"criterion": "activation", "decay": 0.0},
    {"criterion": "activation", "smoothing": 0.0},
)


def training(
    criterion: Any = "activation", smoothing: float = 0.1, decay: float = 0.1, rate: float = 2e-3, end: float = 0.5
) -> bw.PassManager:
    """Sparsity grows along a cubic while the model trains, with AdamW and a cosine decay of the rate."""
    import keras

    tune = bw.Finetune(
        EPOCHS,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        optimizer=keras.optimizers.AdamW(weight_decay=decay),
        learning_rate=rate,
        decay="cosine",
        batch_size=128,
    )
    return bw.PassManager([bw.Ramp(bw.Prune(SPARSITY, criterion=criterion), during=tune, end=end)])


def trial(
    manager: bw.PassManager, model: Any, data: Fashion, on: Split, seed: int, labelled: bool = False
) -> dict[str, Any]:
    """One run, and how the model loaded from its file compares with the one given."""
    images, labels = data.train
    start = time.perf_counter()
    if labelled:
        result = manager.run(model, data=(images, np.eye(10, dtype=np.float32)[labels]), seed=seed)
    else:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:IMAGES])
        result = manager.run(model, data=images[chosen], seed=seed)
    seconds = time.perf_counter() - start
    size, loaded, _ = reloaded(result)
    given, now = (one.predict(on[0], batch_size=500, verbose=0) for one in (model, loaded))
    before, after = (float((logits.argmax(axis=1) == on[1]).mean()) for logits in (given, now))
    masks = [parameter.encoding.mask for parameter in result.graph if parameter.encoding.mask is not None]
    return {
        "seed": seed,
        "kl": fidelity(["categorical logits"], [given], [now])["kl"],
        "accuracy": after,
        "drop_points": round(100 * (before - after), 3),
        "sparsity": 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks),
        "bytes": size,
        "seconds": round(seconds, 2),
    }


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the numbers of several runs."""
    return {name: median([row[name] for row in rows]) for name in rows[0] if name != "seed"}


def untrained(folder: Path, data: Fashion, name: str, seeds: int) -> list[dict[str, Any]]:
    """Every criterion in every way on one baseline."""
    model = load_baseline(folder, name)
    rows: list[dict[str, Any]] = []
    for way, fields in WAYS.items():
        by: dict[str, dict[str, Any]] = {}
        for criterion in CRITERIA:
            manager = bw.PassManager([bw.Prune(**fields, criterion=criterion, samples=IMAGES)])
            runs = [trial(manager, model, data, data.test, seed) for seed in range(seeds)]
            by[criterion] = {"model": name, "way": way, "criterion": criterion, "median": medians(runs), "runs": runs}
            middle = by[criterion]["median"]
            print(
                f"{name:13s} {way:17s} {criterion:13s} KL {middle['kl']:.4f}, drop {middle['drop_points']:.2f}",
                flush=True,
            )
        base = by["magnitude"]["median"]["kl"]
        rows += [{**row, "kl_to_magnitude": row["median"]["kl"] / base} for row in by.values()]
    for row in rows:
        if row["criterion"] == "compensation" and row["way"] in LIMITS:
            limits = LIMITS[row["way"]]
            row["limits"] = limits
            row["passed"] = (
                row["kl_to_magnitude"] <= limits["kl_to_magnitude"]
                and row["median"]["drop_points"] <= limits["drop_points"]
            )
    return rows


def masks(folder: Path) -> list[dict[str, Any]]:
    """Bits of a coded mask for each weight of a kernel, and what its pattern leaves open."""
    path, model = "fc1/kernel", load_baseline(folder, TRAINED)
    rows = []
    for name, prune, units in (
        ("single weights", bw.Prune(0.5, where=path, scope="local"), 1),
        ("1:2", bw.Prune(pattern="1:2", where=path), 1),
        ("2:4", bw.Prune(pattern="2:4", where=path), 1),
        ("1:4", bw.Prune(pattern="1:4", where=path), 1),
        ("blocks 4x1", bw.Prune(0.5, pattern="block", where=path, scope="local"), 4),
        ("blocks 4x4", bw.Prune(0.5, pattern=bw.Block(4, 4), where=path, scope="local"), 16),
    ):
        keep = bw.PassManager([prune]).run(model).graph[path].encoding.mask
        assert keep is not None
        n, _, m = name.partition(":")
        open_bits = log2(comb(int(m), int(n))) / int(m) if m else entropy_bits(keep) / keep.size / units
        rows.append({"pattern": name, "bits": 8 * len(encode_mask(keep)) / keep.size, "information": open_bits})
        print(rows[-1], flush=True)
    return rows


def choose(folder: Path, data: Fashion, out: Path) -> None:
    """The candidates on the held-out images; the test set is not read."""
    model = stand_in(folder, data, TRAINED)
    rows = []
    for settings in CANDIDATES:
        row = {**settings, **trial(training(**settings), model, data, data.held, seed=0, labelled=True)}
        print(row, flush=True)
        rows.append(row)
    write_json(out, {"stand_in_accuracy": accuracy(model, data.held), "rows": rows})


def trained(folder: Path, data: Fashion, seeds: int) -> dict[str, Any]:
    """The chosen training on the baseline and the test set."""
    model, manager = load_baseline(folder, TRAINED), training()
    rows = [trial(manager, model, data, data.test, seed, labelled=True) for seed in range(seeds)]
    middle = medians(rows)
    print(TRAINED, middle)
    return {
        "model": TRAINED,
        "recipe": manager.to_recipe(),
        "float_accuracy": accuracy(model, data.test),
        "limits": {"drop_points": MAX_DROP, "epochs": EPOCHS},
        "median": middle,
        "passed": middle["drop_points"] <= MAX_DROP and middle["sparsity"] >= SPARSITY - 1e-4,
        "rows": rows,
    }


def main() -> None:
    parser = arguments(__doc__, "pruning.json")
    parser.add_argument("--choose", action="store_true", help="compare trainings on the held-out images")
    parser.add_argument(
        "--only", choices=("trained", "untrained"), help="measure one part; the other stays in the file"
    )
    parser.add_argument("--models", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = load_data()
    if args.choose:
        choose(args.baselines, data, RESULTS / "pruning_choice.json")
        return
    content: dict[str, Any] = json.loads(args.out.read_text()) if args.only and args.out.is_file() else {}
    if args.only != "untrained":
        content["trained"] = trained(args.baselines, data, args.seeds)
    if args.only != "trained":
        content["images"] = IMAGES
        content["untrained"] = [
            row for name in args.models for row in untrained(args.baselines, data, name, args.seeds)
        ]
    content["masks"] = masks(args.baselines)
    content.pop("environment", None)
    write_json(args.out, content)


if __name__ == "__main__":
    main()
