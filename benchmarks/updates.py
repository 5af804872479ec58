"""Bytes of a file that holds what changed, against those of the whole file.

Each baseline is compressed and saved. Then all its parameters, or those of its last layer, are trained one further
epoch (Adam, 1e-4): the float model, which is compressed again, or, where it was pruned, the compressed one under its
masks and grids. The outcome is saved whole, and against the first file. Both are loaded again and compared.

Run: python -m benchmarks.updates [--baselines DIR] [--out benchmarks/results/updates.json]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bitwidth as bw
from benchmarks.fashion import BASELINES, Fashion, accuracy, arguments, load_baseline, load_data, write_json

RECIPES: dict[str, list[bw.Pass]] = {
    "4 bits": [bw.Quantize(bits=4)],
    "8 bits": [bw.Quantize(bits=8)],
    "90 % pruned, 4 bits": [bw.Prune(0.9), bw.Quantize(bits=4)],
}
LIMITS = {"all": 0.4, "last layer": 0.05}
SEED = 0


def chosen(model: Any, what: str) -> Any:
    """The model with only what is to be trained trainable."""
    for layer in model.layers:
        layer.trainable = what == "all" or layer is model.layers[-1]
    return model


def later(args: Any, name: str, recipe: str, what: str, old: Path, data: Fashion) -> bw.Result:
    """The compressed model after one further epoch."""
    keras.utils.set_random_seed(SEED)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if "pruned" in recipe:
        model = chosen(bw.load(old), what)
        tune = bw.Finetune(epochs=1, learning_rate=1e-4, loss=loss)
        model = chosen(bw.PassManager([tune]).run(model, data=data.train, progress=False).model, "all")
        return bw.PassManager([]).run(model, progress=False)
    model = chosen(load_baseline(args.baselines, name), what)
    model.compile(keras.optimizers.Adam(1e-4), loss)
    model.fit(*data.train, epochs=1, batch_size=128, verbose=0)
    return bw.PassManager(RECIPES[recipe]).run(chosen(model, "all"), progress=False)


def rows(args: Any, data: Fashion, folder: Path) -> Iterator[dict[str, Any]]:
    for name in args.models:
        for recipe, passes in RECIPES.items():
            for what, limit in LIMITS.items():
                old, new, update = (folder / f"{part}.bw" for part in ("old", "new", "update"))
                bw.PassManager(passes).run(load_baseline(args.baselines, name), progress=False).save(old)
                result = later(args, name, recipe, what, old, data)
                result.save(new)
                result.save(update, base=old)
                whole, again = bw.load(new), bw.load(update, base=old)
                same = all(
                    np.array_equal(one, other)
                    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True)
                )
                ratio = update.stat().st_size / new.stat().st_size
                yield {
                    "model": name,
                    "recipe": recipe,
                    "trained": what,
                    "whole_bytes": new.stat().st_size,
                    "update_bytes": update.stat().st_size,
                    "ratio": round(ratio, 4),
                    "limit": limit,
                    "accuracy": accuracy(again, data.test),
                    "same": same,
                    "passed": same and ratio <= limit,
                }


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__, "updates.json")
    parser.add_argument("--models", nargs="+", default=list(BASELINES), choices=BASELINES)
    args = parser.parse_args()
    data = load_data()
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for row in rows(args, data, Path(folder)):
            found.append(row)
            print(row)
    write_json(args.out, {"limits": LIMITS, "rows": found})


if __name__ == "__main__":
    main()
