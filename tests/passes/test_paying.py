"""Prices and sizes: what is refused, and how the controller finds a price."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import bitwidth as bw
from bitwidth.backend import Coded, Progress
from bitwidth.errors import ConfigError
from bitwidth.passes.filesize import bytes_of
from bitwidth.passes.paying import Controller, ramped
from bitwidth.report import FileSize


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 1), (12_000, 12_000), ("12 kB", 12_000), ("12kB", 12_000), ("1.5 KiB", 1536), ("2 MB", 2_000_000)],
)
def test_sizes(size: Any, expected: int) -> None:
    assert bytes_of(size, "Distill") == expected


@pytest.mark.parametrize(
    "size", [0, -3, 1.5, True, "", "12", "12 kb", "kB", "-1 kB", "1e3 kB", "0 kB", [12], None, b"1 B"]
)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(ConfigError, match="number of bytes"):
        bytes_of(size, "Distill")


@pytest.mark.parametrize("kind", [bw.Finetune, bw.Distill])
def test_price_and_size_are_not_both_given(kind: Any) -> None:
    with pytest.raises(ConfigError, match="not both"):
        kind(price=1e-6, size="12 kB")
    with pytest.raises(ConfigError, match="at least 0"):
        kind(price=-1e-6)


def test_codes_of_prefixes_have_no_price() -> None:
    with pytest.raises(ConfigError, match="prefix"):
        bw.Nested(bw.Quantize(8), widths=(8, 4), during=bw.Distill(price=1e-6))


def test_a_price_rises() -> None:
    price = ramped(2.0)
    nothing: Any = None
    assert [price(Progress(step, 100), nothing) for step in (0, 15, 30, 60, 100)] == [0.0, 1.0, 2.0, 2.0, 2.0]


class Plant:
    """A model whose codes take `bits_at_one * price^-0.4` bits in the end, reached with a delay."""

    def __init__(self, bits_at_one: float, start: float, share: float) -> None:
        self.bits, self._at_one, self._share = start, bits_at_one, share
        self.masters = self

    def settle(self, price: float) -> None:
        target = min(self._at_one * price**-0.4, 1e6) if price else 1e6
        self.bits += 0.05 * (min(target, 1e6) - self.bits)

    def of(self, graph: Any) -> FileSize:
        codes = int(self._share * self.bits / 8)
        return FileSize(3000 + codes, {"kernel": codes})


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("size", [8_000, 20_000, 40_000])
def test_the_controller_ends_at_the_size(size: int, scale: float) -> None:
    """Whatever the unit of the loss: a factor to it moves the price by as much."""
    plant: Any = Plant(500 * scale**0.4, 8e5, 0.85)
    controller = Controller(size, plant, frozenset({"kernel"}), plant.of(None).total)
    for step in range(600):
        coded = Coded({"kernel": plant.bits}, plant)
        plant.settle(controller(Progress(20 * step, 12_000, max(0, 20 * step - 20)), coded))
    assert plant.of(None).total == pytest.approx(1.02 * size, rel=0.03)


def test_below_the_size_the_price_stays_at_zero() -> None:
    plant: Any = SimpleNamespace(of=lambda graph: FileSize(9_000, {"kernel": 6_000}))
    controller = Controller(12_000, plant, frozenset({"kernel"}), 9_000)
    for step in range(50):
        assert controller(Progress(step, 50, max(0, step - 1)), Coded({"kernel": 48_000.0}, plant)) == 0.0
    assert controller.is_free
