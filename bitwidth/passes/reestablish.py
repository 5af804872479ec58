"""Patterns of masks through a cut: n:m is put in force again on what is left, and blocks are not torn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from bitwidth.encodings import masked, pattern_of_mask
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter
from bitwidth.graph.labels import Coupling, Group, Member, Removal
from bitwidth.passes.layout import layout_of
from bitwidth.passes.patterns import Grouped, NOfM, pattern_of
from bitwidth.passes.ranking import GONE


def check_patterns(
    graph: Graph, coupling: Coupling, groups: Iterable[Group], counts: Mapping[str, int] | None, step: int, owner: str
) -> None:
    """Raise unless the patterns of all masks that a cut goes through can be kept.

    Args:
        graph: the model.
        coupling: its units.
        groups: those of which units are removed.
        counts: how many units of each stay, by name; None where that is not known yet.
        step: what these numbers are multiples of.
        owner: the pass, for messages.

    Raises:
        ConfigError: blocks would be torn, or the inputs that are left are not a multiple of the m of n:m.
    """
    through = [(group, member) for group in groups for member in group.members if _pattern(graph, member.path)]
    if not through:
        return
    kept = {} if counts is None else {group.name: range(counts[group.name]) for group, _ in through}
    after = Removal(coupling, kept).predicted(graph) if kept else graph
    for group, member in through:
        if counts is not None and counts[group.name] == group.size:
            continue
        rule = pattern_of(_pattern(graph, member.path), owner)
        reason = _torn(rule, member) if isinstance(rule, Grouped) else None
        if isinstance(rule, NOfM) and member.consumes:
            if counts is None and step % rule.m:
                reason = f"give multiple_of={rule.m}, so that its inputs stay a multiple of {rule.m}"
            elif counts is not None and (why := rule.unfit(layout_of(after, after[member.path]))) is not None:
                reason = f"{why}: give multiple_of={rule.m}"
        if reason is not None:
            raise ConfigError(
                f"{owner}: {member.path} is pruned in the pattern {rule.name}, which removing units of {group.name} "
                f"would break: {reason}"
            )


def _torn(rule: Grouped, member: Member) -> str | None:
    if (member.consumes and rule.inputs not in (1, None)) or (member.produces and rule.outputs not in (1, None)):
        return "blocks would be torn; shrink before pruning"
    return None


def _pattern(graph: Graph, path: str) -> str:
    return pattern_of_mask(graph[path].encoding)


def _through(graph: Graph, removal: Removal) -> Iterator[Parameter]:
    """The parameters with a pattern that a cut goes through."""
    return (graph[path] for path in removal.cut.kept if _pattern(graph, path))


def in_pattern(graph: Graph, removal: Removal) -> tuple[Graph, dict[str, int]]:
    """The model before a cut, with more zeros, so that what is left is in the patterns that it was pruned in.

    Of each run that would keep too many, the weights of least magnitude go.

    Returns:
        The model, and by the path of a parameter how many weights went.
    """
    gone: dict[str, int] = {}
    parameters = list(_through(graph, removal))
    after = removal.predicted(graph) if parameters else graph
    for parameter in parameters:
        path, mask = parameter.path, parameter.encoding.mask
        rule = pattern_of(_pattern(graph, path), "Shrink")
        assert mask is not None
        if not isinstance(rule, NOfM):
            continue
        left, values = removal.cut.take(path, mask), removal.cut.take(path, graph.values[path])
        stay = rule.stay(np.where(left, np.square(values.astype(np.float64)), GONE), layout_of(after, after[path]))
        if (over := int(left.sum() - (left & stay).sum())) == 0:
            continue
        axes = removal.cut.kept[path]
        whole = mask.copy()
        whole[np.ix_(*(axes.get(axis, np.arange(size)) for axis, size in enumerate(mask.shape)))] = left & stay
        graph, gone[path] = graph.update(encodings={path: masked(parameter.encoding, whole)}), over
    return graph, gone


def named_again(before: Graph, after: Graph, removal: Removal) -> Graph:
    """The model after a cut, with its masks named by the patterns that they still have."""
    names = {parameter.path: _pattern(before, parameter.path) for parameter in _through(before, removal)}
    held = {path: after[path].encoding for path in names}
    return after.update(
        encodings={
            path: masked(encoding, encoding.mask, names[path])
            for path, encoding in held.items()
            if encoding.mask is not None
        }
    )
