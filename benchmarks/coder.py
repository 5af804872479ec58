"""Sizes and speeds of the entropy coders, against the entropy of what they code, and of NNCodec on three networks.

The kernels of the three baselines are quantized at 2.0, 2.0 and 2.4 bits a weight with error feedback from 2,048
images; NNCodec's sizes of the same integers were recorded.

Run: python -m benchmarks.coder [--quick] [--baselines DIR] [--out benchmarks/results/coder.json]
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

NNCODEC = {"lenet300": 65_116, "lenet5_caffe": 107_491, "resnet14": 46_729}
LIMIT = 0.99  # of NNCodec's bytes


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
    for count in (300, 5000, 300_000, 1_000_000) if quick else (300, 5000, 300_000, 1_000_000, 16_000_000):
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
            matrix = codes.reshape(-1, 100)
            rows.append(measure(f"{name}, {count} codes", matrix, *of_codes([matrix]), entropy))
    return rows


def of_codes(tensors: list[NDArray[Any]]) -> tuple[Callable[[], bytes], Callable[[bytes], NDArray[Any]]]:
    """Coding tensors in one stream, and decoding them to one array."""
    shapes = [(codes.shape, False) for codes in tensors]

    def decode(data: bytes) -> NDArray[Any]:
        found = [codes.reshape(-1) for codes, _ in coder.decode_codes(data, shapes)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    return lambda: coder.encode_codes([(codes, None) for codes in tensors]), decode


def layer_rows(rng: np.random.Generator, quick: bool) -> list[Row]:
    """Codes as a base layer and residuals, a step for each column."""
    rows = []
    for count in (300_000, 1_000_000) if quick else (300_000, 1_000_000, 16_000_000):
        codes = gaussian(rng, count, 8, 32.0).reshape(-1, 100)
        step = np.broadcast_to(rng.integers(12, 22, 100).astype(np.int32), codes.shape)
        base = coder.base_of(codes, step)
        whole = coder.entropy_bits(codes) / 8
        encode_base, decode_base = of_codes([base])
        below = whole - len(encode_base())

        def encode(codes: NDArray[Any] = codes, base: NDArray[Any] = base, step: NDArray[Any] = step) -> bytes:
            return coder.encode_residuals(codes, base, step)

        def decode(data: bytes, base: NDArray[Any] = base, step: NDArray[Any] = step) -> NDArray[Any]:
            return coder.decode_residuals(data, base, step)

        base_entropy = sum(coder.entropy_bits(column) for column in base.T) / 8
        rows.append(measure(f"base layer, {count} codes", base, encode_base, decode_base, base_entropy))
        rows.append(measure(f"residuals, {count} codes", codes, encode, decode, below))
    return rows


def float_rows(rng: np.random.Generator) -> list[Row]:
    """Forty vectors of 16-bit floats in one stream, against raw."""
    rows = []
    for size in (8, 64, 512):
        drawn = [rng.standard_normal(size, dtype=np.float32) * np.float32(2.0 ** (i % 5 - 4)) for i in range(40)]
        halves = [values.astype(np.float16).view(np.uint16) for values in drawn]
        brains = [(values.view(np.uint32) >> np.uint32(16)).astype(np.uint16) for values in drawn]
        for name, arrays in (("float16", halves), ("bfloat16", brains)):

            def encode(arrays: list[NDArray[np.uint16]] = arrays) -> bytes:
                return coder.encode_floats(arrays)

            def decode(data: bytes, size: int = size) -> NDArray[Any]:
                return np.concatenate(coder.decode_floats(data, [size] * 40))

            whole = np.concatenate(arrays)
            rows.append(measure(f"{name}, 40 vectors of {size} (against raw)", whole, encode, decode, whole.nbytes))
    return rows


def baseline_rows(folder: Path) -> list[Row]:
    """The kernels of the baselines in one stream each, against NNCodec."""
    import bitwidth as bw
    from benchmarks.fashion import load_baseline, load_data
    from benchmarks.post_training import MANY, RATES, images_of

    data, rows = load_data(), []
    for name, theirs in NNCODEC.items():
        item = bw.Quantize(rate=RATES[name], rounding="error_feedback")
        graph = bw.PassManager([item]).run(load_baseline(folder, name), data=images_of(data, MANY, 0)).graph
        tensors = [np.asarray(p.encoding.encode(graph.values[p.path])) for p in graph if p.role == "kernel"]
        whole = np.concatenate([codes.reshape(-1) for codes in tensors])
        row = measure(f"{name}, rate {RATES[name]}", whole, *of_codes(tensors), coder.entropy_bits(whole) / 8)
        tables = coder.table_bytes(of_codes(tensors)[0](), [(codes.shape, False) for codes in tensors])
        rows.append({**row, "nncodec_bytes": theirs, "of_nncodec": row["bytes"] / theirs, "table_bytes": tables})
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
    parser.add_argument("--baselines", type=Path, help="folder of the three baselines; left out without it")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = integer_rows(rng, args.quick) + mask_rows(rng) + array_rows(rng)
    rows += layer_rows(rng, args.quick) + float_rows(rng)
    baselines = baseline_rows(args.baselines) if args.baselines else []
    for row in rows + baselines:
        print(
            f"{row['name']:44s}{row['bytes']:10d} B  {row['above_entropy_bytes']:+10.1f} B  "
            f"{row['above_entropy_percent']:+8.3f} %  enc {row['encode_millions_per_s']:7.2f} M/s  "
            f"dec {row['decode_millions_per_s']:7.2f} M/s"
            + (f"  {row['of_nncodec']:.4f} of NNCodec" if "of_nncodec" in row else "")
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    args.out.write_text(json.dumps({**machine, "rows": rows, "baselines": baselines}, indent=1) + "\n")
    missed = [row["name"] for row in baselines if row["of_nncodec"] > LIMIT]
    if missed:
        raise SystemExit(f"above {LIMIT} of NNCodec's bytes: {', '.join(missed)}")


if __name__ == "__main__":
    main()
