"""`bw.load(path, bits=...)`: the first bits of a file make a model, and only they are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from bitwidth.artifact import read_content, reader
from bitwidth.encodings import prefix
from bitwidth.errors import ConfigError, CorruptFileError

X = np.random.default_rng(0).normal(size=(16, 128)).astype(np.float32)
Y = np.arange(16) % 4


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(256, activation="relu", name="wide"), keras.layers.Dense(4, name="out")]
    return keras.Sequential([keras.Input((128,)), *layers])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planes") / "m.bw"
    bw.PassManager([bw.Prune(0.3, scope="local"), bw.Quantize(bits=8)]).run(network()).save(path)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "m.bw"
    copy.write_bytes(original.read_bytes())
    return copy


def test_the_wide_kernel_is_in_planes_and_the_small_one_is_not(path: Path) -> None:
    planes = {entry.path: entry.planes for entry in bw.inspect(path).parameters}
    assert planes == {"wide/kernel": 7, "wide/bias": 0, "out/kernel": 0, "out/bias": 0}


@pytest.mark.parametrize("bits", range(2, 17))
def test_the_weights_are_those_of_the_prefix(path: Path, bits: int) -> None:
    whole, model = read_content(path), bw.load(path, bits=bits)
    for parameter, variable in zip(whole.parameters, model.variables, strict=True):
        expected = prefix(parameter.encoding, bits).project(parameter.values)
        np.testing.assert_array_equal(np.asarray(variable.numpy()), expected)
        if parameter.role == "kernel":
            assert parameter.encoding.mask is not None
            assert not expected[~parameter.encoding.mask].any()


class Counter(io.FileIO):
    """Counts the bytes that are read."""

    count = 0

    @override
    def read(self, size: int | None = -1, /) -> Any:
        data = super().read(size)
        Counter.count += len(data or b"")
        return data


@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8, 16])
def test_only_the_prefix_is_read(path: Path, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = bw.inspect(path)
    monkeypatch.setattr(reader, "opened", Counter)
    Counter.count = 0
    read_content(path, bits)
    assert Counter.count == inside.prefix_bytes(bits)
    assert (Counter.count < inside.bytes) == (bits < 8)
    kernel = next(entry for entry in inside.parameters if entry.path == "wide/kernel")
    assert inside.bytes - inside.prefix_bytes(bits) == kernel.bytes - kernel.prefix_bytes(bits)


def test_damage_in_the_unread_part_does_not_matter_and_in_the_read_part_does(path: Path) -> None:
    inside, data = bw.inspect(path), path.read_bytes()
    kernel = inside.parameters[0]
    assert kernel.path == "wide/kernel"
    expected = bw.load(path, bits=4).get_weights()
    start = inside.header_bytes
    read, end = start + kernel.prefix_bytes(4), start + kernel.bytes
    damaged = bytearray(data)
    damaged[read:end] = bytes(byte ^ 0xA5 for byte in data[read:end])
    path.write_bytes(damaged)
    for found, weight in zip(bw.load(path, bits=4).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, weight)
    with pytest.raises(CorruptFileError, match="wide/kernel was altered"):
        bw.load(path)
    for place in (start, start + kernel.lengths[0], read - 1, start + kernel.prefix_bytes(3), end, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError):
            bw.load(path, bits=4)
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptFileError, match="cut off"):
        bw.load(path, bits=2)


def test_a_later_run_keeps_the_prefix_and_saves_a_smaller_file(path: Path, tmp_path: Path) -> None:
    model = bw.load(path, bits=4)
    result = bw.PassManager([bw.Finetune(epochs=1, loss=keras.losses.SparseCategoricalCrossentropy(True))]).run(
        model, data=(X, Y)
    )
    kernel = result.graph["wide/kernel"].encoding
    assert (kernel.bits, kernel.mask is not None) == (4, True)
    values = result.model.layers[0].kernel.numpy()
    np.testing.assert_array_equal(kernel.project(values), values)
    result.save(tmp_path / "again.bw")
    assert (tmp_path / "again.bw").stat().st_size < 0.75 * path.stat().st_size
    again = bw.load(tmp_path / "again.bw")
    np.testing.assert_array_equal(again.layers[0].kernel.numpy(), values)
    twice = bw.load(tmp_path / "again.bw", bits=3)
    np.testing.assert_array_equal(twice.layers[0].kernel.numpy(), prefix(kernel, 3).project(values))
    with pytest.raises(bw.errors.BitwidthError, match="4-bit"):
        bw.PassManager([bw.Quantize(bits=6)]).run(model)


def test_a_prefix_saved_is_the_prefix_of_the_whole(path: Path, tmp_path: Path) -> None:
    """Loaded at 6 bits, saved, and loaded at 3: as loaded at 3 at once."""
    bw.PassManager([]).run(bw.load(path, bits=6)).save(tmp_path / "six.bw")
    at_once = bw.load(path, bits=3).get_weights()
    for found, weight in zip(bw.load(tmp_path / "six.bw", bits=3).get_weights(), at_once, strict=True):
        np.testing.assert_array_equal(found, weight)


@pytest.mark.parametrize("bits", [1, 0, -4, 17, 4.0, "4", True])
def test_bad_numbers_of_bits_are_refused(path: Path, bits: Any) -> None:
    with pytest.raises(ConfigError, match="integer of 2 to 16"):
        bw.load(path, bits=bits)


def test_inspect_says_what_a_prefix_reads(path: Path) -> None:
    inside = bw.inspect(path)
    line = next(line for line in str(inside).splitlines() if line.startswith("bytes that load reads"))
    for words in ("bits=2 ", "bits=4 ", f"bits=8 {inside.bytes:,}", f"all {inside.bytes:,}"):
        assert words in line
    assert inside.prefix_bytes(2) < inside.prefix_bytes(4) < inside.prefix_bytes(8) == inside.bytes
