"""Names for what a recipe may contain.

Passes, and functions used as fields. Nothing is ever imported by a recipe's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from bitwidth.errors import ConfigError

ENTRY_POINTS = "bitwidth.passes"
_PASSES: dict[str, type[Any]] = {}
_FUNCTIONS: dict[str, Callable[..., Any]] = {}
_VALUES: dict[str, type[Any]] = {}


def register_pass(name: str, cls: type[Any]) -> None:
    """Make a pass known to recipes under `name`.

    Raises:
        ConfigError: another pass has the name.
    """
    known = _PASSES.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"a pass named {name!r} is registered already: {known.__module__}.{known.__qualname__}")
    _PASSES[name] = cls


def register_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function usable as a field of a pass in a recipe (a loss, a `where`), under `name`; returns it.

    Raises:
        ConfigError: another function has the name.

    Example:
        >>> import bitwidth as bw
        >>> wide = bw.register_function("docs.wide", lambda parameter: parameter.size > 1000)
    """
    if _FUNCTIONS.get(name, function) is not function:
        raise ConfigError(f"a function named {name!r} is registered already")
    _FUNCTIONS[name] = function
    return function


def register_value(name: str, cls: type[Any]) -> type[Any]:
    """Make the objects of a dataclass usable as fields of a pass in a recipe, under `name`; returns the class.

    Its fields are written, and it is built from them again: they have to have a form in recipes themselves.

    Raises:
        ConfigError: it is not a dataclass, another one has the name, or it has another name.

    Example:
        >>> from dataclasses import dataclass
        >>> import bitwidth as bw
        >>> @dataclass(frozen=True)
        ... class Budget:
        ...     bytes: int
        >>> _ = bw.register_value("docs.budget", Budget)
    """
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise ConfigError(f"a value of recipes is a dataclass, got {cls!r}")
    known = _VALUES.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"a value named {name!r} is registered already: {known.__module__}.{known.__qualname__}")
    if name_of_value(cls) not in (None, name):
        raise ConfigError(f"{cls.__qualname__} is registered already, as {name_of_value(cls)!r}")
    _VALUES[name] = cls
    return cls


def value_named(name: object) -> type[Any]:
    """The class of values that is registered under `name`.

    Raises:
        ConfigError: none is.
    """
    if not isinstance(name, str) or name not in _VALUES:
        raise ConfigError(f"no value named {str(name)[:80]!r}; known: {', '.join(sorted(_VALUES))}")
    return _VALUES[name]


def name_of_value(cls: type[Any]) -> str | None:
    """The name under which a class of values is registered, or None; what the class itself is called does not count."""
    return next((name for name, known in _VALUES.items() if known is cls), None)


def pass_named(name: str) -> type[Any]:
    """The pass registered under `name`, by this process or by an installed package's entry point.

    Packages announce passes in their metadata: `[project.entry-points."bitwidth.passes"]`, `their.name =
    "package.module:Class"`.

    Raises:
        ConfigError: no pass has the name.
    """
    if name not in _PASSES and name in _announced():
        cls = _announced()[name].load()
        if getattr(cls, "name", "") != name:
            raise ConfigError(f"the entry point {name!r} loads {cls!r}, which is not a Pass declared with that name")
    if name not in _PASSES:
        known = ", ".join(sorted({*_PASSES, *_announced()}))
        raise ConfigError(f"no pass named {name!r} is registered; known: {known}")
    return _PASSES[name]


def function_named(name: str) -> Callable[..., Any]:
    """The function registered under `name`.

    Raises:
        ConfigError: no function has the name.
    """
    if name not in _FUNCTIONS:
        raise ConfigError(f"no function named {name!r} is registered: call bitwidth.register_function first")
    return _FUNCTIONS[name]


def name_of_function(function: Callable[..., Any]) -> str | None:
    """The name under which a function is registered, or None."""
    return next((name for name, known in _FUNCTIONS.items() if known is function), None)


@cache
def _announced() -> Mapping[str, Any]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def plain(value: Any) -> Any:
    """`value` as data for a report: numbers, strings, lists and dicts; what has no plain form becomes its `repr`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
    if callable(value) and name_of_function(value):
        return name_of_function(value)
    return repr(value)
