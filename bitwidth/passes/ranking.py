"""Ranking: which weights go, when the weights of several tensors compete, one by one or in units.

A unit is a set of weights of one tensor that stay or go together: a single weight, a block, a row, a column. Its score
is the mean over its weights, so that units of different sizes compare by what they cost per weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph import Graph, Parameter, spec

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
GONE = -np.inf  # score of a weight that is masked already


@dataclass(frozen=True, eq=False)
class Units:
    """Which weights of a tensor stay or go together.

    Attributes:
        shape: of the tensor.
        labels: the number of its unit for each weight, of the tensor's shape; None where each is a unit by itself.

    Example:
        >>> rows = Units((2, 2), np.array([[0, 0], [1, 1]]))
        >>> rows.sums(np.array([[1.0, 2.0], [3.0, 4.0]]))
        array([3., 7.])
        >>> rows.spread(np.array([True, False]))
        array([[ True,  True],
               [False, False]])
    """

    shape: tuple[int, ...]
    labels: NDArray[np.intp] | None = None

    def sums(self, values: Scores | Mask) -> Scores:
        """The sum over the weights of each unit, (units,)."""
        flat = np.asarray(values, np.float64).reshape(-1)
        if self.labels is None:
            return flat
        return np.asarray(np.bincount(self.labels.reshape(-1), weights=flat), np.float64)

    def hold(self, where: Mask) -> Mask:
        """Which units hold a weight at which `where` is True, (units,)."""
        return where.reshape(-1) if self.labels is None else self.sums(where) > 0

    def spread(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """The value of its unit for each weight, of the tensor's shape."""
        return values.reshape(self.shape) if self.labels is None else values[self.labels]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The units of one tensor, as they compete.

    Attributes:
        units: which weights belong together.
        scores: of each unit, (units,); `GONE` where all its weights are masked already.
        sizes: of each unit, how many of its weights are not masked yet, (units,).
    """

    units: Units
    scores: Scores
    sizes: Scores | NDArray[np.float32]

    @classmethod
    def of(cls, scores: Scores, units: Units | None = None) -> Self:
        """The units of a tensor whose weights have `scores`, each by the mean of its weights that are not masked.

        Example:
            >>> Candidates.of(np.array([3.0, 1.0, GONE]), Units((3,), np.array([0, 0, 1]))).scores
            array([  2., -inf])
        """
        units = units or Units(scores.shape)
        living = scores > GONE
        if units.labels is None:
            return cls(units, scores.reshape(-1), living.reshape(-1).astype(np.float32))
        sizes = units.sums(living)
        totals = units.sums(np.where(living, scores, 0.0))
        return cls(units, np.divide(totals, sizes, out=np.full(sizes.shape, GONE), where=sizes > 0), sizes)

    @property
    def of_weights(self) -> Scores:
        """The score of its unit for each weight, of the tensor's shape."""
        spread: Scores = self.units.spread(self.scores)  # type: ignore[assignment]
        return spread


def lamp(scores: Scores, sizes: Scores | NDArray[np.float32] | None = None) -> Scores:
    """Scores that can be compared between layers, from squares that cannot: layer-adaptive magnitude pruning.

    The square of a weight is divided by the sum of squares of those of its tensor that are not smaller: an upper bound
    of how much the output of a layer of the scale one changes when the weight goes after all smaller ones. (Lee et al.
    2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv 2010.07611, section 3.) The order within a
    tensor stays, and the greatest weight of each tensor has the score 1.

    Args:
        scores: squares, at least 0, of the units of one tensor, each the mean over its weights; `GONE` where all are
            masked.
        sizes: weights of each unit; None for one.

    Example:
        >>> lamp(np.array([9.0, 1.0, GONE, 4.0]))
        array([1.        , 0.07142857,       -inf, 0.30769231])
    """
    flat = scores.reshape(-1)
    order = np.argsort(flat, kind="stable")
    squares = np.maximum(flat[order], 0.0)
    whole = squares if sizes is None else squares * sizes.reshape(-1)[order]
    remaining = np.cumsum(whole[::-1])[::-1]
    found = np.empty_like(flat)
    found[order] = np.divide(squares, remaining, out=np.zeros_like(squares), where=remaining > 0)
    return np.where(scores == GONE, GONE, found.reshape(scores.shape))


