"""Ranking: which weights go, when the weights of several tensors compete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitwidth.graph import Graph, Parameter, spec

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
GONE = -1.0  # score of a weight that is masked already


def lamp(magnitudes: Scores) -> Scores:
    """Scores that can be compared between layers, from magnitudes that cannot: layer-adaptive magnitude pruning.

    The square of a weight is divided by the sum of squares of those of its tensor that are not smaller: an upper bound
    of how much the output of a layer of the scale one changes when the weight goes after all smaller ones. (Lee et al.
    2021, "Layer-adaptive sparsity for the magnitude-based pruning", arXiv 2010.07611, section 3.) The order within a
    tensor stays, and the greatest weight of each tensor has the score 1.

    Args:
        magnitudes: of one tensor; `GONE` where a weight is masked.

    Example:
        >>> lamp(np.array([3.0, 1.0, GONE, 2.0]))
        array([ 1.        ,  0.07142857, -1.        ,  0.30769231])
    """
    flat = magnitudes.reshape(-1)
    order = np.argsort(flat, kind="stable")
    squares = np.square(np.maximum(flat[order], 0.0))
    remaining = np.cumsum(squares[::-1])[::-1]
    scores = np.empty_like(flat)
    scores[order] = np.divide(squares, remaining, out=np.zeros_like(squares), where=remaining > 0)
    return np.where(magnitudes < 0, GONE, scores.reshape(magnitudes.shape))


def alike(scores: Scores, others: Sequence[Scores]) -> Scores:
    """Scores in the order of `scores`, spread as those of other tensors are: a tensor that loses its fair share."""
    pool = np.sort(np.concatenate([other[other >= 0] for other in others]))
    flat = scores.reshape(-1)
    living = np.flatnonzero(flat >= 0)
    spread = np.full(flat.size, GONE)
    if living.size and pool.size:
        order = living[np.argsort(flat[living], kind="stable")]
        spread[order] = np.quantile(pool, (np.arange(living.size) + 0.5) / living.size)
    return spread.reshape(scores.shape)


def keep_most_important(scores: Sequence[Scores], sparsity: float, guarded: Sequence[Mask] = ()) -> list[Mask]:
    """Masks that drop the share `sparsity` of all scores together.

    The least go first, and of equals the earlier; what is guarded stays.

    Args:
        scores: of each tensor.
        sparsity: share of all weights to go, 0 up to 1.
        guarded: True, for each tensor, where a weight stays in any case; empty for nowhere.

    Example:
        >>> keep_most_important([np.array([3.0, 1.0]), np.array([2.0, 0.5])], 0.5)
        [array([ True, False]), array([ True, False])]
    """
    flat = np.concatenate([score.ravel() for score in scores])
    if guarded:
        flat = np.where(np.concatenate([guard.ravel() for guard in guarded]), np.inf, flat)
    count = min(round(sparsity * flat.size), int(np.isfinite(flat).sum()))
    keep = np.ones(flat.size, np.bool_)
    keep[np.argsort(flat, kind="stable")[:count]] = False
    ends = np.cumsum([score.size for score in scores])[:-1]
    return [part.reshape(score.shape) for part, score in zip(np.split(keep, ends), scores, strict=True)]


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
        order = np.argsort(-np.where(kept, -np.inf, scores).reshape(-1), kind="stable")
        kept.reshape(-1)[order[:missing]] = True
    return kept & (scores >= 0)


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
