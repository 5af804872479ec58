"""What a run of training will use, tried before work starts: loss, metrics, weights and callbacks, on one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backend import Objective, Teaching, Training
from bitwidth.backends.tensorflow.constraints.views import parameters_of
from bitwidth.backends.tensorflow.data.rows import is_ragged, ragged_words
from bitwidth.backends.tensorflow.data.source import Batch, Source, without_lists
from bitwidth.backends.tensorflow.models.check import check_callbacks, need_targets
from bitwidth.backends.tensorflow.models.copying import is_copy, uncompile
from bitwidth.backends.tensorflow.models.plain_data import is_count
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.backends.tensorflow.training.teachers import Teacher
from bitwidth.errors import ConfigError, DataError, ModelError, UnsupportedModelError
from bitwidth.text import brief, quoted
from bitwidth.typing import Data, Model, Nest, is_number

_LOG = logging.getLogger(__name__)
_OWN_LOSS = "{} computes its loss itself, in its train_step or compute_loss: {} cannot be added to it"


@final
class Trials:
    """The checks of a session: each tries on one batch what the run will do with the data.

    Attributes:
        adds_loss: whether the model was seen to add losses of its own (`add_loss`) when it was called.

    Args:
        model: the session's copy of the user's model.
        compiled: what the user's model was compiled with.
        source: returns the data, converted and checked, for data and its name.
        undisturbed: a context in which calling the model leaves no trace.
        declared_batch: the batch size that the model is made for, if it is made for one.
        trace: of the copy.
        teacher: returns the teacher that is asked for, tried on the data.
    """

    def __init__(
        self,
        model: Model,
        compiled: Compiled,
        source: Callable[[Any, str], Source],
        undisturbed: Callable[[], AbstractContextManager[None]],
        declared_batch: int | None,
        trace: FuncTrace,
        teacher: Callable[[Teaching, Source], Teacher],
    ) -> None:
        self.adds_loss = False
        self._model, self._compiled, self._source, self._undisturbed = model, compiled, source, undisturbed
        self._declared_batch, self._trace, self._teacher = declared_batch, trace, teacher
        self._not_inputs: dict[int, str] = {}  # by id of the data: why the model cannot be called on it

    def can_measure(self, objective: Objective) -> bool:
        """See `Session.can_measure`."""
        return own_loss(self._model) or self.adds_loss or self._has_loss(objective)

    def data(self, data: Data, name: str, targets: bool) -> None:
        """See `Session.check_data`."""
        _LOG.debug("%s: the model is called on the first samples", name)
        source = self._source(data, name)
        if targets:
            need_targets(source)
        try:
            self._outputs(source, source.peek(self._declared_batch or 2))
        except DataError as error:
            if not own_step(self._model):
                raise
            self._not_inputs[id(data)] = str(error)  # its `train_step` may take what its `call` does not

    def training(self, training: Training) -> None:
        """See `Session.check_training`."""
        _LOG.debug("%s: loss, metrics, optimizer and callbacks of the training are tried", self._model.name)
        teaching = training.teaching
        if teaching is not None:
            self._check_taught(training, teaching)
        elif not self.can_measure(training.objective) and (training.data is not None or not self._adds_loss_on_zeros()):
            raise ConfigError(f"no loss: give `loss=`, or compile the model {self._model.name!r} with one")
        if training.pricing is not None and own_loss(self._model):
            raise ConfigError(_OWN_LOSS.format(type(self._model).__name__, "what codes cost"))
        check_reach(self._model, self._trace)
        check_callbacks(training)
        check_class_weight(training.class_weight)
        if training.data is None:
            self._compiled.check_names(training, parameters_of(self._model))
            return
        source = self._source(training.data, "data")
        if teaching is not None and not source.has_targets:
            if training.class_weight is not None:
                raise ConfigError("class_weight: there are no labels to weigh by")
        elif self._has_loss(training.objective) and not own_loss(self._model):
            need_targets(source)
        if source.is_endless and training.steps_per_epoch is None:
            raise ConfigError("the data has no end: give steps_per_epoch")
        steps = training.steps_per_epoch or source.steps(training.batch_size)
        if training.pricing is not None and steps is None:
            raise ConfigError("a price needs the number of steps: give steps_per_epoch, the data has no length")
        self._compiled.optimizer_for(training, steps, parameters_of(self._model))
        if teaching is not None:
            self._teacher(teaching, source)
        if source.has_targets:
            self._objective(training.objective, source, training.batch_size)
        try_weights(self._model, self._compiled, training, source.peek(training.batch_size))

    def _check_taught(self, training: Training, teaching: Teaching) -> None:
        """Whether the model can learn from a teacher, and has labels and a loss where they count."""
        if own_loss(self._model):
            raise ConfigError(_OWN_LOSS.format(type(self._model).__name__, "what a teacher says"))
        if not teaching.alpha:
            return
        if not self._has_loss(training.objective):
            raise ConfigError(
                f"alpha={teaching.alpha:g} weighs a loss on labels, and there is none: give `loss=`, or compile the "
                f"model {self._model.name!r} with one"
            )
        if training.data is not None:
            need_targets(self._source(training.data, "data"))

    def measuring(self, objective: Objective, data: Data, batch_size: int) -> None:
        """See `Session.check_measuring`; `batch_size` for data that is not batched yet."""
        _LOG.debug("%s: loss and metrics are tried on the validation data", self._model.name)
        source = self._source(data, "validation")
        if source.is_endless:
            raise DataError("validation has no end: give a dataset with a last batch, `dataset.take(n)`")
        if source.is_read_once:
            raise DataError("validation is read after each pass, and an iterator once only: give arrays or a dataset")
        if source.has_targets and self.can_measure(objective):
            self._objective(objective, source, batch_size)

    def watched(self, data: Data) -> Source:
        """Data to watch the model on.

        Raises:
            DataError: it is for the model's own training step, and its `call` takes something else.
        """
        if id(data) in self._not_inputs:
            raise DataError(f"{self._not_inputs[id(data)]}; a pass that watches the model needs data for its call")
        return self._source(data, "data")

    def _adds_loss_on_zeros(self) -> bool:
        """Whether the model adds a loss when it is called, told without data: on zeros of the shapes of its inputs."""

        def zeros(spec: Any) -> Any:
            return tf.zeros([2 if size is None else size for size in spec.shape], spec.dtype)

        try:
            with self._undisturbed(), keras.StatelessScope(collect_losses=True) as scope:
                self._model(keras.tree.map_structure(zeros, self._trace.specs), training=False)
        except Exception:  # a plan does not fail for want of data; a run tries the data itself
            return True
        return bool(scope.losses)

    def _has_loss(self, objective: Objective) -> bool:
        return self._compiled.resolve(objective).loss is not None

    def _objective(self, objective: Objective, source: Source, batch_size: int) -> None:
        """Compute loss and metrics once, on one batch."""
        if self._has_loss(objective) and not own_loss(self._model):
            batch = source.peek(batch_size)
            outputs = self._outputs(source, batch)
            try_objective(self._model, self._compiled, objective, batch, outputs, source.name)

    def _outputs(self, source: Source, batch: Batch) -> Any:
        """What the model returns for a batch; its running statistics and counters stay unchanged."""
        check_ragged(batch.inputs, self._trace.specs, source.name)
        try:
            with self._undisturbed(), keras.StatelessScope(collect_losses=True) as scope:
                outputs = self._model(batch.inputs, training=False)
        except Exception as error:  # Keras and the user's own code raise anything
            hint = f"; its inputs are ragged: {ragged_words()}" if is_ragged(batch.inputs) else ""
            raise DataError(f"{source.name}: the model cannot be called on it: {brief(error)}{hint}") from error
        self.adds_loss |= bool(scope.losses)
        return outputs


def traced_for_training(model: Model, example: Nest, names: Names) -> FuncTrace:
    """The trace of a model on an example of its training data, or on the shapes it was built with.

    A model whose own training step takes its data apart may be trained on what its `call` does not take.
    """
    try:
        return traced(model, example, names)
    except ModelError:
        if example is None or not own_step(model):
            raise
        return traced(model, names=names)


def check_ragged(inputs: Any, specs: Nest, name: str) -> None:
    """Raise if inputs are ragged where the model declares dense ones.

    Raises:
        DataError: they are; saying what to do.
    """
    flat = tf.nest.flatten(inputs)
    places = keras.tree.flatten(specs)
    for leaf, spec in zip(flat, places, strict=False):
        if isinstance(leaf, tf.RaggedTensor) and not isinstance(spec, tf.RaggedTensorSpec):
            raise DataError(
                f"{name}: ragged inputs for a model that is made for dense ones: declare them with "
                f"keras.Input(..., ragged=True), or {ragged_words()}"
            )


def own_loss(model: Model) -> bool:
    """Whether a model's class computes its own loss."""
    own = type(model)
    return own.train_step is not keras.Model.train_step or own.compute_loss is not keras.Model.compute_loss


