"""Code lengths: the bits that an entropy coder pays for each integer of a tensor, and how they change with the weights.

What integers cost is counted with the table of their own frequencies. What moving a weight saves is told by a density
that fits them: a share of zeros, and magnitudes beyond that fall geometrically, as many with either sign. It is a code
length too, an upper bound, and it always falls towards zero. A table would not: where steps are fine, frequent integers
get cheaper as training makes them more frequent, and weights gather at every second or third one.

A weight `u` (in steps) that is rounded after uniform noise in -1/2 to 1/2 costs `E[T(u + noise)]` bits, T being the
lengths read by linear interpolation (Ballé et al. 2017, "End-to-end Optimized Image Compression", section 3). The slope
of that is `T(u + 1/2) - T(u - 1/2)` exactly, so that no random numbers are needed: the differences `T[k] - T[k - 1]`,
read at `u + 1/2`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.5  # zeros, and others, that are counted besides those that there are

_WIDE = 1 << 20  # codes that are counted in an array of their own


@dataclass(frozen=True)
class CodeLengths:
    """The code lengths of one tensor.

    Attributes:
        bits: of all codes together, by their own frequencies.
        zeros: the share of codes that are zero.
        first: bits by which 1 and -1 are longer than 0, above 0.
        further: bits by which each code beyond is longer than the one before it, above 0.

    Example:
        >>> found = code_lengths(np.array([0, 0, 0, 0, 0, 1, 2, -1]))
        >>> found.zeros, round(found.bits, 2), found.slope(0.0), found.slope(2.2) == found.further
        (0.625, 12.39, 0.0, True)
    """

    bits: float
    zeros: float
    first: float
    further: float

    def slope(self, u: float) -> float:
        """Bits per step that the expected code length of a weight of `u` steps grows by.

        It is odd in `u`, grows in straight lines from 0 to `first` at 1/2 and on to `further` at 3/2, and stays there.
        """
        return float(np.sign(u) * np.interp(abs(u), [0.0, 0.5, 1.5], [0.0, self.first, self.further]))


def code_lengths(codes: NDArray[np.integer]) -> CodeLengths:
    """The lengths of codes.

    Args:
        codes: integers, of which zero stands for the value zero. Pruned ones are left out.
    """
    flat = codes.reshape(-1)
    if not flat.size:
        return CodeLengths(0.0, 1.0, 1.0, 1.0)
    low, high = int(flat.min()), int(flat.max())
    counts = np.bincount(flat - low) if high - low < _WIDE else np.unique(flat, return_counts=True)[1]
    counts = np.sort(counts[counts > 0])  # so that the sum is the same whatever the signs
    bits = float((counts * np.log2(flat.size / counts)).sum())
    zeros = int(np.count_nonzero(flat == 0))
    others = flat.size - zeros + PRIOR
    beyond = (float(np.abs(flat).sum(dtype=np.float64)) - (flat.size - zeros) + PRIOR) / others  # the mean, behind 1
    further = float(np.log2(1 + 1 / beyond))
    first = float(np.log2((zeros + PRIOR) / (others / 2) * (1 + beyond)))
    return CodeLengths(bits, zeros / flat.size, max(first, further), further)
