"""Squared gradients of single samples, for the Fisher information."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.constraints.lowering import through_masks
from bitwidth.backends.tensorflow.constraints.views import parameters_of
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.internals.layers import takes_training
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.errors import DataError, ModelError
from bitwidth.typing import Model

_LOG = logging.getLogger(__name__)
_BATCH = 64


@final
class SquaredGradients:
    """Mean over samples of the squared gradient of one sample's log-likelihood, per variable of a model.

    The model is run as in inference. What is traced is kept: asking again, with other weights, costs no retrace.

    Args:
        model: the model.
        likelihoods: per output, as `Fisher.likelihoods` returns them.
        labels: `"sampled"` from the model's output distribution, or `"data"`.
    """

    def __init__(self, model: Model, likelihoods: Sequence[str], labels: str) -> None:
        self._model, self._likelihoods, self._labels = model, tuple(likelihoods), labels
        self._storage = [tf_variable(variable) for variable in parameters_of(model) if "float" in variable.dtype]
        self._sums = [tf.Variable(tf.zeros(v.shape, tf.float32), trainable=False) for v in self._storage]
        self._accumulate = tf.function(self._over_rows, reduce_retracing=True, autograph=False)

    def over(self, source: Source, samples: int, seed: int) -> list[NDArray[np.float64]]:
        """One array per entry of `model.variables`, zero for variables that the gradient does not reach.

        Args:
            source: the data.
            samples: how many samples are looked at, at most.
            seed: of the drawn labels.

        Raises:
            DataError: there are no targets, where they are asked for.
            ModelError: a gradient is not finite.
        """
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        seen, started = 0, time.perf_counter()
        for batch in source.samples(samples, _BATCH):
            if self._labels == "data" and batch.targets is None:
                raise DataError(f"{source.name} has no targets: Fisher(labels='data') needs them")
            targets = tf.nest.flatten(batch.targets) if self._labels == "data" else []
            with through_masks():
                self._accumulate(batch.inputs, targets, tf.constant([seed, seen], tf.int32))
            seen += batch.size
        seconds = time.perf_counter() - started
        _LOG.debug("%s: squared gradients of %d samples in %.2f seconds", self._model.name, seen, seconds)
        found = {id(v): t.numpy().astype(np.float64) / seen for v, t in zip(self._storage, self._sums, strict=True)}
        for variable in self._model.variables:
            if not np.isfinite(found.get(id(tf_variable(variable)), 0.0)).all():
                raise ModelError(f"{variable.path}: its gradient is not finite on the data")
        return [found.get(id(tf_variable(v)), np.zeros(tuple(v.shape))) for v in self._model.variables]

    def _over_rows(self, inputs: TFTensor, targets: list[TFTensor], seed: TFTensor) -> None:
        count = tf.shape(tf.nest.flatten(inputs)[0])[0]

        def add_row(row: TFTensor) -> TFTensor:
            self._add(
                tf.nest.map_structure(lambda array: array[row : row + 1], inputs),
                [array[row : row + 1] for array in targets],
                seed + tf.stack([0, row]),
            )
            return row + 1

        tf.while_loop(lambda row: row < count, add_row, [tf.constant(0)], parallel_iterations=1)

    def _add(self, one: TFTensor, truth: list[TFTensor], seed: TFTensor) -> None:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._storage)
            value = self._log_likelihood(one, truth, seed)
        gradients = tape.gradient(value, self._storage)
        for total, gradient in zip(self._sums, gradients, strict=True):
            if gradient is not None:
                total.assign_add(tf.square(tf.cast(tf.convert_to_tensor(gradient), tf.float32)))

    def _log_likelihood(self, inputs: TFTensor, targets: list[TFTensor], seed: TFTensor) -> TFTensor:
        outputs = tf.nest.flatten(_call(self._model, inputs))
        total = tf.constant(0.0)
        for index, (output, likelihood) in enumerate(zip(outputs, self._likelihoods, strict=True)):
            given = targets[index] if self._labels == "data" else None
            drawn = seed + tf.constant([0, 7919 * index])
            total += _LIKELIHOODS[likelihood](tf.cast(output, tf.float32), given, drawn)
        return total


def _call(model: Model, inputs: TFTensor) -> TFTensor:
    return model(inputs, training=False) if takes_training(model) else model(inputs)


def _categorical(output: TFTensor, target: TFTensor, seed: TFTensor, probabilities: bool) -> TFTensor:
    logp = tf.math.log(tf.maximum(output, 1e-30)) if probabilities else tf.nn.log_softmax(output)
    classes = output.shape[-1]
    flat = tf.reshape(logp, [-1, classes])
    if target is None:
        target = tf.random.stateless_categorical(tf.stop_gradient(flat), 1, seed=seed, dtype=tf.int32)
        target = tf.minimum(target, classes - 1)  # of outputs that are NaN it draws a class that does not exist
    elif target.shape.rank == output.shape.rank and target.shape[-1] == classes and classes > 1:
        return tf.reduce_sum(flat * tf.cast(tf.reshape(target, [-1, classes]), tf.float32))
    target = tf.reshape(tf.cast(target, tf.int32), [-1])
    return tf.reduce_sum(tf.gather(flat, target, batch_dims=1))


def _bernoulli(output: TFTensor, target: TFTensor, seed: TFTensor, probabilities: bool) -> TFTensor:
    p = output if probabilities else tf.sigmoid(output)
    if target is None:
        draw = tf.random.stateless_uniform(tf.shape(p), seed=seed)
        target = tf.cast(draw < tf.stop_gradient(p), tf.float32)
    target = tf.reshape(tf.cast(target, tf.float32), tf.shape(p))
    if probabilities:
        p = tf.clip_by_value(p, 1e-7, 1 - 1e-7)
        return tf.reduce_sum(target * tf.math.log(p) + (1 - target) * tf.math.log(1 - p))
    return -tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(target, output))


def _gaussian(output: TFTensor, target: TFTensor, seed: TFTensor) -> TFTensor:
    if target is None:
        target = tf.stop_gradient(output) + tf.random.stateless_normal(tf.shape(output), seed=seed)
    target = tf.reshape(tf.cast(target, tf.float32), tf.shape(output))
    return -0.5 * tf.reduce_sum(tf.square(output - target))


_LIKELIHOODS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "categorical logits": lambda output, target, seed: _categorical(output, target, seed, probabilities=False),
    "categorical probabilities": lambda output, target, seed: _categorical(output, target, seed, probabilities=True),
    "bernoulli logits": lambda output, target, seed: _bernoulli(output, target, seed, probabilities=False),
    "bernoulli probabilities": lambda output, target, seed: _bernoulli(output, target, seed, probabilities=True),
    "gaussian mean": _gaussian,
}