def own_step(model: Model) -> bool:
    """Whether a model's class takes its data apart itself, so that data need not be what `call` takes."""
    return type(model).train_step is not keras.Model.train_step


def check_reach(model: Model, trace: FuncTrace) -> None:
    """Raise if training the copy of a model would train a layer of the user's.

    Raises:
        UnsupportedModelError: naming the layer that the copy calls and that is no copy.
    """
    for _, layer, _ in trace.untracked:
        if layer.variables and not is_copy(layer):
            raise UnsupportedModelError(
                f"{model.name!r} cannot be trained: its call reaches the layer {layer.name!r} through a global, which "
                "a copy of the model shares with yours, so training would change your own; keep it in an attribute "
                "of the model, or in a list or dict"
            )


def check_class_weight(class_weight: Any) -> None:
    """Raise unless this is a weight for each class.

    Raises:
        ConfigError: saying what is not.
    """
    if class_weight is None:
        return
    if not isinstance(class_weight, Mapping):
        raise ConfigError(f"class_weight: expected a dict, a number for each class, got {quoted(class_weight)}")
    for key, weight in class_weight.items():
        if not is_count(key) or not is_number(weight):
            raise ConfigError(f"class_weight: expected a number for each class, got {quoted(key)}: {quoted(weight)}")


