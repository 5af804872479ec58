"""What the benchmarks share: Fashion-MNIST, the float baselines, evaluation, and JSON results.

The data are those of the Debian package dataset-fashion-mnist. Of the 60,000 training images the last 5,000 are held
out; every choice is made on them, and the test set is read once at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bitwidth as bw
from bitwidth.artifact import Inspection

DATA = Path("/usr/share/datasets/fashion-mnist")
ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
BASELINES = ("lenet300", "lenet5_caffe", "resnet14")
HELD_OUT = 5_000

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Fashion:
    """The three parts of the data, images in 0-1 as (n, 28, 28, 1).

    Attributes:
        train: 55,000 images to train and calibrate with.
        held: 5,000 images on which choices are made.
        test: 10,000 images, for the final figure.
    """

    train: Split
    held: Split
    test: Split


def load_data(folder: Path = DATA) -> Fashion:
    """Read the four files.

    Raises:
        SystemExit: they are not there.
    """
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        sys.exit(f"Fashion-MNIST is not in {folder}: install the Debian package dataset-fashion-mnist")
    images, labels = _part(folder, "train")
    return Fashion(
        train=(images[:-HELD_OUT], labels[:-HELD_OUT]),
        held=(images[-HELD_OUT:], labels[-HELD_OUT:]),
        test=_part(folder, "t10k"),
    )


def load_baseline(folder: Path, name: str) -> Any:
    """The float model of that name; it gives logits.

    Raises:
        SystemExit: it is not there.
    """
    path = folder / f"{name}.keras"
    if not path.is_file():
        sys.exit(f"{path} is missing: give the folder of the float baselines with --baselines DIR")
    import keras

    return keras.models.load_model(path, compile=False)


def accuracy(model: Any, data: Split) -> float:
    """Share of the images whose greatest logit is that of the label."""
    images, labels = data
    logits = model.predict(images, batch_size=500, verbose=0)
    return float((logits.argmax(axis=1) == labels).mean())


def reloaded(result: bw.Result) -> tuple[int, Any, Inspection]:
    """Bytes on disk of the result's file, the model loaded from it, and what `bw.inspect` says of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bw"
        result.save(path)
        return path.stat().st_size, bw.load(path), bw.inspect(path)


def distilled(
    manager: bw.PassManager, model: Any, given: float, data: Fashion, seed: int
) -> tuple[dict[str, Any], bw.Result, Any]:
    """One run without labels: a row of the table, the result, and the model that was loaded from its file.

    Args:
        manager: what is run.
        model: the float model.
        given: its accuracy on the test set.
        data: the images.
        seed: of the run.
    """
    started = time.perf_counter()
    result = manager.run(model, data=data.train[0], seed=seed, progress=False)
    seconds = time.perf_counter() - started
    size, loaded, _ = reloaded(result)
    drop = round(100 * (given - accuracy(loaded, data.test)), 2)
    return {"seed": seed, "file_bytes": size, "drop_points": drop, "seconds": round(seconds, 1)}, result, loaded


def measured(out: Path) -> dict[str, Any]:
    """What a file of results holds already, by part; parts that are not measured again stay so."""
    found: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    found.pop("environment", None)
    return found


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def arguments(description: str | None, out: str) -> argparse.ArgumentParser:
    """A parser with the options that every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--baselines", type=Path, default=ROOT.parent / "shared" / "baselines", metavar="DIR")
    parser.add_argument("--out", type=Path, default=RESULTS / out)
    return parser


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    packages = ("numpy", "tensorflow", "keras")
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "bitwidth": bw.__version__,
        **{name: version(name) for name in packages},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the results, with the environment first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), **content}, indent=1) + "\n")
    print(f"wrote {path}")


def _part(folder: Path, name: str) -> Split:
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz", 8)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], np.uint8)
