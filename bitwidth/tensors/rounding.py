"""Rounding that knows the data: which code each weight gets, so that what the layer puts out changes least.

A weight's rounding error is made up for by the weights that are rounded after it. With H the mean of x xT over a
layer's inputs, the error of its output is `e H eT` for the errors `e` of one output's weights. H = U D UT with U unit
upper triangular makes it `sum_k D_k (e_k + sum_{j<k} e_j U_jk)^2`: each weight is rounded with the bracket as its
target. That is optimal brain quantization in a fixed order of the inputs (Frantar et al. 2022, "GPTQ", section 3;
Chee et al. 2023, "QuIP", theorem 6, for this form of it, which needs no inverse of H).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import EncodingError
from bitwidth.tensors.blocks import spread
from bitwidth.tensors.encoding import Encoding
from bitwidth.tensors.matrices import Arrangement
from bitwidth.tensors.quantized import Quantized

DAMPING = 0.01
_BLOCK = 64  # inputs whose errors are fed back one by one; those of earlier blocks come in one product
_COUNTED = 1 << 12  # codes beyond this magnitude share the price of the outermost

Array = NDArray[np.float32]


@dataclass(frozen=True)
class EntropyPrice:
    """What rounding pays for bits: it minimises squared error plus `weight` times code length.

    Attributes:
        weight: Lagrange multiplier, in units of `step^2 * mean(D) `: 0 rounds to the target, 0.1 is about what one bit
            is worth on a fine grid.
        passes: how often codes are chosen, each time with the code lengths that the time before gave.
    """

    weight: float = 0.1
    passes: int = 2


def feedback(
    values: Array,
    encoding: Encoding,
    arrangement: Arrangement,
    gram: Array,
    damping: float = DAMPING,
    price: EntropyPrice | None = None,
) -> Array:
    """`values` on the grid of `encoding`, each rounded with the errors of those before it made up for.

    Args:
        values: float32, the tensor; masked elements are zero and stay so.
        encoding: a `Quantized` grid, or one under a mask.
        arrangement: where the tensor's elements stand in (groups, inputs, outputs).
        gram: float32 (groups, inputs, inputs): mean of x xT.
        damping: added to the diagonal of each gram, as a fraction of its mean.
        price: what to pay for bits; None for none.

    Returns:
        float32 of the shape of `values`, on the encoding. Elements that the arrangement does not hold are as in
        `encoding.project(values)`.

    Example:
        >>> from bitwidth.tensors import Quantized, IntegerLevels, plain_matrix
        >>> grid = Quantized(IntegerLevels(-7, 7), np.ones((1, 1), np.float32), (2, 1))
        >>> x = np.array([[1.0, 1.0], [1.0, 1.2]], np.float32)[None]
        >>> feedback(np.array([[0.4], [0.4]], np.float32), grid, plain_matrix((2, 1), (1,)), x)
        array([[0.],
               [1.]], dtype=float32)
    """
    out = np.ascontiguousarray(encoding.project(values)) if arrangement.index is not None else np.zeros(values.shape, np.float32)
    weights = arrangement.take(np.asarray(values, np.float32))
    columns = _Columns(encoding, arrangement, values.shape)
    order = np.argsort(-np.einsum("gkk->gk", gram), axis=1, kind="stable")
    upper, pivots = factor(gram, order, damping)
    if price is None:
        solved = _solve(weights, columns, order, upper, lambda k, target, column: column.project(target))
    else:
        solved = _priced(weights, columns, order, upper, pivots, price)
    arrangement.put(out, solved)
    return out


def factor(gram: Array, order: NDArray[np.intp], damping: float) -> tuple[Array, Array]:
    """U (groups, inputs, inputs; unit upper triangular) and D (groups, inputs) of each damped gram in a new order.

    Raises:
        EncodingError: a gram is not finite.
    """
    if not np.isfinite(gram).all():
        raise EncodingError("the input moments are not finite: the model gave values that are not numbers")
    if gram.shape[1] == 1:  # nothing to feed back to
        return np.ones_like(gram), gram[:, 0] + np.float32(damping * float(gram.mean()) or 1.0)
    upper = np.empty_like(gram)
    pivots = np.empty(gram.shape[:2], np.float32)
    for group, chosen in enumerate(order):
        backwards = chosen[::-1]
        damped = gram[group][np.ix_(backwards, backwards)]
        diagonal = np.einsum("kk->k", damped)
        extra = damping * float(diagonal.mean()) or 1.0
        diagonal += np.float32(extra)
        lower = _cholesky(damped, extra)
        del damped
        roots = np.einsum("kk->k", lower).copy()
        np.divide(lower, roots, out=lower)
        upper[group] = lower[::-1, ::-1]
        pivots[group] = np.square(roots[::-1])
    return upper, pivots


def _cholesky(damped: Array, extra: float) -> Array:
    """The lower factor; where rounding has made the matrix indefinite, of one with more damping."""
    for _ in range(12):
        try:
            factored: Array = np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            np.einsum("kk->k", damped)[...] += np.float32(extra)
            extra *= 4
        else:
            return factored
    raise EncodingError("the input moments have no Cholesky factor even with strong damping")


class _Columns:
    """The encoding of one input's weights at a time."""

    def __init__(self, encoding: Encoding, arrangement: Arrangement, shape: tuple[int, ...]) -> None:
        grid = encoding.unmasked
        if not isinstance(grid, Quantized):
            raise EncodingError(f"weights are rounded onto grids only, not onto {encoding.describe()}")
        self.grid = grid
        self.keep = None if encoding.mask is None else arrangement.take(encoding.mask)
        self._arrays: dict[str, NDArray[Any]] = {}
        for name in ("scale", "zero_point", "bias", "row"):
            array = getattr(grid, name, None)
            if array is not None:
                self._arrays[name] = arrangement.take(np.broadcast_to(spread(array, grid.block, shape), shape))
        self._alike = all(array.strides[1] == 0 for array in self._arrays.values()) and len(
            self._arrays["scale"]
        ) == 1
        self._first: Quantized | None = None

    def at(self, positions: NDArray[np.intp]) -> Quantized:
        """The grid of the inputs at `positions`, one for each group, over (groups, outputs)."""
        if self._first is None or not self._alike:
            groups = np.arange(len(positions))
            arrays = {name: array[groups, positions] for name, array in self._arrays.items()}
            self._first = replace(self.grid, block=(1, 1), **arrays)
        return self._first

    def kept(self, positions: NDArray[np.intp]) -> NDArray[np.bool_] | None:
        """The mask there."""
        return None if self.keep is None else self.keep[np.arange(len(positions)), positions]


