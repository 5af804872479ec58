"""Small honest files that together hold every encoding, dtype and coder of the library: what a fuzzer starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel, StoredParameter, pack
from bitwidth.artifact.reader import open_bytes
from bitwidth.encodings import (
    Dense,
    Encoding,
    Escaped,
    IntegerLevels,
    LevelRows,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    prefix,
    uniform_levels,
)
from tests.artifact import earlier
from tests.stored import stored_model

Held = Mapping[str, tuple[Encoding, NDArray[Any]]]
GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = ((np.arange(24) * 37 % 101 - 50) / 16).astype(np.float32).reshape(6, 4)
STEPS = np.array([[0.5, 0.25, 0.1, 0.0]], np.float32)
KEEP = np.arange(24).reshape(6, 4) % 3 > 0


def content(name: str, held: Held, **fields: Any) -> StoredModel:
    """A model that does not exist, with a variable for each parameter."""
    parameters = tuple(
        StoredParameter(path, _role(values), str(values.dtype), index % 3 > 0, encoding, values)
        for index, (path, (encoding, values)) in enumerate(held.items())
    )
    variables = [[p.path.rpartition("/")[2], list(p.values.shape), p.dtype] for p in parameters]
    given = {"architecture": {"class_name": "Sequential", "config": {"layers": [1, 2.5, None]}}, "reason": ""}
    return stored_model(
        name, "keras", inputs={"list": []}, variables=variables, parameters=parameters, **given | fields
    )


def _role(values: NDArray[Any]) -> str:
    if values.dtype.kind not in "fV":
        return "state"
    return "kernel" if values.ndim > 1 else "bias"


def on(encoding: Encoding, values: NDArray[Any] = NUMBERS) -> tuple[Encoding, NDArray[Any]]:
    return encoding, encoding.project(values)


def dense() -> Held:
    kinds: dict[str, Encoding] = {
        "as it is": Dense(),
        "a": Dense("float32"),
        "h": Dense("float16"),
        "b": Dense("bfloat16"),
        "six": Dense("e8m6"),
        "three": Dense("e8m3"),
        "one": Dense("e8m1"),
    }
    return {f"dense/{name}": on(held) for name, held in kinds.items()} | {
        "dense/under": on(Masked(KEEP, Dense("float16"))),
        "dense/few under": on(Masked(KEEP, Dense("e8m2"))),
    }


def dtypes() -> Held:
    names: Sequence[str] = ("float16", "float64", "int32", "uint32", "int64", "uint8", "bool")
    held = {f"dtype/{name}": (Dense(), NUMBERS[0].astype(name)) for name in names}
    return held | {
        "dtype/scalar": (Dense(), np.array(-1.5, np.float32)),
        "dtype/empty": (Dense(), np.zeros((0, 3), np.float32)),
    }


def grids() -> Held:
    zero = np.array([[3, 0, 15, 8]], np.int32)
    eight = Quantized(uniform_levels(8), STEPS / np.float32(16), (6, 1))
    kinds: dict[str, Encoding] = {
        "uniform": Quantized(uniform_levels(4), STEPS, (6, 1)),
        "zero": Quantized(IntegerLevels(0, 15), STEPS, (6, 1), zero),
        "bias": Quantized(IntegerLevels(-1, 2), STEPS, (6, 1), bias=STEPS * np.float32(3)),
        "free": Quantized(IntegerLevels(), np.full((2, 1), 0.0625, np.float32), (3, 4)),
        "prefix": prefix(eight, 4),
        "leading": Quantized(PrefixLevels(127, 2), STEPS / np.float32(4), (6, 1)),
        "tensor": Quantized(uniform_levels(3), np.full((1, 1), 0.5, np.float32), (6, 4)),
    }
    return {f"grid/{name}": on(held) for name, held in kinds.items()}


def tables() -> Held:
    powers, book, ternary = TableLevels((-2, -1, 0, 1, 2)), TableLevels((-1.7, 0.1, 0.3, 2.2)), TableLevels((-1, 0, 1))
    rows = LevelRows((ternary, powers))
    kinds: dict[str, Encoding] = {
        "powers": Quantized(powers, STEPS, (6, 1)),
        "codebook": Quantized(book, np.ones((1, 1), np.float32), (6, 4)),
        "binary": Quantized(uniform_levels(1), STEPS, (6, 1)),
        "rows": Quantized(rows, STEPS, (6, 1), row=np.array([[0, 1, 1, 0]], np.int32)),
    }
    return {f"table/{name}": on(held) for name, held in kinds.items()} | {
        "table/masked": on(Masked(KEEP, kinds["rows"]))
    }


def escaped() -> Held:
    grid, plane = Quantized(uniform_levels(3), STEPS, (6, 1)), NUMBERS > 2
    few = Escaped(plane, NUMBERS[plane], grid)
    kinds: dict[str, Encoding] = {
        "grid": few,
        "half": Escaped(plane, NUMBERS[plane], grid, "float16"),
        "dense": Escaped(plane, NUMBERS[plane], Dense("bfloat16")),
        "under": Masked(KEEP, few),
    }
    return {f"escaped/{name}": on(held) for name, held in kinds.items()}


def masks() -> Held:
    """One with dead rows and columns, one almost empty, one almost full, and no axes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 30)).astype(np.float32)
    dead = rng.random(x.shape) < 0.5
    dead[::3], dead[:, ::4] = False, False
    grid = Quantized(uniform_levels(4), np.full((1, 30), 0.5, np.float32), (40, 1))
    sparse = rng.random(x.shape) < 0.02
    blocks = np.repeat(rng.random((10, 30)) < 0.5, 4, axis=0)
    return {
        "mask/blocks": on(Masked(blocks, grid), x),
        "mask/blocks of floats": on(Masked(np.ascontiguousarray(blocks.T)), np.ascontiguousarray(x.T)),
        "mask/dead": on(Masked(dead, grid), x),
        "mask/sparse": on(Masked(sparse, grid), x),
        "mask/full": on(Masked(~sparse), x),
        "mask/scalar": on(Masked(np.array(True)), np.array(2.5, np.float32)),
        "mask/none": on(Masked(np.zeros((3, 2), bool), Dense("float16")), x[:3, :2]),
    }


