"""A parameter in the header without what follows from its shape: lengths of blocks, shapes of streams.

In an encoding, a block that is as long as its axis is 0. A stream is [name, coder, dtype, shape]; as its shape stand 0
for that of the parameter, 1 for one value a block, 2 for one value for each that is stored, or a list.
"""

from __future__ import annotations

from typing import Any

from bitwidth.artifact.format.header import Entry, Stream
from bitwidth.artifact.version3.fields import JOINT
from bitwidth.encodings import grid_shape
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Json, JsonDict, JsonMapping

WHOLE, BLOCKS, KEPT = range(3)  # marks in the place of shapes


def kind_of(entry: Entry, last: str) -> list[Any]:
    """What a header says of a parameter and of all others of its kind; `last` is the last part of its path."""
    encoding = with_blocks(entry.encoding, entry.shape, short=True)
    streams = [
        [stream.name, stream.coder, stream.dtype, _marked(stream, place == len(entry.streams) - 1, entry)]
        for place, stream in enumerate(entry.streams)
    ]
    return [last, entry.role, entry.dtype, int(not entry.trainable), encoding, streams]


def _marked(stream: Stream, last: bool, entry: Entry) -> Any:
    if stream.shape == entry.shape:
        return WHOLE
    if stream.shape == blocks_of(entry.encoding, entry.shape):
        return BLOCKS
    return KEPT if last and stream.shape == (entry.kept,) else list(stream.shape)


def has_mask(entry: Entry) -> bool:
    """Whether a header says how many of its values are stored."""
    marked = any(_marked(stream, stream is entry.streams[-1], entry) == KEPT for stream in entry.streams)
    return marked or any(stream.coder == JOINT for stream in entry.streams)


def with_blocks(config: JsonMapping, shape: tuple[int, ...], short: bool) -> JsonDict:
    """A configuration with 0 for each length of a block that is that of its axis (`short`), or the other way round."""
    found = dict(config)
    block = config.get("block")
    if config["kind"] == "quantized" and isinstance(block, list | tuple) and len(block) == len(shape):
        found["block"] = [_block(length, axis, short) for length, axis in zip(block, shape, strict=True)]
    if "parts" in config:
        found["parts"] = {name: with_blocks(part, shape, short) for name, part in config["parts"].items()}
    return found


def _block(length: Json, axis: int, short: bool) -> Json:
    if short:
        return 0 if length == axis else length
    if length == axis and axis:
        raise CorruptFileError("a block that is as long as its axis and does not say so")
    return axis if type(length) is int and length == 0 else length


def blocks_of(config: JsonMapping, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """How many blocks there are along each axis; None where there are none."""
    block = config.get("block")
    if config["kind"] == "quantized" and isinstance(block, list | tuple) and len(block) == len(shape):
        good = all(type(length) is int and length > 0 for length in block)
        return grid_shape(shape, tuple(block)) if good else None
    found = [blocks_of(part, shape) for part in config.get("parts", {}).values()]
    return next((blocks for blocks in found if blocks is not None), None)
