"""Files written by earlier versions are read for ever: the format cannot change by accident."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from bitwidth.artifact import inspect, read_content
from bitwidth.encodings import prefix
from tests.golden import make_v2, make_v3
from tests.golden.make import FILE, content, encodings


def test_the_golden_file_reads_as_what_was_written() -> None:
    found, expected = read_content(FILE), content()
    assert (found.name, found.architecture) == (expected.name, expected.architecture)
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
    assert kinds["plain/four_bits"] == "4-bit x6"
    assert kinds["masked/four_bits"] == "26.7% zero, 4-bit x6"
    assert kinds["plain/unbounded"] == "integer steps x1"
    assert kinds["plain/powers"] == "3-bit table x3"
    assert kinds["masked/bfloat16"] == "26.7% zero, bfloat16"
    assert kinds["dtype/int64"] == "int64"


# ---- version 2: bit planes


@pytest.mark.parametrize("path", list(make_v2.encodings()))
def test_a_parameter_of_the_second_golden_file(path: str) -> None:
    found = next(parameter for parameter in read_content(make_v2.FILE).parameters if parameter.path == path)
    encoding, values = make_v2.encodings()[path]
    assert found.values.dtype == values.dtype
    assert found.values.tobytes() == values.tobytes()
    assert found.values.shape == values.shape
    assert found.encoding.describe() == encoding.describe()
    probe = (values * 3 + 0.3).astype(values.dtype) if values.dtype.kind == "f" else values
    assert found.encoding.project(probe).tobytes() == encoding.project(probe).tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_a_prefix_of_the_second_golden_file(bits: int) -> None:
    encoding, values = make_v2.encodings()["plain/eight_bits"]
    found = next(p for p in read_content(make_v2.FILE, bits).parameters if p.path == "plain/eight_bits")
    short = prefix(encoding, bits)
    assert found.values.tobytes() == short.project(values).tobytes()
    assert found.encoding.describe() == short.describe()


def test_the_second_golden_file_read_by_hand() -> None:
    """Chunks of streams and of planes, each with its checksum, as documented."""
    data = make_v2.FILE.read_bytes()
    _, version, flags, stored, _, total, _ = struct.unpack_from("<8sHHIIQI", data)
    assert (version, flags, total) == (2, 0, len(data))
    header = json.loads(zlib.decompress(data[32 : 32 + stored]))
    place, planes = 32 + stored, {}
    for entry in header["parameters"]:
        *side, codes = (stream[4] for stream in entry["streams"])
        first, *later = codes if isinstance(codes, list) else [codes]
        planes[entry["path"]] = len(codes) if isinstance(codes, list) else 0
        for size in [sum(side) + first, *later]:
            (crc,) = struct.unpack_from("<I", data, place)
            assert zlib.crc32(data[place + 4 : place + 4 + size]) == crc
            place += 4 + size
    assert place + sum(4 + size for _, size in header["assets"]) == len(data)
    assert planes["plain/eight_bits"] == 7
    assert planes["masked/four_bits"] == planes["plain/prefix"] == 3
    assert planes["plain/powers"] == planes["plain/float16"] == 0


def test_the_first_golden_file_has_prefixes_too() -> None:
    """It has no planes: its codes are read whole and truncated."""
    found = {parameter.path: parameter for parameter in read_content(FILE, 3).parameters}
    for path in ("plain/four_bits", "masked/four_bits", "plain/asymmetric", "masked/asymmetric", "plain/unbounded"):
        assert found[path].encoding.bits == 3
        assert not found[path].values[encodings()[path][1] == 0].any()
        assert found[path].values.tobytes() == found[path].encoding.project(encodings()[path][1]).tobytes()
    for path in ("plain/powers", "plain/float16", "dtype/int32", "plain/biased"):
        assert found[path].values.tobytes() == encodings()[path][1].tobytes()


# ---- version 3: groups and layers


@pytest.mark.parametrize("path", list(make_v3.encodings()))
def test_a_parameter_of_the_third_golden_file(path: str) -> None:
    found = next(parameter for parameter in read_content(make_v3.FILE).parameters if parameter.path == path)
    encoding, values = make_v3.encodings()[path]
    assert found.values.dtype == values.dtype
    assert found.values.tobytes() == values.tobytes()
    assert found.values.shape == values.shape
    assert found.encoding.describe() == encoding.describe()


def test_the_third_golden_file_has_layers() -> None:
    coded = {entry.path: entry.coded for entry in inspect(make_v3.FILE).parameters}
    assert coded["plain/eight_bits"] == coded["masked/eight_bits"] == "4 bits + rest"
    assert coded["plain/four_bits"] == coded["plain/float16"] == "whole"
    four = {parameter.path: parameter.encoding.bits for parameter in read_content(make_v3.FILE, 4).parameters}
    assert four["plain/eight_bits"] == four["masked/eight_bits"] == 4
