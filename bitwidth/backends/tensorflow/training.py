"""What stands around one run of training besides the model and its constraints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import keras
from numpy.typing import NDArray

from bitwidth.backend import Training
from bitwidth.graph import Graph


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


def masters_of(graph: Graph) -> Iterator[tuple[str, NDArray[Any]]]:
    """The float masters that training goes on from, by path; what nothing moves, in frozen layers, stays as held."""
    layers = graph.layers
    for parameter in graph:
        master = graph.values.value(parameter.path).master
        layer = layers.get(parameter.layer)
        if master is not None and (parameter.trainable or layer is None or layer.trainable):
            yield parameter.path, master
