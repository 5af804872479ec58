"""LeNet-300-100 through a ramp of pruning, 3 bits, and training under both: bytes of the file against accuracy.

`--choose` compares variants on the held-out images. The float baseline has seen all 60,000 training images, so the
held-out ones would flatter whatever stays close to it; variants are therefore compared on a stand-in of the same
architecture, trained on the 55,000 others only.

Run: python -m benchmarks.lenet300_pipeline [--choose] [--baselines DIR] [--out FILE]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from pathlib import Path
from typing import Any

import numpy as np

import bitwidth as bw
from benchmarks.fashion import (
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

NAME = "lenet300"
SEEDS = (0, 1, 2)
MAX_BYTES = 45_000
MAX_DROP = 0.5  # points


def recipe(sparsity: float = 0.8, bits: int = 3, smoothing: float = 0.1, decay: float = 0.3) -> bw.PassManager:
    """The pipeline: prune while training, then 3 bits, then train under mask and grid."""
    return bw.PassManager(
        [
            bw.Ramp(bw.Prune(sparsity, criterion="fisher"), during=training(16, 1e-3, smoothing, decay), end=0.5),
            bw.Quantize(bits=bits),
            training(6, 5e-4, smoothing, decay),
        ]
    )


def training(epochs: int, rate: float, smoothing: float, decay: float) -> bw.Finetune:
    """AdamW with a cosine decay, on logits and one-hot labels; smoothing and weight decay hold back the overfitting."""
    import keras

    return bw.Finetune(
        epochs,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        optimizer=keras.optimizers.AdamW(weight_decay=decay),
        learning_rate=rate,
        decay="cosine",
        batch_size=256,
    )


CANDIDATES: tuple[dict[str, Any], ...] = (
    {"sparsity": 0.8, "smoothing": 0.1, "decay": 0.3},
    {"sparsity": 0.8, "smoothing": 0.0, "decay": 0.3},
    {"sparsity": 0.8, "smoothing": 0.1, "decay": 0.0},
    {"sparsity": 0.85, "smoothing": 0.1, "decay": 0.3},
)


def stand_in(folder: Path, data: Fashion, name: str = NAME, epochs: int = 20) -> Any:
    """A model like the baseline of that name that has not seen the held-out images."""
    import keras

    keras.utils.set_random_seed(0)
    batch_size = 128
    model = keras.models.clone_model(load_baseline(folder, name))
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * -(-len(data.train[0]) // batch_size))
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data.train, batch_size=batch_size, epochs=epochs, verbose=0)
    return model


def measure(manager: bw.PassManager, model: Any, data: Fashion, on: Split, seed: int) -> dict[str, Any]:
    """One run, and what is in the file that came out."""
    start = time.perf_counter()
    images, labels = data.train
    result = manager.run(model, data=(images, np.eye(10, dtype=np.float32)[labels]), seed=seed)
    ran = time.perf_counter()
    size, loaded, inside = reloaded(result)
    given, kept = accuracy(model, on), accuracy(loaded, on)
    row = {
        "seed": seed,
        "file_bytes": size,
        "accuracy": kept,
        "drop_points": round(100 * (given - kept), 3),
        "seconds": round(ran - start, 1),
        "bytes_by_parameter": {entry.path: entry.bytes for entry in inside.parameters},
    }
    print({name: value for name, value in row.items() if name != "bytes_by_parameter"}, flush=True)
    return row


def choose(folder: Path, data: Fashion, out: Path) -> None:
    """The candidates on the held-out images; the test set is not read."""
    model = stand_in(folder, data)
    rows = []
    for settings in CANDIDATES:
        print(settings)
        rows.append({**settings, **measure(recipe(**settings), model, data, data.held, seed=0)})
    write_json(out, {"stand_in_accuracy": accuracy(model, data.held), "rows": rows})


def final(folder: Path, data: Fashion, out: Path) -> None:
    """The chosen recipe on the baseline and the test set, with three seeds."""
    model, manager = load_baseline(folder, NAME), recipe()
    rows = [measure(manager, model, data, data.test, seed) for seed in SEEDS]
    medians = {
        name: median([row[name] for row in rows]) for name in ("file_bytes", "accuracy", "drop_points", "seconds")
    }
    print("median", medians)
    passed = medians["file_bytes"] <= MAX_BYTES and medians["drop_points"] <= MAX_DROP
    content = {
        "model": NAME,
        "recipe": manager.to_recipe(),
        "limits": {"max_bytes": MAX_BYTES, "max_drop_points": MAX_DROP},
        "float_accuracy": accuracy(model, data.test),
        "median": medians,
        "passed": passed,
        "rows": rows,
    }
    write_json(out, content)


def main() -> None:
    parser = arguments(__doc__, "lenet300_pipeline.json")
    parser.add_argument("--choose", action="store_true", help="compare the candidates on the held-out images")
    args = parser.parse_args()
    data = load_data()
    if args.choose:
        choose(args.baselines, data, RESULTS / "lenet300_choice.json")
    else:
        final(args.baselines, data, args.out)


if __name__ == "__main__":
    main()
