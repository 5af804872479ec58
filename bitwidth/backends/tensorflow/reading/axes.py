"""Axes: which axes of a parameter each axis of a tensor computed from it is made of.

`Axes` holds, for each axis of the tensor, factors `(origins, size)`: `origins` are axes of the parameter, and the
sizes multiply to the axis's size. A kernel (D, H, K) reshaped to (D, H * K) has the axes `[D from 0], [H from 1, K
from 2]`, and a reshape back tears them apart again. A function returns None where the answer is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

Factor: TypeAlias = tuple[tuple[int, ...], int]
Axes: TypeAlias = tuple[tuple[Factor, ...], ...]


def whole(shape: Sequence[int]) -> Axes:
    """The axes of the parameter itself."""
    return tuple((((axis,), size),) for axis, size in enumerate(shape))


def origins(axes: Axes, positions: Sequence[int] | None = None) -> tuple[int, ...]:
    """Axes of the parameter that the axes at `positions` (negative ones count from the end; None: all) are made of."""
    chosen = axes if positions is None else [axes[position] for position in positions]
    return tuple(sorted({origin for factors in chosen for held, _ in factors for origin in held}))


def repeats(axes: Axes) -> bool:
    """Whether the tensor holds the parameter's elements several times: it was broadcast along an axis, or a part."""
    return any(not held and size > 1 for factors in axes for held, size in factors)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes after a reshape to `shape` in row-major order; None where a factor would be torn unevenly."""
    left = [factor for factors in axes for factor in factors]
    result: list[tuple[Factor, ...]] = []
    for size in shape:
        taken: list[Factor] = []
        if size == 1 and left and left[0][1] == 1:
            taken.append(left.pop(0))
        need = size
        while need > 1:
            if not left:
                return None
            held, length = left.pop(0)
            if length > need:
                if length % need:
                    return None
                left.insert(0, (held, length // need))
                length = need
            elif need % length:
                return None
            taken.append((held, length))
            need //= length
        result.append(tuple(taken))
    return tuple(result) if all(length == 1 for _, length in left) else None


def permuted(axes: Axes, order: Sequence[int]) -> Axes:
    """The axes after a transpose: axis `i` is axis `order[i]` of before."""
    return tuple(axes[position] for position in order)


def fitted(axes: Axes, shape: Sequence[int], repeated: bool = False) -> Axes | None:
    """The axes after a broadcast, slice, pad, split, tile or concatenation to `shape`, aligned at the last axis.

    Args:
        axes: those before.
        shape: of the tensor after it.
        repeated: whether an axis of one index grows by repeating it, as in a broadcast or a tile.
    """
    if len(shape) < len(axes):
        return None
    padded = ((),) * (len(shape) - len(axes)) + axes
    return tuple(_resized(factors, size, repeated) for factors, size in zip(padded, shape, strict=True))


def _resized(factors: tuple[Factor, ...], size: int, repeated: bool) -> tuple[Factor, ...]:
    """The factors of an axis cut or extended to `size`; what is left of each is not known, and one index is no axis.

    An axis that the parameter is repeated along has a factor without origins.
    """
    length = prod(length for _, length in factors)
    if size == 1:
        return factors if length == 1 else ()
    if not origins((factors,)) or (repeated and length == 1):
        return (((), size),)
    return factors if length == size else ((origins((factors,)), size),)
