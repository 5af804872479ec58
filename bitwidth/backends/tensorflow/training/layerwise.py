"""Losses on layers: features and attention that are to be like a teacher's; where widths differ, by a learned map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backend import Teaching
from bitwidth.backends.tensorflow.constraints.lowered import LearnedVariable, learned_variable
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.training.taps import Taps, check_taps, tapped
from bitwidth.errors import ConfigError
from bitwidth.text import brief
from bitwidth.typing import Model, Nest

_LEAST = 1e-9  # of an attention weight, so that its logarithm is finite
_NEAR = 1e-5
Shape = tuple[int, ...]


@final
@dataclass(frozen=True)
class Layerwise:
    """The layers of a model that are to be like those of a teacher.

    Attributes:
        features: pairs of layers, the model's first.
        attention: pairs of attention layers.
        maps: by the model's layer, the widths between which a linear map is learned.
    """

    features: tuple[tuple[str, str], ...] = ()
    attention: tuple[tuple[str, str], ...] = ()
    maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.features or self.attention)

    def projections(self, seed: int) -> dict[str, LearnedVariable]:
        """Fresh linear maps, (width of the model, width of the teacher)."""
        found = {}
        rng = np.random.default_rng(seed)
        for path, (given, wanted) in self.maps.items():
            variable = learned_variable((given, wanted), f"{path}/projection".replace("/", "_"))
            limit = np.sqrt(6 / (given + wanted))
            variable.assign(rng.uniform(-limit, limit, (given, wanted)).astype(np.float32))
            found[path] = variable
        return found

    def losses(
        self, own: Taps, taught: Taps, projections: Mapping[str, LearnedVariable]
    ) -> tuple[TFTensor | None, TFTensor | None]:
        """The sums over pairs of features and of attention layers; None for no pairs."""
        features = [
            _relative_error(_projected(own.features[one], projections.get(one)), taught.features[other])
            for one, other in self.features
        ]
        maps = [_row_divergence(taught.maps[other], own.maps[one]) for one, other in self.attention]
        return tf.add_n(features) if features else None, tf.add_n(maps) if maps else None


def _projected(features: TFTensor, projection: LearnedVariable | None) -> TFTensor:
    features = tf.cast(features, tf.float32)
    return features if projection is None else tf.tensordot(features, tf.convert_to_tensor(projection.value), 1)


def _relative_error(given: TFTensor, wanted: TFTensor) -> TFTensor:
    wanted = tf.stop_gradient(tf.cast(wanted, tf.float32))
    return tf.reduce_mean(tf.square(given - wanted)) / tf.maximum(tf.reduce_mean(tf.square(wanted)), 1e-12)


def _row_divergence(wanted: TFTensor, given: TFTensor) -> TFTensor:
    wanted, given = tf.stop_gradient(tf.cast(wanted, tf.float32)), tf.cast(given, tf.float32)
    logs = tf.math.log(tf.maximum(wanted, _LEAST)) - tf.math.log(tf.maximum(given, _LEAST))
    return tf.reduce_mean(tf.reduce_sum(wanted * logs, -1))


def layerwise(teaching: Teaching, model: Model, inputs: Nest, teacher: Model, taught: Nest) -> Layerwise:
    """The layers that are asked for, after both models were tried.

    Args:
        teaching: what is asked for.
        model: the model.
        inputs: of a batch, for it.
        teacher: the teacher.
        taught: of the same batch, for the teacher.

    Raises:
        ConfigError: a layer is not there, is not called, or runs within a loop; or their outputs cannot be matched.
    """
    one = _Tried(model, [pair[0] for pair in teaching.features], [pair[0] for pair in teaching.attention], "the model")
    other = _Tried(
        teacher, [pair[1] for pair in teaching.features], [pair[1] for pair in teaching.attention], "the teacher"
    )
    before, after = one.shapes(inputs), other.shapes(taught)
    maps = {}
    for mine, theirs in teaching.features:
        given, wanted = before[0][mine], after[0][theirs]
        if len(given) < 2 or given[:-1] != wanted[:-1]:
            raise ConfigError(
                f"features: {mine} gives {_shown(given)} and the teacher's {theirs} {_shown(wanted)}: all axes but the "
                "last have to agree"
            )
        if given[-1] != wanted[-1]:
            maps[mine] = (given[-1], wanted[-1])
    for mine, theirs in teaching.attention:
        if before[1][mine] != after[1][theirs]:
            raise ConfigError(
                f"attention: the map of {mine} is {_shown(before[1][mine])}, that of the teacher's {theirs} "
                f"{_shown(after[1][theirs])} (heads, queries, keys): they have to agree"
            )
    return Layerwise(teaching.features, teaching.attention, maps)


def _shown(shape: Shape) -> str:
    return str(tuple(shape[1:]))


@final
class _Tried:
    """A model whose layers are looked at on a batch."""

    def __init__(self, model: Model, features: Sequence[str], attention: Sequence[str], owner: str) -> None:
        check_taps(model, features, attention, owner)
        self._model, self._features, self._attention, self._owner = model, features, attention, owner

    def shapes(self, inputs: Nest) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """The shapes of the features and of the attention, by path."""
        plain = self._model(inputs, training=False)
        with tapped(self._model, self._features, self._attention) as taps:

            def run(given: Nest) -> Any:
                taps.clear()
                return self._model(given, training=False), dict(taps.features), dict(taps.maps)

            try:
                outputs, features, maps = tf.function(run, autograph=False)(inputs)
            except Exception as error:  # what a loop computes cannot be taken out of it
                shown = ", ".join((*self._features, *self._attention))
                raise ConfigError(f"{self._owner}: {shown} cannot be looked at: {brief(error)}") from error
            finally:
                taps.clear()
        for path in (*self._features, *self._attention):
            if path not in features and path not in maps:
                raise ConfigError(f"{self._owner}: {path} is not called")
        if self._attention:
            self._check_same(keras.tree.flatten(plain), keras.tree.flatten(outputs))
        return _sizes(features), _sizes(maps)

    def _check_same(self, plain: list[Any], tapped: list[Any]) -> None:
        for one, other in zip(map(np.asarray, plain), map(np.asarray, tapped), strict=True):
            if np.abs(one - other).max(initial=0) > _NEAR * max(float(np.abs(one).max(initial=0)), 1.0):
                raise ConfigError(f"attention: {self._owner} computes something else when its maps are asked for")


def _sizes(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    return {path: tuple(tensor.shape) for path, tensor in tensors.items()}
