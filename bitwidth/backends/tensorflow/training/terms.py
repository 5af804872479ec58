"""Terms of the loss: within a context a model computes its loss, and its metrics, in another way.

Contexts nest: each finds what was in place before it, and puts it back. Everything that changes what `fit` minimises
goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from bitwidth.backends.tensorflow.internals.compiled import own_metrics
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.typing import Model


@contextmanager
def in_place(
    model: Model,
    loss: Callable[..., Any],
    metrics: Callable[..., Any] | None = None,
    trackers: Sequence[keras.metrics.Metric] = (),
) -> Iterator[None]:
    """Within this context a model computes its loss and its metrics so.

    Args:
        model: the model; its class does not compute its own loss.
        loss: in place of `Model.compute_loss`.
        metrics: in place of `Model.compute_metrics`; None to leave that as it is.
        trackers: metrics of the model, in its history, meanwhile.
    """
    new = {"compute_loss": loss} | ({} if metrics is None else {"compute_metrics": metrics})
    held = {name: model.__dict__.get(name) for name in new}
    own_metrics(model).extend(trackers)
    model.__dict__.update(new)
    try:
        yield
    finally:
        for name, value in held.items():
            if value is None:
                model.__dict__.pop(name, None)
            else:
                model.__dict__[name] = value
        for tracker in trackers:
            own_metrics(model).remove(tracker)


@contextmanager
def added(model: Model, term: Callable[[], TFTensor]) -> Iterator[None]:
    """Within this context a term is added to the loss that a model trains by.

    Losses that are measured, on validation data, are those of the model alone.

    Args:
        model: the model.
        term: a float32 scalar, computed in the graph of the step.
    """
    before = model.compute_loss

    def loss(*args: Any, training: bool = True, **kwargs: Any) -> Any:
        found = before(*args, training=training, **kwargs)
        return found + term() if training else found

    with in_place(model, loss):
        yield
