"""What stands around one run of training besides the model and its constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import final

import keras
from typing_extensions import override

from bitwidth.backend import Training
from bitwidth.backends.tensorflow.internals.types import KerasCallback


@contextmanager
def waiting(training: Training) -> Iterator[None]:
    """Within this context callbacks that look for the best model wait until the constraints are at full strength.

    `EarlyStopping` counts from the first epoch that is wholly under them: before, the model gets worse because it is
    asked for more, and weights restored from there would be those of a milder constraint.
    """
    first = ceil(training.settled * training.epochs - 1e-9)
    early = [item for item in training.callbacks if isinstance(item, keras.callbacks.EarlyStopping)]
    before = [item.start_from_epoch for item in early]
    for item in early:
        item.start_from_epoch = max(item.start_from_epoch, first)
    try:
        yield
    finally:
        for item, epoch in zip(early, before, strict=True):
            item.start_from_epoch = epoch


@final
class Watching(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports the steps of a training, and ends it where it is told to."""

    def __init__(self, on_step: Callable[[int, int | None], bool], total: int | None) -> None:
        super().__init__()
        self._on_step, self._total, self._done = on_step, total, 0

    @override
    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._done += 1
        if self._on_step(self._done, self._total):
            self.model.stop_training = True


def watching(training: Training, total: int | None) -> list[KerasCallback]:
    """The Keras callback that reports the steps of a run of training, or none."""
    return [] if training.on_step is None else [Watching(training.on_step, total)]
