"""Low-rank factors: a linear map as two that follow each other, with little between them, by what its inputs are.

With G the mean of x xT over the inputs x of a map W (inputs, outputs), the factors A (inputs, rank) and B (rank,
outputs) are to make `E |xT W - xT A B|^2 = tr((W - AB)T G (W - AB))` least. With V the eigenvectors of `WT G W`, the
greatest eigenvalues first, that is `A = W V_r` and `B = V_rT`: the outputs are projected onto their principal
directions (Zhang et al. 2016, "Accelerating very deep convolutional networks for classification and detection",
section 3.1). It is what the singular value decomposition of `G^1/2 W` gives, mapped back (Chen et al. 2021, "DRONE";
Wang et al. 2024, "SVD-LLM"), and takes no inverse of G; with G the identity it is that of W.

A convolution with windows of height and width can also become one along each (Jaderberg et al. 2014, "Speeding up
convolutional neural networks with low rank expansions", section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.errors import EncodingError

Reals = NDArray[np.float64]
_JITTER = 1e-9  # of the mean of a diagonal: what is added to it before it is factored


class LowRank(Protocol):
    """A map at every rank."""

    @property
    def errors(self) -> Reals:
        """Of ranks 1, 2, ...: the norm of the error of the output over that of the output, (full rank,)."""

    def factors(self, rank: int) -> tuple[Reals, Reals]:
        """The factors at a rank of at least 1 and at most the full one."""


@final
@dataclass(frozen=True, eq=False)
class Projected(LowRank):
    """A matrix whose outputs are projected onto few directions; see `decompose`.

    Attributes:
        matrix: (inputs, outputs).
        directions: (outputs, full rank), orthonormal, the one with most power first.
        powers: of the output along each, (full rank,), descending.
    """

    matrix: Reals
    directions: Reals
    powers: Reals

    @property
    @override
    def errors(self) -> Reals:
        return _relative(self.powers)

    @override
    def factors(self, rank: int) -> tuple[Reals, Reals]:
        """(inputs, rank) and (rank, outputs); a column of the first is as long as the row of the second."""
        chosen = self.directions[:, :rank]
        return balanced(self.matrix @ chosen, chosen.T)


def decompose(matrix: Reals, gram: Reals | None = None) -> Projected:
    """Find the best factors of a matrix at all ranks.

    Args:
        matrix: (inputs, outputs).
        gram: (inputs, inputs), mean of x xT; positive semi-definite; None for the identity.

    Raises:
        EncodingError: something is not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6))  # inputs that fill two of six dimensions
        >>> found = decompose(rng.normal(size=(6, 4)), x.T @ x / 500)
        >>> found.errors.round(6).tolist()[1:]
        [0.0, 0.0, 0.0]
        >>> [factor.shape for factor in found.factors(2)]
        [(6, 2), (2, 4)]
    """
    if not np.isfinite(matrix).all() or (gram is not None and not np.isfinite(gram).all()):
        raise EncodingError("a kernel or the moments of its inputs are not finite")
    full = min(matrix.shape)
    if matrix.shape[1] <= matrix.shape[0]:
        powers, directions = _principal(matrix.T @ (matrix if gram is None else gram @ matrix))
    else:
        weighted = matrix if gram is None else _root(gram) @ matrix
        powers, left = _principal(weighted @ weighted.T)
        directions = np.linalg.qr(weighted.T @ left)[0]
    return Projected(matrix, directions[:, :full], powers[:full])


@final
@dataclass(frozen=True, eq=False)
class Separated(LowRank):
    """A convolution as one along the height of its windows and one along their width; see `separate`.

    Attributes:
        first: (height, inputs, full rank).
        power: of the output, and what of it each further rank explains: (), (full rank,).
        moments: of what the first puts out, rank by rank, against itself: (full rank * width,) twice.
        wanted: of what it puts out against the output: (full rank * width, outputs).
    """

    first: Reals
    power: float
    explained: Reals
    moments: Reals
    wanted: Reals

    @property
    @override
    def errors(self) -> Reals:
        left = np.maximum(self.power - np.cumsum(self.explained), 0.0)
        return np.asarray(np.sqrt(left / self.power) if self.power > 0 else np.zeros(len(left)))

    @override
    def factors(self, rank: int) -> tuple[Reals, Reals]:
        """(height, inputs, rank) and (width, rank, outputs)."""
        count = len(self.wanted) // self.first.shape[-1] * rank
        second = np.linalg.solve(self.moments[:count, :count], self.wanted[:count]).astype(np.float64)
        one, other = balanced(self.first[:, :, :rank].reshape(-1, rank), second.reshape(rank, -1))
        height, inputs, _ = self.first.shape
        width, outputs = count // rank, self.wanted.shape[1]
        return one.reshape(height, inputs, rank), other.reshape(rank, width, outputs).transpose(1, 0, 2)


def separate(kernel: Reals, gram: Reals | None = None, most: int | None = None) -> Separated:
    """Find factors of the kernel of a convolution along one axis of its windows each.

    The first is found by the mean of the moments over the columns of a window; the second is the best one behind it.

    Args:
        kernel: (height, width, inputs, outputs).
        gram: (height * width * inputs,) twice, mean of x xT over the windows x; None for the identity.
        most: the greatest rank that is looked at; None for the full one.

    Raises:
        EncodingError: something is not finite.

    Example:
        >>> blur = np.outer([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])[:, :, None, None]  # one channel to one
        >>> found = separate(blur)
        >>> found.errors.round(3).tolist()
        [0.0, 0.0, 0.0]
        >>> [factor.shape for factor in found.factors(1)]
        [(3, 1, 1), (3, 1, 1)]
    """
    height, width, inputs, outputs = kernel.shape
    rows = kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)
    held = None if gram is None else gram.reshape(height, width, inputs, height, width, inputs)
    mean = None if held is None else np.einsum("hwiHwI->hiHI", held).reshape(len(rows), len(rows)) / width
    full = min(len(rows), rows.shape[1], most or len(rows))
    first = decompose(rows, mean).factors(full)[0].reshape(height, inputs, full)
    flat = kernel.reshape(-1, outputs)
    placed = np.zeros((height, width, inputs, full, width))
    for column in range(width):
        placed[:, column, :, :, column] = first
    spread = placed.reshape(len(flat), full * width)
    weighted = spread if gram is None else gram @ spread
    moments = spread.T @ weighted
    moments[np.diag_indices_from(moments)] += _JITTER * max(float(np.trace(moments)) / len(moments), 1e-300)
    wanted = weighted.T @ flat
    lower = np.linalg.cholesky(moments)
    gains = np.square(np.linalg.solve(lower, wanted)).sum(axis=1).reshape(full, width).sum(axis=1)
    power = float(np.einsum("io,io->", flat, flat if gram is None else gram @ flat))
    return Separated(first, power, gains, moments, wanted)


def balanced(first: Reals, second: Reals) -> tuple[Reals, Reals]:
    """Factors (inputs, rank) and (rank, outputs) with the same product, and columns and rows that are as long.

    Example:
        >>> one, other = balanced(np.array([[4.0], [0.0]]), np.array([[1.0]]))
        >>> one.ravel().tolist(), other.ravel().tolist()
        ([2.0, 0.0], [2.0])
    """
    long, short = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1)
    usable = (long > 0) & (short > 0)
    scale = np.sqrt(np.divide(long, short, out=np.ones_like(long), where=usable))
    return first / scale, second * scale[:, None]


def joined(first: Reals, second: Reals) -> Reals:
    """The product of factors: the last axis of the one is the first of the other.

    Example:
        >>> joined(np.ones((2, 3)), np.ones((3, 4, 5))).shape
        (2, 4, 5)
    """
    left, right = first.reshape(prod(first.shape[:-1]), -1), second.reshape(len(second), -1)
    return (left @ right).reshape(*first.shape[:-1], *second.shape[1:])


def _relative(powers: Reals) -> Reals:
    """The share, as a norm, that is lost behind each rank."""
    total = float(powers.sum())
    if not total > 0:
        return np.zeros(len(powers))
    tails = np.cumsum(powers[::-1])[::-1]
    return np.sqrt(np.append(tails[1:], 0.0) / total)


def _principal(products: Reals) -> tuple[Reals, Reals]:
    """Eigenvalues of a matrix of products, the greatest first and none below 0, and eigenvectors as columns."""
    powers, directions = np.linalg.eigh((products + products.T) / 2)
    return np.maximum(powers[::-1], 0.0), directions[:, ::-1]


def _root(gram: Reals) -> Reals:
    """A matrix whose transpose times itself is `gram`."""
    powers, directions = _principal(gram)
    root: Reals = np.sqrt(powers)[:, None] * directions.T
    return root
