"""Three bits, two bits and ternary with learned steps: accuracy after a few epochs of training, and the file's bytes.

`--choose` compares learning rates, losses and learned against fixed steps on the held-out images, with a stand-in for
the baseline that has not seen them (see `lenet300_pipeline`).

Run: python -m benchmarks.trained [--choose] [--models NAME ...] [--rules RULE ...] [--seeds N] [--baselines DIR]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import time
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

RULES: dict[str, bw.Quantize] = {
    "3 bits": bw.Quantize(bits=3, rounding="error_feedback"),
    "2 bits": bw.Quantize(bits=2, symmetric=False, rounding="error_feedback"),  # four levels, not three
    "ternary": bw.Quantize(rule="ternary"),
}
LIMITS = {"3 bits": 0.2, "2 bits": 0.8, "ternary": 1.0}  # points
RATES = {"3 bits": 1e-3, "2 bits": 2e-3, "ternary": 2e-3}
EPOCHS = {"lenet300": 6, "lenet5_caffe": 6, "resnet14": 8}
CANDIDATES: tuple[dict[str, Any], ...] = (
    {},
    {"learn": False},
    {"smoothing": 0.1},
    {"rate": 3e-4},
    {"rate": 1e-3},
    {"rate": 2e-3},
    {"epochs": 3},
)


def training(
    epochs: int, rate: float = 1e-3, smoothing: float = 0.0, learn: bool = True, batch_size: int = 128
) -> bw.Finetune:
    """Adam with a cosine decay, on logits and one-hot labels."""
    import keras

    return bw.Finetune(
        epochs,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        optimizer="adam",
        learning_rate=rate,
        decay="cosine",
        batch_size=batch_size,
        learn_steps=learn,
    )


def measure(manager: bw.PassManager, model: Any, data: Fashion, on: Split, seed: int) -> dict[str, Any]:
    """One run, and the model loaded from its file."""
    images, labels = data.train
    start = time.perf_counter()
    result = manager.run(model, data=(images, np.eye(10, dtype=np.float32)[labels]), seed=seed)
    seconds = time.perf_counter() - start
    size, loaded, _ = reloaded(result)
    kept = accuracy(loaded, on)
    drop = round(100 * (accuracy(model, on) - kept), 3)
    row = {"seed": seed, "file_bytes": size, "accuracy": kept, "drop_points": drop, "seconds": round(seconds, 1)}
    print(row, flush=True)
    return row


def choose(folder: Path, data: Fashion, names: list[str], out: Path) -> None:
    """The candidates on the held-out images; the test set is not read."""
    rows = []
    for name in names:
        model = stand_in(folder, data, name)
        for rule, quantize in RULES.items():
            for settings in CANDIDATES:
                print(name, rule, settings)
                manager = bw.PassManager(
                    [quantize, training(**{"epochs": EPOCHS[name], "rate": RATES[rule], **settings})]
                )
                row = {"model": name, "rule": rule, **settings, **measure(manager, model, data, data.held, seed=0)}
                rows.append({**row, "stand_in_accuracy": accuracy(model, data.held)})
    write_json(out, {"rows": rows})


def final(folder: Path, data: Fashion, names: list[str], rules: list[str], seeds: int, out: Path) -> None:
    """The baselines on the test set; rows of other models and rules stay in the file."""
    given: list[dict[str, Any]] = json.loads(out.read_text())["models"] if out.is_file() else []
    models = [row for row in given if row["model"] not in names or row["rule"] not in rules]
    for name in names:
        model = load_baseline(folder, name)
        for rule in rules:
            print(name, rule)
            manager = bw.PassManager([RULES[rule], training(EPOCHS[name], RATES[rule])])
            rows = [measure(manager, model, data, data.test, seed) for seed in range(seeds)]
            middle = {key: median([row[key] for row in rows]) for key in ("file_bytes", "accuracy", "drop_points")}
            models.append(
                {
                    "model": name,
                    "rule": rule,
                    "recipe": manager.to_recipe(),
                    "float_accuracy": accuracy(model, data.test),
                    "limit_points": LIMITS[rule],
                    "median": middle,
                    "passed": middle["drop_points"] <= LIMITS[rule],
                    "rows": rows,
                }
            )
            models.sort(key=lambda row: (BASELINES.index(row["model"]), list(RULES).index(row["rule"])))
            write_json(out, {"models": models})


def main() -> None:
    parser = arguments(__doc__, "trained.json")
    parser.add_argument("--choose", action="store_true", help="compare the candidates on the held-out images")
    parser.add_argument("--models", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--rules", nargs="+", choices=tuple(RULES), default=list(RULES))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    data = load_data()
    if args.choose:
        choose(args.baselines, data, args.models, RESULTS / "trained_choice.json")
    else:
        final(args.baselines, data, args.models, args.rules, args.seeds, args.out)


if __name__ == "__main__":
    main()
