"""Which inputs of linear maps can go, when the weights of those that stay make up for them.

With C the covariance of a map's inputs x and W its matrix, the output without the inputs G, and with the best weights
for the others, is off by `tr(WgT (Mgg)^-1 Wg)` more, where `M = C^-1` and W are those of the inputs that are left
(optimal brain surgeon: Hassibi and Stork 1993, "Second order derivatives for network pruning", section 3; for channels
Meng et al. 2024, "OSSCAR", arXiv 2403.12983). Units are removed one by one, the one that costs least first; then the
best of those removed and the worst of those kept change places as long as that lowers the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
_DAMPING = 0.01  # added to the diagonal of a covariance, as a share of its mean
_SWAPS = 0.5  # of the units that are removed: as many exchanges are tried at most


@final
@dataclass(frozen=True, eq=False)
class Consumer:
    """A linear map that reads units.

    Attributes:
        covariance: of its inputs, (inputs, inputs).
        matrix: its weights, (inputs, outputs).
        units: the unit of each input, -1 for an input that stays, (inputs,).
    """

    covariance: Reals
    matrix: Reals
    units: NDArray[np.intp]


@final
@dataclass(frozen=True, eq=False)
class Removed:
    """Units in the order in which they go.

    Attributes:
        order: all units but those that stay; the first goes first.
        costs: by how much each removal raises the error, as a share of what the maps put out, summed over them.
    """

    order: tuple[int, ...]
    costs: tuple[float, ...]


def remove(consumers: Sequence[Consumer], size: int, count: int, swaps: bool = True) -> Removed:
    """Remove `count` units, those that are missed least.

    Args:
        consumers: the maps that read them, each of which counts as a share of the power of its output.
        size: how many units there are.
        count: how many go, below `size`.
        swaps: whether units change places at the end.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 2))
        >>> x = np.stack([x[:, 0], x[:, 1], x[:, 0] + x[:, 1]], axis=1)  # the third is the sum of the others
        >>> found = remove([Consumer(np.cov(x.T), np.ones((3, 1)), np.arange(3))], 3, 1)
        >>> bool(found.costs[0] < 0.02)
        True
    """
    states = [_State(consumer, size) for consumer in consumers]
    kept = np.ones(size, bool)
    order, costs = [], []
    for _ in range(count):
        scores = sum(state.losses() for state in states)
        unit = int(np.argmin(np.where(kept, scores, np.inf)))
        kept[unit] = False
        order.append(unit)
        costs.append(float(np.asarray(scores)[unit]))
        for state in states:
            state.drop(unit)
    for _ in range(int(_SWAPS * count) if swaps else 0):
        exchanged = _exchanged(states, kept)
        if exchanged is None:
            break
        back, gone = exchanged
        order[order.index(back)] = gone
    return Removed(tuple(order), tuple(costs))


def _exchanged(states: Sequence[_State], kept: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Take the best removed unit back, and remove the worst of all; None, and nothing changed, where that is the same

    unit or gains nothing.
    """
    gains = np.asarray(sum(state.gains() for state in states))
    back = int(np.argmax(np.where(kept, -np.inf, gains)))
    for state in states:
        state.restore(back)
    losses = np.asarray(sum(state.losses() for state in states))
    kept[back] = True
    gone = int(np.argmin(np.where(kept, losses, np.inf)))
    for state in states:
        state.drop(gone)
    kept[gone] = False
    return (back, gone) if gone != back and losses[gone] < gains[back] * (1 - 1e-6) else None


@final
class _State:
    """A map without some of its units: the inverse covariance and the best weights of what is left."""

    def __init__(self, consumer: Consumer, size: int) -> None:
        covariance = np.array(consumer.covariance, np.float64)
        covariance[np.diag_indices_from(covariance)] += _DAMPING * max(
            float(np.trace(covariance)) / len(covariance), 1e-12
        )
        self._covariance = covariance
        self._target = covariance @ consumer.matrix
        self._inverse = np.linalg.inv(covariance)
        self._weights = np.array(consumer.matrix, np.float64)
        self._power = max(float(np.einsum("io,io->", consumer.matrix, self._target)), 1e-30)
        self._rows = [np.flatnonzero(consumer.units == unit) for unit in range(size)]
        self._sizes = {len(rows) for rows in self._rows} - {0}

    def losses(self) -> Reals:
        """What the removal of each unit costs; nothing of those that are removed already."""
        out = np.zeros(len(self._rows))
        for units, rows in self._blocks():
            weights = self._weights[rows]
            inner = self._inverse[rows[:, :, None], rows[:, None, :]]
            inner = np.where(_nothing(inner), np.eye(inner.shape[-1]), inner)
            out[units] = np.einsum("uio,uio->u", weights, np.linalg.solve(inner, weights))
        return out / self._power

    def gains(self) -> Reals:
        """What taking each removed unit back gains; meaningless for the others."""
        out = np.zeros(len(self._rows))
        missing = self._target - self._covariance @ self._weights
        for units, rows in self._blocks():
            right = missing[rows]
            for place, own in enumerate(rows):
                if not self._inverse[own[0], own[0]]:
                    out[units[place]] = float(np.sum(right[place] * np.linalg.solve(self._rest(own)[1], right[place])))
        return out / self._power

    def drop(self, unit: int) -> None:
        """Remove a unit."""
        rows = self._rows[unit]
        if not len(rows):
            return
        column = self._inverse[:, rows]
        share = np.linalg.solve(
            self._inverse[np.ix_(rows, rows)], np.concatenate([column.T, self._weights[rows]], axis=1)
        )
        self._weights -= column @ share[:, len(self._inverse) :]
        self._inverse -= column @ share[:, : len(self._inverse)]
        self._weights[rows] = 0
        self._inverse[rows] = 0
        self._inverse[:, rows] = 0

    def restore(self, unit: int) -> None:
        """Take a removed unit back."""
        rows = self._rows[unit]
        if not len(rows):
            return
        beside, rest = self._rest(rows)
        inner = np.linalg.inv(rest)
        missing = self._target[rows] - self._covariance[rows] @ self._weights
        self._weights -= beside @ (inner @ missing)
        self._weights[rows] = inner @ missing
        self._inverse += beside @ inner @ beside.T
        self._inverse[:, rows] = -beside @ inner
        self._inverse[rows] = self._inverse[:, rows].T
        self._inverse[np.ix_(rows, rows)] = inner

    def _rest(self, rows: NDArray[np.intp]) -> tuple[Reals, Reals]:
        """What the inputs that are left tell of removed ones, and the covariance that they do not explain."""
        beside = self._inverse @ self._covariance[:, rows]
        return beside, self._covariance[np.ix_(rows, rows)] - self._covariance[rows] @ beside

    def _blocks(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Units that have as many inputs: (units,) and their inputs (units, inputs)."""
        found = []
        for length in sorted(self._sizes):
            units = [unit for unit, rows in enumerate(self._rows) if len(rows) == length]
            found.append((np.array(units), np.stack([self._rows[unit] for unit in units])))
        return found


def _nothing(blocks: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(blocks).max(axis=(1, 2), keepdims=True) == 0)
