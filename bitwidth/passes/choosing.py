"""Choosing: from what is lost with each weight to masks, by pattern, scope and floors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import numpy as np

from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.criteria import Losses, Parameters
from bitwidth.passes.layout import Layout, layout_of
from bitwidth.passes.patterns import Pattern
from bitwidth.passes.ranking import (
    Candidates,
    Mask,
    Units,
    alike,
    guard,
    keep_most_important,
    lamp,
    output_channels,
)

Masks = Mapping[str, Mask]


@dataclass(frozen=True)
class Choosing:
    """How many weights go, and which may.

    Attributes:
        pattern: which weights go together.
        sparsity: share of the weights to be zero.
        scope: whether the weights of all parameters compete, or those of each.
        floor: what each keeps under the global scope, as a share of what the local one would leave it.
        layouts: of the parameters, by path.
        channels: the channel axes of the kernels in front of the model's outputs, by path.
    """

    pattern: Pattern
    sparsity: float
    scope: Literal["global", "local"]
    floor: float
    layouts: Mapping[str, Layout]
    channels: Mapping[str, list[tuple[int, ...]]] = field(default_factory=dict)

    @classmethod
    def on(
        cls,
        graph: Graph,
        chosen: Iterable[Parameter],
        pattern: Pattern,
        sparsity: float,
        scope: Literal["global", "local"],
        floor: float,
    ) -> Choosing:
        """For parameters of a graph."""
        layouts = {parameter.path: layout_of(graph, parameter) for parameter in chosen}
        return cls(pattern, sparsity, scope, floor, layouts, output_channels(graph))

    @property
    def pattern_name(self) -> str:
        """By which a mask says what it is; empty where that is nothing to keep, or not all of it at this sparsity."""
        return self.pattern.name if self.pattern.most == 1 or self.sparsity >= self.pattern.most else ""

    def masks(self, chosen: Parameters, losses: Losses) -> Masks:
        """A mask for each parameter, True where a weight is kept: never beyond the sparsity, nor beneath the floors."""
        found: dict[str, Mask] = {}
        for group in self._groups(chosen):
            competing = self._candidates(group, losses)
            guards = [self._guard(p, one) for p, one in zip(group, competing, strict=True)]
            keeps = keep_most_important(competing, self._count(guards), guards)
            found.update({p.path: keep for p, keep in zip(group, keeps, strict=True)})
        return found

    def check_room(self, chosen: Parameters, losses: Losses) -> None:
        """Refuse a sparsity that the floors forbid.

        Raises:
            ConfigError: it is too much, with the greatest that is possible.
        """
        if self.scope == "local" or not self.floor or self.pattern.most < 1:
            return
        competing = [Candidates.of(losses.squares[p.path], self.units(p)) for p in chosen]
        guards = [self._guard(p, one) for p, one in zip(chosen, competing, strict=True)]
        kept = sum(
            int(one.sizes[one.units.hold(where)].sum(dtype=np.float64))
            for one, where in zip(competing, guards, strict=True)
        )
        total = sum(parameter.size for parameter in chosen)
        if int(self.sparsity * total) > total - kept:
            names = chosen[0].path if len(chosen) == 1 else f"{len(chosen)} tensors"
            raise ConfigError(
                f"Prune: sparsity={self.sparsity:g} is too much for the {total:,} weights of {names}; {kept:,} of them "
                f"stay in any case: give sparsity={_rounded_down(1 - kept / total):g} at most, or a lower floor"
            )

    def units(self, parameter: Parameter) -> Units:
        """Which weights of a parameter stay or go together."""
        return self.pattern.units(self.layouts[parameter.path], parameter.shape)

    def _groups(self, chosen: Parameters) -> list[Parameters]:
        """The parameters whose weights compete."""
        return [chosen] if self.scope == "global" else [(parameter,) for parameter in chosen]

    def _candidates(self, group: Parameters, losses: Losses) -> list[Candidates]:
        """The units of each parameter, with scores that can be compared within the group."""
        units = {parameter.path: self.units(parameter) for parameter in group}
        plain = {path: Candidates.of(losses.squares[path], own) for path, own in units.items()}
        known = {path: Candidates.of(losses.known[path], own) for path, own in units.items() if path in losses.known}
        if self.scope == "local":
            return [known.get(parameter.path, plain[parameter.path]) for parameter in group]
        if not losses.comparable:
            known = {path: _comparable(one) for path, one in known.items()}
        others = [one.scores for one in known.values()]
        found = []
        for path, one in plain.items():
            if path in known:
                found.append(known[path])
            elif any((scores > float("-inf")).any() for scores in others):
                found.append(Candidates(one.units, alike(one.scores, others), one.sizes))
            else:
                found.append(_comparable(one))
        return found

    def _guard(self, parameter: Parameter, one: Candidates) -> Mask:
        """Which weights stay in any case: the floor of each tensor, and one in each channel that the model outputs."""
        stay = self.pattern.stay(one.of_weights, self.layouts[parameter.path])
        if stay is not None:
            return stay
        if self.scope == "local" or not self.floor:
            return guard(one.of_weights, 1)
        least = max(1, ceil(self.floor * (1 - self.sparsity) * parameter.size - 1e-9))
        return guard(one.of_weights, least, self.channels.get(parameter.path, ()))

    def _count(self, guards: list[Mask]) -> int:
        """How many weights go: of n:m, the share of those that do not stay in any case."""
        total = sum(where.size for where in guards)
        if self.pattern.most == 1:
            return round(self.sparsity * total)
        return round(self.sparsity / self.pattern.most * (total - sum(int(where.sum()) for where in guards)))


def _comparable(one: Candidates) -> Candidates:
    return Candidates(one.units, lamp(one.scores, one.sizes), one.sizes)


def _rounded_down(share: float) -> float:
    return int(share * 1e4) / 1e4
