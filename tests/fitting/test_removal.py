"""Removal of inputs whose loss the others make up for: against least squares done plainly."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.fitting.removal import Consumer, remove

Reals = NDArray[np.float64]


def consumer(inputs: int, outputs: int, units: Any, seed: int = 0) -> Consumer:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((400, inputs)) @ rng.standard_normal((inputs, inputs))
    return Consumer(np.cov(mixed.T), rng.standard_normal((inputs, outputs)), np.asarray(units, np.intp))


def damped(one: Consumer) -> Reals:
    size = len(one.covariance)
    return np.asarray(one.covariance + np.eye(size) * 0.01 * np.trace(one.covariance) / size)


def loss(one: Consumer, gone: set[int]) -> float:
    """What least squares leaves of the output without some units, as a share of its power."""
    covariance = damped(one)
    kept = [row for row, unit in enumerate(one.units) if unit not in gone]
    best = np.zeros_like(one.matrix)
    best[kept] = np.linalg.solve(covariance[np.ix_(kept, kept)], covariance[kept] @ one.matrix)
    off = one.matrix - best
    return float(np.trace(off.T @ covariance @ off) / np.trace(one.matrix.T @ covariance @ one.matrix))


CASES = {
    "one input a unit": [consumer(8, 3, range(8))],
    "two inputs a unit": [consumer(12, 2, np.arange(12) // 2)],
    "several consumers": [consumer(6, 3, range(6)), consumer(12, 2, np.arange(12) % 6, 1)],
    "inputs that stay": [consumer(9, 2, [0, 1, -1, 2, 3, -1, 4, 5, -1])],
    "units of unlike sizes": [consumer(9, 2, [0, 0, 0, 1, 2, 2, 3, 4, 5])],
}


@pytest.mark.parametrize("name", CASES)
def test_each_removal_costs_what_least_squares_says(name: str) -> None:
    consumers = CASES[name]
    size = max(int(one.units.max()) for one in consumers) + 1
    found = remove(consumers, size, size - 1, swaps=False)
    before = 0.0
    for place, cost in enumerate(found.costs):
        gone = set(found.order[: place + 1])
        after = sum(loss(one, gone) for one in consumers)
        assert after - before == pytest.approx(cost, rel=1e-6, abs=1e-9)
        others = [
            sum(loss(one, {*found.order[:place], unit}) for one in consumers)
            for unit in set(range(size)) - set(found.order[:place])
        ]
        assert after == pytest.approx(min(others), rel=1e-6)
        before = after


@pytest.mark.parametrize("name", CASES)
def test_changing_places_never_costs_more(name: str) -> None:
    consumers = CASES[name]
    size = max(int(one.units.max()) for one in consumers) + 1
    for count in range(1, size):
        plain, swapped = (remove(consumers, size, count, swaps).order for swaps in (False, True))
        assert len(set(swapped)) == count
        costs = [sum(loss(one, set(order)) for one in consumers) for order in (plain, swapped)]
        assert costs[1] <= costs[0] * (1 + 1e-9)


def test_changing_places_gets_near_the_best_of_all() -> None:
    ratios = []
    for seed in range(20):
        consumers = [consumer(8, 2, range(8), seed)]
        found = loss(consumers[0], set(remove(consumers, 8, 4).order))
        best = min(loss(consumers[0], set(gone)) for gone in itertools.combinations(range(8), 4))
        ratios.append(found / best)
    assert np.median(ratios) < 1.05


def test_inputs_that_are_always_zero_go_first() -> None:
    covariance = np.diag([1.0, 0.0, 1.0, 0.0])
    found = remove([Consumer(covariance, np.ones((4, 2)), np.arange(4))], 4, 2)
    assert set(found.order) == {1, 3}


def test_units_that_a_consumer_does_not_read() -> None:
    one = consumer(3, 2, [0, 1, 2])
    other = consumer(2, 2, [3, 4], 1)
    found = remove([one, other], 5, 4, swaps=False)
    assert len(set(found.order)) == 4
