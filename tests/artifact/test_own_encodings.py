"""Encodings of a user's own in files: behind masks, in a process that does not know them, and in `inspect`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from typing_extensions import override

import bitwidth as bw
from bitwidth.encodings import (
    Dense,
    Encoding,
    EncodingState,
    Escaped,
    Masked,
    Quantized,
    register_encoding,
    uniform_levels,
)
from bitwidth.errors import CorruptFileError, FileError, UnknownEncodingError
from bitwidth.graph import Graph


@register_encoding("tests.halves")
@dataclass(frozen=True, eq=False)
class Halves(Encoding):
    """Multiples of a half."""

    @override
    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.clip(np.rint(values * np.float32(2)), -127, 127).astype(np.int32)

    @override
    def decode(self, codes: NDArray[Any]) -> NDArray[Any]:
        halves: NDArray[np.float32] = codes.astype(np.float32) / np.float32(2)
        return halves

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        """It fits every shape."""

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        return 8 * int(np.prod(shape))

    @override
    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> Encoding:
        return self

    @override
    def broken_by(self, later: Encoding) -> str | None:
        return None if isinstance(later.unmasked, Halves) else "it would not be in halves"

    @override
    def describe(self) -> str:
        return "halves"

    @property
    @override
    def bits(self) -> float:
        return 8

    @override
    def state(self) -> EncodingState:
        return EncodingState(self.kind)

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Encoding:
        return cls()


@dataclass(frozen=True)
class HoldInHalves(bw.Pass, name="tests.hold_in_halves"):
    """Hold kernels in halves."""

    @override
    def apply(self, graph: Graph, context: bw.Context) -> Graph:
        return graph.update(encodings={p.path: Halves() for p in context.select(graph) if p.role == "kernel"})


def network() -> Any:
    keras.utils.set_random_seed(2)
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(2, name="out")])


@pytest.mark.parametrize(
    "before",
    [
        [bw.Prune(0.5)],
        [bw.Prune(0.3, scope="local"), bw.Prune(0.6)],
        [bw.Where(bw.Prune(0.5), ["hidden"])],
        [],
    ],
)
def test_an_own_encoding_behind_prune_is_put_under_the_mask(before: list[bw.Pass], tmp_path: Path) -> None:
    result = bw.PassManager([*before, HoldInHalves()]).run(network())
    result.save(tmp_path / "m.bw")
    model = bw.load(tmp_path / "m.bw")
    kernels = zip(["hidden/kernel", "out/kernel"], (layer.kernel for layer in model.layers), strict=True)
    for path, kernel in kernels:
        encoding, values = result.graph[path].encoding, kernel.numpy()
        assert isinstance(encoding.unmasked, Halves)
        np.testing.assert_array_equal(values * 2, np.rint(values * 2))
        if encoding.mask is not None:
            assert not values[~encoding.mask].any()
    held = result.graph["hidden/kernel"].encoding
    assert (held.mask is not None) == bool(before)


def test_an_encoding_that_does_not_fit_is_named_by_its_parameter() -> None:
    graph = bw.PassManager([bw.Prune(0.5)]).run(network()).graph
    grid = Quantized(uniform_levels(4), np.ones((1, 3), np.float32), (6, 1))
    with pytest.raises(bw.errors.EncodingError, match="hidden/kernel"):
        graph.update(encodings={"hidden/kernel": grid})


def test_a_process_that_does_not_know_the_encoding_says_what_to_import(tmp_path: Path) -> None:
    path = tmp_path / "m.bw"
    bw.PassManager([bw.Prune(0.5), HoldInHalves()]).run(network()).save(path)
    code = (
        "import sys, bitwidth as bw\n"
        "from bitwidth.artifact import read_content\n"
        "print(bw.inspect(sys.argv[1]))\n"
        "try:\n    read_content(sys.argv[1])\n"
        "except bw.errors.UnknownEncodingError as error:\n    print('UNKNOWN', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "tests.halves" in done.stdout.split("UNKNOWN")[0]
    assert "hidden/kernel: held in an encoding 'tests.halves' that is not registered" in done.stdout
    assert "import the package" in done.stdout


def test_it_is_a_file_error_and_no_corrupt_file() -> None:
    assert issubclass(UnknownEncodingError, FileError)
    assert not issubclass(UnknownEncodingError, CorruptFileError)


def test_inspect_names_encodings_as_they_are(tmp_path: Path) -> None:
    plane = np.arange(48).reshape(6, 8) % 16 == 0
    grid = Quantized(uniform_levels(4), np.full((1, 8), 0.25, np.float32), (6, 1))
    escaped = Escaped(plane, np.full(3, 2.5, np.float32), grid)
    held: dict[str, tuple[Encoding, str]] = {
        "halves": (Halves(), "tests.halves"),
        "masked": (Masked(~plane, Halves()), "6.2% zero, tests.halves"),
        "escaped": (escaped, "4-bit x8, 3 as float32"),
        "both": (Masked(np.arange(48).reshape(6, 8) % 2 == 0, escaped), "50.0% zero, 4-bit x8, 3 as float32"),
        "half": (Dense("float16"), "float16"),
        "plain": (Dense(), "float32"),
    }

    @dataclass(frozen=True)
    class Hold(bw.Pass):
        encoding: Encoding

        @override
        def apply(self, graph: Graph, context: bw.Context) -> Graph:
            return graph.update(encodings={"hidden/kernel": self.encoding})

    for name, (encoding, words) in held.items():
        bw.PassManager([Hold(encoding)]).run(network()).save(tmp_path / f"{name}.bw")
        entries = {entry.path: entry.kind for entry in bw.inspect(tmp_path / f"{name}.bw").parameters}
        assert entries["hidden/kernel"] == words
