from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from bitwidth.encodings import LevelRows, TableLevels
from bitwidth.errors import ConfigError, EncodingError
from bitwidth.fitting import BitRule, check_rule, power_levels, rule_bits

RAGGED = [[1, 2, 4, 8, 16, 32, 64], [10, 20, 40, 80, 160, 320], [100, 200]]


def test_a_rule_is_plain_data_whatever_it_was_made_of() -> None:
    rule = BitRule(RAGGED, scale=[1, 2], bias=[0, 0.5])
    assert rule == BitRule(tuple(tuple(reversed(row)) for row in RAGGED), scale=(1.0, 2.0), bias=(0.0, 0.5))
    assert hash(rule) == hash(BitRule(rule.levels, rule.scale, rule.bias))
    assert isinstance(rule.table, LevelRows)
    assert [len(row) for row in rule.levels] == [7, 6, 2]
    assert rule.table.widths.tolist() == [3, 3, 1]
    one = BitRule(range(4))
    assert one.table == TableLevels((0.0, 1.0, 2.0, 3.0))
    assert one.bits == 2


def test_symmetric_is_mirrored_once() -> None:
    rule = BitRule([[1, 2], [5]], symmetric=True)
    assert rule.levels == ((-2.0, -1.0, 0.0, 1.0, 2.0), (-5.0, 0.0, 5.0))
    assert BitRule(rule.levels, symmetric=True) == rule


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"levels": [1]}, "at least"),
        ({"levels": []}, "2 to 65536"),
        ({"levels": 3}, "must be numbers"),
        ({"levels": "12"}, "must be numbers"),
        ({"levels": [1, 1]}, "given twice"),
        ({"levels": [[1, 2], 3]}, "mixture"),
        ({"levels": [1, float("nan")]}, "finite"),
        ({"levels": [1, float("inf")]}, "finite"),
        ({"levels": [1, 1 + 1e-12]}, "differ"),
        ({"levels": [1, "2"]}, "finite numbers"),
        ({"levels": [True, 2]}, "finite numbers"),
        ({"levels": [[1, 2]] * 300}, "1 to 256"),
        ({"levels": [1, 2], "scale": 0}, "scale"),
        ({"levels": [1, 2], "scale": []}, "scale"),
        ({"levels": [1, 2], "scale": "max"}, "scale"),
        ({"levels": [1, 2], "scale": [1, -1]}, "scale"),
        ({"levels": [1, 2], "bias": None}, "bias"),
        ({"levels": [1, 2], "bias": float("inf")}, "bias"),
        ({"levels": [1, 2], "symmetric": 1}, "symmetric"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words if words != "at least" else "2 to 65536"):
        BitRule(**given)


def test_names_of_rules() -> None:
    for name in ("uniform", "power_of_two", "codebook", "ternary", "binary"):
        check_rule(name, "Quantize")
    check_rule(BitRule([1, 2]), "Quantize")
    for bad in ("octal", None, 3, [1, 2]):
        with pytest.raises(ConfigError, match="Quantize: rule must be"):
            check_rule(bad, "Quantize")


@pytest.mark.parametrize("bits", range(1, 17))
def test_powers_of_two(bits: int) -> None:
    levels = power_levels(bits)
    assert levels.bits == min(bits, 6) == rule_bits("power_of_two", bits)
    assert isinstance(levels, TableLevels)
    values = levels.values
    assert values == tuple(-value for value in reversed(values))
    if bits > 1:
        assert len(values) == 2 ** min(bits, 6) - 1
        assert 0.0 in values
        positive = [value for value in values if value > 0]
        assert all(b == 2 * a for a, b in pairwise(positive))
        assert positive[-1] == min(2.0 ** (len(positive) - 1), 64)


@pytest.mark.parametrize("bits", [0, 17])
def test_powers_of_no_width_are_refused(bits: int) -> None:
    with pytest.raises(EncodingError, match="1 to 16"):
        power_levels(bits)


def test_bits_of_a_rule() -> None:
    assert [rule_bits(rule, 5) for rule in ("uniform", "codebook", "ternary", "binary")] == [5, 5, 2, 1]
    assert rule_bits(BitRule(RAGGED), 8) == 3
