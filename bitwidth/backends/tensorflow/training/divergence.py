"""How far the outputs of a model are from those of a teacher, as a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.typing import Nest

_LEAST = 1e-7  # of a probability, so that its logarithm is finite


@final
class Divergence:
    """The sum over outputs of the divergence of each, a mean over samples and positions.

    Args:
        likelihoods: per output, as `Fisher.likelihoods` returns them.
        temperature: by which logits are divided; the divergence is multiplied by its square.
        variances: per output, the mean variance of the teacher's; of those that are means.
    """

    def __init__(self, likelihoods: Sequence[str], temperature: float, variances: Sequence[float]) -> None:
        self._likelihoods, self._temperature, self._variances = tuple(likelihoods), temperature, tuple(variances)

    def __call__(self, taught: Nest, given: Nest, weights: Nest = None) -> TFTensor:
        """A float32 scalar.

        Args:
            taught: outputs of the teacher; no gradient goes there.
            given: those of the model.
            weights: (samples,), of the samples; None for equal ones.
        """
        parts = []
        flat = zip(self._likelihoods, keras.tree.flatten(taught), keras.tree.flatten(given), strict=True)
        for place, (likelihood, one, other) in enumerate(flat):
            if other.dtype.is_floating:
                each = self._each(place, likelihood, tf.stop_gradient(tf.cast(one, tf.float32)), as_float(other))
                parts.append(_mean(each, weights))
        return tf.add_n(parts)

    def _each(self, place: int, likelihood: str, one: TFTensor, other: TFTensor) -> TFTensor:
        kind, _, form = likelihood.partition(" ")
        t = self._temperature
        if kind == "categorical":
            before, after = (tf.nn.log_softmax(_logs(x, form) / t) for x in (one, other))
            return t * t * tf.reduce_sum(tf.exp(before) * (before - after), -1)
        if kind == "bernoulli":
            before, after = (_odds(x, form) / t for x in (one, other))
            share = tf.sigmoid(before)
            yes, no = tf.nn.softplus(-after) - tf.nn.softplus(-before), tf.nn.softplus(after) - tf.nn.softplus(before)
            return t * t * (share * yes + (1 - share) * no)
        return tf.square(one - other) / max(self._variances[place], 1e-12)


def as_float(tensor: TFTensor) -> TFTensor:
    """A tensor as float32."""
    return tf.cast(tensor, tf.float32)


def _logs(x: TFTensor, form: str) -> TFTensor:
    return x if form == "logits" else tf.math.log(tf.maximum(x, _LEAST))


def _odds(x: TFTensor, form: str) -> TFTensor:
    if form == "logits":
        return x
    x = tf.clip_by_value(x, _LEAST, 1 - _LEAST)
    return tf.math.log(x) - tf.math.log1p(-x)


def _mean(each: TFTensor, weights: Nest) -> TFTensor:
    """The mean over samples and positions, each sample by its weight, as Keras weighs losses."""
    if weights is None or not hasattr(weights, "shape") or weights.shape.rank != 1:
        return tf.reduce_mean(each)
    by_sample = tf.reduce_mean(tf.reshape(each, [tf.shape(each)[0], -1]), 1)
    return tf.reduce_mean(by_sample * tf.cast(weights, tf.float32))
