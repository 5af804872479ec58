"""What `Finetune(epochs=8)` as it stands does to float models, against Adam at constant rates.

Nothing is compressed: whatever is lost is lost to training. The baselines have seen the held-out images, so each is
replaced by a stand-in that has not (see `lenet300_pipeline`); a row has the drop in accuracy on those images and the
mean KL divergence from the stand-in's own softmax, which is far less noisy. `--final` trains the baselines themselves
with the defaults and reads the test set. `--recovery` shows what rates do for what fine-tuning is for: 90 % pruned and
2 bits, then 5 epochs.

Run: python -m benchmarks.defaults [--final | --recovery] [--models NAME ...] [--settings NAME ...] [--seeds N]
                                   [--stand-ins DIR] [--stand-in-epochs N] [--baselines DIR] [--out FILE]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from benchmarks.fashion import (
    BASELINES,
    Fashion,
    Split,
    arguments,
    load_baseline,
    load_data,
    median,
    write_json,
)
from benchmarks.lenet300_pipeline import stand_in

EPOCHS, RECOVERY_EPOCHS = 8, 5
MAX_DROP = 0.3  # points
MAX_RATIO = 1.2  # of the KL of the best constant rate
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"constant {rate:g}": {"learning_rate": rate, "decay": "constant"} for rate in (1e-4, 3e-4, 1e-3)},
    **{f"cosine {rate:g}": {"learning_rate": rate, "decay": "cosine"} for rate in (1e-4, 3e-4, 1e-3)},
}
CONSTANT = tuple(name for name in SETTINGS if name.startswith("constant"))
COMPRESSED: dict[str, bw.Pass] = {
    "90 % pruned": bw.Prune(0.9),
    "2 bits": bw.Quantize(bits=2, symmetric=False),
}


def softmax(model: Any, images: NDArray[Any]) -> NDArray[np.float64]:
    """What a model that gives logits says of images."""
    logits = model.predict(images, batch_size=500, verbose=0).astype(np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found


def divergence(given: NDArray[np.float64], kept: NDArray[np.float64]) -> float:
    """Mean KL divergence of `kept` from `given`."""
    tiny = 1e-12
    return float((given * (np.log(given + tiny) - np.log(kept + tiny))).sum(axis=1).mean())


def measure(model: Any, passes: list[bw.Pass], epochs: int, name: str, data: Fashion, on: Split, seed: int) -> Any:
    """One run with a setting, and how far it went from `model`."""
    import keras

    tune = bw.Finetune(epochs, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **SETTINGS[name])
    start = time.perf_counter()
    result = bw.PassManager([*passes, tune]).run(model, data=data.train, seed=seed)
    seconds = time.perf_counter() - start
    given, kept = softmax(model, on[0]), softmax(result.model, on[0])
    right = [float((said.argmax(axis=1) == on[1]).mean()) for said in (given, kept)]
    row = {
        "setting": name,
        "seed": seed,
        "accuracy": right[1],
        "drop_points": round(100 * (right[0] - right[1]), 3),
        "kl": round(divergence(given, kept), 6),
        "seconds": round(seconds, 1),
    }
    print(row, flush=True)
    return row


def stand_in_of(name: str, data: Fashion, args: argparse.Namespace) -> Any:
    """The stand-in, from `--stand-ins` where it was made before."""
    import keras

    path = None if args.stand_ins is None else args.stand_ins / f"{name}.keras"
    if path is not None and path.is_file():
        return keras.models.load_model(path, compile=False)
    model = stand_in(args.baselines, data, name, args.stand_in_epochs)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    return model


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds by setting, and whether the defaults keep the limits."""
    settings = {row["setting"] for row in rows}
    medians = {
        name: {key: median([row[key] for row in rows if row["setting"] == name]) for key in ("drop_points", "kl")}
        for name in SETTINGS
        if name in settings
    }
    found: dict[str, Any] = {"medians": medians}
    constant = [medians[name]["kl"] for name in CONSTANT if name in medians]
    if "default" in medians and constant:
        ratio = medians["default"]["kl"] / min(constant)
        found["kl_to_best_constant"] = round(ratio, 4)
        found["passed"] = ratio <= MAX_RATIO and medians["default"]["drop_points"] <= MAX_DROP
    return found


def run(args: argparse.Namespace) -> None:
    """Add rows to the file; rows of the same part, model, setting and seed are replaced."""
    part = "final" if args.final else "recovery" if args.recovery else "chosen"
    data = load_data()
    for name in args.models:
        model = load_baseline(args.baselines, name) if args.final else stand_in_of(name, data, args)
        on = data.test if args.final else data.held
        for what, passes in {w: [p] for w, p in COMPRESSED.items()}.items() if args.recovery else [("float", [])]:
            for setting in ["default"] if args.final else args.settings:
                for seed in range(args.seeds):
                    print(part, name, what)
                    epochs = RECOVERY_EPOCHS if args.recovery else EPOCHS
                    row = measure(model, passes, epochs, setting, data, on, seed)
                    add(args.out, part, {"model": name, "what": what, **row})


def add(out: Path, part: str, row: dict[str, Any]) -> None:
    """Put a row into the file, and the summaries after it."""
    content: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    keys = ("model", "what", "setting", "seed")
    rows = [old for old in content.get(part, {}).get("rows", []) if any(old[key] != row[key] for key in keys)]
    rows.append(row)
    groups = dict.fromkeys((row["model"], row["what"]) for row in rows)
    summaries = [
        {"model": m, "what": w, **summary([row for row in rows if (row["model"], row["what"]) == (m, w)])}
        for m, w in groups
    ]
    others = {key: value for key, value in content.items() if key not in ("environment", "limits", part)}
    limits = {"max_drop_points": MAX_DROP, "max_kl_to_best_constant": MAX_RATIO}
    write_json(out, {"limits": limits, **others, part: {"summaries": summaries, "rows": rows}})


def main() -> None:
    parser = arguments(__doc__, "defaults.json")
    parser.add_argument("--final", action="store_true", help="the baselines and the test set, with the defaults")
    parser.add_argument("--recovery", action="store_true", help="after pruning and after 2 bits")
    parser.add_argument("--models", nargs="+", default=list(BASELINES), choices=BASELINES)
    parser.add_argument("--settings", nargs="+", default=["default", *CONSTANT], choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stand-ins", type=Path, metavar="DIR", help="keep the stand-ins there")
    parser.add_argument("--stand-in-epochs", type=int, default=20)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
