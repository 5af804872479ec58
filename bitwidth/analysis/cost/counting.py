"""Multiply-accumulates of one operation, from the shapes of what it takes and makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import TypeAlias

from bitwidth.graph import Kind, Op
from bitwidth.graph.ops import attribute

Shape: TypeAlias = tuple[int, ...]


def macs_of(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    """How many multiplications an operation does whose products it sums up; 0 for one that is no contraction.

    Args:
        op: the operation.
        operands: shapes of its operands, of the kernel too.
        result: shape of its output.

    Example:
        >>> macs_of(Op("y", "matmul", "", ("x", "k"), ("y",)), [(1, 5, 8), (8, 3)], (1, 5, 3))
        120
    """
    count = _COUNTS.get(op.kind)
    return 0 if count is None or len(operands) < 2 else count(op, operands, result)


def _matmul(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    first = operands[0]
    return prod(result) * first[-2 if attribute(op, "transpose_a") else -1]


def _einsum(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    """The sizes of all axes that an equation names, each once; those of an ellipsis are at the same places of all."""
    given, _, _ = str(attribute(op, "equation") or "").replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for names, shape in zip(given.split(","), operands, strict=False):
        before, dots, after = names.partition("...")
        named = [*zip(before, shape, strict=False), *zip(reversed(after), reversed(shape), strict=False)]
        hidden = shape[len(before) : len(shape) - len(after)] if dots else ()
        for name, size in [*named, *((f".{place}", size) for place, size in enumerate(reversed(hidden)))]:
            sizes[name] = max(size, sizes.get(name, 1))
    return prod(sizes.values())


def _conv(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    return prod(result) * prod(operands[1][:-1])


def _transposed_conv(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    return prod(operands[0]) * prod(operands[1][:-1])


def _depthwise(op: Op, operands: Sequence[Shape], result: Shape) -> int:
    return prod(result) * prod(operands[1][:-2])


_COUNTS: Mapping[Kind, Callable[[Op, Sequence[Shape], Shape], int]] = MappingProxyType(
    {
        "matmul": _matmul,
        "einsum": _einsum,
        "conv": _conv,
        "transposed_conv": _transposed_conv,
        "depthwise_conv": _depthwise,
    }
)
