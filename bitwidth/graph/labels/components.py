"""Components: labels that were found to be equal, directly or through others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwidth.graph.labels.axes import Labels


def components(count: int, pairs: Sequence[tuple[Labels, Labels]]) -> Labels:
    """The least label that each of `count` labels is equal to.

    Every label takes the least one that it or a partner has, and then the label that this one has taken, until nothing
    changes: a few rounds over arrays, as the length of a chain halves each time.

    Args:
        count: how many labels there are, from 0 on.
        pairs: equal labels, as two arrays of the same length each.

    Example:
        >>> components(6, [(np.array([1, 3]), np.array([2, 2]))])
        array([0, 1, 1, 1, 4, 5])
    """
    least = np.arange(count)
    if not pairs:
        return least
    one = np.concatenate([first for first, _ in pairs])
    other = np.concatenate([second for _, second in pairs])
    while True:
        low = np.minimum(least[one], least[other])
        before = least.copy()
        for ends in (one, other):
            np.minimum.at(least, least[ends], low)
            np.minimum.at(least, ends, low)
        while True:
            jumped = least[least]
            if np.array_equal(jumped, least):
                break
            least = jumped
        if np.array_equal(before, least):
            return least
