"""What `import bitwidth` costs on top of `import numpy`, in fresh interpreters.

Run: python -m benchmarks.imports [--out benchmarks/results/imports.json]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.fashion import RESULTS, ROOT, median, write_json

RUNS = 7
LIMIT = 0.3  # seconds more than numpy
TIMED = "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
LOADED = "import sys, bitwidth; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"


def fresh(code: str) -> str:
    """What `code` prints in a new interpreter that finds the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "imports.json")
    out: Path = parser.parse_args().out
    seconds: dict[str, list[float]] = {"numpy": [], "bitwidth": []}
    for _ in range(RUNS + 1):  # the first round fills the disk cache, and does not count
        for module, times in seconds.items():
            times.append(float(fresh(TIMED.format(module=module))))
    medians = {module: round(median(times[1:]), 4) for module, times in seconds.items()}
    more = round(medians["bitwidth"] - medians["numpy"], 4)
    loaded = fresh(LOADED)
    print(f"numpy {medians['numpy']} s, bitwidth {medians['bitwidth']} s, {more} s more; frameworks loaded: {loaded}")
    write_json(
        out,
        {
            "runs": RUNS,
            "median_seconds": medians,
            "seconds": {module: [round(time, 4) for time in times[1:]] for module, times in seconds.items()},
            "bitwidth_more_seconds": more,
            "limit_seconds": LIMIT,
            "frameworks_loaded": loaded,
            "passed": more <= LIMIT and loaded == "[]",
        },
    )


if __name__ == "__main__":
    main()
