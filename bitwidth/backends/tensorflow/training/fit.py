"""One call of Keras's `fit`, under constraints."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack

from bitwidth.backend import Training
from bitwidth.backends.tensorflow.constraints.views import parameters_of
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.internals.types import KerasOptimizer, ModelVariable
from bitwidth.backends.tensorflow.training.around import watching
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.backends.tensorflow.training.pricing import paying
from bitwidth.backends.tensorflow.training.rates import counting
from bitwidth.backends.tensorflow.training.restoring import Restoring
from bitwidth.backends.tensorflow.training.steering import Steering
from bitwidth.backends.tensorflow.training.taught import learning_from
from bitwidth.backends.tensorflow.training.teachers import Teacher
from bitwidth.typing import Data, JsonDict, Model

_LOG = logging.getLogger(__name__)


def fit(
    training: Training,
    steering: Steering,
    compiled: Compiled,
    data: Source,
    validation: Data,
    variables: Mapping[str, ModelVariable],
    teacher: Teacher | None = None,
) -> dict[str, list[float]]:
    """Train a constrained model; per epoch, the loss and the metrics.

    Args:
        training: the run.
        steering: the model, and the pass that changes its constraints.
        compiled: what the user's model was compiled with.
        data: inputs and targets.
        validation: batches to measure on at each epoch's end, or None.
        variables: the model's, by path.
        teacher: what the model learns from besides labels.
    """
    model = steering.constrained.model
    steps = training.steps_per_epoch or data.steps(training.batch_size)
    steering.total = None if steps is None else steps * training.epochs
    labelled = teacher is None or data.has_targets
    optimizer = _compiled(model, training, compiled, steering, steps, labelled)
    restoring = Restoring(training, steering, variables, model)
    own = [*steering.callbacks(), *counting(optimizer), *restoring.callbacks()]
    _LOG.info("%s: training for %d epochs of %s steps", model.name, training.epochs, steps or "unknown")
    started = time.perf_counter()
    with ExitStack() as terms:
        if teacher is not None:
            terms.enter_context(learning_from(model, training, teacher, data, labelled))
        if training.pricing is not None:
            own += terms.enter_context(paying(training.pricing, steering))
        history = model.fit(
            data.for_fit(training.batch_size, training.seed, None if teacher is None else teacher.beside),
            epochs=training.epochs,
            steps_per_epoch=training.steps_per_epoch if data.batched else steps,
            validation_data=validation,
            class_weight=training.class_weight,
            callbacks=[*own, *training.callbacks, *watching(training, steering.total)],
            verbose=training.verbose,
            shuffle=False,
        )
    restoring.settle()
    steering.remarks += restoring.remarks
    found = {name: [float(value) for value in values] for name, values in history.history.items()}
    last = {name: values[-1] for name, values in found.items() if values}
    _LOG.info("%s: trained in %.1f seconds: %s", model.name, time.perf_counter() - started, last)
    return found


def _compiled(
    model: Model, training: Training, compiled: Compiled, steering: Steering, steps: int | None, labelled: bool
) -> KerasOptimizer:
    """Compile the model for a run of training; the optimizer, which is fresh."""
    settings: JsonDict = {} if training.jit_compile is None else {"jit_compile": training.jit_compile}
    if steering.is_steered or training.pricing is not None:
        settings["steps_per_execution"] = 1
    optimizer = compiled.optimizer_for(training, steps, parameters_of(model))
    compiled.spare(optimizer, steering.constrained.learned)
    compiled.compile(model, training.objective, labelled, optimizer=optimizer, **settings)
    return optimizer
