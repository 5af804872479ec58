"""A labelling in the making: labels are handed out, found to be equal, frozen, and given roles.

Rules call this; they never look at labels themselves. An axis starts with one factor. Where a rule needs it in two (a
reshape to heads, the gates of a recurrent cell) and it is still one, a split of the place that the labels come from is
asked for, and the graph is gone through again with that known: see `couple`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from bitwidth.graph.graph import Graph
from bitwidth.graph.integers import Integers
from bitwidth.graph.labels.axes import (
    UNKNOWN,
    Axis,
    Labelled,
    Labels,
    Listed,
    is_open,
    normal,
    positions,
    size_of,
    spread,
)
from bitwidth.graph.model import Op
from bitwidth.graph.ops import attribute
from bitwidth.typing import Array

Site: TypeAlias = tuple[str, int]
"""Where labels come from: a parameter or an operation, and the axis."""


_ROUNDED = 1e-2  # of a value: what holding it in few bits may change


class Role(IntFlag):
    """What operations do with an axis of a parameter; 0 for a vector along features."""

    PRODUCES = 1
    CONSUMES = 2


@dataclass(frozen=True)
class Run:
    """Labels that were handed out together: `size` of them from `start` on.

    Attributes:
        site: what they were handed out for.
        start: the first of them.
        size: how many there are.
        stride: how many indices of the site's axis lie between two of them.
        stays: whether it is known from the start that nothing is removed there.
    """

    site: Site
    start: int
    size: int
    stride: int
    stays: bool = False


class Labelling:
    """One way through the graph.

    Args:
        graph: the model.
        splits: by site, strides at which its axis is to have a new factor, ascending; each divides the next.

    Attributes:
        tensors: by name, what is known of a tensor, or of a list of tensors.
        parameters: by path, the axes of a parameter.
        folded: the paths of parameters that constants hold, by the constant's name (see `folded_into`).
        splits: those given, and those that were asked for on the way.
        pairs: arrays of labels that are equal, element by element.
        frozen: labels that stay, with the reason, in the order in which they were found.
        inexact: labels whose removal changes more than the slices that read them, with the operation.
        joint: labels of units that meet each other, not a parameter, in an operation.
        roles: labels with what is done there.
        companions: those of the pairs that meet where a kernel is computed: what is done with one is done with both.
    """

    def __init__(self, graph: Graph, splits: dict[Site, tuple[int, ...]], folded: Mapping[str, str]) -> None:
        self.graph = graph
        self.shapes = {tensor.name: tensor.shape for tensor in graph.structure.tensors}
        self.makers = {name: op for op in graph.ops for name in op.outputs}
        self._integers = Integers(self.shapes, self.makers)
        for op in graph.ops:
            if op.kind == "reshape":
                self._finer(op)
        self.folded = folded
        self.splits = splits
        self.asked = False
        self.tensors: dict[str, Labelled | Listed] = {}
        self.parameters: dict[str, tuple[Axis, ...]] = {}
        self.runs: list[Run] = []
        self.count = 1
        self.pairs: list[tuple[Labels, Labels]] = []
        self.frozen: list[tuple[Labels, str]] = []
        self.inexact: list[tuple[Labels, str]] = []
        self.joint: list[Labels] = []
        self.roles: list[tuple[Labels, Role]] = []
        self.companions: list[tuple[Labels, Labels]] = []
        self._starts: Labels | None = None

    # Labels

    def fresh(self, site: Site, size: int | None, stays: bool = False) -> Axis:
        """An axis of new labels, in the factors that its site was found to have."""
        if not size or size == 1:
            return positions(size)
        factors, stride = [], 1
        for limit in (*self.splits.get(site, ()), size):
            factors.append(self._run(site, limit // stride, stride, stays))
            stride = limit
        return tuple(reversed(factors))

    def loose(self, site: Site, size: int) -> Labels:
        """New labels that are one factor in any case."""
        return self._run(site, size, 1, stays=False)

    def _run(self, site: Site, size: int, stride: int, stays: bool) -> Labels:
        self.runs.append(Run(site, self.count, size, stride, stays))
        self.count += size
        return np.arange(self.count - size, self.count)

    def fixed(self, site: Site, size: int | None, reason: str) -> Axis:
        """An axis of new labels that stay as they are, for a reason that is passed on to what meets them."""
        axis = self.fresh(site, size, stays=True)
        self.freeze(axis, reason)
        return axis

    def freeze(self, axis: Axis, reason: str) -> None:
        """Let all units of an axis stay."""
        for factor in axis:
            self._note(self.frozen, factor, reason)

    def mark(self, axis: Axis, op: Op) -> None:
        """Note that `op` computes with all units of an axis, so that removing one is not the same as not reading it."""
        for factor in axis:
            self._note(self.inexact, factor, op.shown)

    def meet(self, axis: Axis, op: Op, is_zero: bool) -> None:
        """Note that units of an axis are summed with no parameter of their own, which adds nothing if they are zero."""
        if not is_zero:
            self.mark(axis, op)
        self.joint.extend(factor for factor in axis if factor.any())

    def play(self, axis: Axis, role: Role) -> None:
        """Give a role to the axis of a parameter that the labels come from."""
        self.roles.extend((factor, role) for factor in axis if factor.any())

    @staticmethod
    def _note(notes: list[tuple[Labels, str]], factor: Labels, text: str) -> None:
        if factor.any():
            notes.append((factor, text))

    # Equal labels

    def tie(self, first: Axis, second: Axis, op: Op) -> Axis:
        """Make two axes one, index by index; one of a single index is repeated along the other.

        Returns:
            The axis, in the factors of both.
        """
        if first == () or second == ():
            return second if first == () else first
        ones, others, found = list(first), list(second), []
        while ones and others:
            one, other = ones.pop(), others.pop()
            if not len(one) or not len(other):
                if len(one) or len(other) or ones or others:
                    return self._apart(first, second, f"{op.shown} meets it with an axis of unknown size")
                found.append(UNKNOWN)
                break
            inner = min(len(one), len(other))
            if len(one) % inner or len(other) % inner:
                return self._apart(first, second, f"{op.shown} meets it with other factors")
            if len(one) > inner:
                left, one = self._torn(one, inner, op)
                ones.append(left)
            if len(other) > inner:
                left, other = self._torn(other, inner, op)
                others.append(left)
            self._equal(one, other, op)
            found.append(one if one.any() else other)
        if ones or others:
            return self._apart(first, second, f"{op.shown} meets it with another size")
        return normal(reversed(found))

    def _apart(self, first: Axis, second: Axis, reason: str) -> Axis:
        """Two axes that are the same and whose factors are not: all stays."""
        for axis in (first, second):
            self.freeze(axis, reason)
        known = [axis for axis in (first, second) if not is_open(axis)]
        return known[0] if known else max(first, second, key=len)

    def _equal(self, one: Labels, other: Labels, op: Op) -> None:
        if one is other or np.array_equal(one, other):
            return
        both = (one != 0) & (other != 0)
        if both.any():
            self.pairs.append((one[both], other[both]))
        if not both.all():
            for labels in (one[~both], other[~both]):
                self._note(self.frozen, labels, f"{op.shown} meets it with positions")

    # Factors

    def split(self, axis: Axis, inner: int, op: Op) -> tuple[Axis, Axis]:
        """An axis of known size as two, the second of `inner` indices.

        Returns:
            The outer and the inner axis. Where the sizes of the factors do not allow it, both are positions and the
            units of the axis stay.
        """
        left, found, need = list(axis), [], inner
        while need > 1 and left:
            factor = left.pop()
            if len(factor) > need and len(factor) % need == 0:
                outer, factor = self._torn(factor, need, op)
                left.append(outer)
            if need % len(factor):
                self.freeze(axis, f"{op.shown} takes it apart unevenly")
                return positions((size_of(axis) or 1) // inner), positions(inner)
            found.append(factor)
            need //= len(factor)
        return normal(left), normal(reversed(found))

    def _torn(self, factor: Labels, inner: int, op: Op) -> tuple[Labels, Labels]:
        """A factor as two, the second of `inner` labels.

        Where it cannot be split at its source, its parts of `inner` labels are made equal: their units are removed from
        each part alike.
        """
        rows = factor.reshape(-1, inner)
        if (rows == rows[0]).all():
            return np.zeros(len(rows), np.int64), rows[0]
        if (rows == rows[:, :1]).all():
            return rows[:, 0], np.zeros(inner, np.int64)
        if not self._ask(factor, inner):
            for row in rows[1:]:
                self._equal(row, rows[0], op)
        return np.zeros(len(rows), np.int64), rows[0]

    def _ask(self, factor: Labels, inner: int) -> bool:
        """Ask for a split of all sites that the labels come from; False where one cannot be, or was before."""
        wanted: dict[Site, tuple[int, ...]] = {}
        if not factor.all():
            return False
        for run, places, members in self._sources(factor):
            stride = run.stride * inner
            known = wanted.get(run.site, self.splits.get(run.site, ()))
            whole = run.size % inner == 0 and not ((places - members) % inner).any()
            if not whole or run.size <= inner:
                return False
            strides = sorted({*known, stride})
            if any(later % earlier for earlier, later in pairwise(strides)):
                return False
            wanted[run.site] = tuple(strides)
        if all(self.splits.get(site) == strides for site, strides in wanted.items()):
            return False
        self.splits.update(wanted)
        self.asked = True
        return True

    def _sources(self, factor: Labels) -> Iterator[tuple[Run, Labels, Labels]]:
        """The runs that labels come from, each with the places in the factor and those in the run."""
        if self._starts is None or len(self._starts) != len(self.runs):
            self._starts = np.array([run.start for run in self.runs])
        found = np.searchsorted(self._starts, factor, side="right") - 1
        for place in np.unique(found):
            places = np.flatnonzero(found == place)
            yield self.runs[place], places, factor[places] - self.runs[place].start

    def merged(self, axis: Axis, op: Op) -> Labels:
        """One label for each index of an axis of known size.

        Of several factors with labels the largest keeps them, among those from which something can be removed.
        """
        held = [place for place, factor in enumerate(axis) if factor.any()]
        if not held:
            return np.zeros(size_of(axis) or 1, np.int64)
        largest = max(held, key=lambda place: (not self._stays(axis[place]), len(axis[place])))
        for place in held:
            if place != largest:
                self._note(self.frozen, axis[place], f"{op.shown} joins it with other features")
        return spread(axis, largest)

    def _stays(self, factor: Labels) -> bool:
        return all(run.stays for run, _, _ in self._sources(factor[factor > 0]))

    # What is known without labels

    def value(self, tensor: str) -> Array | None:
        """The value of a small constant, or of integers computed from shapes; None where it is not known."""
        found = self._integers.of(tensor)
        return None if found is None or np.isnan(found).any() else found

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """The shape of a tensor, as far as it is known; empty where its rank is not."""
        return self.shapes.get(tensor) or ()

    def _finer(self, op: Op) -> None:
        """Take the sizes that the result of a reshape is said to have, where its own shape leaves them open."""
        shape, given = self.shapes.get(op.outputs[0]), self._integers.of(op.inputs[1])
        if shape is not None and None in shape and given is not None and given.shape == (len(shape),):
            sizes = [None if np.isnan(size) or size < 0 else int(size) for size in given]
            self.shapes[op.outputs[0]] = tuple(
                new if old is None else old for old, new in zip(shape, sizes, strict=True)
            )

    def blank(self, tensor: str, static: bool = False) -> Labelled:
        """A tensor on which nothing is a unit."""
        shape = self.shape(tensor)
        return Labelled(tuple(positions(size) for size in shape), (False,) * len(shape), static)


def _is_near(constant: Array, held: Array) -> bool:
    """Whether a constant is a parameter as it was read, which may have been rounded since."""
    return bool(np.allclose(constant, held, rtol=_ROUNDED, atol=_ROUNDED * float(np.abs(constant).max())))


def folded_into(graph: Graph) -> dict[str, str]:
    """The parameters that constants of their own layers hold: the statistics that a Normalization computes with.

    By the constant's name. They are told by their values, which is why they are looked for once, not in each round.

    Keras makes tensors of them when it builds or loads the layer, so that no operation reads the variables.
    """
    unread: dict[str, list[str]] = {}
    for parameter in graph:
        if parameter.is_float and not parameter.uses and parameter.size > 1:
            unread.setdefault(parameter.layer, []).append(parameter.path)
    found = {}
    for op in graph.ops if unread else ():
        if op.kind == "constant" and op.layer in unread:
            value = np.asarray(attribute(op, "value"))
            shape = [size for size in value.shape if size != 1]
            for path in unread[op.layer]:
                held = graph.values[path]
                if list(held.shape) == shape and _is_near(value.reshape(held.shape), held):
                    found[op.outputs[0]] = path
    return found
