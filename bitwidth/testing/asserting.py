"""What the suites share: a rule that holds or is named, and equality to the bit."""

from __future__ import annotations

from bitwidth.typing import Array


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with `message` unless the condition holds, under `python -O` too."""
    if not condition:
        raise AssertionError(message)


def same_bits(left: Array, right: Array) -> bool:
    """Whether two arrays have one shape and the same bytes."""
    return left.shape == right.shape and left.tobytes() == right.tobytes()
