from __future__ import annotations

import errno
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from bitwidth.__main__ import main
from bitwidth.artifact import (
    StoredModel,
    StoredParameter,
    inspect,
    open_file,
    pack,
    read_content,
    reader,
    write_file,
)
from bitwidth.artifact.format import opening
from bitwidth.encodings import Dense
from bitwidth.errors import ConfigError, CorruptFileError, FileError
from tests.golden import make
from tests.stored import rebuilt, stored_model


def content() -> StoredModel:
    """The parameters of the golden file as those of a model: a variable for each, and assets of its first layer."""
    held = make.content()
    variables = [[p.path.rpartition("/")[2], list(p.values.shape), p.dtype] for p in held.parameters]
    assets = {f"0/{name}": data for name, data in held.architecture.assets.items()}
    return rebuilt(held, variables=variables, assets=assets)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.bw"
    write_file(file, pack(content()).data)
    return file


def test_round_trip_of_everything(path: Path) -> None:
    found, expected = read_content(path), content()
    assert (found.name, found.architecture) == (expected.name, expected.architecture)
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
    empty = stored_model("ø" * 50, "keras", None, "no get_config", None, [], ())
    write_file(tmp_path / "m.bw", pack(empty).data)
    assert read_content(tmp_path / "m.bw") == empty
    found = inspect(tmp_path / "m.bw")
    assert (found.has_architecture, found.reason, found.parameters) == (False, "no get_config", ())
    assert "no architecture: no get_config" in str(found)


def test_numbers_in_an_architecture_keep_their_value(tmp_path: Path) -> None:
    config = {"a": [1e-7, 0.1, float("inf"), float("-inf"), 2**60, True, None, "ü\n"], "b": {}}
    write_file(tmp_path / "m.bw", pack(rebuilt(content(), config=config)).data)
    assert read_content(tmp_path / "m.bw").architecture.config == config


def test_large_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    stored = StoredParameter("a", "kernel", "float32", True, Dense(), values)
    held = stored_model("m", "keras", None, "", None, [["a", [300, 400], "float32"]], (stored,))
    write_file(tmp_path / "m.bw", pack(held).data)
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
    assert lines[1].split() == ["parameter", "shape", "role", "held", "as", "codes", "bytes", "bits/value"]
    assert len(lines) == 3 + len(content().parameters) + 2
    row = next(line for line in lines if line.startswith("masked/asymmetric"))
    assert "26.7% zero, 4-bit" in row
    assert "asset 0/words.txt: 13 bytes" in lines


class Spy(io.FileIO):
    """Remembers how far it was read."""

    furthest = 0

    @override
    def read(self, size: int | None = -1, /) -> Any:
        data = super().read(size)
        Spy.furthest = max(Spy.furthest, self.tell())
        return data


def test_inspect_reads_the_header_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spy.furthest = 0
    monkeypatch.setattr(reader, "opened", Spy)
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
    data[found.header_bytes + 5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError) as caught:
        read_content(path)
    assert str(path) in str(caught.value)
    assert f"{found.parameters[0].path} to {found.parameters[-1].path} was altered" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (inspect, read_content):
        with pytest.raises(FileError, match=r"none\.bw: cannot be opened: No such file"):
            read(tmp_path / "none.bw")
        with pytest.raises(FileError, match="cannot be opened: Is a directory"):
            read(tmp_path)


def test_a_file_is_closed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handles: list[Any] = []
    real = opening.opened

    def opened(file: Path) -> Any:
        handles.append(real(file))
        return handles[-1]

    monkeypatch.setattr(reader, "opened", opened)
    inspect(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFileError):
        read_content(path)
    assert len(handles) == 2
    assert all(handle.closed for handle in handles)


# ---- one parameter at a time


def test_parameters_are_read_one_at_a_time_and_again(path: Path) -> None:
    expected = {parameter.path: parameter.values.tobytes() for parameter in content().parameters}
    with open_file(path) as file:
        assert file.header.name == "golden ÿ"
        assert file.preamble.total == path.stat().st_size
        first, second = file.parameters(), file.parameters()
        for left, right in zip(first, second, strict=True):
            assert left.values.tobytes() == right.values.tobytes() == expected[left.path]
        assert file.architecture().assets == dict(content().architecture.assets)
        assert [parameter.path for parameter in file.parameters()] == list(expected)


def test_a_second_reading_is_of_the_same_file(path: Path) -> None:
    """Another file in its place is another file: the descriptor stays with the first."""
    with open_file(path) as file:
        first = [parameter.values.tobytes() for parameter in file.parameters()]
        write_file(path, b"something else")
        assert [parameter.values.tobytes() for parameter in file.parameters()] == first


