"""Taps: what some layers give while a model is called, for losses that compare it with what a teacher's layers give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import KerasLayer, TFTensor
from bitwidth.backends.tensorflow.reading.naming import names_of
from bitwidth.errors import ConfigError
from bitwidth.typing import Model

ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@final
class Taps:
    """What was seen in the last call of a model.

    Attributes:
        features: by path, the first output of the first call of a layer.
        maps: by path, the attention of the first call of an attention layer, (samples, heads, queries, keys).
    """

    def __init__(self) -> None:
        self.features: dict[str, TFTensor] = {}
        self.maps: dict[str, TFTensor] = {}

    @property
    def are_here(self) -> bool:
        """Whether it was seen in the graph that is being built now."""
        here = tf.compat.v1.get_default_graph()
        return all(tensor.graph is here for tensor in (*self.features.values(), *self.maps.values()))

    def clear(self) -> None:
        """Forget it: the next call begins."""
        self.features.clear()
        self.maps.clear()


def check_taps(model: Model, features: Sequence[str], attention: Sequence[str], owner: str) -> None:
    """Raise unless a model has these layers.

    Args:
        model: the model.
        features: paths of layers.
        attention: paths of attention layers.
        owner: what the model is called, for messages.

    Raises:
        ConfigError: it has not; with those that are near.
    """
    layers = {path: layer for path, layer, _ in names_of(model).layers}
    for path in (*features, *attention):
        if path not in layers:
            raise ConfigError(f"{owner} has no layer {path!r}; it has: {', '.join(layers) or 'none'}")
    for path in attention:
        if not isinstance(layers[path], ATTENTION):
            kinds = " or ".join(kind.__name__ for kind in ATTENTION)
            raise ConfigError(f"{owner}: {path} is a {type(layers[path]).__name__}, and attention is of a {kinds}")


@contextmanager
def tapped(model: Model, features: Sequence[str], attention: Sequence[str]) -> Iterator[Taps]:
    """Within this context calls of a model leave behind what layers give.

    An attention layer then computes its map, which by default it never has: its outputs are the same up to rounding.

    Args:
        model: the model.
        features: paths of layers.
        attention: paths of attention layers.
    """
    taps = Taps()
    layers = {path: layer for path, layer, _ in names_of(model).layers} if features or attention else {}
    calls: dict[str, Callable[..., Any]] = {}
    for path in dict.fromkeys((*attention, *features)):
        calls[path] = layers[path].call
        layers[path].__dict__["call"] = _watched(layers[path], path, path in features, path in attention, taps)
    try:
        yield taps
    finally:
        for path in calls:
            layers[path].__dict__.pop("call", None)


def _watched(layer: KerasLayer, path: str, is_feature: bool, is_attention: bool, taps: Taps) -> Callable[..., Any]:
    call = layer.call

    def watched(*args: Any, **kwargs: Any) -> Any:
        if is_attention and not kwargs.get("return_attention_scores"):
            found, scores = call(*args, **{**kwargs, "return_attention_scores": True})
            taps.maps.setdefault(path, scores)
        else:
            found = call(*args, **kwargs)
        if is_feature:
            taps.features.setdefault(path, keras.tree.flatten(found)[0])
        return found

    return watched
