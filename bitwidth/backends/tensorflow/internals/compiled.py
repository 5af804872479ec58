"""What a model was compiled with, and what an optimizer was told, beyond what either says of itself."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Set
from typing import NamedTuple

import keras

from bitwidth.typing import Nest

_TRAINER_STATE = {
    "train_function": None,
    "test_function": None,
    "predict_function": None,
    "compiled": False,
    "optimizer": None,
    "loss": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_compile_config": None,
    "_loss_tracker": None,
}


class CompiledWith(NamedTuple):
    """What the user gave to `model.compile` besides the loss and the optimizer."""

    loss_weights: Nest
    metrics: Nest
    weighted_metrics: Nest


def compiled_with(model: keras.Model) -> CompiledWith:
    """What a compiled model was compiled with.

    Since Keras 3.0 (`Trainer._compile_loss`, `Trainer._compile_metrics` and their `_user_...`).
    """
    loss, metrics = getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None)
    return CompiledWith(
        getattr(loss, "_user_loss_weights", None),
        getattr(metrics, "_user_metrics", None),
        getattr(metrics, "_user_weighted_metrics", None),
    )


def forget_compiled(model: keras.Model) -> None:
    """Drop optimizer, loss, metrics and compiled functions of one model, not of those in it.

    Since Keras 3.0 (`Trainer._compile_loss`, `_compile_metrics`, `_compile_config`, `_loss_tracker`).
    """
    model.__dict__.update({name: value for name, value in _TRAINER_STATE.items() if name in model.__dict__})


def label_loss(model: keras.Model, y: Nest, y_pred: Nest, sample_weight: Nest) -> Nest:
    """The loss that a model was compiled with, without those that its layers add; a scalar.

    Since Keras 3.0 (`Trainer._compile_loss`).
    """
    return model._compile_loss(y, y_pred, sample_weight)


def added_losses(model: keras.Model) -> list[Nest]:
    """What the layers of a model add to its loss, regularizers included, each a scalar.

    Since Keras 3.3 (`Trainer._aggregate_additional_loss`).
    """
    return [model._aggregate_additional_loss(loss) for loss in model.losses]


def own_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The list of a model's metrics besides those that it was compiled with; to be added to, and taken from.

    Since Keras 3.0 (`Layer._metrics`).
    """
    found: list[keras.metrics.Metric] = model._metrics
    return found


def excluded_from_decay(optimizer: object) -> Set[Hashable]:
    """The keys (see `optimizer_key`) of what an optimizer excludes from weight decay; empty for anything else.

    Since Keras 3.0 (`Optimizer._exclude_from_weight_decay`).
    """
    return frozenset(getattr(optimizer, "_exclude_from_weight_decay", None) or ())


def exclude_from_decay(optimizer: keras.optimizers.Optimizer, keys: Iterable[Hashable]) -> None:
    """Let an optimizer exclude these, and nothing else by key, from weight decay; it need not be built yet.

    Since Keras 3.0 (`Optimizer._exclude_from_weight_decay`, `_exclude_from_weight_decay_cache`).
    """
    optimizer._exclude_from_weight_decay = set(keys)
    optimizer._exclude_from_weight_decay_cache = {}


def exclude_names_alike(given: object, optimizer: keras.optimizers.Optimizer) -> None:
    """Let an optimizer exclude from weight decay, by name, what another one excludes so.

    Since Keras 3.0 (`Optimizer._exclude_from_weight_decay_pattern`).
    """
    pattern = getattr(given, "_exclude_from_weight_decay_pattern", None)
    if pattern is not None:
        optimizer._exclude_from_weight_decay_pattern = pattern


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> object:
    """The schedule of an optimizer, or the variable of its rate: `learning_rate` is the number of the moment.

    Since Keras 3.0 (`Optimizer._learning_rate`).
    """
    return getattr(optimizer, "_learning_rate", None)


def momentums(optimizer: object) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """What an optimizer goes on moving its variables by when their gradient is zero: each variable, and its momentum.

    Since Keras 3.0 (`Optimizer._trainable_variables`; `momentums` of SGD, `_m` of Adamax, `_momentums` of all others).
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = getattr(inner, "_trainable_variables", ())
    for name in ("momentums", "_momentums", "_m"):
        slots = getattr(inner, name, None)
        if isinstance(slots, list) and len(slots) == len(variables):
            yield from zip(variables, slots, strict=True)
