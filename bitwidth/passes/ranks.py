"""Ranks: how many units stand between two factors: a number, a share, what an error allows, or what a budget leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis.cost import Cost
from bitwidth.context import check_count
from bitwidth.errors import ConfigError, Refused
from bitwidth.fitting.factors import LowRank
from bitwidth.passes.forms import Candidate, Form, taken
from bitwidth.passes.shares import check_one, check_share

_HALVINGS = 60
Table: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], list["Choice"]]
_LEAST_PRICE, _GREATEST_PRICE = 1e-12, 1e6  # of a budget as a whole, in squared relative errors


@final
@dataclass(frozen=True, eq=False)
class Option:
    """A candidate with its factors at every rank.

    Attributes:
        candidate: the candidate.
        ways: the factors of each of its forms.
        weight: what an error as great as its output costs, beside those of others; None where that is not known.
    """

    candidate: Candidate
    ways: tuple[LowRank, ...]
    weight: float | None = None


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """What becomes of a candidate.

    Attributes:
        candidate: the candidate.
        form: how it is factored.
        way: its factors at every rank.
        rank: the rank.
    """

    candidate: Candidate
    form: Form
    way: LowRank
    rank: int

    @property
    def error(self) -> float:
        """The norm of the error of the output over that of the output."""
        return float(self.way.errors[self.rank - 1])


@dataclass(frozen=True)
class Rank:
    """How great ranks are; exactly one is given.

    Attributes:
        keep: share of the full rank, in (0, 1]: `max(1, floor(keep * full))`.
        rank: the rank itself.
        error: the most that the error of a layer's output may be, as a share of the output, both as norms.
        macs: share of the model's multiply-accumulates that is left.
        parameters: share of its parameters that is left.
    """

    keep: float | None = None
    rank: int | None = None
    error: float | None = None
    macs: float | None = None
    parameters: float | None = None

    def check(self, owner: str) -> None:
        """Raise ConfigError unless exactly one is given, and in its range."""
        names = ("keep", "rank", "error", "macs", "parameters")
        check_one({name: getattr(self, name) for name in names}, owner)
        for name in names:
            if name != "rank":
                check_share(getattr(self, name), owner, name, "rank" if name == "keep" else "")
        if self.rank is not None:
            check_count(self.rank, owner, "rank")

    @property
    def is_budget(self) -> bool:
        """Whether it is for all layers together."""
        return self.macs is not None or self.parameters is not None

    def of(self, candidate: Candidate) -> int:
        """The rank of a candidate's usual form, where `keep` or `rank` says it.

        Raises:
            Refused: it would not save anything.
        """
        form = candidate.forms[0]
        rank = self.rank or max(1, floor((self.keep or 0) * form.full + 1e-9))
        if rank >= form.full:
            raise Refused(f"its full rank is {form.full}, and {rank} were to stay")
        if not candidate.saves(form, rank):
            raise Refused(f"it would save nothing: {taken(candidate, form, rank)}")
        return rank

    def choices(self, options: Sequence[Option], cost: Cost, owner: str) -> Iterator[Choice | str]:
        """For each candidate what becomes of it, or why it is left alone."""
        if self.is_budget:
            yield from self._within(options, cost, owner)
            return
        for option in options:
            try:
                yield self._bounded(option, self.error) if self.error is not None else self._fixed(option)
            except Refused as refusal:
                yield refusal.reason

    def check_room(self, candidates: Sequence[Candidate], cost: Cost, owner: str) -> float:
        """What the candidates may cost together under a budget.

        Raises:
            ConfigError: with each at rank 1 they still cost more.
        """
        share = self.parameters if self.macs is None else self.macs
        full = cost.parameters if self.macs is None else cost.macs
        here = [self._of(candidate.parameters, candidate.macs) for candidate in candidates]
        least = [
            min([self._of(*form.costs(1)) for form in candidate.forms if candidate.most(form)])
            for candidate in candidates
        ]
        room = full * (share or 1.0) - (full - sum(here))
        if sum(least) > room:
            left = (full - sum(here) + sum(least)) / max(full, 1)
            raise ConfigError(
                f"{owner}: {share:g} of the model was to stay, and {left:.3g} of it stays with all ranks at 1"
            )
        return room

    def _of(self, parameters: int, macs: int) -> int:
        return parameters if self.macs is None else macs

    def _fixed(self, option: Option) -> Choice:
        """The usual form at its rank, or another one that costs no more and errs less."""
        candidate = option.candidate
        rank = self.of(candidate)
        limits = candidate.forms[0].costs(rank)
        found = Choice(candidate, candidate.forms[0], option.ways[0], rank)
        for form, way in zip(candidate.forms[1:], option.ways[1:], strict=True):
            ones = form.costs(1)
            other = min(candidate.most(form), *(limit // one for limit, one in zip(limits, ones, strict=True)))
            if other and way.errors[other - 1] < found.error:
                found = Choice(candidate, form, way, other)
        return found

    def _bounded(self, option: Option, error: float) -> Choice:
        """The cheapest form at the least rank that keeps the error within a bound."""
        candidate = option.candidate
        found: list[Choice] = []
        needed: list[str] = []
        for form, way in zip(candidate.forms, option.ways, strict=True):
            enough = np.flatnonzero(way.errors <= error)
            rank = int(enough[0]) + 1 if len(enough) else form.full
            if len(enough) and candidate.saves(form, rank):
                found.append(Choice(candidate, form, way, rank))
            needed.append(f"an error of {error:g} needs it, and {taken(candidate, form, rank)}")
        if not found:
            raise Refused(f"it would save nothing: {needed[0]}")
        return min(found, key=lambda choice: choice.form.costs(choice.rank)[1])

    def _within(self, options: Sequence[Option], cost: Cost, owner: str) -> Iterator[Choice | str]:
        """Ranks under a budget: for one price of it each candidate takes what errs and costs least together."""
        room = self.check_room([option.candidate for option in options], cost, owner)
        known = [option.weight for option in options if option.weight is not None]
        rest = float(np.median(known)) if known else 1.0
        tables = [self._table(option, rest if option.weight is None else option.weight) for option in options]
        scale = max(room, 1.0)

        def taken_at(price: float) -> list[int]:
            return [int(np.argmin(losses + price / scale * costs)) for costs, losses, _ in tables]

        def total(picks: Sequence[int]) -> float:
            return sum(float(costs[pick]) for (costs, _, _), pick in zip(tables, picks, strict=True))

        low, high = _LEAST_PRICE, _GREATEST_PRICE * scale
        picks = taken_at(0.0)
        if total(picks) > room:
            for _ in range(_HALVINGS):
                middle = float(np.sqrt(low * high))
                low, high = (low, middle) if total(taken_at(middle)) <= room else (middle, high)
            picks = _filled(tables, taken_at(high), room)
        for (_, _, choices), pick in zip(tables, picks, strict=True):
            yield choices[pick - 1] if pick else "it stays whole: the budget is kept at less error elsewhere"

    def _table(self, option: Option, weight: float) -> Table:
        """What a candidate costs, and the weighed squared error: whole, and at each rank of each form that saves."""
        candidate = option.candidate
        costs, losses = [self._of(candidate.parameters, candidate.macs)], [0.0]
        choices: list[Choice] = []
        for form, way in zip(candidate.forms, option.ways, strict=True):
            for rank in range(1, min(candidate.most(form), len(way.errors)) + 1):
                choices.append(Choice(candidate, form, way, rank))
                costs.append(self._of(*form.costs(rank)))
                losses.append(weight * float(way.errors[rank - 1]) ** 2)
        return np.array(costs, np.float64), np.array(losses), choices


def _filled(tables: Sequence[Table], picks: list[int], room: float) -> list[int]:
    """Spend what is left of a budget: one candidate after another errs less, the one that gains most first."""
    picks = list(picks)
    while True:
        left = room - sum(float(costs[pick]) for (costs, _, _), pick in zip(tables, picks, strict=True))
        best, gain = (-1, -1), 0.0
        for place, (costs, losses, _) in enumerate(tables):
            fits = np.flatnonzero(costs <= costs[picks[place]] + left)
            pick = int(fits[np.argmin(losses[fits])])
            if losses[picks[place]] - losses[pick] > gain:
                best, gain = (place, pick), float(losses[picks[place]] - losses[pick])
        if best[0] < 0:
            return picks
        picks[best[0]] = best[1]