Choose = Callable[[int, Array, Quantized], Array]


def _solve(weights: Array, columns: _Columns, order: NDArray[np.intp], upper: Array, choose: Choose) -> Array:
    """Round input after input; (groups, inputs, outputs) in the inputs' own order."""
    groups, count, _ = weights.shape
    rows = np.arange(groups)
    out = np.empty(weights.shape, np.float32)
    errors = np.empty(weights.shape, np.float32)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        targets = np.stack([weights[rows, order[:, k]] for k in range(start, stop)], axis=1)
        if start:
            targets += np.matmul(upper[:, :start, start:stop].transpose(0, 2, 1), errors[:, :start])
        for k in range(start, stop):
            target = targets[:, k - start]
            if k > start:
                target = target + np.matmul(upper[:, start:k, k][:, None], errors[:, start:k])[:, 0]
            positions = order[:, k]
            held = choose(k, target, columns.at(positions))
            keep = columns.kept(positions)
            if keep is not None:
                held = np.where(keep, held, np.float32(0))
            out[rows, positions] = held
            np.subtract(weights[rows, positions], held, out=errors[:, k])
    return out


def _priced(
    weights: Array,
    columns: _Columns,
    order: NDArray[np.intp],
    upper: Array,
    pivots: Array,
    price: EntropyPrice,
) -> Array:
    """Round so that squared error plus the price of the code lengths is least."""
    lengths: NDArray[np.float32] | None = None
    solved = weights
    mean = float(pivots.mean())
    for _ in range(max(1, price.passes)):
        counts = _Counter()

        def choose(k: int, target: Array, column: Quantized) -> Array:
            codes = column.encode(target)
            if lengths is not None:
                codes = _cheapest(codes, target, column, pivots[:, k] / np.float32(mean), lengths, price.weight)
            counts.add(codes)
            return column.decode(codes)

        if lengths is None:
            for k in range(0, weights.shape[1], max(1, weights.shape[1] // 64)):
                positions = order[:, k]
                counts.add(columns.at(positions).encode(weights[np.arange(len(positions)), positions]))
            lengths, counts = counts.lengths(), _Counter()
        solved = _solve(weights, columns, order, upper, choose)
        lengths = counts.lengths()
    return solved


def _cheapest(
    codes: NDArray[np.int32],
    target: Array,
    column: Quantized,
    pivot: Array,
    lengths: NDArray[np.float32],
    weight: float,
) -> NDArray[np.int32]:
    """Of each code, the one nearer to zero, and zero: the one of least error plus price."""
    zero = np.int32(0) if column.zero_point is None else column.zero_point
    away = codes - zero
    candidates = [codes, codes - np.sign(away).astype(np.int32), np.broadcast_to(zero, codes.shape).astype(np.int32)]
    best, cost = codes, np.full(codes.shape, np.inf, np.float32)
    scale = np.where(column.scale > 0, column.scale, np.float32(1))
    for candidate in candidates:
        error = (target - column.decode(candidate)) / scale
        total = pivot[:, None] * np.square(error) + np.float32(weight) * lengths[np.clip(candidate, -_COUNTED, _COUNTED) + _COUNTED]
        better = total < cost
        best, cost = np.where(better, candidate, best), np.where(better, total, cost)
    return best


class _Counter:
    """How often each code was used."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(2 * _COUNTED + 1, np.int64)

    def add(self, codes: NDArray[np.int32]) -> None:
        """Count these."""
        clipped = np.clip(codes.reshape(-1), -_COUNTED, _COUNTED) + _COUNTED
        self.counts += np.bincount(clipped, minlength=len(self.counts))

    def lengths(self) -> NDArray[np.float32]:
        """Bits of each code in an entropy coder of these frequencies; a code that was not used costs most."""
        total = max(1, int(self.counts.sum()))
        shares = np.maximum(self.counts, 0.5) / total
        return np.asarray(-np.log2(shares), np.float32)


def entropy_rate(codes: NDArray[np.int32]) -> float:
    """Mean bits per code of an entropy coder without context."""
    counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
