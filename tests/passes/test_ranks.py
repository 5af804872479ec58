"""Ranks under a budget: within it, with nothing left over that would help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.analysis.cost import Cost, LayerCost
from bitwidth.graph import Parameter
from bitwidth.passes.forms import Candidate, Form
from bitwidth.passes.ranks import Choice, Option, Rank


@dataclass(frozen=True)
class Falling:
    """Errors that fall with the rank."""

    errors: NDArray[np.float64]

    def factors(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        raise AssertionError("ranks are chosen without factors")


def option(inputs: int, outputs: int, rows: int, seed: int) -> Option:
    """A dense layer called at so many positions."""
    rng = np.random.default_rng(seed)
    size, full = inputs * outputs, min(inputs, outputs)
    form = Form(((0,), (1,)), (inputs, outputs), (inputs * rows, outputs * rows), full, "")
    errors = np.sort(rng.random(full))[::-1] * (np.arange(full) < full - 1)
    kernel = Parameter(f"layer{seed}/kernel", (inputs, outputs), "float32", "kernel", f"layer{seed}")
    return Option(Candidate(kernel, size, size * rows, (form,)), (Falling(errors),))


@st.composite
def options(draw: st.DrawFn) -> list[Option]:
    sizes, rows = st.integers(4, 20), st.integers(1, 9)
    count = draw(st.integers(1, 4))
    return [option(draw(sizes), draw(sizes), draw(rows), seed) for seed in range(count)]


@settings(max_examples=60, deadline=None)
@given(options(), st.floats(0.3, 1.0), st.booleans())
def test_budgets(found: list[Option], share: float, by_macs: bool) -> None:
    found = [item for item in found if item.candidate.most(item.candidate.forms[0])]
    layers = [LayerCost(str(i), "", o.candidate.macs, o.candidate.parameters, 0) for i, o in enumerate(found)]
    cost = Cost("net", tuple(layers), 0, "")
    rank = Rank(macs=share) if by_macs else Rank(parameters=share)
    index = 1 if by_macs else 0
    whole = [(o.candidate.parameters, o.candidate.macs)[index] for o in found]
    least = [o.candidate.forms[0].costs(1)[index] for o in found]
    if not found or sum(least) > share * sum(whole):
        return
    choices = list(rank.choices(found, cost, "Factorize"))
    taken = [
        choice.form.costs(choice.rank)[index] if isinstance(choice, Choice) else size
        for choice, size in zip(choices, whole, strict=True)
    ]
    assert sum(taken) <= share * sum(whole) + 1e-6
    for choice, size, one in zip(choices, taken, found, strict=True):
        if not isinstance(choice, Choice):
            continue
        assert one.candidate.saves(choice.form, choice.rank)
        for rank_ in range(choice.rank + 1, one.candidate.most(choice.form) + 1):
            fits = sum(taken) - size + choice.form.costs(rank_)[index] <= share * sum(whole)
            assert not fits or choice.way.errors[rank_ - 1] >= choice.error


def test_layers_that_err_more_keep_more() -> None:
    easy, hard = (
        Option(one.candidate, (Falling(scale * np.linspace(0.9, 0.0, 20)),))
        for one, scale in ((option(20, 20, 1, 0), 0.1), (option(20, 20, 1, 1), 1.0))
    )
    layers = tuple(LayerCost(str(place), "", 400, 400, 0) for place in range(2))
    first, second = Rank(parameters=0.6).choices([easy, hard], Cost("net", layers, 0, ""), "Factorize")
    assert isinstance(first, Choice)
    assert not isinstance(second, Choice) or first.rank < second.rank


def test_layers_whose_errors_cost_more_keep_more() -> None:
    falling = Falling(np.linspace(0.9, 0.0, 20))
    for weights, more in (((1.0, 100.0), 1), ((100.0, 1.0), 0)):
        given = [Option(option(20, 20, 1, place).candidate, (falling,), weight) for place, weight in enumerate(weights)]
        layers = tuple(LayerCost(str(place), "", 400, 400, 0) for place in range(2))
        found = Rank(macs=0.7).choices(given, Cost("net", layers, 0, ""), "Factorize")
        ranks = [choice.rank if isinstance(choice, Choice) else 20 for choice in found]
        assert ranks[more] > ranks[1 - more]