def wide() -> Held:
    """Codes and bytes that pay for entropy coding, in planes or whole."""
    x = np.random.default_rng(1).normal(size=(50, 40)).astype(np.float32)
    eight = Quantized(uniform_levels(8), np.full((1, 40), 0.03125, np.float32), (50, 1))
    return {
        "wide/eight": on(eight, x),
        "wide/free": on(Quantized(IntegerLevels(), np.full((1, 1), 1e-4, np.float32), (50, 40)), x),
        "wide/half": on(Dense("float16"), x),
    }


def activations() -> dict[str, Any]:
    byte = IntegerLevels(0, 255)
    grid = Quantized(byte, np.asarray(0.5, np.float32), (), np.asarray(9, np.int32))
    return {
        "activations": {"a": (grid, None), "a/b": (Quantized(uniform_levels(8), np.asarray(0.1, np.float32), ()),)},
        "layers": ("a", "a/b", "c"),
    }


@cache
def files() -> tuple[bytes, ...]:
    """Each as its bytes; the golden files too."""
    groups = [dense(), dtypes(), grids(), tables(), escaped(), masks()]
    packed = [pack(content(f"m{index}", held), layers=False).data for index, held in enumerate(groups)]
    packed += [pack(content("in layers", held), layers=True).data for held in (grids(), masks(), escaped(), wide())]
    packed.append(pack(content("whole", wide()), layers=False).data)
    state = {"assets": {"0/words": b"a\nb", "12/deep/er": b"", "12/deep/ü": b"\0" * 9}, **activations()}
    mixed = content("all at once", {**dict(list(grids().items())[:2]), **escaped()}, **state)
    packed.append(pack(mixed).data)
    packed.append(pack(content("without", {}, architecture=None, reason="no get_config")).data)
    packed.append(earlier.pack(mixed, planes=True))
    packed += [earlier.pack(content("in planes", held), planes=True) for held in (masks(), wide())]
    return (*packed, *((GOLDEN / name).read_bytes() for name in ("v1.bw", "v2.bw")))


@cache
def before() -> bytes:
    """The base of `update`."""
    return pack(content("old", {**grids(), **masks(), **dense(), **escaped()})).data


@cache
def update() -> bytes:
    """A file that holds what changed since `before`: scales, codes, masks, floats, and some parameters not at all."""
    held = {**grids(), **masks(), **dense(), **escaped()}
    for path, (encoding, values) in list(held.items())[::2]:
        moved = values * np.float32(1.01) + np.float32(0.01) if values.dtype.kind == "f" else values
        held[path] = on(encoding, moved)
    keep = KEEP.copy()
    keep[0, 1] = False
    held["dense/under"] = on(Masked(keep, Dense("float16")))
    with open_bytes(before(), "before") as base:
        return pack(content("new", held), base=base).data
