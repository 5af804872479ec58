"""Widths by layer: `bits={"conv1": 8, "head*": 6, None: 4}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter
from bitwidth.graph.selectors import names

Bits: TypeAlias = int | Mapping[str | None, int] | None
NOT_NAMED = "no width in `bits` names it"


def frozen_bits(bits: Bits, owner: str) -> Bits:
    """`bits` as the field of a frozen pass: a copy of a mapping.

    Raises:
        ConfigError: the mapping is empty, or a key of it is neither a path nor None.
    """
    if not isinstance(bits, Mapping):
        return bits
    if not bits or not all(key is None or isinstance(key, str) for key in bits):
        raise ConfigError(f"{owner}: bits by layer are a dict from paths (None for the rest) to widths, got {bits!r}")
    return dict(bits)


def widths_of(bits: Bits) -> tuple[object, ...]:
    """Every width that is asked for."""
    if isinstance(bits, Mapping):
        return tuple(bits.values())
    return () if bits is None else (bits,)


def width_of(bits: Bits, parameter: Parameter) -> int | None:
    """The width for a parameter; None where none is asked for.

    Example:
        >>> kernel = Parameter("conv1/kernel", (3, 3, 1, 8), "float32", "kernel", layer="conv1")
        >>> width_of({"conv1": 8, None: 4}, kernel), width_of({"head": 8, None: 4}, kernel), width_of(3, kernel)
        (8, 4, 3)
    """
    if not isinstance(bits, Mapping):
        return bits
    named = next((width for key, width in bits.items() if key is not None and names(key, parameter)), None)
    return bits.get(None) if named is None else named


def with_widths(bits: Bits, change: Callable[[int], int]) -> Bits:
    """`bits` with every width changed."""
    if isinstance(bits, Mapping):
        return {key: change(width) for key, width in bits.items()}
    return None if bits is None else change(bits)


def check_named(bits: Bits, graph: Graph, owner: str) -> None:
    """Check that the widths by layer fit a model.

    Raises:
        SelectionError: a path names nothing in the model.
        ConfigError: two paths give one parameter different widths.
    """
    if not isinstance(bits, Mapping):
        return
    given: dict[str, str] = {}
    for key in bits:
        if key is None:
            continue
        for parameter in graph.select(key):
            other = given.setdefault(parameter.path, key)
            if bits[other] != bits[key]:
                both = f"{other!r} with {bits[other]} and {key!r} with {bits[key]}"
                raise ConfigError(f"{owner}: bits name {parameter.path} twice: {both}")
