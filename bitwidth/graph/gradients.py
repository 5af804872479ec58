"""Gradients: from which operations a gradient of the model's outputs can come back."""

from __future__ import annotations

from bitwidth.graph.graph import Graph
from bitwidth.graph.ops import spec


def differentiable(graph: Graph) -> frozenset[str]:
    """Names of the operations that some output of the model depends on differentiably.

    A gradient passes floating point tensors only, so whatever is behind an index, a comparison or a cast to integers
    is out of its reach, and whatever is behind a rounding or a gradient that is
    stopped too. A gradient that a model defines itself (a straight-
    through estimator) is not seen here.

    Example:
        >>> from bitwidth.graph import Op, Structure, Tensor
        >>> ops = (Op("a", "relu", "", ("x",), ("y",)), Op("b", "round", "", ("y",), ("z",)))
        >>> tensors = tuple(Tensor(name, (None, 2), "float32") for name in "xyz")
        >>> sorted(differentiable(Graph(Structure("net", ops, tensors, (), ("x",), ("z",)), [], {})))
        []
        >>> sorted(differentiable(Graph(Structure("net", ops, tensors, (), ("x",), ("y",)), [], {})))
        ['a']
    """
    carriers = {t.name for t in graph.structure.tensors if "float" in t.dtype or "complex" in t.dtype}
    reached = set(graph.structure.outputs) & carriers
    found = set()
    for op in reversed(graph.ops):  # the operations of a loop stand before the loop itself
        if spec(op).stops_gradient or not reached.intersection(op.outputs):
            continue
        found.add(op.name)
        reached.update(carriers.intersection(op.inputs))
        for key, names in op.attributes:
            if key.endswith("_outputs"):
                reached.update(carriers.intersection(names))
    return frozenset(found)
