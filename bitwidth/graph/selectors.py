"""Selectors: what a `where=` may say, and the parameters it names.

A selector is None (all), a string (a parameter's path or a layer's path, `*` and `?` as in a shell; a layer stands for
all below it), a list of strings, `AllBut(...)` one of these, or a function from a `Parameter` to a bool (one that is
registered can be written to a recipe).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from bitwidth.errors import SelectionError
from bitwidth.graph.model import Parameter, Structure
from bitwidth.text import brief, quoted


@dataclass(frozen=True)
class AllBut:
    """A selector of everything that another one does not name; plain data, so that recipes hold it.

    Attributes:
        where: what is left out: a path, a list of paths, or a function of a parameter.

    Raises:
        SelectionError: `where` has not the form of a selector, or is None: nothing would be left.

    Example:
        >>> AllBut(["conv1", "logits"])
        AllBut(where=('conv1', 'logits'))
    """

    where: Where

    def __post_init__(self) -> None:
        check_where(self.where, "AllBut")
        if self.where is None:
            raise SelectionError("AllBut: name what is left out; None stands for all")
        object.__setattr__(self, "where", frozen_where(self.where))


Where: TypeAlias = "str | Sequence[str] | AllBut | Callable[[Parameter], bool] | None"


@dataclass(frozen=True)
class Selection:
    """What a pass works on, and what it leaves alone, as a value.

    Attributes:
        chosen: the parameters, in the graph's order.
        skipped: the reason by path, for each parameter that is not chosen.

    Example:
        >>> bias = Parameter("dense/bias", (2,), "float32", "bias", layer="dense")
        >>> Selection((bias,)).fitting(lambda parameter: f"{parameter.role}: only kernels are pruned").skipped
        {'dense/bias': 'bias: only kernels are pruned'}
    """

    chosen: tuple[Parameter, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> frozenset[str]:
        """Paths of the chosen parameters."""
        return frozenset(parameter.path for parameter in self.chosen)

    def fitting(self, unfit: Callable[[Parameter], str | None]) -> Selection:
        """Those of the chosen for which `unfit` has no reason; the others are skipped with it."""
        reasons = {parameter.path: unfit(parameter) for parameter in self.chosen}
        chosen = tuple(parameter for parameter in self.chosen if reasons[parameter.path] is None)
        return Selection(chosen, {**self.skipped, **{path: why for path, why in reasons.items() if why is not None}})

    def within(self, paths: Collection[str], reason: str) -> Selection:
        """Those of the chosen that are among `paths`; the others are skipped for `reason`."""
        return self.fitting(lambda parameter: None if parameter.path in paths else reason)


def selected(structure: Structure, parameters: Sequence[Parameter], where: Where) -> tuple[Parameter, ...]:
    """The parameters of a graph that `where` names, in the graph's order.

    Raises:
        SelectionError: a string that matches no layer and no parameter, or a function that chooses none.
    """
    check_where(where, "where")
    if where is None:
        return tuple(parameters)
    if isinstance(where, AllBut):
        out = {parameter.path for parameter in selected(structure, parameters, where.where)}
        rest = tuple(parameter for parameter in parameters if parameter.path not in out)
        if not rest:
            raise SelectionError(f"where={where!r} leaves none of the parameters of {structure.name!r}")
        return rest
    if callable(where):
        chosen = tuple(parameter for parameter in parameters if _chosen(where, parameter))
        if not chosen:
            count = len(parameters)
            raise SelectionError(f"where={where!r} chooses none of the {count} parameters of {structure.name!r}")
        return chosen
    patterns = [where] if isinstance(where, str) else list(where)
    for pattern in patterns:
        if not any(names(pattern, parameter) for parameter in parameters):
            raise SelectionError(_unknown(structure, parameters, pattern))
    return tuple(parameter for parameter in parameters if any(names(pattern, parameter) for pattern in patterns))


def _chosen(where: Callable[[Parameter], bool], parameter: Parameter) -> bool:
    try:
        return bool(where(parameter))
    except Exception as error:  # a user's own function, or a layer that was given in place of its path
        raise SelectionError(
            f"where={quoted(where)} cannot be asked about {parameter.path}: {brief(error)}; give a path, a list of "
            "paths or a function from a parameter to True or False"
        ) from error


def names(pattern: str, parameter: Parameter) -> bool:
    """Whether `pattern` is the parameter's path, or the path of a layer around it or that reads it."""
    return any(path == pattern or fnmatchcase(path, pattern) for path in _paths(parameter))


def check_where(where: object, owner: str) -> None:
    """Raise SelectionError unless `where` has the form of a selector.

    Raises:
        SelectionError: it is neither None, a path, a non-empty list of paths, nor a function.
    """
    if where is None or isinstance(where, AllBut) or (isinstance(where, str) and where):
        return
    if callable(where) and not isinstance(where, type):
        return
    if isinstance(where, Sequence) and where and all(isinstance(item, str) and item for item in where):
        return
    raise SelectionError(
        f"{owner}: where must be a path, a list of paths or a function of a parameter, or bw.AllBut of one of these, "
        f"got {where!r}"
    )


def frozen_where(where: Where) -> Where:
    """`where` as the field of a frozen pass: a list of paths becomes a tuple."""
    return tuple(where) if isinstance(where, list) else where


def _paths(parameter: Parameter) -> Iterable[str]:
    for path in (parameter.path, *parameter.aliases, *(use.layer for use in parameter.uses if use.layer)):
        parts = path.split("/")
        for count in range(len(parts), 0, -1):
            yield "/".join(parts[:count])


def _unknown(structure: Structure, parameters: Sequence[Parameter], pattern: str) -> str:
    layers = sorted(layer.path for layer in structure.layers)
    known = sorted({*layers, *(parameter.path for parameter in parameters)})
    close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"layers: {', '.join(layers)}"
    reason = "has no parameters" if pattern in layers else "is not a layer or parameter of the model"
    return f"where={pattern!r} {reason} {structure.name!r}; {hint}"
