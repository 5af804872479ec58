"""The configuration of a model without what its classes default to.

An object of a class in the table `defaults.json` (layers, initializers and the like of Keras 3.15.1) is written as
`{"$": class, "c": {what is not as by default}, ...}`. The table is a part of the format and never changes: what a later
Keras defaults to makes objects longer, and nothing else. An object that would not be restored to the same text, key by
key, is left as it is.

Example:
    >>> layer = {"module": "keras.layers", "class_name": "ReLU", "config": {"name": "a"}, "registered_name": None}
    >>> short = shortened(layer)
    >>> short["$"], short["c"], restored(short) == layer
    ('ReLU', {'name': 'a'}, True)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import final

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Json, JsonDict

MAX_RESTORED = 1 << 20  # keys of all objects that are restored, so that a short text stays within bounds
_CLASS, _CONFIG, _ABSENT = "$", "c", "-"
_ORDER = ("module", "class_name", "config", "registered_name", "build_config", "name", "inbound_nodes")


@cache
def _table() -> Mapping[str, JsonDict]:
    """By the name of a class, its module and its keys: `[key]`, or `[key, default]`."""
    text = resources.files("bitwidth.artifact.version3").joinpath("defaults.json").read_text("utf-8")
    found: dict[str, JsonDict] = json.loads(text)
    return found


def shortened(data: Json) -> Json:
    """`data` (JSON) with each object of a known class in its short form, where that is restored to the same."""
    if isinstance(data, list):
        return [shortened(item) for item in data]
    if not isinstance(data, dict):
        return data
    inner = {key: shortened(value) for key, value in data.items()}
    if _CLASS in data:
        raise ValueError("a key of the short form in a configuration")
    short = _short(inner, data)
    if short is None:
        return inner
    try:
        same = json.dumps(restored(short)) == json.dumps(data)
    except (CorruptFileError, TypeError):
        same = False
    return short if same else inner


def _short(inner: JsonDict, whole: JsonDict) -> JsonDict | None:
    """The short form of an object whose values are short already; None where its class is not known."""
    known = _table().get(whole.get("class_name", "")) if isinstance(whole.get("class_name"), str) else None
    config = whole.get("config")
    if known is None or not isinstance(config, dict) or whole.get("module") != known["module"]:
        return None
    defaults = {item[0]: item[1] for item in known["config"] if len(item) == 2}
    kept = {key: inner["config"][key] for key, value in config.items() if not _equal(defaults.get(key, _CLASS), value)}
    short: JsonDict = {_CLASS: whole["class_name"]}
    if kept:
        short[_CONFIG] = kept
    absent = [key for key in defaults if key not in config]
    if absent:
        short[_ABSENT] = absent
    left = [key for key in whole if key not in _ORDER[:4] and key != "name"]
    return short | {key: inner[key] for key in left}


def _equal(one: Json, other: Json) -> bool:
    return type(one) is type(other) and json.dumps(one) == json.dumps(other)


def restored(data: Json) -> Json:
    """What `shortened` was given.

    Args:
        data: JSON; untrusted.

    Raises:
        CorruptFileError: short forms of unknown classes, or more of them than a file may hold.
    """
    return _Restorer().of(data)


@final
class _Restorer:
    """Restores the objects of one file, and counts what it restores."""

    def __init__(self) -> None:
        self._left = MAX_RESTORED

    def of(self, data: Json) -> Json:
        if isinstance(data, list):
            return [self.of(item) for item in data]
        if not isinstance(data, dict):
            return data
        if _CLASS not in data:
            return {key: self.of(value) for key, value in data.items()}
        return self._object(data)

    def _object(self, data: JsonDict) -> JsonDict:
        name, given, absent = data[_CLASS], data.get(_CONFIG, {}), data.get(_ABSENT, [])
        known = _table().get(name) if isinstance(name, str) else None
        if known is None or not isinstance(given, dict) or not isinstance(absent, list):
            raise CorruptFileError(f"a short form of an unknown class {str(name)[:80]!r}")
        self._left -= len(known["config"])
        if self._left < 0:
            raise CorruptFileError("more objects in the configuration than a file may hold")
        config = dict(self._config(known["config"], given, absent))
        found: JsonDict = {"class_name": name, "config": config}
        if known["module"] is not None:
            found |= {"module": known["module"], "registered_name": None}
        found |= {key: self.of(value) for key, value in data.items() if key not in (_CLASS, _CONFIG, _ABSENT)}
        if "inbound_nodes" in found and "name" in config:
            found["name"] = config["name"]
        return {key: found[key] for key in (*_ORDER, *found) if key in found}

    def _config(self, keys: list[list[Json]], given: JsonDict, absent: list[Json]) -> Iterator[tuple[str, Json]]:
        for key, *default in keys:
            if key in given:
                yield key, self.of(given[key])
            elif default and key not in absent:
                yield key, _copied(default[0])
        known = {key for key, *_ in keys}
        yield from ((key, self.of(value)) for key, value in given.items() if key not in known)


def _copied(data: Json) -> Json:
    """A copy, since what is built from a configuration may take things out of it."""
    if isinstance(data, list):
        return [_copied(item) for item in data]
    return {key: _copied(value) for key, value in data.items()} if isinstance(data, dict) else data
