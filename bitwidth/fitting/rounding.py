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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwidth.encodings.blocks import spread
from bitwidth.encodings.encoding import Encoding
from bitwidth.encodings.escape import escaped_places
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError
from bitwidth.fitting.matrices import Arrangement

DAMPING = 0.01
_SHRUNK = 0.25  # of `shrinkage`: rounding asks for less than estimating does, by 35 mixtures of ranks, spectra and rows
_MOST_DAMPING = 10.0  # beyond it rounding is to nearest in all but name
_BLOCK = 64  # inputs whose errors are fed back one by one; those of earlier blocks come in one product
_SPAN = 512  # inputs whose errors are held at once, at most
_PANEL = 128  # columns of a Cholesky factor that are made together
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
    rows: int | None = None,
) -> Array:
    """`values` on the grid of `encoding`, each rounded with the errors of those before it made up for.

    Args:
        values: float32, the tensor; masked elements are zero and stay so.
        encoding: a `Quantized` grid, or one under a mask.
        arrangement: where the tensor's elements stand in (groups, inputs, outputs).
        gram: float32 (groups, inputs, inputs): mean of x xT.
        damping: added to the diagonal of each gram, as a fraction of its mean, at least; see `rows`.
        price: what to pay for bits; None for none.
        rows: of how many rows each gram is the mean. Of few rows for many inputs it is damped more, by how far it is
            expected to be off (`shrinkage`). None for as many as it takes.

    Returns:
        float32 of the shape of `values`, on the encoding. Elements that the arrangement does not hold are as in
        `encoding.project(values)`.

    Example:
        >>> from bitwidth.encodings import Quantized, IntegerLevels
        >>> from bitwidth.fitting import plain_matrix
        >>> grid = Quantized(IntegerLevels(-7, 7), np.ones((1, 1), np.float32), (2, 1))
        >>> x = np.array([[1.0, 1.0], [1.0, 1.2]], np.float32)[None]
        >>> feedback(np.array([[0.4], [0.4]], np.float32), grid, plain_matrix((2, 1), (1,)), x)
        array([[1.],
               [0.]], dtype=float32)
    """
    part = arrangement.index is not None
    out = np.ascontiguousarray(encoding.project(values)) if part else np.empty(values.shape, np.float32)
    weights = arrangement.take(np.asarray(values, np.float32))
    columns = _Columns(encoding, arrangement, values.shape)
    order = np.argsort(-np.einsum("gkk->gk", gram), axis=1, kind="stable")
    upper, pivots = factor(gram, order, damping, rows)
    solved = arrangement.take(out)  # where that is a view, what is solved needs no second array
    if price is None:
        _solve(weights, columns, order, upper, solved, lambda k, target, column: column.project(target))
    else:
        _priced(weights, columns, order, upper, pivots, solved, price)
    if not np.may_share_memory(solved, out):
        arrangement.put(out, solved)
    return out


def factor(gram: Array, order: NDArray[np.intp], damping: float, rows: int | None = None) -> tuple[Array, Array]:
    """U (groups, inputs, inputs; unit upper triangular) and D (groups, inputs) of each damped gram in a new order.

    Raises:
        EncodingError: a gram is not finite.
    """
    if not np.isfinite(gram).all():
        raise EncodingError("the input moments are not finite: the model gave values that are not numbers")
    if gram.shape[1] == 1:  # nothing to feed back to
        return np.ones_like(gram), gram[:, 0] + np.float32(damping * float(gram.mean()) or 1.0)
    if len(gram) == 1:
        upper, pivot = _factor_one(gram[0], order[0], damping_for(gram[0], damping, rows))
        return upper[None], pivot[None]
    uppers, pivots = np.empty_like(gram), np.empty(gram.shape[:2], np.float32)
    for group, chosen in enumerate(order):
        own = damping_for(gram[group], damping, rows)
        uppers[group], pivots[group] = _factor_one(gram[group], chosen, own)
    return uppers, pivots


def damping_for(gram: Array, damping: float, rows: int | None) -> float:
    """What to add to the diagonal of a gram of so many rows, as a fraction of its mean: `damping` at least."""
    return max(damping, _SHRUNK * shrinkage(gram, rows))


