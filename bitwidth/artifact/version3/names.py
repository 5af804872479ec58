"""Names of layers that follow from those before them, left out of a configuration in short form.

In a list of layers, a name that is the last one of its class with the next number is left out (`conv2d`, `conv2d_1`);
and where a tensor comes from stands as a number: 0 for the layer before in the list, 1 for the one before that. Blocks
of layers that repeat are then the same text, which deflates to almost nothing.

Example:
    >>> layers = [{"$": "ReLU", "c": {"name": "a"}}, {"$": "ReLU", "c": {"name": "a_1"}}]
    >>> short = without_names({"layers": layers})
    >>> short["layers"][1], with_names(short)["layers"] == layers
    ({'$': 'ReLU'}, True)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from bitwidth.errors import CorruptFileError
from bitwidth.typing import Json, JsonDict

_LAYERS, _CLASS, _CONFIG, _NAME, _HISTORY = "layers", "$", "c", "name", "keras_history"
_NUMBERED = re.compile(r"(.*)_([1-9][0-9]{0,8})", re.DOTALL)

_Walk = Callable[[list[Json]], list[Json]]


def without_names(data: Json) -> Json:
    """`data` (JSON, in short form) without what `with_names` puts back."""
    return _walked(data, _shorter)


def with_names(data: Json) -> Json:
    """What `without_names` was given.

    Args:
        data: JSON; untrusted.

    Raises:
        CorruptFileError: a tensor comes from a layer that is not there, or a name follows from nothing.
    """
    return _walked(data, _longer)


def _walked(data: Json, change: _Walk) -> Json:
    """`data` with every list of layers changed, those inside others too."""
    if isinstance(data, list):
        return [_walked(item, change) for item in data]
    if not isinstance(data, dict):
        return data
    found = {key: _walked(value, change) for key, value in data.items()}
    layers = found.get(_LAYERS)
    if isinstance(layers, list) and all(_is_layer(layer) for layer in layers):
        found[_LAYERS] = change(layers)
    return found


def _is_layer(layer: Json) -> bool:
    return isinstance(layer, dict) and isinstance(layer.get(_CONFIG, layer.get("config", {})), dict)


def _config(layer: JsonDict) -> JsonDict:
    """The configuration of a layer, in whichever form it is."""
    found: JsonDict = layer.get(_CONFIG, {}) if _CLASS in layer else layer.get("config", {})
    return found


def _shorter(layers: list[Json]) -> list[Json]:
    names: list[Json] = [_config(layer).get(_NAME) for layer in layers]
    last: dict[str, str] = {}
    found = []
    for place, layer in enumerate(layers):
        before = {name: place - 1 - index for index, name in enumerate(names[:place]) if isinstance(name, str)}
        layer = _with_history(layer, partial(_place_of, before))
        kind, name = layer.get(_CLASS), names[place]
        if isinstance(kind, str) and isinstance(name, str):
            if last.get(kind) is not None and name == next_name(last[kind]):
                config = {key: value for key, value in _config(layer).items() if key != _NAME}
                layer = {_CLASS: kind, **({_CONFIG: config} if config else {}), **_others(layer)}
            last[kind] = name
        found.append(layer)
    return found


def _place_of(before: dict[str, int], name: Json) -> Json:
    return before.get(name, name) if isinstance(name, str) else name


def _others(layer: JsonDict) -> JsonDict:
    return {key: value for key, value in layer.items() if key not in (_CLASS, _CONFIG)}


def _longer(layers: list[Json]) -> list[Json]:
    names: list[Json] = []
    last: dict[str, str] = {}
    found = []
    for layer in layers:
        kind = layer.get(_CLASS)
        if isinstance(kind, str):
            config = dict(_config(layer))
            if _NAME not in config:
                if kind not in last:
                    raise CorruptFileError("a layer without a name, and none of its class before it")
                config[_NAME] = next_name(last[kind])
            layer = {_CLASS: kind, _CONFIG: config, **_others(layer)}
            if isinstance(config[_NAME], str):
                last[kind] = config[_NAME]
        layer = _with_history(layer, partial(_name_at, names))
        names.append(_config(layer).get(_NAME))
        found.append(layer)
    return found


def _name_at(names: list[Json], place: Json) -> Json:
    if type(place) is not int:
        return place
    if not 0 <= place < len(names):
        raise CorruptFileError("a tensor from a layer that is not there")
    return names[-1 - place]


def _with_history(data: Json, change: Callable[[Json], Json]) -> Json:
    """A layer with what its tensors say of where they come from changed, but for those of layers inside it."""
    if isinstance(data, list):
        return [_with_history(item, change) for item in data]
    if not isinstance(data, dict):
        return data
    found = {key: value if key == _LAYERS else _with_history(value, change) for key, value in data.items()}
    history = found.get(_HISTORY)
    if isinstance(history, list) and history:
        found[_HISTORY] = [change(history[0]), *history[1:]]
    return found


def stem_of(name: str) -> str:
    """The name without its number."""
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


def next_name(name: str) -> str:
    """The name with the next number.

    Example:
        >>> next_name("conv2d"), next_name("conv2d_9")
        ('conv2d_1', 'conv2d_10')
    """
    numbered = _NUMBERED.fullmatch(name)
    return f"{numbered[1]}_{int(numbered[2]) + 1}" if numbered else f"{name}_1"