def try_objective(
    model: Model, compiled: Compiled, objective: Objective, batch: Batch, outputs: Any, name: str
) -> None:
    """Compute loss and metrics once.

    Args:
        model: left uncompiled.
        compiled: what the user's model was compiled with.
        objective: loss and metrics.
        batch: one batch of the data.
        outputs: what the model returns for it.
        name: of the data, for messages.

    Raises:
        DataError: they cannot be computed.
    """
    try:
        compiled.compile(model, objective)
        targets = keras.tree.map_structure(tf.convert_to_tensor, batch.targets)
        model.compute_loss(batch.inputs, targets, outputs, batch.weights, training=False)
        model.compute_metrics(batch.inputs, targets, outputs, batch.weights)
    except ConfigError:
        raise
    except Exception as error:  # Keras and the user's own code raise anything
        raise DataError(f"{name}: loss or metrics cannot be computed on it: {brief(error)}") from error
    finally:
        uncompile(model)


def try_weights(model: Model, compiled: Compiled, training: Training, batch: Batch) -> None:
    """Let Keras take class weights with one batch of the data, without a step.

    Raises:
        ConfigError: it does not: several outputs, sample weights besides.
    """
    if training.class_weight is None:
        return
    parts = tuple(without_lists(part) for part in (batch.inputs, batch.targets, batch.weights) if part is not None)
    try:
        compiled.compile(model, training.objective, optimizer="sgd")
        model.fit(
            tf.data.Dataset.from_tensors(parts),
            epochs=0,
            class_weight=dict(training.class_weight),
            shuffle=False,
            verbose=0,
        )
    except Exception as error:  # Keras raises anything
        raise ConfigError(f"class_weight cannot be used with this data: {brief(error)}") from error
    finally:
        uncompile(model)
