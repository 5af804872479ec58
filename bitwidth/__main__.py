"""`python -m bitwidth`: a demo on real data, a look into a .bw file, and what changed from one to another."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import bitwidth as bw
from bitwidth.artifact import write_file
from bitwidth.data import digits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bitwidth", description=__doc__)
    parser.add_argument("--version", action="version", version=f"bitwidth {bw.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("demo", help="train a network on handwritten digits, compress it, load it again")
    show.add_argument("--out", type=Path, default=Path("."), help="folder for the files (default: here)")
    look = commands.add_parser("inspect", help="what is inside a .bw file")
    look.add_argument("file", type=Path)
    compare = commands.add_parser("diff", help="what changed from one .bw file to another")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.command == "demo":
            demo(given.out)
        elif given.command == "diff":
            print(bw.diff(given.old, given.new))
        else:
            print(bw.inspect(given.file))
    except bw.errors.BitwidthError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def pipeline() -> bw.PassManager:
    """The demo's chain: prune while training, quantize to 4 bits, train what is left."""
    recover = bw.Finetune(epochs=10, learning_rate=1e-3, decay="cosine", batch_size=64)
    return bw.PassManager(
        [
            bw.Ramp(bw.Prune(sparsity=0.9, criterion="fisher"), during=recover),
            bw.Quantize(bits=4),
            bw.Finetune(epochs=5, learning_rate=3e-4, decay="cosine", batch_size=64),
        ]
    )


def demo(out: Path) -> None:
    """Train, compress, report, write, load again, evaluate.

    Args:
        out: folder for `digits.keras`, `digits.bw` and `digits-report.json`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from bitwidth.backends.tensorflow.demo import accuracy, train_network

    started = time.perf_counter()
    data = digits()
    print("training a network on the UCI handwritten digits ...", flush=True)
    model = train_network(data.train)
    print("compressing it ...", flush=True)
    result = pipeline().run(model, data=data.train, validation=data.validation)
    print(f"\n{result.report}\n")

    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "digits.keras")
    result.save(out / "digits.bw")
    write_file(out / "digits-report.json", json.dumps(result.report.to_dict(), indent=1).encode())
    loaded = bw.load(out / "digits.bw")

    floats = 4 * sum(parameter.size for parameter in result.graph)
    size = (out / "digits.bw").stat().st_size
    print(f"float weights    {floats:>9,} bytes, test accuracy {accuracy(model, data.test):.3f}")
    print(f"digits.bw        {size:>9,} bytes, test accuracy {accuracy(loaded, data.test):.3f} (loaded again)")
    print(f"{floats / size:.1f} times smaller; {time.perf_counter() - started:.0f} seconds")


if __name__ == "__main__":
    sys.exit(main())
