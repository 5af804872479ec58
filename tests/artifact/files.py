"""Files taken apart and put together again, with checksums and lengths that fit whatever was changed."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PREFIX = struct.Struct("<8sHHIIQ")
DICTIONARY = Path(__file__).parents[2] / "bitwidth" / "artifact" / "version3" / "dictionary.txt"
MAGIC = b"\x89BW\r\n\x1a\n\x00"


@dataclass
class Parts:
    """A file of version 1 or 2 by the documented layout, without the library.

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


@dataclass
class Grouped:
    """A file of version 3 by the documented layout.

    Attributes:
        header: its JSON.
        parameters: of each group the streams of its first chunk.
        assets: the bytes of each asset.
        later: of each group its second chunk, or None.
        version: of the format.
        flags: 0.
        text: the header as stored in place of `header`, where it is no JSON or JSON written differently.
        behind: bytes behind the deflated header, counted as a part of it.
    """

    header: dict[str, Any]
    parameters: list[list[bytes]]
    assets: list[bytes]
    later: list[bytes | None]
    version: int = 3
    flags: int = 0
    text: bytes | None = None
    behind: bytes = b""

    def relength(self) -> None:
        """Make the lengths in the header those of the streams and assets."""
        for described, streams, later in zip(self.header["groups"], self.parameters, self.later, strict=True):
            described[1:] = [[len(stream) for stream in streams], *([] if later is None else [len(later)])]
        for described, data in zip(self.header.get("assets", []), self.assets, strict=True):
            described[1] = len(data)

    def file(self) -> bytes:
        """The whole file, with checksums."""
        text = json.dumps(self.header, separators=(",", ":"), ensure_ascii=False) if self.text is None else ""
        plain = text.encode("utf-8", "surrogatepass") if self.text is None else self.text
        deflater = zlib.compressobj(1, zlib.DEFLATED, -15, zdict=DICTIONARY.read_bytes())
        stored = deflater.compress(plain) + deflater.flush() + self.behind
        chunks = [b"".join(streams) for streams in self.parameters] + self.assets
        chunks += [later for later in self.later if later is not None]
        total = 32 + len(stored) + sum(4 + len(chunk) for chunk in chunks)
        prefix = _PREFIX.pack(MAGIC, self.version, self.flags, len(stored), len(plain), total)
        parts = [prefix, struct.pack("<I", zlib.crc32(stored, zlib.crc32(prefix))), stored]
        for chunk in chunks:
            parts += [struct.pack("<I", zlib.crc32(chunk)), chunk]
        return b"".join(parts)


def taken_apart(data: bytes) -> Parts | Grouped:
    """The parts of an honest file."""
    return _grouped(data) if _PREFIX.unpack_from(data)[1] > 2 else earlier(data)


def _grouped(data: bytes) -> Grouped:
    _, version, flags, stored, _, _ = _PREFIX.unpack_from(data)
    inflater = zlib.decompressobj(-15, zdict=DICTIONARY.read_bytes())
    header = json.loads(inflater.decompress(data[32 : 32 + stored]))
    place = 32 + stored

    def taken(sizes: list[int]) -> list[bytes]:
        nonlocal place
        place += 4
        parts = []
        for size in sizes:
            parts.append(data[place : place + size])
            place += size
        return parts

    groups = [taken(sizes) for _, sizes, *_ in header["groups"]]
    assets = [taken([size])[0] for _, size in header.get("assets", [])]
    later = [taken(sizes)[0] if sizes else None for _, _, *sizes in header["groups"]]
    assert place == len(data)
    return Grouped(header, groups, assets, later, version, flags)


def earlier(data: bytes) -> Parts:
    """The parts of an honest file of version 1 or 2."""
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
