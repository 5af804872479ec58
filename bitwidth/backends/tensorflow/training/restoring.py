"""Restoring: callbacks of a user's that put back weights from before a ramp was at full strength."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, final

import keras
import numpy as np

from bitwidth.backend import Training
from bitwidth.backends.tensorflow.internals.types import KerasCallback, ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.graphs import value_of
from bitwidth.backends.tensorflow.training.steering import Steering
from bitwidth.typing import Array, Model

_WATCHED = 4  # variables by whose values a state of the model is known again
_SMALL = 1 << 13  # values of a variable that is looked at after each step

Prints = tuple[int, ...]


@final
@dataclass(frozen=True)
class _State:
    """The model at the end of an epoch: what its masters hold, and what layers read, which files of weights hold."""

    step: int
    masters: Prints
    read: Prints


@final
class Restoring:
    """Notices which state of the training the model is in when the training has ended, and mends it where need be.

    Weights from before full strength have never been trained under it: a callback that puts them back when a training
    ends (the "best" ones, of a milder constraint) undoes what the ramp is for. `EarlyStopping` is made to wait
    (`around.waiting`); of any other callback only its effect can be seen. After each step a few small variables are
    looked at, so that a state is known again whoever puts it back: to the bit, from `get_weights` or from a file.

    Attributes:
        remarks: what there is to say when the training has ended.

    Args:
        training: the run.
        steering: changes the constraints.
        variables: the model's, by path.
        model: what is trained.
    """

    def __init__(
        self, training: Training, steering: Steering, variables: Mapping[str, ModelVariable], model: Model
    ) -> None:
        self.remarks: list[str] = []
        self.is_active = bool(steering.is_steered and training.settled and training.callbacks)
        self._training, self._steering, self._model = training, steering, model
        inside = [p for p in steering.constrained.graph if p.is_float and p.trainable and p.size]
        inside = [p for p in inside if training.only is None or p.path in training.only]
        small = [p for p in inside if p.size <= _SMALL] or sorted(inside, key=lambda p: p.size)[:1]
        chosen = small[:: max(1, len(small) // _WATCHED)][:_WATCHED]
        self._watched = [variables[parameter.path] for parameter in chosen]
        self._steps: dict[Prints, int] = {}  # the last step after which the masters were so
        self._epochs: list[_State] = []
        self._full: int | None = None  # the step at which full strength was reached
        self._trained: list[tuple[Any, Array]] = []

    def callbacks(self) -> list[KerasCallback]:
        """The Keras callback that looks, before those of the user; or none."""
        if not self.is_active:
            return []
        return [
            keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: self._look(),
                on_train_batch_end=lambda batch, logs: self._look(),
                on_epoch_end=lambda epoch, logs: self._keep(),
            )
        ]

    def settle(self) -> None:
        """When training has ended: say what a callback has changed, and keep it from ending in untrained weights."""
        if not self.is_active or self._full is None or not self._epochs:
            return  # a training that ends before full strength is told of elsewhere
        now = self._masters()
        if now == self._epochs[-1].masters:
            return
        step = self._step_of(now)
        if step is None:
            self.remarks.append(
                "a callback has changed the weights when the training had ended; the result has its own"
            )
        elif step <= self._full:
            for variable, value in self._trained:
                tf_variable(variable).assign(value)
            self.remarks.append(
                f"a callback put back the weights of step {step} of {self._steering.total}, not trained under full "
                f"strength; those of the last step are kept: {self._advice()}give it to a Finetune after the ramp"
            )

    def _advice(self) -> str:
        epochs = self._training.epochs
        first = ceil(self._training.settled * epochs - 1e-9)
        return f"let it begin at epoch {first} (the first is 0), or " if first < epochs else ""

    def _look(self) -> None:
        if self._full is None and self._steering.reached >= self._training.settled - 1e-9:
            self._full = self._steering.done
        self._steps[self._masters()] = self._steering.done

    def _keep(self) -> None:
        read = tuple(_print(np.asarray(variable.value)) for variable in self._watched)
        self._epochs.append(_State(self._steering.done, self._masters(), read))
        if self._full is not None:
            self._trained = [(variable, value_of(variable)) for variable in self._model.variables]

    def _masters(self) -> Prints:
        return tuple(_print(value_of(variable)) for variable in self._watched)

    def _step_of(self, now: Prints) -> int | None:
        """The step after which the model was in this state; None where it never was."""
        if now in self._steps:
            return self._steps[now]
        for state in reversed(self._epochs):
            if all(new in both for new, both in zip(now, zip(state.masters, state.read, strict=True), strict=True)):
                return state.step
        return None


def _print(array: Array) -> int:
    return zlib.crc32(array.tobytes())
