"""What `Shrink` costs in accuracy without training: 1,024 unlabelled images, three draws of them, medians.

Drops are in points, on the test set, of the model that `bw.load` builds from the file. `magnitude` is the same cut by
the norm of the weights, with nothing refitted.

Run: python -m benchmarks.shrinking [--baselines DIR] [--out benchmarks/results/shrinking.json]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import Fashion, accuracy, arguments, load_baseline, load_data, median, reloaded, write_json
from benchmarks.post_training import images_of

IMAGES, DRAWS = 1024, (0, 1, 2)
CASES: tuple[tuple[str, str, list[bw.Pass], float | None], ...] = (
    ("lenet300", "half of the units, magnitude", [bw.Shrink(0.5, criterion="magnitude", refit=False)], None),
    ("lenet300", "half of the units", [bw.Shrink(0.5)], 1.0),
    ("lenet300", "a quarter of the units", [bw.Shrink(0.25)], 4.5),
    ("lenet5_caffe", "half of the units, magnitude", [bw.Shrink(0.5, criterion="magnitude", refit=False)], None),
    ("lenet5_caffe", "half of the units", [bw.Shrink(0.5)], 1.5),
    ("resnet14", "0.7 of the MACs", [bw.Shrink(macs=0.7), bw.ReestimateBatchNorm()], 2.0),
)


def case(folder: Path, data: Fashion, name: str, recipe: str, passes: list[bw.Pass], limit: float | None) -> Any:
    """One row: the drop of each draw of images, their median, and what is left."""
    model = load_baseline(folder, name)
    given, cost = accuracy(model, data.test), bw.cost(model)
    drops, macs, sizes = [], [], []
    for seed in DRAWS:
        result = bw.PassManager(passes).run(model, data=images_of(data, IMAGES, seed), progress=False)
        size, loaded, _ = reloaded(result)
        drops.append(round(100 * (given - accuracy(loaded, data.test)), 2))
        macs.append(round(bw.cost(result.model).macs / cost.macs, 3))
        sizes.append(size)
    row = {"model": name, "recipe": recipe, "drops": drops, "drop": median(drops), "limit": limit}
    row |= {"macs": median(macs), "file_bytes": median(sizes), "passed": limit is None or median(drops) <= limit}
    print(row)
    return row


def main() -> None:
    """Measure and write."""
    parser = arguments(__doc__, "shrinking.json")
    args = parser.parse_args()
    data = load_data()
    write_json(args.out, {"images": IMAGES, "rows": [case(args.baselines, data, *item) for item in CASES]})


if __name__ == "__main__":
    main()
