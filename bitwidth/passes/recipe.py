"""Recipes: passes as plain data (JSON), and back. Only registered names are looked up; nothing is imported by name.

Format 2 holds every field of a pass, defaults included, so that a default may change without changing what was saved.
Format 1 left defaults out; it is read with those of version 0.1.0 (`recipe_defaults`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from bitwidth.analysis import Fisher
from bitwidth.errors import ConfigError
from bitwidth.fitting import BitRule, Escape
from bitwidth.graph import AllBut
from bitwidth.passes.base import Pass
from bitwidth.passes.patterns import Block
from bitwidth.passes.recipe_defaults import DEFAULTS_1
from bitwidth.passes.registry import (
    function_named,
    name_of_function,
    name_of_value,
    pass_named,
    register_value,
    value_named,
)
from bitwidth.typing import Json, JsonDict, JsonMapping

FORMAT = 2
for _cls in (AllBut, BitRule, Block, Escape, Fisher):
    register_value(_cls.__name__, _cls)
_KERAS_KEYS = {"class_name", "config"}


def to_data(item: Pass) -> JsonDict:
    """A pass as a recipe.

    Raises:
        ConfigError: a pass or function in it has no registered name, or a field no plain form; the message names the
            field.
    """
    return {"bitwidth": FORMAT, **_pass_to_data(item, type(item).__name__)}


def from_data(recipe: JsonMapping | str) -> Pass:
    """The pass of a recipe.

    Raises:
        ConfigError: the recipe is not valid.
    """
    if isinstance(recipe, str):
        try:
            recipe = json.loads(recipe)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"a recipe is JSON: {error}") from error
    if not isinstance(recipe, Mapping) or "pass" not in recipe:
        raise ConfigError(f'a recipe is an object with a "pass", got {str(recipe)[:80]}')
    version = recipe.get("bitwidth", FORMAT)
    if version not in (1, FORMAT) or isinstance(version, bool):
        raise ConfigError(f"a recipe of version {version!r}; this library reads versions 1 and {FORMAT}")
    try:
        body = {key: value for key, value in recipe.items() if key != "bitwidth"}
        return _pass_from_data(_with_defaults(body) if version == 1 else body)
    except RecursionError as error:
        raise ConfigError("a recipe that is nested too deep") from error


def _pass_to_data(item: Pass, where: str) -> dict[str, Any]:
    if not type(item).name:
        kind = type(item).__name__
        raise ConfigError(f"{where}: {kind} has no name for recipes; declare it with `class {kind}(Pass, name=...)`")
    data: dict[str, Any] = {"pass": type(item).name}
    for field in fields(item):
        value = getattr(item, field.name)
        try:
            if field.init:
                data[field.name] = _to_data(value, f"{where}.{field.name}")
        except ConfigError:
            if field.default is MISSING or not _equal(value, field.default):
                raise  # else the default has no form in recipes, and stands for itself
    return data


def _with_defaults(node: Any) -> Any:
    """A recipe of format 1 with what it left out."""
    if isinstance(node, list):
        return [_with_defaults(entry) for entry in node]
    if not isinstance(node, Mapping) or "keras" in node or set(node) == _KERAS_KEYS:
        return node
    own = {key: _with_defaults(entry) for key, entry in node.items()}
    name = node.get("pass")
    return {**DEFAULTS_1.get(name, {}), **own} if isinstance(name, str) else own


def _equal(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _to_data(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Pass):
        return _pass_to_data(value, where)
    name = name_of_value(type(value))
    if name is not None:
        return {
            "value": name,
            **{f.name: _to_data(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)},
        }
    if isinstance(value, Mapping) and set(value) == _KERAS_KEYS:
        return {"keras": value["class_name"], "config": _plain_config(value["config"], where)}
    if isinstance(value, Mapping):
        return {"map": [[_to_data(k, where), _to_data(v, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_to_data(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if callable(value) and name_of_function(value):
        return {"function": name_of_function(value)}
    if hasattr(value, "get_config") and type(value).__module__.startswith("keras."):
        config = _plain_config(value.get_config(), where)
        if ".optimizers." in type(value).__module__:
            config.pop("name", None)  # Keras counts them up: adam, adam_1
        return {"keras": type(value).__name__, "config": config}
    raise ConfigError(
        f"{where}: {value!r} cannot be written to a recipe; register a function with bitwidth.register_function, "
        "a dataclass with bitwidth.register_value, or use a name that Keras knows"
    )


def _plain_config(config: Json, where: str) -> Any:
    try:
        return json.loads(json.dumps(config, default=_number))
    except TypeError as error:
        raise ConfigError(f"{where}: its configuration cannot be written to a recipe: {error}") from error


def _number(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain data")


def _pass_from_data(data: Mapping[str, Any]) -> Pass:
    name = data["pass"]
    if not isinstance(name, str):
        raise ConfigError(f"no pass named {str(name)[:80]}: a name is a text")
    cls = pass_named(name)
    known = {field.name for field in fields(cls)}
    unknown = [key for key in data if key != "pass" and key not in known]
    if unknown:
        raise ConfigError(f"{name}: no field {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        made: Pass = cls(**{key: _from_data(value) for key, value in data.items() if key != "pass"})
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{name}: {error}") from error
    return made


def _from_data(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_data(entry) for entry in value)
    if not isinstance(value, Mapping):
        return value
    if set(value) == _KERAS_KEYS:
        value = {"keras": value["class_name"], "config": value["config"]}
    for key, read in _FORMS.items():
        if key in value:
            return read(value)
    raise ConfigError(f"a recipe cannot hold {str(dict(value))[:80]}")


def _function_from_data(value: Mapping[str, Any]) -> Any:
    if not isinstance(value["function"], str):
        raise ConfigError(f"a function is named by a text, got {str(value['function'])[:80]}")
    return function_named(value["function"])


def _map_from_data(value: Mapping[str, Any]) -> Any:
    pairs = value["map"]
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ConfigError(f"a map is a list of pairs, got {str(pairs)[:80]}")
    if not all(key is None or isinstance(key, str | int | float) for key, _ in pairs):
        raise ConfigError(f"the keys of a map are texts or numbers, got {str(pairs)[:80]}")
    return _checked_config({key: _from_data(entry) for key, entry in pairs})


def _keras_from_data(value: Mapping[str, Any]) -> Any:
    if not isinstance(value["keras"], str):
        raise ConfigError(f"a Keras object is named by a text, got {str(value['keras'])[:80]}")
    return {"class_name": value["keras"], "config": _checked_config(value.get("config", {}))}


def _value_from_data(value: Mapping[str, Any]) -> Any:
    cls = value_named(value["value"])
    return cls(**{key: _from_data(entry) for key, entry in value.items() if key != "value"})


_FORMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "pass": _pass_from_data,
    "function": _function_from_data,
    "map": _map_from_data,
    "keras": _keras_from_data,
    "value": _value_from_data,
}


def _checked_config(config: Json) -> Any:
    """A Keras configuration that names no module outside Keras, so that reading it imports nothing else."""
    if isinstance(config, Mapping):
        module = config.get("module")
        if module is not None and str(module).split(".")[0] != "keras":
            raise ConfigError(f"a recipe names the module {module!r}; only Keras's own are read")
        return {key: _checked_config(value) for key, value in config.items()}
    return type(config)(_checked_config(value) for value in config) if isinstance(config, list | tuple) else config
