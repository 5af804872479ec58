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


def test_the_wide_kernel_is_in_layers_and_the_small_one_is_not(path: Path) -> None:
    coded = {entry.path: entry.coded for entry in bw.inspect(path).parameters}
    assert coded == {"wide/kernel": "4 bits + rest", "wide/bias": "whole", "out/kernel": "whole", "out/bias": "whole"}
    assert "4 bits + rest" in str(bw.inspect(path))


@pytest.mark.parametrize("bits", range(2, 17))
def test_the_weights_are_on_grids_of_so_many_bits_near_their_own(path: Path, bits: int) -> None:
    whole, model = read_content(path), bw.load(path, bits=bits)
    short = read_content(path, bits)
    for parameter, other, variable in zip(whole.parameters, short.parameters, model.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.numpy()), other.values)
        if parameter.role != "kernel" or bits >= 8:
            assert other.values.tobytes() == parameter.values.tobytes()
            continue
        assert other.encoding.bits == bits
        assert other.encoding.mask is not None
        np.testing.assert_array_equal(other.encoding.mask, parameter.encoding.mask)
        assert not other.values[~other.encoding.mask].any()
        np.testing.assert_array_equal(other.encoding.project(other.values), other.values)
        error = np.square(other.values - parameter.values).sum() / np.square(parameter.values).sum()
        assert error < {2: 0.3, 3: 0.08}.get(bits, 0.32 / 4 ** (bits - 2))


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
    assert (Counter.count < inside.bytes) == (bits <= 4)
    kernel = next(entry for entry in inside.parameters if entry.path == "wide/kernel")
    assert inside.bytes - inside.prefix_bytes(bits) == kernel.bytes - kernel.prefix_bytes(bits)


def test_damage_in_the_unread_part_does_not_matter_and_in_the_read_part_does(path: Path) -> None:
    inside, data = bw.inspect(path), path.read_bytes()
    kernel = inside.parameters[0]
    assert kernel.path == "wide/kernel"
    expected = bw.load(path, bits=4).get_weights()
    start = inside.header_bytes
    read, end = inside.prefix_bytes(4), len(data)
    assert end - read == kernel.pieces[1].bytes
    damaged = bytearray(data)
    damaged[read:end] = bytes(byte ^ 0xA5 for byte in data[read:end])
    path.write_bytes(damaged)
    for found, weight in zip(bw.load(path, bits=4).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, weight)
    with pytest.raises(CorruptFileError, match=r"wide/kernel.* was altered"):
        bw.load(path)
    for place in (start, start + 4, (start + read) // 2, read - 1):
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
    twice = bw.PassManager([]).run(bw.load(tmp_path / "again.bw", bits=3)).graph["wide/kernel"]
    assert twice.encoding.bits == 3
    with pytest.raises(bw.errors.BitwidthError, match="4-bit"):
        bw.PassManager([bw.Quantize(bits=6)]).run(model)


@pytest.mark.parametrize("bits", [1, 0, -4, 17, 4.0, "4", True])
def test_bad_numbers_of_bits_are_refused(path: Path, bits: Any) -> None:
    with pytest.raises(ConfigError, match="integer of 2 to 16"):
        bw.load(path, bits=bits)


def test_inspect_says_what_a_prefix_reads(path: Path) -> None:
    inside = bw.inspect(path)
    line = next(line for line in str(inside).splitlines() if line.startswith("bytes that load reads"))
    for words in ("bits=2 ", "bits=4 ", f"bits=8 {inside.bytes:,}", f"all {inside.bytes:,}"):
        assert words in line
    assert inside.prefix_bytes(2) == inside.prefix_bytes(4) < inside.prefix_bytes(8) == inside.bytes
