"""How many units stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bitwidth.errors import ConfigError, Refused
from bitwidth.graph.labels import Group
from bitwidth.passes.keeping import Width
from bitwidth.passes.units import Ranking


@pytest.mark.parametrize(
    ("width", "size", "left"),
    [
        (Width(keep=7 / 8), 100, 87),
        (Width(keep=0.5), 7, 3),
        (Width(keep=0.01), 7, 1),
        (Width(keep=1.0), 7, 7),
        (Width(keep=0.29), 100, 29),  # 28.999... in floating point
        (Width(units=3), 7, 3),
        (Width(units=7), 7, 7),
        (Width(keep=0.5, multiple_of=8), 40, 16),
        (Width(keep=0.1, multiple_of=8), 40, 8),
        (Width(units=15, multiple_of=8), 40, 8),
        (Width(keep=1.0, multiple_of=8), 20, 16),
    ],
)
def test_counts(width: Width, size: int, left: int) -> None:
    assert width.of(Group("g", size, ())) == left


def test_groups_that_are_left_alone() -> None:
    with pytest.raises(Refused, match="it has 7 units, and 8 were to stay"):
        Width(units=8).of(Group("g", 7, ()))
    with pytest.raises(Refused, match="it has 7 units, fewer than a multiple of 8"):
        Width(keep=0.5, multiple_of=8).of(Group("g", 7, ()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of keep, units, macs and parameters, got none"),
        ({"keep": 0.5, "units": 3}, "got keep and units"),
        ({"keep": 2}, "did you mean units=2"),
        ({"keep": 1}, "got the integer 1"),
        ({"keep": 0.0}, "keep must be a float in"),
        ({"keep": 1.5}, "keep must be a float in"),
        ({"keep": float("nan")}, "keep must be a float in"),
        ({"keep": "half"}, "keep must be a float in"),
        ({"keep": True}, "keep must be a float in"),
        ({"macs": 2}, "macs is a share"),
        ({"parameters": -0.5}, "parameters must be"),
        ({"units": 0}, "units must be an integer of at least 1"),
        ({"units": 2.5}, "units must be an integer"),
        ({"keep": 0.5, "multiple_of": 0}, "multiple_of must be an integer"),
    ],
)
def test_bad_widths(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Width(**fields).check("Shrink")


GROUPS = [Group("cheap", 10, ()), Group("dear", 10, ())]
SAVES = {"cheap": 1.0, "dear": 4.0}
RANKINGS = {
    "cheap": Ranking(np.arange(9), np.full(9, 0.1)),
    "dear": Ranking(np.arange(9), np.linspace(0.05, 2.0, 9)),
}


def weigh(counts: Mapping[str, int]) -> float:
    return 10.0 + sum(SAVES[group.name] * counts.get(group.name, group.size) for group in GROUPS)


@pytest.mark.parametrize(("multiple", "share"), [(1, 0.95), (1, 0.8), (1, 0.6), (1, 0.4), (1, 0.3), (3, 0.9), (3, 0.5)])
def test_a_budget_is_kept_and_used(multiple: int, share: float) -> None:
    width = Width(macs=share, multiple_of=multiple)
    budget = width.check_room(GROUPS, weigh, "Shrink")
    counts = width.within(GROUPS, RANKINGS, weigh, budget)
    assert weigh(counts) <= budget == pytest.approx(share * weigh({}))
    assert weigh(counts) >= budget - 10 * multiple  # a price is the same for all units of "cheap"
    assert all(count >= multiple and (count % multiple == 0 or count == 10) for count in counts.values())


def test_what_saves_most_for_its_cost_goes_first() -> None:
    counts = Width(macs=0.9).within(GROUPS, RANKINGS, weigh, 0.9 * weigh({}))
    assert counts["dear"] < 10
    assert counts["cheap"] == 10


def test_a_budget_that_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match=r"Shrink: 0.1 of the model were to stay, and 0.25 of it stay"):
        Width(parameters=0.1).check_room(GROUPS, weigh, "Shrink")


def test_a_budget_that_asks_for_nothing() -> None:
    assert Width(macs=1.0).within(GROUPS, RANKINGS, weigh, weigh({})) == {"cheap": 10, "dear": 10}
