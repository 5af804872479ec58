"""Sizes and speeds of the entropy coders, against the entropy of what they code.

Run: python benchmarks/coder.py [--quick] [--out benchmarks/results/coder.json]
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth import coder

Row = dict[str, Any]


def measure(
    name: str,
    values: NDArray[Any],
    encode: Callable[[], bytes],
    decode: Callable[[bytes], NDArray[Any]],
    entropy_bytes: float,
) -> Row:
    """Encode and decode once or, where that is quick, three times; the best time counts."""
    times: list[tuple[float, float]] = []
    while len(times) < 3 and sum(map(sum, times)) < 2.0:
        start = time.perf_counter()
        data = encode()
        middle = time.perf_counter()
        back = decode(data)
        times.append((middle - start, time.perf_counter() - middle))
    if back.tobytes() != values.astype(back.dtype).tobytes():
        raise RuntimeError(f"{name}: decoded to something else")
    encoding, decoding = (min(column) for column in zip(*times, strict=True))
    return {
        "name": name,
        "count": values.size,
        "bytes": len(data),
        "entropy_bytes": round(entropy_bytes, 1),
        "above_entropy_bytes": round(len(data) - entropy_bytes, 1),
        "above_entropy_percent": round(100 * (len(data) / entropy_bytes - 1), 3) if entropy_bytes else None,
        "encode_millions_per_s": round(values.size / encoding / 1e6, 2),
        "decode_millions_per_s": round(values.size / decoding / 1e6, 2),
    }


def gaussian(rng: np.random.Generator, count: int, bits: int, scale: float) -> NDArray[np.int32]:
    half = 1 << bits - 1
    values = np.rint(rng.standard_normal(count, dtype=np.float32) * np.float32(scale))
    codes: NDArray[np.int32] = values.clip(-half, half - 1).astype(np.int32)
    return codes


def integer_rows(rng: np.random.Generator, quick: bool) -> list[Row]:
    rows = []
    for count in (300, 5000, 1_000_000) if quick else (300, 5000, 1_000_000, 16_000_000):
        cases: list[tuple[str, NDArray[Any], float | None]] = [
            ("4-bit gaussian", gaussian(rng, count, 4, 2.5), None),
            ("8-bit gaussian", gaussian(rng, count, 8, 32.0), None),
        ]
        if count <= 1_000_000:
            laplace = np.rint(rng.laplace(size=count) * 8).astype(np.int32)
            # The differential entropies of the two distributions, for codes wider than any histogram of them.
            wide = count * (math.log2(8000) + 0.5 * math.log2(2 * math.pi * math.e)) / 8
            cases += [("laplacian", laplace, None), ("16-bit gaussian", gaussian(rng, count, 16, 8000.0), wide)]
        for name, codes, known in cases:
            entropy = known if known is not None else coder.entropy_bits(codes) / 8

            def encode(codes: NDArray[Any] = codes) -> bytes:
                return coder.encode_integers(codes)

            def decode(data: bytes, count: int = count) -> NDArray[Any]:
                return coder.decode_integers(data, count)

            rows.append(measure(f"{name}, {count} codes", codes, encode, decode, entropy))
    return rows


def mask_rows(rng: np.random.Generator) -> list[Row]:
    cases = {f"random mask, density {density}": rng.random((1000, 1000)) < density for density in (0.01, 0.1, 0.5)}
    half = rng.random((1000, 1000)) < 0.2
    half[rng.random(1000) < 0.5] = False
    cases["mask, half its rows empty"] = half
    cases["mask, densities of rows and columns"] = rng.random((784, 300)) < rng.random((784, 1)) * rng.random(300) ** 2
    rows = []
    for name, mask in cases.items():

        def encode(mask: NDArray[np.bool_] = mask) -> bytes:
            return coder.encode_mask(mask)

        def decode(data: bytes, shape: tuple[int, ...] = mask.shape) -> NDArray[Any]:
            return coder.decode_mask(data, shape)

        rows.append(measure(name, mask, encode, decode, coder.entropy_bits(mask) / 8))
    return rows


def array_rows(rng: np.random.Generator) -> list[Row]:
    rows = []
    for dtype in (np.float16, np.float32, np.float64):
        for count in (10, 300, 100_000):
            values = (rng.standard_normal(count) * 0.05).astype(dtype)

            def encode(values: NDArray[Any] = values) -> bytes:
                return coder.encode_array(values)

            def decode(data: bytes, values: NDArray[Any] = values) -> NDArray[Any]:
                return coder.decode_array(data, values.dtype, values.shape)

            # Against the raw size: the entropy of a float is not known from its values.
            rows.append(measure(f"{values.dtype}, {count} values (against raw)", values, encode, decode, values.nbytes))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coder.json")
    parser.add_argument("--quick", action="store_true", help="leave out the 16 million codes")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = integer_rows(rng, args.quick) + mask_rows(rng) + array_rows(rng)
    for row in rows:
        print(
            f"{row['name']:44s}{row['bytes']:10d} B  {row['above_entropy_bytes']:+10.1f} B  "
            f"{row['above_entropy_percent']:+8.3f} %  enc {row['encode_millions_per_s']:7.2f} M/s  "
            f"dec {row['decode_millions_per_s']:7.2f} M/s"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    args.out.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