def shrinkage(gram: Array, rows: int | None) -> float:
    """What to add to the diagonal of a second moment of few rows, as a fraction of its mean.

    The least expected squared error of a mixture of the gram and a multiple of the identity, for normal rows: the
    weight of the identity grows as rows are fewer, and as the gram itself is closer to the identity (Chen et al. 2010,
    "Shrinkage algorithms for MMSE covariance estimation", section III, equation 23).

    Args:
        gram: (inputs, inputs), the mean of x xT over the rows.
        rows: their number; None for many.

    Example:
        >>> [round(shrinkage(np.eye(100, dtype=np.float32) + 1, rows), 3) for rows in (10, 100, 10000)]
        [0.855, 0.053, 0.001]
    """
    count = len(gram)
    if rows is None or count < 2:
        return 0.0
    squares, trace = float(np.square(gram, dtype=np.float64).sum()), float(np.einsum("kk->k", gram).sum())
    apart = (rows + 1 - 2 / count) * (squares - trace**2 / count)
    weight = ((1 - 2 / count) * squares + trace**2) / apart if apart > 0 else 1.0
    return min(weight / (1 - weight), _MOST_DAMPING) if weight < 1 else _MOST_DAMPING


def _factor_one(gram: Array, order: NDArray[np.intp], damping: float) -> tuple[Array, Array]:
    """`factor` of one gram: the Cholesky factor of it backwards, read backwards (a view, no copy).

    Where rounding has made the gram indefinite it is damped more.
    """
    backwards = np.ix_(order[::-1], order[::-1])
    extra = damping * float(np.einsum("kk->k", gram).mean()) or 1.0
    for _ in range(12):
        damped = gram[backwards]
        np.einsum("kk->k", damped)[...] += np.float32(extra)
        try:
            cholesky_in_place(damped)
        except np.linalg.LinAlgError:
            extra *= 4
            continue
        roots = np.einsum("kk->k", damped).copy()
        np.divide(damped, roots, out=damped)
        return damped[::-1, ::-1], np.square(roots[::-1])
    raise EncodingError("the input moments have no Cholesky factor even with strong damping")


def cholesky_in_place(matrix: Array) -> None:
    """Overwrite the lower triangle of a symmetric matrix with its Cholesky factor, in float32, block by block.

    numpy's own works in float64 on copies: seven times the memory. What is above the diagonal means nothing after.

    Raises:
        numpy.linalg.LinAlgError: the matrix is not positive definite.

    Example:
        >>> matrix = np.array([[4.0, 2.0], [2.0, 5.0]], np.float32)
        >>> cholesky_in_place(matrix)
        >>> np.tril(matrix)
        array([[2., 0.],
               [1., 2.]], dtype=float32)
    """
    for start in range(0, len(matrix), _PANEL):
        stop = min(start + _PANEL, len(matrix))
        panel, above = matrix[start:, start:stop], matrix[start:stop, :start]
        if start:
            panel -= matrix[start:, :start] @ above.T
        corner = np.linalg.cholesky(panel[: stop - start].astype(np.float64))
        panel[stop - start :] = panel[stop - start :] @ np.linalg.inv(corner).T.astype(np.float32)
        panel[: stop - start] = corner


class _Columns:
    """The encoding of one input's weights at a time."""

    def __init__(self, encoding: Encoding, arrangement: Arrangement, shape: tuple[int, ...]) -> None:
        grid = encoding.grid
        self.plane: NDArray[np.bool_] | None = None
        self.values: Array | None = None
        plane = escaped_places(encoding)
        if plane is not None:
            self.plane = arrangement.take(plane)
            self.values = arrangement.take(encoding.project(np.zeros(shape, np.float32)))
        if grid is None:
            raise EncodingError(f"weights are rounded onto grids only, not onto {encoding.describe()}")
        self.grid = grid
        self.keep = None if encoding.mask is None else arrangement.take(encoding.mask)
        self._arrays: dict[str, Array] = {}
        for name in ("scale", "zero_point", "bias", "row"):
            array = getattr(grid, name, None)
            if array is not None:
                self._arrays[name] = arrangement.take(np.broadcast_to(spread(array, grid.block, shape), shape))
        self._alike = all(array.strides[1] == 0 for array in self._arrays.values()) and len(self._arrays["scale"]) == 1
        self._first: Quantized | None = None

    def at(self, positions: NDArray[np.intp]) -> Quantized:
        """The grid of the inputs at `positions`, one for each group, over (groups, outputs)."""
        if self._first is None or not self._alike:
            groups = np.arange(len(positions))
            sides: Any = {name: array[groups, positions] for name, array in self._arrays.items()}
            self._first = replace(self.grid, block=(1, 1), **sides)
        return self._first

    def override(self, positions: NDArray[np.intp], held: Array) -> Array:
        """`held`, with zeros where the mask says so, and with the values that are escaped."""
        groups = np.arange(len(positions))
        if self.keep is not None:
            held = np.where(self.keep[groups, positions], held, np.float32(0))
        if self.plane is not None and self.values is not None:
            held = np.where(self.plane[groups, positions], self.values[groups, positions], held)
        return held


