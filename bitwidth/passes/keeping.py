"""How many units each group keeps: a share, a number, or what a budget leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from bitwidth.context import check_count
from bitwidth.errors import ConfigError, Refused
from bitwidth.graph.labels import Group
from bitwidth.passes.shares import check_one, check_share
from bitwidth.passes.units import Ranking

_HALVINGS = 24
Weigh = Callable[[Mapping[str, int]], float]
"""What a model costs in which groups keep so many units, by name."""


@dataclass(frozen=True)
class Width:
    """How much of each group stays; exactly one of the first four.

    Attributes:
        keep: a share of the units, in (0, 1].
        units: a number of them.
        macs: a share of the multiply-accumulate operations of the model.
        parameters: a share of its parameters.
        multiple_of: numbers of units that are left are multiples of it; at least one multiple stays.
    """

    keep: float | None = None
    units: int | None = None
    macs: float | None = None
    parameters: float | None = None
    multiple_of: int = 1

    @property
    def is_given(self) -> bool:
        """Whether there is one."""
        return any(value is not None for value in (self.keep, self.units, self.macs, self.parameters))

    def check(self, owner: str) -> None:
        """Raise ConfigError unless exactly one width is given, and in its range."""
        widths = {"keep": self.keep, "units": self.units, "macs": self.macs, "parameters": self.parameters}
        check_one(widths, owner)
        check_share(self.keep, owner, "keep", "units")
        check_share(self.macs, owner, "macs")
        check_share(self.parameters, owner, "parameters")
        check_count(self.multiple_of, owner, "multiple_of")
        if self.units is not None:
            check_count(self.units, owner, "units")

    @property
    def is_budget(self) -> bool:
        """Whether it is for all groups together."""
        return self.keep is None and self.units is None

    def of(self, group: Group) -> int:
        """How many units of a group stay; all of them under a budget.

        Raises:
            Refused: it has fewer.

        Example:
            >>> hidden = Group("hidden", 100, ())
            >>> Width(keep=7 / 8).of(hidden), Width(keep=7 / 8, multiple_of=8).of(hidden)
            (87, 80)
        """
        if self.units is not None and self.units > group.size:
            raise Refused(f"it has {group.size} units, and {self.units} were to stay")
        if self.multiple_of > group.size:
            raise Refused(f"it has {group.size} units, fewer than a multiple of {self.multiple_of}")
        if self.is_budget:
            return group.size
        wanted = self.units if self.units is not None else max(1, floor((self.keep or 0) * group.size + 1e-9))
        return max(self.multiple_of, wanted // self.multiple_of * self.multiple_of)

    def within(
        self, groups: Sequence[Group], rankings: Mapping[str, Ranking], weigh: Weigh, budget: float
    ) -> dict[str, int]:
        """How many units of each group stay under a budget.

        Units go in the order of what they cost for what they save: all whose cost for each unit of the budget that
        their group saves with one of its units is below one price, the least that keeps the budget.

        Args:
            groups: the groups.
            rankings: of the units of each.
            weigh: what a model costs.
            budget: what it may cost at most; see `check_room`.
        """
        whole = {group.name: group.size for group in groups}
        full = weigh(whole)
        prices = {}
        for group in groups:
            fewer = max(group.size - self.multiple_of, 1)
            saved = (full - weigh({**whole, group.name: fewer})) / max(group.size - fewer, 1)
            prices[group.name] = np.maximum.accumulate(rankings[group.name].costs) / max(saved, 1e-300)

        def kept(price: float) -> dict[str, int]:
            counts = {}
            for group in groups:
                left = group.size - int(np.searchsorted(prices[group.name], price, side="right"))
                counts[group.name] = min(
                    group.size, max(self.multiple_of, -(-left // self.multiple_of) * self.multiple_of)
                )
            return counts

        low, high = 0.0, max(float(found.max(initial=0)) for found in prices.values()) * 2 + 1e-300
        if full <= budget:
            return whole
        for _ in range(_HALVINGS):
            middle = np.sqrt(low * high) if low else high * 1e-6
            if weigh(kept(float(middle))) <= budget:
                high = float(middle)
            else:
                low = float(middle)
        return kept(high)

    def check_room(self, groups: Sequence[Group], weigh: Weigh, owner: str) -> float:
        """What the model may cost under the budget.

        Raises:
            ConfigError: with one multiple of each group left it still costs more.
        """
        full = weigh({})
        least = weigh({group.name: self.multiple_of for group in groups})
        share = self.parameters if self.macs is None else self.macs
        budget = full * (1.0 if share is None else share)
        if least > budget:
            raise ConfigError(
                f"{owner}: {share:g} of the model were to stay, and {least / full:.3g} of it stay where each group "
                f"keeps {self.multiple_of} of its units"
            )
        return budget
