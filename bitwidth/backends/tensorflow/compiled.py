"""Losses, metrics and optimizers.

What a pass gives, else what the user's model was compiled with, always as fresh objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from bitwidth.backend import Objective, Training
from bitwidth.errors import ConfigError


@dataclass(frozen=True)
class Compiled:
    """What the user's model was compiled with; None where it was not.

    Attributes:
        objective: loss, loss weights and metrics.
        optimizer: the optimizer, to take the kind and settings from.
        weighted_metrics: as `model.compile` takes them.
        jit_compile: as `model.compile` takes it.
    """

    objective: Objective
    optimizer: Any = None
    weighted_metrics: Any = None
    jit_compile: Any = "auto"

    @classmethod
    def of(cls, model: Any) -> Compiled:
        """What `model` was compiled with."""
        if not getattr(model, "compiled", False):
            return cls(Objective())
        loss, metrics = getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None)
        objective = Objective(
            model.loss,
            getattr(loss, "_user_loss_weights", None),
            getattr(metrics, "_user_metrics", None),
        )
        weighted = getattr(metrics, "_user_weighted_metrics", None)
        return cls(objective, model.optimizer, weighted, model.jit_compile)

    def resolve(self, objective: Objective) -> Objective:
        """`objective`, with what it leaves open taken from here."""
        if objective.loss is None:
            return Objective(
                self.objective.loss, self.objective.loss_weights, objective.metrics or self.objective.metrics
            )
        return objective

    def compile(self, model: Any, objective: Objective, **settings: Any) -> None:
        """Compile `model` for the objective."""
        objective = self.resolve(objective)
        settings.setdefault("jit_compile", self.jit_compile if self.optimizer is not None else "auto")
        model.compile(
            loss=fresh(keras.losses.get, objective.loss),
            loss_weights=objective.loss_weights,
            metrics=fresh(_metric, objective.metrics),
            weighted_metrics=fresh(_metric, self.weighted_metrics),
            **settings,
        )

    def optimizer_for(self, training: Training, steps: int | None) -> Any:
        """A fresh optimizer for a run of training.

        Raises:
            ConfigError: the optimizer is not known, or the decay needs a number of steps that the data does not tell.
        """
        given = training.optimizer if training.optimizer is not None else self.optimizer
        optimizer = fresh(_optimizer, "adam" if given is None else given)
        rate = training.learning_rate
        if training.decay == "cosine":
            if steps is None:
                raise ConfigError(
                    "decay='cosine' needs the number of steps: give steps_per_epoch, the data has no length"
                )
            start = float(optimizer.learning_rate) if rate is None else rate
            rate = keras.optimizers.schedules.CosineDecay(start, steps * training.epochs)
        if rate is not None:
            config = optimizer.get_config()
            inner = config.get("inner_optimizer")
            if inner is None:
                optimizer = type(optimizer).from_config({**config, "learning_rate": rate})
            else:
                optimizer.inner_optimizer.learning_rate = rate
        return optimizer


def fresh(get: Any, given: Any) -> Any:
    """A new object for each loss, metric or optimizer in `given`, so that the user's own hold no state of ours."""
    if isinstance(given, list | tuple):
        return [fresh(get, item) for item in given]
    if isinstance(given, dict) and "class_name" not in given:
        return {key: fresh(get, item) for key, item in given.items()}
    if given is None or isinstance(given, str):
        return get(given) if given is not None and get is _optimizer else given
    if isinstance(given, dict):
        return get(given)
    if hasattr(given, "get_config") and hasattr(type(given), "from_config"):
        return type(given).from_config(given.get_config())
    return given


def _optimizer(given: Any) -> Any:
    try:
        return keras.optimizers.get(given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer {given!r} is not one that Keras knows") from error


def _metric(given: Any) -> Any:
    return keras.metrics.get(given)
