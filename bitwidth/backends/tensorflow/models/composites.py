"""Composites: layers whose call is Python that calls other layers, and which of them are inlined."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.errors import ConfigError, SelectionError
from bitwidth.text import quoted
from bitwidth.typing import Model


def is_container(layer: KerasLayer) -> bool:
    """Whether a layer is a graph or a row of layers, and nothing besides."""
    return isinstance(layer, keras.Sequential) or tracked.is_functional(layer)


def holds_state(layer: KerasLayer) -> bool:
    """Whether a layer itself has variables, or states of seeds."""
    return bool(tracked.own_variables(layer) or tracked.seed_generators(layer))


def is_composite(layer: KerasLayer) -> bool:
    """Whether a layer has to be inlined so that the model loads without a class of the user's.

    So have layers of the user's own, but for those that hold weights and no layers; models of Keras around such; and
    Lambda layers, which hold Python code.
    """
    if isinstance(layer, keras.layers.Lambda):
        return True
    if tracked.is_own(layer):
        return bool(tracked.children(layer)) or not holds_state(layer)
    return is_container(layer) and any(is_composite(child) for child in tracked.children(layer))


def around_composites(layer: KerasLayer) -> str:
    """The class of a composite within a layer of Keras that calls it in a way of its own; empty for none."""
    if tracked.is_own(layer) or is_container(layer):
        return ""
    inner = tracked.layers_of(layer, include_self=False)
    return next((type(part).__name__ for part in inner if tracked.is_own(part) and tracked.children(part)), "")


def advice(model: Model) -> str:
    """What to do about sizes that stand in the code of a class, for the end of a message; empty where there is none."""
    found = next((type(layer).__name__ for layer in tracked.layers_of(model) if is_composite(layer)), "")
    return f"; sizes may stand in the code of {found}: compress bw.functionalize(model) in its place" if found else ""


def kept(keep: str | Sequence[str], names: Names) -> set[int]:
    """The ids of the layers that a user wants to keep as they are.

    Args:
        keep: paths of layers, or patterns of them.
        names: of the model.

    Raises:
        ConfigError: it is no text and no list of texts.
        SelectionError: one of them names no layer.
    """
    patterns: list[Any] = [keep] if isinstance(keep, str) else list(keep)
    found: set[int] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise ConfigError(f"functionalize: keep must be paths of layers, got {quoted(pattern)}")
        named = {id(layer) for path, layer, _ in names.layers if fnmatchcase(path, pattern)}
        if not named:
            raise SelectionError(f"functionalize: keep={pattern!r} names no layer of the model")
        found |= named
    return found
