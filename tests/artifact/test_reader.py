from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwidth.artifact import Content, StoredParameter, inspect, pack, read_content, write_file
from bitwidth.errors import CorruptFileError, FileError
from bitwidth.tensors import Dense
from tests.golden.make import content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.bw"
    write_file(file, pack(content()).data)
    return file


def test_round_trip_of_everything(path: Path) -> None:
    found, expected = read_content(path), content()
    for field in ("name", "framework", "architecture", "reason", "inputs", "variables"):
        assert getattr(found, field) == getattr(expected, field)
    assert list(found.assets.items()) == list(expected.assets.items())
    assert len(found.parameters) == len(expected.parameters)
    for back, given in zip(found.parameters, expected.parameters, strict=True):
        assert (back.path, back.role, back.dtype) == (given.path, given.role, given.dtype)
        assert back.trainable is given.trainable
        assert back.values.dtype == given.values.dtype
        assert back.values.shape == given.values.shape
        assert back.values.tobytes() == given.values.tobytes()
        assert type(back.encoding) is type(given.encoding)
        assert back.encoding.describe() == given.encoding.describe()


def test_what_was_read_gives_the_same_file(path: Path) -> None:
    assert pack(read_content(path)).data == path.read_bytes()


def test_a_model_without_an_architecture_and_without_parameters(tmp_path: Path) -> None:
    empty = Content("ø" * 50, "keras", None, "no get_config", None, [], ())
    write_file(tmp_path / "m.bw", pack(empty).data)
    assert read_content(tmp_path / "m.bw") == replace(empty, assets={})
    found = inspect(tmp_path / "m.bw")
    assert (found.has_architecture, found.reason, found.parameters) == (False, "no get_config", ())
    assert "no architecture: no get_config" in str(found)


def test_numbers_in_an_architecture_keep_their_value(tmp_path: Path) -> None:
    config = {"a": [1e-7, 0.1, float("inf"), float("-inf"), 2**60, True, None, "ü\n"], "b": {}}
    write_file(tmp_path / "m.bw", pack(replace(content(), architecture=config)).data)
    assert read_content(tmp_path / "m.bw").architecture == config


def test_large_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    stored = StoredParameter("a", "kernel", "float32", True, Dense(), values)
    write_file(tmp_path / "m.bw", pack(Content("m", "keras", None, "", None, [], (stored,))).data)
    assert read_content(tmp_path / "m.bw").parameters[0].values.tobytes() == values.tobytes()


def test_inspect_says_what_is_inside(path: Path) -> None:
    found = inspect(path)
    assert found.bytes == path.stat().st_size
    assert found.path == str(path)
    sizes = pack(content()).parameter_bytes
    assert {entry.path: entry.bytes for entry in found.parameters} == sizes
    assert sum(sizes.values()) + found.header_bytes + sum(4 + size for size in found.assets.values()) == found.bytes
    entries = {entry.path: entry for entry in found.parameters}
    assert (entries["masked/four_bits"].count, entries["masked/four_bits"].kept) == (15, 11)
    assert (entries["shape/scalar"].count, entries["shape/empty"].count) == (1, 0)
    assert [entry.trainable for entry in found.parameters] == [p.trainable for p in content().parameters]


def test_inspect_prints_a_table(path: Path) -> None:
    lines = str(inspect(path)).splitlines()
    assert lines[0].startswith(f"{path}: 'golden ÿ', ")
    assert lines[1].split() == ["parameter", "shape", "role", "held", "as", "bytes", "bits/value"]
    assert len(lines) == 3 + len(content().parameters) + 2
    row = next(line for line in lines if line.startswith("masked/asymmetric"))
    assert "26.7% zero, 4-bit" in row
    assert "asset words.txt: 13 bytes" in lines


class Spy(io.FileIO):
    """Remembers how far it was read."""

    furthest = 0

    def read(self, size: int | None = -1, /) -> Any:
        data = super().read(size)
        Spy.furthest = max(Spy.furthest, self.tell())
        return data


def test_inspect_reads_the_header_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(file: Path, mode: str = "r") -> Spy:
        assert mode == "rb"
        return Spy(str(file))

    Spy.furthest = 0
    monkeypatch.setattr(Path, "open", opened)
    found = inspect(path)
    assert Spy.furthest == found.header_bytes
    read_content(path)
    assert Spy.furthest == found.bytes


def test_inspect_does_not_look_at_values(path: Path) -> None:
    found = inspect(path)
    data = bytearray(path.read_bytes())
    data[found.header_bytes :] = bytes(len(data) - found.header_bytes)
    path.write_bytes(bytes(data))
    assert inspect(path).parameters == found.parameters
    with pytest.raises(CorruptFileError, match="altered"):
        read_content(path)


def test_an_error_names_the_file_and_the_parameter(path: Path) -> None:
    found = inspect(path)
    data = bytearray(path.read_bytes())
    data[found.header_bytes + found.parameters[0].bytes + 5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError) as caught:
        read_content(path)
    assert str(path) in str(caught.value)
    assert found.parameters[1].path in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (inspect, read_content):
        with pytest.raises(FileError, match=r"none\.bw: cannot be opened: No such file"):
            read(tmp_path / "none.bw")
        with pytest.raises(FileError, match="cannot be opened: Is a directory"):
            read(tmp_path)


def test_a_file_is_closed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handles: list[Any] = []
    real = Path.open

    def opened(file: Path, mode: str = "r") -> Any:
        handles.append(real(file, mode))
        return handles[-1]

    monkeypatch.setattr(Path, "open", opened)
    inspect(path)
    path.write_bytes(path.read_bytes()[:-1])
    handles.clear()
    with pytest.raises(CorruptFileError):
        read_content(path)
    assert handles
    assert all(handle.closed for handle in handles)
