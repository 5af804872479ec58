"""Learning rates: what a run of training starts from, and how it falls."""

from __future__ import annotations

import inspect
from math import ceil, pi
from typing import Any, final

import keras
import numpy as np
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from bitwidth.backend import Training
from bitwidth.backends.tensorflow.internals.compiled import learning_rate_of
from bitwidth.backends.tensorflow.internals.types import KerasCallback, KerasOptimizer
from bitwidth.errors import ConfigError
from bitwidth.typing import JsonDict

GENTLE = 0.3  # of a rate that nobody has chosen: fine-tuning at Keras's own overfits (see benchmarks/README.md)
_NEVER = 1e30  # a step that training does not reach
_SETTERS = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)


@final
class CountedCosine(LearningRateSchedule):  # type: ignore[misc]  # Keras has no types
    """A constant rate while the steps of the first epoch are counted, then a half cosine over the epochs that are left.

    Attributes:
        rate: the rate to start from.
        epochs: of the whole run, two at least.

    Args:
        rate: see above.
        epochs: see above.
        counted: steps of the first epoch, once they are known; its place is a variable, so nothing is traced again.
    """

    def __init__(self, rate: float, epochs: int, counted: float = _NEVER) -> None:
        self.rate, self.epochs = rate, epochs
        self._counted = keras.Variable(counted, trainable=False, dtype="float32", name="steps_of_an_epoch")

    def __call__(self, step: Any) -> Any:
        """The rate at a step of the optimizer."""
        passed = keras.ops.cast(step, "float32") / keras.ops.convert_to_tensor(self._counted) - 1.0
        return self.rate * 0.5 * (1.0 + keras.ops.cos(pi * keras.ops.clip(passed / (self.epochs - 1), 0.0, 1.0)))

    def get_config(self) -> JsonDict:
        """The arguments."""
        return {"rate": self.rate, "epochs": self.epochs, "counted": float(self._counted.numpy())}

    def count(self, steps: int) -> None:
        """Say how many steps the first epoch has had; the fall begins."""
        self._counted.assign(float(steps))


def rate_for(training: Training, steps: int | None, optimizer: KerasOptimizer) -> Any:
    """What takes the place of the rate of a fresh optimizer: a number, a schedule, or None for nothing.

    Args:
        training: the run.
        steps: of an epoch, or None where they are not known.
        optimizer: as it was given, or as the model was compiled with it, or Keras's own of that kind.

    Raises:
        ConfigError: the run asks for a decay, and there is none to be had.
    """
    own = _own(training, optimizer)
    rate = _start(training, optimizer, own)
    if _decay(training, own) == "constant":
        return rate
    if steps is None and training.epochs == 1:
        if training.decay is None:
            return rate
        raise ConfigError(
            "decay='cosine' needs the number of steps: give steps_per_epoch, or two epochs, the first of which counts"
        )
    start = float(optimizer.learning_rate) if rate is None else rate
    return CountedCosine(start, training.epochs) if steps is None else _cosine(start, steps * training.epochs, training)


def counting(optimizer: KerasOptimizer) -> list[KerasCallback]:
    """The Keras callback that tells a schedule how many steps an epoch has, or none where it is known."""
    optimizer = _inner(optimizer)
    schedule = learning_rate_of(optimizer)
    if not isinstance(schedule, CountedCosine):
        return []

    def count(epoch: int, logs: object = None) -> None:
        if epoch == 0:
            schedule.count(int(optimizer.iterations.numpy()))

    return [keras.callbacks.LambdaCallback(on_epoch_end=count)]


def _cosine(start: float, total: int, training: Training) -> Any:
    """A half cosine to zero, from where a ramp has reached its full strength; a schedule of Keras's own."""
    wait = ceil(training.settled * total)
    if wait >= total:
        return start
    return CosineDecay(start, total - wait, warmup_target=start if wait else None, warmup_steps=wait)


def _own(training: Training, optimizer: KerasOptimizer) -> bool:
    """Whether the rate is the user's: that of an optimizer given to the pass, or a schedule that was compiled."""
    given = training.optimizer is not None and not isinstance(training.optimizer, str)
    return given or not isinstance(_inner(optimizer).get_config().get("learning_rate"), int | float)


def _start(training: Training, optimizer: KerasOptimizer, own: bool) -> float | None:
    """The rate that takes the place of the optimizer's, or None."""
    if training.learning_rate is not None:
        return None if training.learning_rate == "own" else float(training.learning_rate)
    default = inspect.signature(type(_inner(optimizer)).__init__).parameters.get("learning_rate")
    if own or default is None or not isinstance(default.default, float):
        return None
    chosen = np.float32(default.default) != np.float32(optimizer.learning_rate)
    return None if chosen else default.default * (1.0 if training.teaching else GENTLE)


def _decay(training: Training, own: bool) -> str:
    """The decay that was chosen, or by default a cosine unless somebody else has a say in the rate."""
    setters = [item for item in training.callbacks if isinstance(item, _SETTERS)]
    if training.decay == "cosine" and setters:
        raise ConfigError(f"decay='cosine' and {type(setters[0]).__name__} both set the learning rate: choose one")
    return training.decay or ("constant" if own or setters else "cosine")


def _inner(optimizer: KerasOptimizer) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)
