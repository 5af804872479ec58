"""Recipes: passes as plain data (JSON), and back. Only registered names are looked up; nothing is imported by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np

from bitwidth.analysis import Fisher
from bitwidth.errors import ConfigError
from bitwidth.passes.base import Pass
from bitwidth.passes.registry import function_named, name_of_function, pass_named

FORMAT = 1
_VALUES: dict[str, Callable[..., Any]] = {"Fisher": Fisher}
_KERAS_KEYS = {"class_name", "config"}


def to_data(item: Pass) -> dict[str, Any]:
    """A pass as a recipe.

    Raises:
        ConfigError: a pass or function in it has no registered name, or a field no plain form; the message names the
            field.
    """
    return {"bitwidth": FORMAT, **_pass_to_data(item, type(item).__name__)}


def from_data(recipe: Mapping[str, Any] | str) -> Pass:
    """The pass of a recipe.

    Raises:
        ConfigError: the recipe is not valid.
    """
    if isinstance(recipe, str):
        try:
            recipe = json.loads(recipe)
        except ValueError as error:
            raise ConfigError(f"a recipe is JSON: {error}") from error
    if not isinstance(recipe, Mapping) or "pass" not in recipe:
        raise ConfigError(f'a recipe is an object with a "pass", got {str(recipe)[:80]}')
    version = recipe.get("bitwidth", FORMAT)
    if version != FORMAT:
        raise ConfigError(f"a recipe of version {version!r}; this library reads version {FORMAT}")
    return _pass_from_data({key: value for key, value in recipe.items() if key != "bitwidth"})


def _pass_to_data(item: Pass, where: str) -> dict[str, Any]:
    if not type(item).name:
        kind = type(item).__name__
        raise ConfigError(f"{where}: {kind} has no name for recipes; declare it with `class {kind}(Pass, name=...)`")
    data: dict[str, Any] = {"pass": type(item).name}
    for field in fields(item):
        value = getattr(item, field.name)
        if field.default is MISSING or not _equal(value, field.default):
            data[field.name] = _to_data(value, f"{where}.{field.name}")
    return data


def _equal(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _to_data(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Pass):
        return _pass_to_data(value, where)
    if type(value).__name__ in _VALUES and is_dataclass(value):
        return {"value": type(value).__name__, **{f.name: getattr(value, f.name) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {"map": [[_to_data(k, where), _to_data(v, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_to_data(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if callable(value) and name_of_function(value):
        return {"function": name_of_function(value)}
    if hasattr(value, "get_config") and type(value).__module__.startswith("keras."):
        return {"keras": type(value).__name__, "config": _plain_config(value.get_config(), where)}
    raise ConfigError(
        f"{where}: {value!r} cannot be written to a recipe; register a function with bitwidth.register_function, "
        "or use a name that Keras knows"
    )


def _plain_config(config: Any, where: str) -> Any:
    try:
        return json.loads(json.dumps(config, default=_number))
    except TypeError as error:
        raise ConfigError(f"{where}: its configuration cannot be written to a recipe: {error}") from error


def _number(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain data")


def _pass_from_data(data: Mapping[str, Any]) -> Pass:
    cls = pass_named(str(data["pass"]))
    known = {field.name for field in fields(cls)}
    unknown = [key for key in data if key != "pass" and key not in known]
    if unknown:
        raise ConfigError(f"{data['pass']}: no field {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        return cls(**{key: _from_data(value) for key, value in data.items() if key != "pass"})
    except TypeError as error:
        raise ConfigError(f"{data['pass']}: {error}") from error


def _from_data(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_data(entry) for entry in value)
    if not isinstance(value, Mapping):
        return value
    if "pass" in value:
        return _pass_from_data(value)
    if "function" in value:
        return function_named(value["function"])
    if "map" in value:
        return {_from_data(key): _from_data(entry) for key, entry in value["map"]}
    if "keras" in value:
        return {"class_name": value["keras"], "config": _checked_config(value.get("config", {}))}
    if "value" in value:
        name = value["value"]
        if name not in _VALUES:
            raise ConfigError(f"no value named {name!r}; known: {', '.join(_VALUES)}")
        return _VALUES[name](**{key: entry for key, entry in value.items() if key != "value"})
    if set(value) == _KERAS_KEYS:
        return {"class_name": str(value["class_name"]), "config": _checked_config(value["config"])}
    raise ConfigError(f"a recipe cannot hold {str(dict(value))[:80]}")


def _checked_config(config: Any) -> Any:
    """A Keras configuration that names no module outside Keras, so that reading it imports nothing else."""
    if isinstance(config, Mapping):
        module = config.get("module")
        if module is not None and not str(module).split(".")[0] == "keras":
            raise ConfigError(f"a recipe names the module {module!r}; only Keras's own are read")
        return {key: _checked_config(value) for key, value in config.items()}
    return [_checked_config(value) for value in config] if isinstance(config, list) else config
