"""Names: one path for every layer and every variable of a model, the same each time the same architecture is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import keras

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.types import KerasLayer, ModelVariable
from bitwidth.typing import Model


@final
@dataclass
class Names:
    """The layers and variables of a model with their paths.

    A layer's path is the names of the layers around it and its own, joined by `/`, without the model's. A name that
    Keras made up from a counter (`dense_7`) changes each time a subclassed model is built: there the attribute that
    holds the layer gives its name, and the path with Keras's name becomes an alias. In a Functional or Sequential
    model names are part of the configuration, so they are kept.

    Attributes:
        layers: `(path, layer, path of the layer around it)`, each layer once, where it is found first.
        variables: `(path, variable, path of the owning layer)`, in the order of `model.variables`.
        aliases: other paths of a variable, by its path.
    """

    layers: list[tuple[str, KerasLayer, str]] = field(default_factory=list)
    variables: list[tuple[str, ModelVariable, str]] = field(default_factory=list)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._paths = {id(layer): path for path, layer, _ in self.layers}

    def layer_path(self, layer: KerasLayer) -> str | None:
        """Path of `layer`, None for a layer that the model does not track."""
        return self._paths.get(id(layer))


def names_of(model: Model) -> Names:
    """Give every layer and variable of `model` its path."""
    layers: list[tuple[str, KerasLayer, str]] = []
    found: dict[int, list[tuple[str, str]]] = {}  # by id(variable): (path, path of the owning layer)
    taken: set[str] = set()
    seen: set[int] = set()
    for path, keras_path, layer, parent in _walk(model, "", "", "", ()):
        first = id(layer) not in seen
        if first and layer is not model:
            layers.append((path, layer, parent))
        seen.add(id(layer))
        for name, variable in own_variables(layer):
            entries = found.setdefault(id(variable), [])
            entries.append((unique(joined(path, name), taken) if not entries else joined(path, name), path))
            if keras_path != path:
                entries.append((joined(keras_path, name), path))
    names = Names(layers)
    listed: set[int] = set()
    for variable in model.variables:
        if id(variable) in listed:
            continue
        listed.add(id(variable))
        if id(variable) not in found:
            found[id(variable)] = [(unique(variable.name, taken), "")]
        (path, owner), *others = found[id(variable)]
        names.variables.append((path, variable, owner))
        if aliases := tuple(dict.fromkeys(other for other, _ in others if other != path)):
            names.aliases[path] = aliases
    return names


def own_variables(layer: KerasLayer) -> Iterator[tuple[str, ModelVariable]]:
    """The variables that `layer` itself keeps, with their names; seed states last."""
    for variable in tracked.own_variables(layer):
        automatic = re.fullmatch(r"variable(_\d+)?", variable.name)
        yield (_attribute(layer, variable) or "variable") if automatic else variable.name, variable
    for generator in tracked.seed_generators(layer):
        yield f"{_attribute(layer, generator) or 'seed_generator'}_state", generator.state


def joined(path: str, name: str) -> str:
    """`name` below `path`."""
    return f"{path}/{name}" if path else name


def unique(name: str, taken: set[str]) -> str:
    """`name`, with `_1`, `_2` ... behind it where it is taken; the answer is taken from then on."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _walk(
    layer: KerasLayer, path: str, keras_path: str, parent: str, around: tuple[int, ...]
) -> Iterator[tuple[str, str, KerasLayer, str]]:
    """Every way to every layer below `layer`, itself first: path, path in Keras's names, layer, path around it."""
    if id(layer) in around:  # a layer may keep a reference to one around it
        return
    yield path, keras_path, layer, parent
    taken: set[str] = set()
    for child in tracked.children(layer):
        name = unique(_layer_name(layer, child), taken)
        yield from _walk(child, joined(path, name), joined(keras_path, child.name), path, (*around, id(layer)))


def _layer_name(parent: Any, layer: KerasLayer) -> str:
    kind = _snake_case(type(layer).__name__)
    configured = isinstance(parent, keras.Sequential) or tracked.is_functional(parent)
    if not configured and re.fullmatch(rf"(forward_|backward_)?{kind}(_\d+)?", layer.name):
        return _attribute(parent, layer) or kind
    return str(layer.name)


def _snake_case(name: str) -> str:
    """The name that Keras makes up for a class, without its counter."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _attribute(owner: Any, item: Any) -> str | None:
    """Name of the attribute of `owner` that holds `item`, with its place in a list or dict behind it."""
    for name, value in vars(owner).items():
        if tracked.is_bookkeeping(name):
            continue
        place = _place(value, item)
        if place is not None:
            return "_".join([name.strip("_"), *place])
    return None


def _place(value: Any, item: Any) -> tuple[str, ...] | None:
    if value is item:
        return ()
    if isinstance(value, Mapping):
        pairs: Any = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return None
    for key, inner in pairs:
        place = _place(inner, item)
        if place is not None:
            return (str(key), *place)
    return None
