"""Pruning that knows the data: what removing a weight costs, and how the weights that stay make up for it.

With H the mean of x xT over a layer's inputs, the squared error of its output is `e H eT` for the errors `e` of one
output's weights. Removing weight i alone, with all others adjusted to it, costs `w_i^2 / (H^-1)_ii` (Hassibi and Stork
1993, "Second order derivatives for network pruning: Optimal brain surgeon", section 3). Of several that are removed the
others are adjusted at once, to the least squares solution over what stays (as in Frantar and Alistarh 2023,
"SparseGPT", section 3.1), by conjugate gradients, which take one product with H for all outputs together and need no
inverse per output (Meng et al. 2024, "ALPS", section 3.3).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import EncodingError
from bitwidth.fitting.rounding import DAMPING, cholesky_in_place, damping_for

Array = NDArray[np.float32]
Float = TypeVar("Float", np.float32, np.float64)
_PANEL = 128  # columns of an inverse that are made together
_NOTHING = 1e-12  # what inputs that are always zero count
_ENOUGH = 1e-6  # of the squared residual that there was at first


def removal_costs(
    weights: Array, gram: Array, rows: int | None = None, damping: float = DAMPING
) -> NDArray[np.float64]:
    """The squared error of a layer's output when one weight is removed and the others of its output make up for it.

    Args:
        weights: float32 (groups, inputs, outputs).
        gram: float32 (groups, inputs, inputs): mean of x xT.
        rows: of how many x each gram is the mean; None for many.
        damping: added to the diagonal of each gram, as a share of its mean, at least.

    Returns:
        float64 (groups, inputs, outputs): the cost of each weight by itself.

    Raises:
        EncodingError: a gram is not finite.

    Example:
        >>> alike = np.array([[[1.0, 0.9], [0.9, 1.0]]], np.float32)  # one input tells nearly all of the other
        >>> removal_costs(np.ones((1, 2, 1), np.float32), alike, damping=0.0).round(2).ravel()
        array([0.19, 0.19])
    """
    return np.square(weights, dtype=np.float64) * power_left(gram, rows, damping)[:, :, None]


def power_left(gram: Array, rows: int | None = None, damping: float = DAMPING) -> NDArray[np.float64]:
    """What is left of the power of each input when the others have told what they can of it, (groups, inputs).

    It is 1 / (H^-1)_ii of the damped gram, less what the damping adds to an input by itself: 0 for an input that is
    always zero.

    Example:
        >>> power_left(np.array([[[1.0, 0.9], [0.9, 1.0]]], np.float32), damping=0.0).round(2)
        array([[0.19, 0.19]])
    """
    if gram.shape[1] == 1:  # each group is one number
        return np.maximum(gram[:, :, 0].astype(np.float64), 0.0)
    found = []
    for one in gram:
        whole = damped(one, rows, damping)
        added = np.einsum("kk->k", whole).astype(np.float64) - np.einsum("kk->k", one)
        found.append(np.maximum(1 / _inverse_diagonal(whole) - added, 0.0))
    return np.stack(found)


def damped(gram: Array, rows: int | None, damping: float = DAMPING) -> Array:
    """A copy of one gram, (inputs, inputs), with as much on its diagonal as rounding with feedback adds.

    Raises:
        EncodingError: it is not finite.
    """
    if not np.isfinite(gram).all():
        raise EncodingError("the input moments are not finite: the model gave values that are not numbers")
    found = np.array(gram, np.float32)
    extra = damping_for(gram, damping, rows) * float(np.einsum("kk->k", gram).mean())
    np.einsum("kk->k", found)[...] += np.float32(extra if gram.any() else _NOTHING)
    return found


def refit(
    weights: Array,
    keep: NDArray[np.bool_],
    gram: Array,
    start: Array | None = None,
    rows: int | None = None,
    damping: float = DAMPING,
    steps: int = 40,
) -> Array:
    """The weights where `keep` is True that change the layer's output least, zero elsewhere.

    Args:
        weights: float32 (groups, inputs, outputs), before anything was removed.
        keep: bool, likewise: what stays.
        gram: float32 (groups, inputs, inputs): mean of x xT.
        start: weights to start from; None for `weights`.
        rows: of how many x each gram is the mean; None for many.
        damping: added to the diagonal of each gram, as a share of its mean, at least.
        steps: of conjugate gradients, at most.

    Returns:
        float32 (groups, inputs, outputs).

    Example:
        >>> alike = np.array([[[1.0, 0.9], [0.9, 1.0]]], np.float32)
        >>> refit(np.ones((1, 2, 1), np.float32), np.array([[[True], [False]]]), alike, damping=0.0).round(2).ravel()
        array([1.9, 0. ], dtype=float32)
    """
    if weights.shape[1] == 1:  # no other weight of the output could make up for one
        return np.where(keep, weights, np.float32(0))
    begin = weights if start is None else start
    groups = range(len(weights))
    return np.stack([conjugate(damped(gram[g], rows, damping), weights[g], keep[g], begin[g], steps) for g in groups])


def conjugate(
    gram: NDArray[Float],
    weights: NDArray[Float],
    keep: NDArray[np.bool_],
    start: NDArray[Float],
    steps: int,
    enough: float = _ENOUGH,
) -> NDArray[Float]:
    """The weights where `keep` is True that are nearest to `weights` by `gram`, zero elsewhere.

    Conjugate gradients over what is kept, of each output by itself, scaled by the diagonal.

    Args:
        gram: (inputs, inputs), positive definite.
        weights: (inputs, outputs).
        keep: bool, likewise.
        start: weights to start from, likewise.
        steps: how many, at most.
        enough: share of the squared residual that there was at first at which they end.

    Example:
        >>> gram, weights = np.array([[1.0, 0.9], [0.9, 1.0]]), np.ones((2, 1))
        >>> conjugate(gram, weights, np.array([[True], [False]]), weights, 9).round(2).ravel()
        array([1.9, 0. ])
    """
    scale = np.einsum("kk->k", gram)[:, None]
    found = np.where(keep, start, np.float32(0))
    residual = np.where(keep, gram @ (weights - found), np.float32(0))
    direction = residual / scale
    energy = np.einsum("io,io->o", residual, direction, dtype=np.float64)
    least = enough * energy
    for _ in range(steps):
        if (energy <= least).all():
            break
        product = np.where(keep, gram @ direction, np.float32(0))
        curve = np.einsum("io,io->o", direction, product, dtype=np.float64)
        length = np.divide(energy, curve, out=np.zeros_like(energy), where=curve > 0).astype(np.float32)
        found += length * direction
        residual -= length * product
        step = residual / scale
        later = np.einsum("io,io->o", residual, step, dtype=np.float64)
        ratio = np.divide(later, energy, out=np.zeros_like(energy), where=energy > 0).astype(np.float32)
        direction = step + ratio * direction
        energy = later
    return found


def _inverse_diagonal(matrix: Array) -> NDArray[np.float64]:
    """Of the inverse of a positive definite matrix: sums over the columns of the squared inverse of its factor."""
    lower = _cholesky(matrix)
    count = len(lower)
    panels = [(start, min(start + _PANEL, count)) for start in range(0, count, _PANEL)]
    corners = [np.linalg.inv(np.tril(lower[a:b, a:b]).astype(np.float64)).astype(np.float32) for a, b in panels]
    found = np.empty(count)
    for place, (start, stop) in enumerate(panels):
        columns = np.zeros((count - start, stop - start), np.float32)
        columns[: stop - start] = corners[place]
        for (a, b), corner in zip(panels[place + 1 :], corners[place + 1 :], strict=True):
            columns[a - start : b - start] = -corner @ (lower[a:b, start:a] @ columns[: a - start])
        found[start:stop] = np.square(columns, dtype=np.float64).sum(axis=0)
    return found


def _cholesky(matrix: Array) -> Array:
    """The Cholesky factor of a matrix, with more on its diagonal where rounding has made it indefinite.

    Raises:
        EncodingError: it has none even so.
    """
    extra = 0.0
    for _ in range(12):
        lower = matrix.copy()
        np.einsum("kk->k", lower)[...] += np.float32(extra)
        try:
            cholesky_in_place(lower)
        except np.linalg.LinAlgError:
            extra = 4 * extra or 1e-6 * float(np.einsum("kk->k", matrix).mean())
        else:
            return lower
    raise EncodingError("the input moments have no Cholesky factor even with strong damping")
