"""Files written by earlier versions are read for ever: the format cannot change by accident."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from bitwidth.artifact import inspect, read_content
from tests.golden.make import FILE, content, encodings


def test_the_golden_file_reads_as_what_was_written() -> None:
    found, expected = read_content(FILE), content()
    for field in ("name", "framework", "architecture", "reason", "inputs", "variables"):
        assert getattr(found, field) == getattr(expected, field)
    assert dict(found.assets) == dict(expected.assets)
    assert [p.path for p in found.parameters] == [p.path for p in expected.parameters]


@pytest.mark.parametrize("path", list(encodings()))
def test_a_parameter_of_the_golden_file(path: str) -> None:
    found = next(parameter for parameter in read_content(FILE).parameters if parameter.path == path)
    encoding, values = encodings()[path]
    assert found.values.dtype == values.dtype
    assert found.values.shape == values.shape
    assert found.values.tobytes() == values.tobytes()
    assert found.trainable is not path.startswith("masked")
    assert found.dtype == str(values.dtype)
    assert found.encoding.describe() == encoding.describe()
    probe = (values * 3 + 0.3).astype(values.dtype) if values.dtype.kind == "f" else values
    assert found.encoding.project(probe).tobytes() == encoding.project(probe).tobytes()


def test_the_golden_file_read_by_hand() -> None:
    """The layout as it is documented, without the library."""
    data = FILE.read_bytes()
    magic, version, flags, stored, plain, total, crc = struct.unpack_from("<8sHHIIQI", data)
    assert magic == b"\x89BW\r\n\x1a\n\x00"
    assert (version, flags, total) == (1, 0, len(data))
    assert zlib.crc32(data[:28] + data[32 : 32 + stored]) == crc
    text = zlib.decompress(data[32 : 32 + stored])
    assert len(text) == plain
    header = json.loads(text)
    assert set(header) == {
        *("name", "framework", "architecture", "reason", "inputs", "variables", "parameters", "assets")
    }
    place = 32 + stored
    sizes = [sum(stream[4] for stream in entry["streams"]) for entry in header["parameters"]]
    for size in [*sizes, *(size for _, size in header["assets"])]:
        (crc,) = struct.unpack_from("<I", data, place)
        assert zlib.crc32(data[place + 4 : place + 4 + size]) == crc
        place += 4 + size
    assert place == len(data)
    assert data.endswith(zlib.crc32(b"small\nmodels\n").to_bytes(4, "little") + b"small\nmodels\n" + b"\0" * 4)


def test_the_golden_file_inspects() -> None:
    found = inspect(FILE)
    assert (found.name, found.framework, found.has_architecture) == ("golden ÿ", "keras", True)
    assert found.bytes == FILE.stat().st_size
    assert found.assets == {"words.txt": 13, "nothing": 0}
    kinds = {entry.path: entry.kind for entry in found.parameters}
    assert kinds["plain/four_bits"] == "4-bit"
    assert kinds["masked/four_bits"] == "26.7% zero, 4-bit"
    assert kinds["plain/unbounded"] == "integer steps"
    assert kinds["plain/powers"] == "table"
    assert kinds["masked/bfloat16"] == "26.7% zero, bfloat16"
    assert kinds["dtype/int64"] == "int64"
