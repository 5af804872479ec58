"""Code lengths: the bits that an entropy coder pays for each integer of a tensor, and how they change with the weights.

Integers are coded with the table of their own frequencies. A weight `u` (in steps) that is rounded after uniform noise
in -1/2 to 1/2 costs `E[T(u + noise)]` bits, T being the table read by linear interpolation. The slope of that
expectation is `T(u + 1/2) - T(u - 1/2)` exactly, so that no random numbers are needed; it is itself piecewise linear,
the differences `T[k] - T[k - 1]` read at `u + 1/2`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACH = 15  # codes up to this magnitude have their own entry
PRIOR = 0.5  # of each entry: a code that is not used now can be used later


@dataclass(frozen=True, eq=False)
class CodeLengths:
    """The code lengths of one tensor.

    Attributes:
        first: the code that stands before the first entry of `slopes`.
        slopes: float32; entry i is what code `first + i + 1` costs more than the code before it, in bits.
        bits: of all codes together.
        zeros: the share of codes that are zero.

    Example:
        >>> found = code_lengths(np.array([0, 0, 0, 0, 0, 0, 1, -1]))
        >>> bool(found.slope(1.0) > 0), bool(found.slope(-1.0) < 0), abs(round(found.slope(0.0), 6)), found.zeros
        (True, True, 0.0, 0.75)
    """

    first: int
    slopes: NDArray[np.float32]
    bits: float
    zeros: float

    def slope(self, u: float) -> float:
        """Bits per step that the expected code length of a weight of `u` steps grows by."""
        places = self.first + 1 + np.arange(len(self.slopes))
        return float(np.interp(u + 0.5, places, self.slopes))


def code_lengths(codes: NDArray[np.integer], low: float = -np.inf, high: float = np.inf) -> CodeLengths:
    """The lengths of codes under the table of their own frequencies.

    Codes beyond +-15 are coded by how far beyond they are, geometrically (Golomb 1966, "Run-length encodings"). Within
    the bounds of a grid a code outside of it costs what the outermost one does: rounding clips.

    Args:
        codes: integers; zero stands for the value zero. Pruned ones are left out.
        low: the least code that there is.
        high: the greatest.

    Returns:
        The lengths; their arrays have the same size for the same bounds.
    """
    first, last = int(max(-REACH, low)), int(min(REACH, high))
    flat = codes.reshape(-1)
    own = (flat >= first) & (flat <= last)
    counts = np.bincount(flat[own] - first, minlength=last - first + 1) + PRIOR
    beyond = np.where(flat < 0, first - flat, flat - last)[~own].astype(np.float64)  # 1 is the next one
    tails = (low < first) + (high > last)
    behind = PRIOR + len(beyond) if tails else 0.0
    total = counts.sum() + behind
    lengths = -np.log2(counts / total)
    further = (PRIOR + (beyond - 1).sum()) / max(behind, PRIOR)  # the mean number of steps behind the first
    each = float(np.log2(1 + 1 / further))
    start = float(-np.log2(max(behind, PRIOR) / total / max(tails, 1)) + np.log2(1 + further))
    tail = start + each * np.arange(3)
    left = tail[::-1] if low < first else np.full(3, lengths[0])
    right = tail if high > last else np.full(3, lengths[-1])
    table = np.concatenate([left, lengths, right])
    bits = ((counts - PRIOR) * lengths).sum() + start * len(beyond) + each * (beyond - 1).sum()
    zeros = float((flat == 0).mean()) if flat.size else 1.0
    return CodeLengths(first - 3, np.diff(table).astype(np.float32), float(bits), zeros)
