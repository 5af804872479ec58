"""`KeptInputs`: which features of a flat input a model still takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from bitwidth.errors import ModelError, Refused


@final
@dataclass(frozen=True)
class KeptInputs:
    """The features of one input of a model that are left after cuts, by their numbers before the first one.

    Attributes:
        place: of the input among those of the model, in flat order.
        width: how many features it had at first.
        cuts: after each cut, the features that are left, ascending.

    Raises:
        ModelError: a cut that leaves nothing, or something else than a part of what the one before left.

    Example:
        >>> first = KeptInputs(0, 10, ((0, 2, 3, 5, 6, 8, 9),))
        >>> both = first.then([1, 2, 6])
        >>> both.columns
        (2, 3, 9)
        >>> both.of(10), both.of(7), both.of(3)
        ((2, 3, 9), (1, 2, 6), None)
    """

    place: int
    width: int
    cuts: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.cuts or self.place < 0:
            raise ModelError("no cut of an input")
        for count, kept in zip(self.widths, self.cuts, strict=False):
            ascending = bool(kept) and list(kept) == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < self.width
            if not ascending or len(kept) >= count:
                raise ModelError(f"a cut keeps some of {count} columns, ascending; got {_brief(kept)}")
        for before, after in pairwise(self.cuts):
            if not set(after) <= set(before):
                raise ModelError(f"a cut keeps some of the columns {_brief(before)}; got {_brief(after)}")

    @property
    def columns(self) -> tuple[int, ...]:
        """The features that the model takes now."""
        return self.cuts[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """How many features data may have: as many as at first, or as after any of the cuts."""
        return (self.width, *map(len, self.cuts))

    def then(self, left: Sequence[int]) -> KeptInputs:
        """After one more cut, which leaves these of the features that there are now, by their places."""
        columns = self.columns
        return KeptInputs(self.place, self.width, (*self.cuts, tuple(columns[int(place)] for place in left)))

    def of(self, width: int) -> tuple[int, ...] | None:
        """The columns that the model takes, of data that has so many; None for all of them.

        Raises:
            Refused: the model never took as many.
        """
        if width == len(self.columns):
            return None
        if width not in self.widths:
            known = ", ".join(map(str, self.widths[:-1]))
            raise Refused(f"{width} columns, and the model takes {len(self.columns)}, chosen of {known}")
        if width == self.width:
            return self.columns
        held = {column: place for place, column in enumerate(self.cuts[self.widths.index(width) - 1])}
        return tuple(held[column] for column in self.columns)


def _brief(columns: Sequence[int]) -> str:
    shown = ", ".join(map(str, columns[:12]))
    return f"{shown}, ... ({len(columns)} columns)" if len(columns) > 12 else shown or "none"
