"""Configurations from files and recipes, read with our own eyes before Keras sees them.

Keras's safe mode looks at lambdas only. Elsewhere a configuration may name anything public in Keras, functions that
write files and download among it, and a Functional model calls it. So every object in a configuration is looked up by
the kind of its place (`allowed`), and Keras is given a new configuration, written from what was found: the module and
name of a listed class, and plain data (`plain_data`). What was not understood does not reach Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import keras

from bitwidth.backends.tensorflow.models.allowed import (
    BASES,
    Kind,
    Named,
    class_named,
    classes,
    fits,
    functions,
    is_function,
)
from bitwidth.backends.tensorflow.models.plain_data import (
    CONSTANTS,
    DTYPES,
    NotAllowedError,
    call,
    constant,
    ends,
    entries,
    items,
    leaf,
    plain,
    words,
)
from bitwidth.text import printable, quoted
from bitwidth.typing import CustomObjects, Json, JsonDict, JsonMapping

_POLICY_NAMES = DTYPES | {"mixed_float16", "mixed_bfloat16"}
_FREE_TEXTS = frozenset({"name", "oov_token", "mask_token"})  # whose texts are the user's and only ever compared
_GRAPH = frozenset({"layers", "input_layers", "output_layers"})
_PLACES: Mapping[str, Kind] = {
    "activation": Kind.ACTIVATION,
    "recurrent_activation": Kind.ACTIVATION,
    "dtype": Kind.POLICY,
    "default_policy": Kind.POLICY,
    "layer": Kind.LAYER,
    "backward_layer": Kind.LAYER,
    "cell": Kind.LAYER,
    "seed": Kind.SEED,
    "learning_rate": Kind.SCHEDULE,
    "inner_optimizer": Kind.OPTIMIZER,
}
_ENDINGS: Mapping[str, Kind] = {
    "initializer": Kind.INITIALIZER,
    "regularizer": Kind.REGULARIZER,
    "constraint": Kind.CONSTRAINT,
}
_NUMBER_WILL_DO = (Kind.SEED, Kind.SCHEDULE)
_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)
_LONGEST = 80  # characters of a name in a message
_ADVICE = "give a class or function of your own in custom_objects=, or register it with keras.saving"


@final
class Configuration:
    """A reader of configurations: returns each as Keras may read it.

    Args:
        custom_objects: the caller's classes and functions by name. Those that this process registered with Keras are
            known besides.
    """

    def __init__(self, custom_objects: CustomObjects | None = None) -> None:
        self._given = dict(custom_objects or {})

    def read(self, config: Json, kind: Kind, where: str) -> Json:
        """One object, or None.

        Args:
            config: JSON from a file or a recipe; untrusted; not changed.
            kind: of the place where it stands.
            where: for messages.

        Returns:
            A configuration of the same object in which all names are those of allowed classes and functions.

        Raises:
            NotAllowedError: it is not a configuration of that kind, or holds something that it may not.
        """
        try:
            with keras.saving.CustomObjectScope(self._given):  # as Keras will read it: names are looked up in it
                return self._read(config, kind, where)
        except RecursionError as error:
            raise NotAllowedError(f"{where}: nested too deep") from error

    def _read(self, config: Json, kind: Kind, where: str) -> Json:
        if config is None:
            return None
        if isinstance(config, str):
            return self._name(config, kind, where)
        if isinstance(config, Mapping) and isinstance(config.get("class_name"), str):
            read = self._function if config["class_name"] == "function" else self._object
            return read(config, kind, where)
        if kind in _NUMBER_WILL_DO:
            return leaf(config, where)
        raise NotAllowedError(f"{where}: expected {kind.value}, got {quoted(config)}")

    # ---- objects, functions and names

    def _object(self, config: JsonMapping, kind: Kind, where: str) -> JsonDict:
        own = self._own_class(config, kind, where)
        found = own or _of_keras(config, Kind.LAYER if kind is Kind.ACTIVATION else kind, where)
        settings = config.get("config")
        if not isinstance(settings, Mapping):
            raise NotAllowedError(f"{where}: expected the settings of {quoted(found.name)}, got {quoted(settings)}")
        name = settings.get("name")
        where = f"{where} > {printable(name if isinstance(name, str) else found.name, _LONGEST)}"
        read = self._settings if own is None else self._own_settings
        made = {
            "module": found.module,
            "class_name": found.name,
            "config": read(settings, found.target, where),
            "registered_name": None if own is None else _registered_name(config),
        }
        if own is not None and config.get("build_config") is not None and _builds_itself(own.target):
            made["build_config"] = self._anything(config["build_config"], f"{where}: build_config")
        return made

    def _own_class(self, config: JsonMapping, kind: Kind, where: str) -> Named | None:
        """The class of the user's own that a configuration names. It goes before Keras's, as it does in Keras."""
        name = _registered_name(config)
        target = self._own(name)
        if target is None:
            return None
        if not isinstance(target, type) or not fits(kind, target):
            raise NotAllowedError(f"{where}: {quoted(name)} is not {kind.value}")
        return Named(target.__module__, config["class_name"], target)

    def _function(self, config: JsonMapping, kind: Kind, where: str) -> Json:
        module, name = config.get("module"), config.get("config")
        if not isinstance(name, str):
            raise NotAllowedError(f"{where}: expected the name of a function, got {quoted(name)}")
        for key in (name, config.get("registered_name"), self._ending_in(name)):
            if isinstance(key, str) and is_function(self._own(key)):
                return {"module": "builtins", "class_name": "function", "config": self._name(key, kind, where)}
        found = functions(kind).get(name)
        if found is None or module not in (None, "builtins", found.module, found.target.__module__):
            raise NotAllowedError(f"{where}: {quoted(f'{module}.{name}')} is not {kind.value}; {_ADVICE}")
        if found.module != "keras.ops":
            return name
        return {"module": found.module, "class_name": "function", "config": name, "registered_name": name}

    def _name(self, name: str, kind: Kind, where: str) -> str:
        """An object that is named by a text alone."""
        own = self._own(name)
        if own is not None and kind is not Kind.POLICY:
            fit = fits(kind, own)
        elif kind is Kind.POLICY:
            fit = name in _POLICY_NAMES
        else:
            fit = kind is not Kind.LAYER and (name in functions(kind) or name in classes(kind))
        if not fit:
            raise NotAllowedError(f"{where}: {quoted(name)} is not the name of {kind.value}; {_ADVICE}")
        return name

    def _own(self, name: str | None) -> Json:
        """The class or function of the user's own that Keras would find under a name."""
        return None if name is None else keras.saving.get_registered_object(name)

    def _ending_in(self, name: str) -> str | None:
        """The registered name that ends in `name`: files of Keras 3.6 and before give functions without the package."""
        return next(
            (key for key in (*self._given, *keras.saving.get_custom_objects()) if key.endswith(f">{name}")), None
        )

    # ---- what an object is made of

    def _settings(self, settings: JsonMapping, cls: type[Any], where: str) -> JsonDict:
        """The settings of a class of Keras: each key is a place of a kind, or holds plain data."""
        if issubclass(cls, keras.Model) and set(settings) >= _GRAPH:
            return self._graph(settings, where, lambda key, value, inside: self._setting(key, value, cls, inside))
        return {
            key: self._setting(key, value, cls, f"{where}: {printable(key, _LONGEST)}")
            for key, value in items(settings, where)
        }

    def _setting(self, key: str, value: Json, cls: type[Any], where: str) -> Json:
        kind = _kind_of_place(key)
        if key == "name" and issubclass(cls, BASES[Kind.POLICY]):
            kind = Kind.POLICY
        if key == "fn":  # of losses and metrics that wrap a function
            kind = Kind.METRIC if issubclass(cls, BASES[Kind.METRIC]) else Kind.LOSS
        if key in ("standardize", "split") and not isinstance(
            value, str
        ):  # of TextVectorization: a word, or a function
            kind = Kind.ACTIVATION
        if kind is not None:
            return self._read(value, kind, where)
        if key in ("layers", "cells"):
            return [self._read(part, Kind.LAYER, where) for part in entries(value, where)]
        if key == "policy_map":
            return {path: self._read(part, Kind.POLICY, where) for path, part in items(value or {}, where)}
        if key == "vocabulary":
            return words(value, where)
        return value if key in _FREE_TEXTS and isinstance(value, str) else plain(value, where)

    def _graph(self, settings: JsonMapping, where: str, rest: Callable[[str, Any, str], Any]) -> JsonDict:
        """The settings of a Functional model: its layers with their calls, its inputs and outputs."""
        layers = entries(settings["layers"], where)
        if not all(isinstance(layer, Mapping) and isinstance(layer.get("name"), str) for layer in layers):
            raise NotAllowedError(f"{where}: expected layers with names")
        names = {layer["name"] for layer in layers}
        if len(names) != len(layers):
            raise NotAllowedError(f"{where}: two layers of one name")
        made: JsonDict = {"layers": []}
        for layer in layers:
            inside = f"{where} > {printable(layer['name'], _LONGEST)}"
            calls = [call(node, names, inside) for node in entries(layer.get("inbound_nodes", []), inside)]
            held = self._read(layer, Kind.LAYER, where)
            made["layers"].append({**held, "name": layer["name"], "inbound_nodes": calls})
        for key, value in items(settings, where):
            if key in ("input_layers", "output_layers"):
                made[key] = ends(value, names, f"{where}: {key}")
            elif key != "layers":
                made[key] = rest(key, value, f"{where}: {printable(key, _LONGEST)}")
        return made

    def _own_settings(self, settings: JsonMapping, cls: type[Any], where: str) -> JsonDict:
        """The settings of a user's own class. Its texts are its own; objects in it are such as may be named."""
        if issubclass(cls, _LOOKUPS):
            words(settings.get("vocabulary"), f"{where}: vocabulary")
        if issubclass(cls, keras.Model) and set(settings) >= _GRAPH:
            return self._graph(settings, where, self._own_setting)
        return {
            key: self._own_setting(key, value, f"{where}: {printable(key, _LONGEST)}")
            for key, value in items(settings, where)
        }

    def _own_setting(self, key: str, value: Json, where: str) -> Json:
        """An object under a key that Keras knows (a base class may read it) is of the kind of that place."""
        kind = _kind_of_place(key)
        if kind is not None and isinstance(value, Mapping) and "class_name" in value:
            return self._read(value, kind, where)
        return self._anything(value, where)

    def _anything(self, value: Json, where: str) -> Json:
        """Data of a user's own class: plain, or objects of a kind that may be named somewhere."""
        if isinstance(value, list | tuple):
            return [self._anything(part, where) for part in value]
        if not isinstance(value, Mapping):
            return value if isinstance(value, str) else leaf(value, where)
        if value.get("class_name") in CONSTANTS:
            return constant(value, where)
        if "class_name" in value:
            return self._read(value, self._kind(value), where)
        return {key: self._anything(part, where) for key, part in items(value, where)}

    def _kind(self, config: JsonMapping) -> Kind:
        """The kind of an object by what it names; a layer where it names nothing that is known."""
        module, name = config.get("module"), str(config["class_name"])
        own = self._own(_registered_name(config))
        if name == "function":
            known = [kind for kind in Kind if config.get("config") in functions(kind)]
            return known[0] if known else Kind.ACTIVATION
        if own is not None:
            return next(
                (kind for kind, base in BASES.items() if isinstance(own, type) and issubclass(own, base)), Kind.LAYER
            )
        return next((kind for kind in Kind if class_named(kind, module, name) is not None), Kind.LAYER)


