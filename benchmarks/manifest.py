"""SHA-256 of a fixed set of `.bw` files and of their decoded values, bytes and fidelity: no change moves a file unseen.

Nothing is trained. Images for calibration are the first of the training set; the KL divergence from the float model's
softmax is over the first 2,000 held-out images. With the same versions and machine the same library gives the same
bytes; elsewhere the last bit of a float may differ, so compare on one machine.

Run: python -m benchmarks.manifest [--check] [--against FILE] [--models NAME ...] [--baselines DIR] [--out FILE]

`--check` compares with the stored file instead of writing it, lists the rows that changed and fails if there are any.
`--against FILE` writes, and lists what has changed since another manifest.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.defaults import divergence, softmax
from benchmarks.fashion import BASELINES, Fashion, arguments, load_baseline, load_data, write_json
from bitwidth.artifact import read_content

CALIBRATION, MEASURED = 512, 2_000
ROWS: dict[str, tuple[bw.Pass, ...]] = {
    "8 bits": (bw.Quantize(bits=8),),
    "8 bits, max": (bw.Quantize(bits=8, scale="max"),),
    "4 bits": (bw.Quantize(bits=4),),
    "4 bits, codebook": (bw.Quantize(bits=4, rule="codebook"),),
    "4 bits, powers of two": (bw.Quantize(bits=4, rule="power_of_two"),),
    "ternary": (bw.Quantize(rule="ternary"),),
    "50 % pruned": (bw.Prune(0.5),),
    "50 % pruned, local, 4 bits": (bw.Prune(0.5, scope="local"), bw.Quantize(bits=4)),
    "50 % pruned, 4 bits": (bw.Prune(0.5), bw.Quantize(bits=4)),
    "90 % pruned, 8 bits": (bw.Prune(0.9), bw.Quantize(bits=8)),
    "rate 2": (bw.Quantize(rate=2.0),),
    "rate 2, feedback": (bw.Quantize(rate=2.0, rounding="error_feedback"),),
    "4 bits, feedback": (bw.Quantize(bits=4, rounding="error_feedback"),),
    "3 bits, entropy": (bw.Quantize(bits=3, rounding="entropy"),),
    "8 bits, activations": (bw.Quantize(bits=8, activations=8),),
    "50 % pruned by Fisher, 4 bits": (bw.Prune(0.5, criterion="fisher"), bw.Quantize(bits=4)),
}


def measure(name: str, row: str, model: Any, data: Fashion) -> dict[str, Any]:
    """The file of one row."""
    images, labels = data.train
    start = time.perf_counter()
    calibration = images[:CALIBRATION]
    labelled = (calibration, labels[:CALIBRATION])
    result = bw.PassManager(ROWS[row]).run(model, data=labelled if "Fisher" in row else calibration)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bw"
        result.save(path)
        content = path.read_bytes()
        values = hashlib.sha256(b"".join(p.values.tobytes() for p in read_content(path).parameters)).hexdigest()
        held = data.held[0][:MEASURED]
        kl = divergence(softmax(model, held), softmax(bw.load(path), held))
    found = {
        "model": name,
        "row": row,
        "sha256": hashlib.sha256(content).hexdigest(),
        "values_sha256": values,
        "bytes": len(content),
        "kl": float(f"{kl:.4g}"),
    }
    print(f"{name}, {row}: {len(content):,} B, KL {kl:.4g}, {time.perf_counter() - start:.1f} s", flush=True)
    return found


def changes(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Rows whose file is another one, as lines of a table; a row that is not on both sides is said."""
    old, new = ({(row["model"], row["row"]): row for row in rows} for rows in (before, after))
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        left, right = old.get(key), new.get(key)
        if left is None or right is None:
            lines.append(f"| {key[0]} | {key[1]} | {'new' if left is None else 'gone'} | | |")
        elif left["sha256"] != right["sha256"]:
            bytes_, kl = (f"{left[what]:,} -> {right[what]:,}" for what in ("bytes", "kl"))
            values = "the same" if left.get("values_sha256") == right["values_sha256"] else "others"
            lines.append(f"| {key[0]} | {key[1]} | {bytes_} | {kl} | {values} |")
    return lines


def compare(stored: Path, rows: list[dict[str, Any]]) -> bool:
    """Print what has changed since the stored manifest, of the models in `rows`; whether nothing has."""
    models = {row["model"] for row in rows}
    before = [row for row in json.loads(stored.read_text())["rows"] if row["model"] in models]
    lines = changes(before, rows)
    print(f"{len(lines)} of {len(rows)} rows differ from {stored}")
    print("\n".join(["| model | row | bytes | KL | values |", "|---|---|---|---|---|", *lines] if lines else []))
    return not lines


def main() -> None:
    parser = arguments(__doc__, "manifest.json")
    parser.add_argument("--check", action="store_true", help="compare with the stored file, and write nothing")
    parser.add_argument("--against", type=Path, metavar="FILE", help="list what has changed since another manifest")
    parser.add_argument("--models", nargs="+", default=list(BASELINES), choices=BASELINES)
    args = parser.parse_args()
    data, rows = load_data(), []
    for name in args.models:
        model = load_baseline(args.baselines, name)
        rows += [measure(name, row, model, data) for row in ROWS]
    if args.check:
        sys.exit(not compare(args.out, rows))
    others = json.loads(args.out.read_text())["rows"] if args.out.is_file() else []
    write_json(args.out, {"rows": [*(row for row in others if row["model"] not in args.models), *rows]})
    if args.against is not None:
        compare(args.against, rows)


if __name__ == "__main__":
    main()