def alike(scores: Scores, others: Sequence[Scores]) -> Scores:
    """Scores in the order of `scores`, spread as those of other tensors are: a tensor that loses its fair share."""
    pool = np.sort(np.concatenate([other[other > GONE] for other in others]))
    flat = scores.reshape(-1)
    living = np.flatnonzero(flat > GONE)
    spread = np.full(flat.size, GONE)
    if living.size and pool.size:
        order = living[np.argsort(flat[living], kind="stable")]
        spread[order] = np.quantile(pool, (np.arange(living.size) + 0.5) / living.size)
    return spread.reshape(scores.shape)


def keep_most_important(tensors: Sequence[Candidates], count: int, guarded: Sequence[Mask] = ()) -> list[Mask]:
    """Masks that drop `count` weights of all tensors together, or fewer where the next unit would make it more.

    The least go first, and of equals the earlier; weights that are masked already are among them. What is guarded
    stays.

    Args:
        tensors: the units of each tensor.
        count: how many weights go.
        guarded: True, for each tensor, where a weight stays in any case, and its unit with it; empty for nowhere.

    Returns:
        For each tensor a mask of its shape, True where a weight is kept.

    Example:
        >>> tensors = [Candidates.of(np.array([3.0, 1.0])), Candidates.of(np.array([2.0, 0.5]))]
        >>> keep_most_important(tensors, 2)
        [array([ True, False]), array([ True, False])]
    """
    scores = np.concatenate([one.scores for one in tensors])
    if guarded:
        scores[np.concatenate([one.units.hold(where) for one, where in zip(tensors, guarded, strict=True)])] = np.inf
    order = np.argsort(scores, kind="stable")
    order = order[: int((scores < np.inf).sum())]
    if all(one.units.labels is None for one in tensors):
        going = order[:count]
    else:
        sizes = np.concatenate([one.sizes for one in tensors])
        masked = sum(prod(one.units.shape) for one in tensors) - sizes.sum(dtype=np.float64)
        going = order[masked + np.cumsum(sizes[order], dtype=np.float64) <= count + 0.5]
    keep = np.ones(scores.size, np.bool_)
    keep[going] = False
    ends = np.cumsum([one.scores.size for one in tensors])[:-1]
    parts = np.split(keep, ends)
    return [one.units.spread(part) for one, part in zip(tensors, parts, strict=True)]  # type: ignore[misc]


def guard(scores: Scores, count: int, channels: Sequence[Sequence[int]] = ()) -> Mask:
    """True on the weights of a tensor that stay in any case.

    Args:
        scores: of its weights.
        count: how many stay at least.
        channels: sets of axes; along each, every slice keeps the greatest of its scores.

    Example:
        >>> guard(np.array([[3.0, 1.0], [2.0, 0.5]]), 2, [(1,)])
        array([[ True,  True],
               [False, False]])
    """
    kept = np.zeros(scores.shape, np.bool_)
    for axes in channels:
        others = tuple(axis for axis in range(scores.ndim) if axis not in axes)
        rows = np.moveaxis(scores, others, range(len(others))).reshape(
            -1, int(np.prod([scores.shape[axis] for axis in axes]))
        )
        places = np.moveaxis(np.arange(scores.size).reshape(scores.shape), others, range(len(others)))
        kept.reshape(-1)[places.reshape(rows.shape)[rows.argmax(axis=0), np.arange(rows.shape[1])]] = True
    missing = count - int(kept.sum())
    if missing > 0:
        order = np.argsort(-np.where(kept, GONE, scores).reshape(-1), kind="stable")
        kept.reshape(-1)[order[:missing]] = True
    return kept & (scores > GONE)


def output_channels(graph: Graph) -> dict[str, list[tuple[int, ...]]]:
    """For each kernel from which an output of the model comes without another kernel behind it: its channel axes."""
    makers = {name: op for op in graph.ops for name in op.outputs}
    readers: dict[str, list[tuple[Parameter, tuple[int, ...]]]] = {}
    for parameter in graph:
        for use in parameter.uses:
            if spec(use).is_contraction and use.channel_axes:
                readers.setdefault(use.op, []).append((parameter, use.channel_axes))
    found: dict[str, list[tuple[int, ...]]] = {}
    pending, seen = list(graph.structure.outputs), set()
    while pending:
        op = makers.get(pending.pop())
        if op is None or op.name in seen:
            continue
        seen.add(op.name)
        for parameter, axes in readers.get(op.name, ()):
            if axes not in found.setdefault(parameter.path, []):
                found[parameter.path].append(axes)
        if op.name not in readers:
            pending.extend(op.inputs)
            pending.extend(name for key, names in op.attributes if key.endswith("_outputs") for name in names)
    return found
