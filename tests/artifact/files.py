"""Files taken apart and put together again, with checksums and lengths that fit whatever was changed."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

_PREFIX = struct.Struct("<8sHHIIQ")
MAGIC = b"\x89BW\r\n\x1a\n\x00"


@dataclass
class Parts:
    """A file by the documented layout, without the library.

    Attributes:
        header: its JSON.
        parameters: of each parameter the streams in order; planes after the first one are streams of their own.
        assets: the bytes of each asset.
        version: of the format.
        flags: 0.
        text: the header as stored in place of `header`, where it is no JSON or JSON written differently.
        behind: bytes behind the deflated header, counted as a part of it.
    """

    header: dict[str, Any]
    parameters: list[list[bytes]]
    assets: list[bytes]
    version: int = 2
    flags: int = 0
    text: bytes | None = None
    behind: bytes = b""
    together: list[int] = field(default_factory=list)

    def relength(self) -> None:
        """Make the lengths in the header those of the streams and assets."""
        for entry, streams in zip(self.header["parameters"], self.parameters, strict=True):
            for place, stream in enumerate(entry["streams"]):
                if isinstance(stream[4], list):
                    stream[4] = [len(part) for part in streams[place:]]
                else:
                    stream[4] = len(streams[place])
        for described, data in zip(self.header["assets"], self.assets, strict=True):
            described[1] = len(data)

    def file(self) -> bytes:
        """The whole file, with checksums."""
        text = json.dumps(self.header, separators=(",", ":"), ensure_ascii=False) if self.text is None else ""
        plain = text.encode("utf-8", "surrogatepass") if self.text is None else self.text
        stored = zlib.compress(plain, 1) + self.behind
        chunks = []
        for first, streams in zip(self.together, self.parameters, strict=True):
            chunks += [b"".join(streams[:first]), *streams[first:]]
        chunks += self.assets
        total = 32 + len(stored) + sum(4 + len(chunk) for chunk in chunks)
        prefix = _PREFIX.pack(MAGIC, self.version, self.flags, len(stored), len(plain), total)
        parts = [prefix, struct.pack("<I", zlib.crc32(stored, zlib.crc32(prefix))), stored]
        for chunk in chunks:
            parts += [struct.pack("<I", zlib.crc32(chunk)), chunk]
        return b"".join(parts)


def taken_apart(data: bytes) -> Parts:
    """The parts of an honest file."""
    _, version, flags, stored, _, _ = _PREFIX.unpack_from(data)
    header = json.loads(zlib.decompress(data[32 : 32 + stored]))
    place, parameters, together = 32 + stored, [], []

    def taken(sizes: list[int]) -> list[bytes]:
        nonlocal place
        place += 4
        parts = []
        for size in sizes:
            parts.append(data[place : place + size])
            place += size
        return parts

    for entry in header["parameters"]:
        *side, codes = (stream[4] for stream in entry["streams"])
        first, *later = codes if isinstance(codes, list) else [codes]
        streams = taken([*side, first])
        together.append(len(streams))
        parameters.append([*streams, *(part for size in later for part in taken([size]))])
    assets = [taken([size])[0] for _, size in header["assets"]]
    assert place == len(data)
    return Parts(header, parameters, assets, version, flags, together=together)