def test_one_parameter_is_held_at_a_time(tmp_path: Path) -> None:
    values = np.zeros((1 << 18,), np.float32)
    stored = tuple(StoredParameter(f"p{i}", "kernel", "float32", True, Dense(), values + i) for i in range(40))
    variables = [["kernel", [1 << 18], "float32"]] * 40
    write_file(tmp_path / "m.bw", pack(stored_model("m", "keras", None, "", None, variables, stored)).data)
    tracemalloc.start()
    with open_file(tmp_path / "m.bw") as file:
        assert [int(parameter.values[0]) for parameter in file.parameters()] == list(range(40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * values.nbytes


def test_a_reading_of_a_few_bits_and_one_of_all(path: Path) -> None:
    with open_file(path) as file:
        short = {parameter.path: parameter for parameter in file.parameters(bits=2)}
        whole = {parameter.path: parameter for parameter in file.parameters()}
    assert short["plain/four_bits"].encoding.bits == 2
    assert whole["plain/four_bits"].encoding.bits == 4


# ---- paths


def test_a_path_of_bytes(path: Path) -> None:
    raw = os.fsencode(path)
    assert read_content(raw).name == "golden ÿ"
    assert inspect(raw).path == str(path)


@pytest.mark.parametrize("wrong", [None, 5, ["m.bw"], True])
def test_what_is_no_path_is_told(wrong: Any) -> None:
    for read in (inspect, read_content):
        with pytest.raises(ConfigError, match="a path expected"):
            read(wrong)


@pytest.mark.parametrize("wrong", ["a\0b.bw", b"a\0b.bw", "\udcff\ud800.bw"])
def test_a_path_that_no_file_can_have(wrong: Any) -> None:
    for read in (inspect, read_content):
        with pytest.raises(FileError, match=r"\.bw: "):
            read(wrong)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.bw")
    for read in (inspect, read_content):
        with pytest.raises(FileError, match=r"m\.bw: cannot be opened: not a regular file"):
            read(tmp_path / "m.bw")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_device_is_refused() -> None:
    for read in (inspect, read_content):
        with pytest.raises(FileError, match="not a regular file"):
            read("/dev/zero")


def test_a_failure_to_read_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Spy):
        @override
        def read(self, size: int | None = -1, /) -> Any:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reader, "opened", Broken)
    with pytest.raises(FileError, match=r"model\.bw: cannot be read: Input/output error"):
        read_content(path)


def test_any_other_error_is_a_corrupt_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checks overlook: an error of one kind all the same."""

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("by\x1bzero")

    monkeypatch.setattr(reader, "all_finite", fails)
    with pytest.raises(CorruptFileError, match=r"cannot be understood: ZeroDivisionError: by\\x1bzero"):
        read_content(path)


# ---- names that a terminal would obey

HARMFUL = "\x1b]0;gone\x07\x9b2J\u202eabc\u2066\nline\r\x00"


def test_names_are_shown_escaped(tmp_path: Path) -> None:
    values = np.zeros(2, np.float32)
    stored = StoredParameter(f"p{HARMFUL}", "kernel", "float32", True, Dense(), values)
    named = stored_model(f"m{HARMFUL}", "keras", None, f"why{HARMFUL}", None, [["kernel", [2], "float32"]], (stored,))
    write_file(tmp_path / "m.bw", pack(named).data)
    found = inspect(tmp_path / "m.bw")
    assert found.name == f"m{HARMFUL}"
    lines = str(found).split("\n")
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert "\\x1b]0;gone\\x07\\x9b2J\\u202eabc\\u2066\\nline\\r\\x00" in lines[3]


def test_names_in_errors_are_escaped(tmp_path: Path) -> None:
    values = np.zeros(2, np.float32)
    stored = StoredParameter(f"p{HARMFUL}{'x' * 5000}", "kernel", "float32", True, Dense(), values)
    data = bytearray(pack(stored_model("m", "keras", None, "", None, [["k", [2], "float32"]], (stored,))).data)
    data[-1] ^= 1
    (tmp_path / "m.bw").write_bytes(data)
    with pytest.raises(CorruptFileError) as caught:
        read_content(tmp_path / "m.bw")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_command_line_shows_names_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = stored_model(f"m{HARMFUL}", "keras", None, f"why{HARMFUL}", None, [], ())
    write_file(tmp_path / "m.bw", pack(named).data)
    assert main(["inspect", str(tmp_path / "m.bw")]) == 0
    assert main(["inspect", f"{tmp_path}/{HARMFUL[:-1]}.bw"]) == 1
    assert main(["inspect", f"{tmp_path}/{HARMFUL}.bw"]) == 1
    shown = capsys.readouterr()
    for line in (shown.out + shown.err).split("\n"):
        assert line.isprintable()


def test_an_error_of_the_caller_is_its_own(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_file(path) as file:
        assert next(file.parameters()).values.size / 0
