"""What the header of a file alone tells of an encoding: the same summary as that of the encoding itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from bitwidth.encodings import FEW_MANTISSA_BITS, Dense, EncodingSummary
from bitwidth.encodings.interface import LevelKind
from bitwidth.typing import JsonMapping

_FORMATS = ("float32", "float16", "bfloat16", *FEW_MANTISSA_BITS)


def summary_of(config: JsonMapping, shapes: Mapping[str, tuple[int, ...]], count: int, kept: int) -> EncodingSummary:
    """The summary of an encoding in a file.

    Args:
        config: its configuration, from an untrusted header: parts that make no sense are left out.
        shapes: shapes of the streams, by name.
        count: how many values the parameter has.
        kept: how many of them are stored; the others are masked.

    Returns:
        What `Encoding.summary` of the encoding returns, for encodings of the library; of a user's own the kind.
    """
    kind = str(config["kind"])
    if kind == "masked":
        base = summary_of(_part(config), _inner(shapes), count, kept)
        return replace(base, sparsity=1 - kept / count if count else 0.0)
    if kind == "escaped":
        base = summary_of(_part(config), _inner(shapes), count, kept)
        return replace(base, escapes=prod(shapes.get("values", (0,))), escape_format=_format(config) or "float32")
    if kind == "dense":
        width = config.get("width")
        held = _format(config)
        bits = Dense(held).width if held is not None else width if type(width) is int else None
        return EncodingSummary(kind, bits, format=held)
    return _grid(config, shapes) if kind == "quantized" else EncodingSummary(kind)


def code_bits(config: JsonMapping) -> int | None:
    """Bits of a code of bounded integers, or of what a prefix left of them; None for any other encoding."""
    low, high, dropped = config.get("low"), config.get("high"), config.get("dropped", 0)
    if not isinstance(low, int) or not isinstance(high, int):
        return None
    if isinstance(dropped, int) and 0 < dropped < 64:
        return (2 * (abs(high) >> dropped)).bit_length()
    return (high - low).bit_length()


def _grid(config: JsonMapping, shapes: Mapping[str, tuple[int, ...]]) -> EncodingSummary:
    tables, block = _tables(config.get("rows"), shapes), config.get("block")
    low: Any
    high: Any
    low, high, dropped = (config.get(name) for name in ("low", "high", "dropped"))
    short = dropped if type(dropped) is int else 0
    levels: LevelKind = "prefix" if "dropped" in config else "integers"
    bounded = type(low) is type(high) is int
    even = low == -high if bounded else low is high is None
    bits, count = code_bits(config), None
    if tables:
        levels = "tables" if "rows" in config else "table"
        bits, count = max((max(1, size) - 1).bit_length() for size in tables), sum(tables)
    elif bounded:
        count = 2 * (high >> short) + 1 if 0 < short < 64 else high - low + 1
    sides = {name: name in shapes for name in ("zero_point", "bias")}
    return EncodingSummary(
        kind="quantized",
        bits=bits,
        levels=levels,
        level_count=count,
        tables=len(tables),
        dropped_bits=short,
        symmetric=None if tables else even and not any(sides.values()),
        scale_shape=shapes.get("scale", ()),
        block=tuple(block) if isinstance(block, list) and all(type(size) is int for size in block) else None,
        zero_points=sides["zero_point"],
        biases=sides["bias"],
    )


def _tables(rows: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """How many levels each table has; empty where there is none."""
    if isinstance(rows, list) and rows and all(type(size) is int for size in rows):
        return rows
    return [prod(shapes["levels"])] if "levels" in shapes else []


def _part(config: JsonMapping) -> Mapping[str, Any]:
    part: Mapping[str, Any] = config.get("parts", {}).get("base", {"kind": "dense"})
    return part


def _inner(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the streams of the encoding inside, by their names there."""
    return {name.removeprefix("base."): shape for name, shape in shapes.items() if name.startswith("base.")}


def _format(config: JsonMapping) -> Any:
    found = config.get("format")
    return found if isinstance(found, str) and found in _FORMATS else None