Choose = Callable[[int, Array, Quantized], Array]


def _solve(
    weights: Array, columns: _Columns, order: NDArray[np.intp], upper: Array, out: Array, choose: Choose
) -> None:
    """Round input after input, into `out`: (groups, inputs, outputs) in the inputs' own order.

    Errors are kept for one span of inputs at a time, and computed again where later spans need them.
    """
    groups, count, _ = weights.shape
    rows = np.arange(groups)[:, None]
    span = min(max(count // 8, _BLOCK), _SPAN)
    for first in range(0, count, span):
        last = min(first + span, count)
        targets = weights[rows, order[:, first:last]]
        for start in range(0, first, span):
            earlier = order[:, start : start + span]
            errors = weights[rows, earlier]
            errors -= out[rows, earlier]
            targets += np.matmul(upper[:, start : start + span, first:last].transpose(0, 2, 1), errors)
            del errors
        _solve_span(
            weights, columns, order[:, first:last], upper[:, first:last, first:last], targets, out, choose, first
        )


def _solve_span(
    weights: Array,
    columns: _Columns,
    order: NDArray[np.intp],
    upper: Array,
    targets: Array,
    out: Array,
    choose: Choose,
    first: int,
) -> None:
    """Round the inputs of one span, to which those before it have been fed back."""
    rows = np.arange(len(weights))
    errors = np.empty_like(targets)
    for start in range(0, targets.shape[1], _BLOCK):
        stop = min(start + _BLOCK, targets.shape[1])
        if start:
            targets[:, start:stop] += np.matmul(upper[:, :start, start:stop].transpose(0, 2, 1), errors[:, :start])
        for k in range(start, stop):
            target = targets[:, k]
            if k > start:
                target = target + np.matmul(upper[:, start:k, k][:, None], errors[:, start:k])[:, 0]
            positions = order[:, k]
            held = columns.override(positions, choose(first + k, target, columns.at(positions)))
            out[rows, positions] = held
            np.subtract(weights[rows, positions], held, out=errors[:, k])


def _priced(
    weights: Array,
    columns: _Columns,
    order: NDArray[np.intp],
    upper: Array,
    pivots: Array,
    out: Array,
    price: EntropyPrice,
) -> None:
    """Round so that squared error plus the price of the code lengths is least."""
    counter = _Counter()
    for k in range(0, weights.shape[1], max(1, weights.shape[1] // 64)):
        positions = order[:, k]
        counter.add(columns.at(positions).encode(weights[np.arange(len(positions)), positions]))
    relative = pivots / np.float32(pivots.mean())
    for _ in range(max(1, price.passes)):
        cheapest = _Cheapest(relative, counter.lengths(), price.weight)
        _solve(weights, columns, order, upper, out, cheapest)
        counter = cheapest.counter


class _Cheapest:
    """Of the code of the nearest level, the one nearer to zero, and zero: the one of least error plus price."""

    def __init__(self, pivots: Array, lengths: NDArray[np.float32], weight: float) -> None:
        self._pivots, self._lengths, self._weight = pivots, lengths, np.float32(weight)
        self.counter = _Counter()

    def __call__(self, k: int, target: Array, column: Quantized) -> Array:
        """The values of the codes chosen for input `k` of the order."""
        codes = column.encode(target)
        zero = np.zeros((), np.int32) if column.zero_point is None else column.zero_point
        nearer = codes - np.sign(codes - zero).astype(np.int32)
        scale = np.where(column.scale > 0, column.scale, np.float32(1))
        best, value, cost = codes, target, np.full(codes.shape, np.inf, np.float32)
        for candidate in (codes, nearer, np.broadcast_to(zero, codes.shape)):
            held = column.decode(candidate)
            bits = self._lengths[np.clip(candidate, -_COUNTED, _COUNTED) + _COUNTED]
            total = self._pivots[:, k, None] * np.square((target - held) / scale) + self._weight * bits
            better = total < cost
            best, value = np.where(better, candidate, best), np.where(better, held, value)
            cost = np.where(better, total, cost)
        self.counter.add(best)
        return value


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
