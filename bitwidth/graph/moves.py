"""Which values a pass has moved by itself, and not only put into other encodings."""

from __future__ import annotations

import numpy as np

from bitwidth.graph.graph import Graph
from bitwidth.typing import Array


def moved(before: Graph, after: Graph) -> dict[str, Array]:
    """What training has to go on from, by path, for the parameters whose values are new.

    A value that is the old one put into an encoding was not moved: its float master is what it was before.

    Args:
        before: the graph that a pass was given.
        after: the graph that it returned.

    Example:
        >>> from bitwidth.graph import Parameter, Structure
        >>> kernel = Parameter("dense/kernel", (2,), "float32", "kernel", layer="dense")
        >>> before = Graph(Structure("net", (), (), (), (), ()), [kernel], {"dense/kernel": np.ones(2, np.float32)})
        >>> moved(before, before.update({"dense/kernel": np.zeros(2, np.float32)}))
        {'dense/kernel': array([0., 0.], dtype=float32)}
    """
    found = {}
    for parameter in after:
        path = parameter.path
        value, old = after.values.value(path), before.values.value(path)
        if not parameter.is_float or value.same(old):
            continue
        start, given = value.start, old.read()
        if np.array_equal(start, given):
            continue
        if value.master is None and np.array_equal(start, parameter.encoding.project(given)):
            continue
        found[path] = start
    return found
