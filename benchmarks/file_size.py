"""Where the bytes of a file go: codes and masks, vectors, and all else.

*Vectors* are parameters with one number a channel (biases, statistics of normalisations) and the scales of grids.
*Overhead* is everything but these and the codes and masks of the others: the preamble, the header, checksums, the
tables and classes of the entropy coder, levels. Tables of vectors count as vectors.

Each file is written, loaded again and evaluated. `keywords` is a keyword-spotting net that is trained here
(`benchmarks.foreign`).

Run: python -m benchmarks.file_size [--baselines DIR] [--out benchmarks/results/file_size.json]
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path
from typing import Any

import bitwidth as bw
from benchmarks.fashion import BASELINES, accuracy, arguments, load_baseline, load_data, write_json
from benchmarks.foreign import keywords, spoken
from bitwidth.artifact.format.layout import PREAMBLE, chunk_size, split_chunk
from bitwidth.artifact.reader import read_header
from bitwidth.artifact.version3.fields import BYTES, FLOATS, LAYERS, MASK
from bitwidth.coder import table_bytes

RECIPES: dict[str, list[bw.Pass]] = {
    "8 bits": [bw.Quantize(bits=8)],
    "4 bits": [bw.Quantize(bits=4)],
    "4 bits, few bits for vectors": [bw.Quantize(bits=4, vectors="auto")],
    "90 % pruned, 4 bits": [bw.Prune(0.9), bw.Quantize(bits=4)],
    "rate 1": [bw.Quantize(rate=1.0)],
}
LIMITS = {10_000: 0.10, 100_000: 0.04}  # bytes of a file, and what of them may be overhead


def limit(size: int) -> float:
    """What share of a file of so many bytes may be overhead: between the two sizes, in proportion."""
    (small, much), (large, little) = LIMITS.items()
    if size <= small:
        return much * small / size
    return max(little, much + (little - much) * (size - small) / (large - small))


def account(path: Path) -> dict[str, int]:
    """Bytes of codes and masks, of vectors, and of all else, by the streams of the file."""
    _, preamble, header = read_header(path)
    found = {"codes": 0, "vectors": 0, "overhead": PREAMBLE + preamble.stored}
    start, first = 0, PREAMBLE + preamble.stored
    data = path.read_bytes()
    for group in header.groups:
        entries = header.entries[start : start + group.count]
        start += group.count
        size = chunk_size(group.lengths)
        streams = split_chunk(data[first : first + size], group.lengths, str(path), "a group")
        first += size
        found["overhead"] += size - sum(group.lengths)
        described = [(stream, entry) for entry in entries for stream in entry.streams]
        if any(stream.coder in ("codes", LAYERS) for stream, _ in described):
            integers = streams.pop(0)
            tables = table_bytes(integers, shapes_of(described))
            found["codes"] += len(integers) - tables
            found["overhead"] += tables
        if any(stream.coder == FLOATS for stream, _ in described):
            found["vectors"] += len(streams.pop(0))
        own = [(stream, entry) for stream, entry in described if stream.coder in (MASK, BYTES)]
        for (stream, entry), data_of in zip(own, streams, strict=True):
            is_code = stream.coder == MASK or (stream.name == "codes" and len(entry.shape) > 1)
            found["codes" if is_code else "vectors"] += len(data_of)
        found["codes"] += sum(group.later)
        found["overhead"] += chunk_size(group.later) - sum(group.later) if group.later else 0
    found["overhead"] += sum(chunk_size([size]) for _, size in header.assets)
    return found


def shapes_of(described: list[Any]) -> list[tuple[tuple[int, ...], bool]]:
    """What the stream of integers holds: shapes, and which of them have a mask."""
    joint = {entry.path for stream, entry in described if stream.coder == "joint"}
    whole = [(stream, entry) for stream, entry in described if stream.coder in ("codes", LAYERS)]
    return [(stream.shape, stream.name == "codes" and entry.path in joint) for stream, entry in whole]


def measure(name: str, recipe: str, model: Any, calibration: Any, test: Any) -> dict[str, Any]:
    """One file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bw"
        bw.PassManager(RECIPES[recipe]).run(model, data=calibration, progress=False).save(path)
        size, parts = path.stat().st_size, account(path)
        found = accuracy(bw.load(path), test)
    if sum(parts.values()) != size:
        raise RuntimeError(f"{name}, {recipe}: {parts} are not the {size} bytes of the file")
    share = parts["overhead"] / size
    return {
        "model": name,
        "recipe": recipe,
        "bytes": size,
        "accuracy": round(found, 4),
        **parts,
        "overhead_share": round(share, 4),
        "limit": round(limit(size), 4),
        "passed": share <= limit(size),
    }


def main() -> None:
    """Measure and write."""
    args = arguments(__doc__, "file_size.json").parse_args()
    data = load_data()
    images = data.train[0][:512]
    models: list[tuple[str, Any, Any, Any]] = [
        (name, load_baseline(args.baselines, name), images, data.test) for name in BASELINES
    ]
    heard = spoken(8_000, 1)
    models.append(("keywords", keywords(heard), heard[0][:512], spoken(4_000, 2)))
    rows = []
    for name, model, calibration, test in models:
        for recipe in RECIPES:
            rows.append(measure(name, recipe, model, calibration, test))
            print(rows[-1])
    write_json(args.out, {"limits": {str(size): share for size, share in LIMITS.items()}, "rows": rows})


if __name__ == "__main__":
    main()
