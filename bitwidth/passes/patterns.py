"""Patterns: which weights of a kernel are pruned together, and which have to stay."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from bitwidth.context import check_count
from bitwidth.errors import ConfigError
from bitwidth.passes.layout import Layout
from bitwidth.passes.ranking import GONE, Mask, Scores, Units

_N_OF_M = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
_BLOCK = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})")


@dataclass(frozen=True)
class Block:
    """Blocks of weights that are pruned together: `Prune(0.5, pattern=bw.Block(4, 1))`.

    Blocks lie side by side from the first input and output on; the last ones along an axis are smaller where the block
    does not divide it. In a convolution each position of the window has blocks of its own.

    Attributes:
        inputs: consecutive inputs of a block, at least 1.
        outputs: consecutive outputs of a block, at least 1.

    Raises:
        ConfigError: a field is not an integer of at least 1.

    Example:
        >>> import bitwidth as bw
        >>> bw.Prune(0.5, pattern="block").rule == bw.Prune(0.5, pattern=bw.Block(inputs=4, outputs=1)).rule
        True
    """

    inputs: int = 4
    outputs: int = 1

    def __post_init__(self) -> None:
        check_count(self.inputs, "Block", "inputs")
        check_count(self.outputs, "Block", "outputs")


class Pattern(ABC):
    """Which weights go together, and which have to stay."""

    @property
    def most(self) -> float:
        """The greatest sparsity that it leaves."""
        return 1.0

    @property
    def name(self) -> str:
        """By which a mask says that it has this pattern, as `pattern_of` reads it; empty if that is nothing to keep."""
        return ""

    def unfit(self, layout: Layout) -> str | None:
        """Why a kernel cannot be pruned in this pattern, or None."""
        return None

    @abstractmethod
    def units(self, layout: Layout, shape: tuple[int, ...]) -> Units:
        """The units of a parameter of `shape`."""

    def stay(self, scores: Scores, layout: Layout) -> Mask | None:
        """The weights that the pattern keeps, whatever the sparsity, by the scores of all; None where it keeps none."""
        return None

    @abstractmethod
    def broken(self, before: Mask, after: Mask, layout: Layout) -> str | None:
        """What is wrong with a mask as one of this pattern at full sparsity, over the mask of before; or None."""


@dataclass(frozen=True)
class Grouped(Pattern):
    """Weights that go in units: those that have the same numbers along axes.

    Attributes:
        inputs: consecutive inputs of a unit; None for all of them.
        outputs: consecutive outputs of a unit; None for all of them.
        whole_window: whether a unit holds all positions of the window.
    """

    inputs: int | None
    outputs: int | None
    whole_window: bool

    @property
    @override
    def name(self) -> str:
        return "" if self.inputs is None or self.outputs is None else f"{self.inputs}x{self.outputs}"

    @override
    def unfit(self, layout: Layout) -> str | None:
        if self.inputs not in (1, None) and not layout.inputs:
            return "each of its outputs sums over one channel: it has no blocks of inputs"
        if self.outputs is None and not layout.inputs:
            return 'each of its outputs sums over one channel: it has no rows, give pattern="columns"'
        return None if self.units(layout, layout.shape).sums(np.ones(layout.shape)).size > 1 else "it is all one unit"

    @override
    def units(self, layout: Layout, shape: tuple[int, ...]) -> Units:
        parts = [(layout.numbers(layout.groups), layout.count(layout.groups))]
        if not self.whole_window:
            parts.append((layout.numbers(layout.window), layout.count(layout.window)))
        for size, axes in ((self.inputs, layout.inputs), (self.outputs, layout.outputs)):
            if size is not None:
                parts.append((layout.numbers(axes) // size, -(-layout.count(axes) // size)))
        labels = np.zeros((1,) * len(layout.shape), np.intp)
        for numbers, count in parts:
            labels = labels * count + numbers
        return Units(shape, np.broadcast_to(labels, layout.shape).reshape(shape))

    @override
    def broken(self, before: Mask, after: Mask, layout: Layout) -> str | None:
        units = self.units(layout, before.shape)
        left, had = units.sums(after), units.sums(before)
        torn = int(((left > 0) & (left < had)).sum())
        return f"{torn:,} units were pruned in part" if torn else None


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weight may go."""

    @override
    def units(self, layout: Layout, shape: tuple[int, ...]) -> Units:
        return Units(shape)

    @override
    def broken(self, before: Mask, after: Mask, layout: Layout) -> str | None:
        return None


@dataclass(frozen=True)
class NOfM(Pattern):
    """At most n of every m consecutive inputs of an output stay.

    Attributes:
        n: how many stay.
        m: of how many.
    """

    n: int
    m: int

    @property
    @override
    def most(self) -> float:
        """The share that is zero."""
        return 1 - self.n / self.m

    @property
    @override
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    @override
    def unfit(self, layout: Layout) -> str | None:
        if layout.looked_up:
            return f"a table that is looked up sums over nothing: {self.n}:{self.m} has no use there"
        if not layout.inputs:
            return f"each of its outputs sums over one channel: it has no inputs to keep {self.n} of {self.m} of"
        count = layout.count(layout.inputs)
        return f"its {count} inputs are not a multiple of {self.m}" if count % self.m else None

    @override
    def units(self, layout: Layout, shape: tuple[int, ...]) -> Units:
        return Units(shape)

    @override
    def stay(self, scores: Scores, layout: Layout) -> Mask:
        lines = layout.lines(scores, self.m)
        places = np.argsort(-lines, axis=1, kind="stable")[:, : self.n]
        kept = np.zeros(lines.shape, np.bool_)
        np.put_along_axis(kept, places, True, axis=1)
        return layout.from_lines(kept & (lines > GONE), scores.shape)

    @override
    def broken(self, before: Mask, after: Mask, layout: Layout) -> str | None:
        over = int((layout.lines(after, self.m).sum(axis=1) > self.n).sum())
        return f"more than {self.n} weights stay in {over:,} of its runs of {self.m}" if over else None


_NAMED: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "block": Grouped(Block().inputs, Block().outputs, whole_window=False),
    "rows": Grouped(inputs=1, outputs=None, whole_window=True),
    "columns": Grouped(inputs=None, outputs=1, whole_window=True),
}


def pattern_of(given: object, owner: str) -> Pattern:
    """The pattern that a field says.

    Raises:
        ConfigError: it is not one.

    Example:
        >>> pattern_of("2:4", "Prune").most
        0.5
    """
    if isinstance(given, Block):
        return Grouped(given.inputs, given.outputs, whole_window=False)
    if isinstance(given, str) and given in _NAMED:
        return _NAMED[given]
    block = _BLOCK.fullmatch(given) if isinstance(given, str) else None
    if block is not None:
        return Grouped(int(block[1]), int(block[2]), whole_window=False)
    found = _N_OF_M.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        shown = ", ".join(f'"{name}"' for name in _NAMED)
        raise ConfigError(f'{owner}: pattern must be {shown}, "n:m" such as "2:4", or bw.Block(...), got {given!r}')
    n, m = int(found[1]), int(found[2])
    if n >= m:
        raise ConfigError(f'{owner}: of the pattern "n:m" n must be below m, got {given!r}')
    return NOfM(n, m)
