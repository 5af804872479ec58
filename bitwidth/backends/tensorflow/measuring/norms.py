"""Batch normalisations: statistics measured again, and layers that are frozen by a pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.data.source import Batch
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.graph import Structure
from bitwidth.typing import Model

_LOG = logging.getLogger(__name__)


def freeze(names: Names, structure: Structure) -> bool:
    """Let each layer of a model be trainable or not as the structure says.

    Returns:
        Whether anything has changed.
    """
    wanted = {layer.path: layer.trainable for layer in structure.layers}
    changed = False
    for path, layer, _ in names.layers:  # the layers around others come first: theirs is set for all inside
        if layer.trainable != wanted.get(path, layer.trainable):
            layer.trainable = wanted[path]
            changed = True
    return changed


def batch_statistics(model: Model, names: Names, batches: Iterable[Batch]) -> dict[int, NDArray[np.float32]]:
    """Mean and variance that each batch normalisation meets, by the `id` of its variables.

    A layer that is frozen, uses renorm, or computes in a compiled function or a loop stays as in inference and has no
    entry. The model's own statistics are left as the last batch set them.

    Args:
        model: the model, which runs eagerly.
        names: of its layers.
        batches: inputs; each batch counts by its number of samples.
    """
    layers = [layer for _, layer, _ in names.layers if isinstance(layer, keras.layers.BatchNormalization)]
    measured = [_Measured(layer) for layer in layers if layer.trainable and not getattr(layer, "renorm", False)]
    with _attached(measured):
        for batch in batches:
            for item in measured:
                item.weight = batch.size
            model(batch.inputs, training=False)
    samples = max((item.total for item in measured), default=0)
    _LOG.debug("%s: statistics of %d normalisations over %d samples", model.name, len(measured), samples)
    found: dict[int, NDArray[np.float32]] = {}
    for item in measured:
        if item.total:
            mean, square = item.mean / item.total, item.square / item.total
            found[id(item.layer.moving_mean)] = mean.astype(np.float32)
            found[id(item.layer.moving_variance)] = np.maximum(square - mean**2, 0).astype(np.float32)
    return found


@final
class _Measured:
    """The `call` of a batch normalisation that normalises by the batch and adds up what it meets.

    Attributes:
        layer: the layer; its momentum is 0, so that its moving statistics are those of the batch.
        weight: of the present batch.
        total: sum of the weights.
        mean: sum of the means.
        square: sum of the mean squares.
    """

    def __init__(self, layer: KerasLayer) -> None:
        self.layer, self.call = layer, layer.call
        self.weight, self.total = 1, 0
        self.mean: NDArray[np.float64] = np.zeros(layer.moving_mean.shape)
        self.square: NDArray[np.float64] = np.zeros(layer.moving_mean.shape)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer in training mode."""
        if not tf.executing_eagerly():
            return self.call(*args, **kwargs)
        outputs = self.call(*args, **{**kwargs, "training": True})
        mean = np.asarray(self.layer.moving_mean.numpy(), np.float64)
        self.mean += self.weight * mean
        self.square += self.weight * (np.asarray(self.layer.moving_variance.numpy(), np.float64) + mean**2)
        self.total += self.weight
        return outputs


@contextmanager
def _attached(measured: list[_Measured]) -> Iterator[None]:
    """Within this context the layers measure."""
    before = [(item.layer.__dict__.get("call"), item.layer.momentum) for item in measured]
    try:
        for item in measured:
            item.layer.__dict__["call"] = item
            item.layer.momentum = 0.0
        yield
    finally:
        for item, (call, momentum) in zip(measured, before, strict=True):
            item.layer.momentum = momentum
            del item.layer.__dict__["call"]
            if call is not None:
                item.layer.__dict__["call"] = call
