"""A model that learns from a teacher: within a context, its loss has the divergence from what the teacher gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backend import Teaching, Training
from bitwidth.backends.tensorflow.data.beside import split
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.internals.compiled import added_losses, label_loss, own_metrics
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.training.divergence import Divergence, as_float
from bitwidth.backends.tensorflow.training.teachers import Teacher
from bitwidth.typing import Model, Nest


@contextmanager
def learning_from(model: Model, training: Training, teacher: Teacher, data: Source, labelled: bool) -> Iterator[None]:
    """Within this context `fit` trains a compiled model towards a teacher.

    Args:
        model: the model; it goes on with its class's own training step.
        training: the run.
        teacher: the teacher that it asks for.
        data: the data.
        labelled: whether there are labels.
    """
    teaching = training.teaching
    assert teaching is not None
    variances = teacher.variances(data, teaching.likelihoods)
    divergence = Divergence(teaching.likelihoods, teaching.temperature, variances)
    learning = _Learning(model, teaching, teacher, divergence, labelled)
    held = {name: model.__dict__.get(name) for name in ("compute_loss", "compute_metrics")}
    own_metrics(model).extend(learning.trackers)
    model.__dict__.update(compute_loss=learning.loss, compute_metrics=learning.metrics)
    try:
        yield
    finally:
        for name, value in held.items():
            if value is None:
                model.__dict__.pop(name, None)
            else:
                model.__dict__[name] = value
        for tracker in learning.trackers:
            own_metrics(model).remove(tracker)


@final
class _Learning:
    """What stands in for the loss and the metrics of a model."""

    def __init__(
        self, model: Model, teaching: Teaching, teacher: Teacher, divergence: Divergence, labelled: bool
    ) -> None:
        self._model, self._teaching, self._teacher, self._divergence = model, teaching, teacher, divergence
        self._own_metrics = type(model).compute_metrics
        self._distillation = keras.metrics.Mean("distillation")
        self._label_loss = keras.metrics.Mean("label_loss")
        self._measures = labelled and model.loss is not None
        self.trackers = [self._distillation, *([self._label_loss] if self._measures else [])]

    def loss(self, x: Nest = None, y: Nest = None, y_pred: Nest = None, sample_weight: Nest = None, **_: Any) -> Any:
        """In place of `Model.compute_loss`."""
        labels, given = split(y)
        total = tf.add_n([as_float(part) for part in added_losses(self._model)] or [tf.zeros(())])
        rows = tf.shape(keras.tree.flatten(x)[0])[0]
        outputs = self._outputs(x, given)
        if outputs is not None:
            apart = self._divergence(outputs, y_pred, sample_weight)
            self._distillation.update_state(apart, sample_weight=rows)
            total += (1 - self._teaching.alpha) * apart
        if labels is not None and self._measures:
            loss = as_float(label_loss(self._model, labels, y_pred, sample_weight))
            self._label_loss.update_state(loss, sample_weight=rows)
            if self._teaching.alpha:
                total += self._teaching.alpha * loss
        return total

    def _outputs(self, x: Nest, given: Nest) -> TFTensor | None:
        """What the teacher gives for a batch; None for validation, where stored outputs are not of its samples."""
        if self._teacher.stored is not None:
            return given
        return self._teacher.outputs(x if given is None else given)

    def metrics(self, x: Nest, y: Nest, y_pred: Nest, sample_weight: Nest = None) -> Any:
        """In place of `Model.compute_metrics`."""
        labels = split(y)[0]
        if labels is None:
            return self._model.get_metrics_result()
        return self._own_metrics(self._model, x, labels, y_pred, sample_weight)
