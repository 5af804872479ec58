"""Teachers: what gives the outputs that a model is trained towards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np

from bitwidth.backend import Teaching
from bitwidth.backends.tensorflow.data.beside import Beside
from bitwidth.backends.tensorflow.data.source import Batch, Source
from bitwidth.backends.tensorflow.internals.layers import flat_inputs
from bitwidth.backends.tensorflow.models.copying import copy_model
from bitwidth.backends.tensorflow.training.layerwise import Layerwise, layerwise
from bitwidth.errors import ConfigError, DataError
from bitwidth.text import brief, quoted
from bitwidth.typing import Array, Model, Nest

_SAMPLES = 1024  # from which the variance of outputs that are means is taken


@final
@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher that was found to fit.

    Attributes:
        model: it; None where its outputs are stored.
        stored: its outputs for each sample, nested as the model's; None where there is a model.
        takes_all: whether it takes features of an input that the model does not take any more.
        layerwise: layers of the model that are to be like its own.
    """

    model: Model = None
    stored: Nest = None
    takes_all: bool = False
    layerwise: Layerwise = field(default_factory=Layerwise)

    @property
    def beside(self) -> Beside | None:
        """What has to come with the targets of a batch for it; None for nothing."""
        if self.stored is not None:
            return Beside(self.stored)
        return Beside() if self.takes_all else None

    def outputs(self, inputs: Nest) -> Nest:
        """Its outputs for a batch, as in inference."""
        return self.model(inputs, training=False)

    def variances(self, source: Source, likelihoods: tuple[str, ...]) -> list[float]:
        """Per output the mean variance over the first samples of the data, of those that are means; 1 for others."""
        if not any(likelihood.startswith("gaussian") for likelihood in likelihoods):
            return [1.0] * len(likelihoods)
        if self.stored is not None:
            flat = [np.asarray(rows[:_SAMPLES]) for rows in keras.tree.flatten(self.stored)]
        else:
            batches = source.samples(_SAMPLES, 256, whole=self.takes_all)
            found = [keras.tree.flatten(self.outputs(batch.inputs)) for batch in batches]
            flat = [np.concatenate([np.asarray(batch[place]) for batch in found]) for place in range(len(likelihoods))]
        return [float(np.var(rows.astype(np.float64), axis=0).mean()) for rows in flat]


def teacher_for(teaching: Teaching, original: Callable[[], Model], source: Source, model: Model, size: int) -> Teacher:
    """The teacher, after it was tried on a batch.

    Args:
        teaching: what was asked for.
        original: returns the model as it was opened.
        source: the data.
        model: the model that learns.
        size: samples of a batch.

    Raises:
        ConfigError: it is no model and no arrays, or gives other outputs than the model.
        DataError: it cannot be called on the data, or there are not as many stored outputs as samples.
    """
    given, looks = teaching.teacher, bool(teaching.features or teaching.attention)
    inputs, whole = source.peek(size).inputs, source.peek(size, whole=True)
    outputs = model(inputs, training=False)
    if given is not None and not isinstance(given, keras.Model):
        if looks:
            raise ConfigError("features and attention are those of a teacher that is a model, not of stored outputs")
        return Teacher(stored=_checked_rows(given, source, outputs))
    teacher = original() if given is None else copy_model(given) if looks else given
    takes_all = _takes_all(teacher, whole, source)
    taught = whole.inputs if takes_all else inputs
    try:
        found = teacher(taught, training=False)
    except Exception as error:  # Keras and the user's own code raise anything
        raise DataError(f"{source.name}: the teacher cannot be called on it: {brief(error)}") from error
    _check_alike(found, outputs)
    pairs = layerwise(teaching, model, inputs, teacher, taught) if looks else Layerwise()
    return Teacher(teacher, takes_all=takes_all, layerwise=pairs)


def _takes_all(model: Model, batch: Batch, source: Source) -> bool:
    """Whether a teacher takes features that the model does not take any more, and the data have them."""
    columns = source.columns
    if columns is None:
        return False
    place = columns.kept.place
    declared, held = flat_inputs(model), keras.tree.flatten(batch.inputs)
    if place >= len(declared) or place >= len(held):
        return False
    width, there = declared[place].shape[-1], int(held[place].shape[-1])
    if width == len(columns.kept.columns):
        return False
    if width != there:
        raise DataError(f"{source.name}: the teacher takes {width} columns, and the data have {there}")
    return True


def _checked_rows(given: Any, source: Source, outputs: Nest) -> Nest:
    flat, expected = keras.tree.flatten(given), keras.tree.flatten(outputs)
    if not all(hasattr(rows, "shape") and len(rows.shape) for rows in flat):
        raise ConfigError(f"teacher: expected a Keras model, or its outputs as arrays, got {quoted(given)}")
    if source.batched:
        raise ConfigError("teacher: stored outputs are for data that is arrays, with a row for each sample")
    if len(flat) != len(expected):
        raise ConfigError(f"teacher: {len(flat)} stored outputs, and the model has {len(expected)}")
    for place, (rows, output) in enumerate(zip(flat, expected, strict=True)):
        if len(rows) != source.length:
            raise DataError(f"teacher: {len(rows):,} rows of output {place} for {source.length:,} samples")
        if tuple(rows.shape[1:]) != tuple(output.shape[1:]):
            raise ConfigError(
                f"teacher: rows of output {place} have the shape {tuple(rows.shape[1:])}, the model's "
                f"{tuple(output.shape[1:])}"
            )
        if not np.isfinite(np.asarray(rows)).all():
            raise DataError(f"teacher: output {place} has values that are not finite")
    held: list[Array] = [np.asarray(rows, np.float32) for rows in flat]
    return keras.tree.pack_sequence_as(outputs, held)


def _check_alike(found: Nest, outputs: Nest) -> None:
    """Raise unless a teacher gives what the model gives, in number and shapes."""
    one, other = ([tuple(leaf.shape) for leaf in keras.tree.flatten(nest)] for nest in (found, outputs))
    if one != other:
        raise ConfigError(f"teacher: it gives outputs of the shapes {_shown(one)}, and the model {_shown(other)}")


def _shown(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str(tuple(shape[1:])) for shape in shapes)
