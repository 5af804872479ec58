"""What training that pays for its bits gives: bytes of the file against the drop, and how near a size is met.

`lenet300`: LeNet-300-100 at a rate of 3 bits, then distilled without labels towards a file of 10 kB; the drop on the
test set of the model loaded from the file. `controller`: files of 8, 12, 20 and 40 kB asked for, in fewer epochs.

Run: python -m benchmarks.paying [--only PART ...] [--seeds N] [--epochs N] [--short N] [--baselines DIR]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import (
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

PARTS = ("lenet300", "controller")
LIMIT, DROP = 10_000, 0.5
SIZES = ("8 kB", "12 kB", "20 kB", "40 kB")
BATCH, RATE = 128, 3.0
LOOSE = 0.98  # of the size: a file below it has room that was not used


def run(folder: Path, data: Fashion, size: str, epochs: int, seed: int) -> dict[str, Any]:
    """One file of a size, saved and loaded."""
    model = load_baseline(folder, "lenet300")
    given = accuracy(model, data.test)
    manager = bw.PassManager([bw.Quantize(rate=RATE), bw.Distill(epochs, size=size, batch_size=BATCH)])
    found, result, _ = distilled(manager, model, given, data, seed)
    record = result.report.passes[1]
    row: dict[str, Any] = {
        "size": size,
        "epochs": epochs,
        **found,
        "price": record.history["price"][-1],
        "zeros": round(record.history["zeros"][-1], 4),
        "remarks": list(record.remarks),
    }
    print({key: value for key, value in row.items() if key != "remarks"}, row["remarks"][-2:], flush=True)
    return row


def lenet300(folder: Path, data: Fashion, seeds: int, epochs: int) -> dict[str, Any]:
    """At most 10,000 bytes at half a point."""
    rows = [run(folder, data, "10 kB", epochs, seed) for seed in range(seeds)]
    drop, largest = median([row["drop_points"] for row in rows]), max(row["file_bytes"] for row in rows)
    return {
        "rows": rows,
        "file_bytes": largest,
        "drop_points": drop,
        "limits": {"file_bytes": LIMIT, "drop_points": DROP},
        "passed": largest <= LIMIT and drop <= DROP,
    }


def controller(folder: Path, data: Fashion, seeds: int, epochs: int) -> dict[str, Any]:
    """Files at most as long as was asked for, and hardly shorter."""
    rows = [run(folder, data, size, epochs, seed) for size in SIZES for seed in range(seeds)]
    shares = [row["file_bytes"] / (1000 * int(row["size"].split()[0])) for row in rows]
    low, high = min(shares), max(shares)
    passed = low >= LOOSE and high <= 1
    return {"rows": rows, "least_share": round(low, 4), "greatest_share": round(high, 4), "passed": passed}


def main() -> None:
    """Measure and write; parts that are not measured stay as they are in the file."""
    parser = arguments(__doc__, "paying.json")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60, help="of lenet300")
    parser.add_argument("--short", type=int, default=10, help="epochs of the controller")
    args = parser.parse_args()
    found = measured(args.out)
    data = load_data()
    for part in args.only:
        if part == "lenet300":
            found[part] = lenet300(args.baselines, data, args.seeds, args.epochs)
        else:
            found[part] = controller(args.baselines, data, args.seeds, args.short)
        write_json(args.out, found)


if __name__ == "__main__":
    main()