def _builds_itself(cls: type[Any]) -> bool:
    """Whether a class has a way of its own to be built from a file. All others are built by being called."""
    known = (None, keras.Layer.build_from_config, keras.Model.build_from_config)
    return getattr(cls, "build_from_config", None) not in known


def _kind_of_place(key: str) -> Kind | None:
    """The kind of what a key of a class of Keras holds; None for plain data."""
    return _PLACES.get(key) or _ENDINGS.get(key.rpartition("_")[2])


def _of_keras(config: JsonMapping, kind: Kind, where: str) -> Named:
    """The class of Keras that a configuration names."""
    module, name = config.get("module"), config["class_name"]
    found = class_named(kind, module, name) if isinstance(module, str | None) else None
    if found is None:
        label = f"{module}.{name}" if isinstance(module, str) else name
        raise NotAllowedError(f"{where}: {quoted(label)} is not {kind.value} that may be named here; {_ADVICE}")
    return found


def _registered_name(config: JsonMapping) -> str | None:
    """The name under which Keras would look for a class of the user's own; None where it would not."""
    name, module = config.get("registered_name"), config.get("module")
    if isinstance(name, str):
        return name
    of_keras = "registered_name" in config and isinstance(module, str) and module.partition(".")[0] == "keras"
    return None if of_keras else str(config["class_name"])
