"""A model that learns from a teacher: within a context, its loss has the divergence from what the teacher gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backend import Teaching, Training
from bitwidth.backends.tensorflow.constraints.lowered import LearnedVariable
from bitwidth.backends.tensorflow.constraints.views import learning
from bitwidth.backends.tensorflow.data.beside import split
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.internals.compiled import added_losses, label_loss
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.training.divergence import Divergence, as_float
from bitwidth.backends.tensorflow.training.layerwise import Layerwise
from bitwidth.backends.tensorflow.training.taps import Taps, tapped
from bitwidth.backends.tensorflow.training.teachers import Teacher
from bitwidth.backends.tensorflow.training.terms import in_place
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
    pairs = teacher.layerwise
    projections = pairs.projections(training.seed)
    with (
        tapped(model, *_sides(pairs, 0)) as own,
        tapped(teacher.model, *_sides(pairs, 1)) as taught,
        learning(model, list(projections.values())),
    ):
        compared = _Compared(pairs, own, taught, projections)
        made = _Learning(model, teaching, teacher, divergence, labelled, compared)
        with in_place(model, made.loss, made.metrics, made.trackers):
            yield


def _sides(pairs: Layerwise, side: int) -> tuple[list[str], list[str]]:
    return [pair[side] for pair in pairs.features], [pair[side] for pair in pairs.attention]


@final
@dataclass(frozen=True)
class _Compared:
    """Layers of the model and of the teacher, as they were called last."""

    pairs: Layerwise
    own: Taps
    taught: Taps
    projections: Mapping[str, LearnedVariable]

    def losses(self) -> tuple[TFTensor | None, TFTensor | None]:
        """See `Layerwise.losses`; what was seen is forgotten. None where the model was called in another graph.

        Keras, building a model's metrics, calls model and loss apart.
        """
        found: tuple[TFTensor | None, TFTensor | None] = (None, None)
        if self.own.are_here and self.taught.are_here:
            found = self.pairs.losses(self.own, self.taught, self.projections)
        self.own.clear()
        self.taught.clear()
        return found


@final
class _Learning:
    """What stands in for the loss and the metrics of a model."""

    def __init__(
        self,
        model: Model,
        teaching: Teaching,
        teacher: Teacher,
        divergence: Divergence,
        labelled: bool,
        compared: _Compared,
    ) -> None:
        self._model, self._teaching, self._teacher, self._divergence = model, teaching, teacher, divergence
        self._compared = compared
        self._own_metrics = type(model).compute_metrics
        self._distillation = keras.metrics.Mean("distillation")
        self._label_loss = keras.metrics.Mean("label_loss")
        self._measures = labelled and model.loss is not None
        pairs = compared.pairs
        self._features, self._attention = keras.metrics.Mean("features"), keras.metrics.Mean("attention")
        self.trackers = [self._distillation, *([self._label_loss] if self._measures else [])]
        self.trackers += [
            *([self._features] if pairs.features else []),
            *([self._attention] if pairs.attention else []),
        ]

    def loss(self, x: Nest = None, y: Nest = None, y_pred: Nest = None, sample_weight: Nest = None, **_: Any) -> Any:
        """In place of `Model.compute_loss`."""
        labels, given = split(y)
        total = tf.add_n([as_float(part) for part in added_losses(self._model)] or [tf.zeros(())])
        rows = tf.shape(keras.tree.flatten(x)[0])[0]
        outputs = self._outputs(x, given)
        if outputs is not None:
            apart = self._divergence(outputs, y_pred, sample_weight)
            self._distillation.update_state(apart, sample_weight=rows)
            for found, tracker in zip(self._compared.losses(), (self._features, self._attention), strict=True):
                if found is not None:
                    tracker.update_state(found, sample_weight=rows)
                    apart += found
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
