"""What comes with the targets of a batch for a teacher: its outputs, or inputs that the model does not take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from bitwidth.typing import Nest

_LABELS, _TAUGHT = "bitwidth labels", "bitwidth taught"  # keys of a dict of targets


@final
@dataclass(frozen=True, eq=False)
class Beside:
    """What comes with the targets of each sample.

    Attributes:
        rows: arrays of as many rows as the data, nested; None for the inputs as the data have them.
    """

    rows: Nest = None


def split(targets: Nest) -> tuple[Nest, Nest]:
    """The labels, and what came with them; None for what is not there."""
    if isinstance(targets, dict) and _TAUGHT in targets:
        return targets.get(_LABELS), targets[_TAUGHT]
    return targets, None


def joined(labels: Nest, given: Nest) -> Nest:
    """Targets of which `split` makes these again.

    Example:
        >>> split(joined(None, 3)), split(joined(2, 3)), split(2)
        ((None, 3), (2, 3), (2, None))
    """
    return {_TAUGHT: given} if labels is None else {_LABELS: labels, _TAUGHT: given}
