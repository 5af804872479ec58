"""Losses, metrics and optimizers.

What a pass gives, else what the user's model was compiled with, always as fresh objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras

from bitwidth.backend import Objective, Training
from bitwidth.backends.tensorflow.internals.compiled import (
    compiled_with,
    exclude_from_decay,
    exclude_names_alike,
    excluded_from_decay,
)
from bitwidth.backends.tensorflow.internals.types import KerasOptimizer, ModelVariable
from bitwidth.backends.tensorflow.internals.variables import optimizer_key
from bitwidth.backends.tensorflow.models.allowed import Kind
from bitwidth.backends.tensorflow.models.configuration import Configuration
from bitwidth.backends.tensorflow.models.copying import copy_object, uncompile
from bitwidth.backends.tensorflow.models.plain_data import NotAllowedError
from bitwidth.backends.tensorflow.training.rates import rate_for
from bitwidth.errors import ConfigError
from bitwidth.text import brief
from bitwidth.typing import JsonMapping, Model


@final
@dataclass(frozen=True)
class Compiled:
    """What the user's model was compiled with; None where it was not.

    Attributes:
        objective: loss, loss weights and metrics.
        optimizer: the optimizer, to take the kind and settings from.
        settings: further arguments of `model.compile`.
        keys: what optimizers know each of the user's variables by, in the model's order.
    """

    objective: Objective
    optimizer: KerasOptimizer = None
    settings: JsonMapping = field(default_factory=dict)
    keys: tuple[Any, ...] = ()

    @classmethod
    def of(cls, model: Model) -> Compiled:
        """What `model` was compiled with."""
        keys = tuple(optimizer_key(variable) for variable in model.variables)
        if not getattr(model, "compiled", False):
            return cls(Objective(), keys=keys)
        given = compiled_with(model)
        objective = Objective(model.loss, given.loss_weights, given.metrics)
        settings = {
            "weighted_metrics": given.weighted_metrics,
            "jit_compile": model.jit_compile,
            "run_eagerly": model.run_eagerly,
            "steps_per_execution": model.steps_per_execution,
        }
        return cls(objective, model.optimizer, settings, keys)

    def resolve(self, objective: Objective) -> Objective:
        """`objective`, with each field that it leaves open taken from here."""
        mine = self.objective
        return Objective(
            mine.loss if objective.loss is None else objective.loss,
            mine.loss_weights if objective.loss is None else objective.loss_weights,
            mine.metrics if objective.metrics is None else objective.metrics,
        )

    def compile(self, model: Model, objective: Objective, labelled: bool = True, **settings: Any) -> None:
        """Compile `model` for the objective, whatever the `compile` of its class takes.

        Args:
            model: the model.
            objective: loss and metrics; nothing of it where there are no labels.
            labelled: whether there are.
            settings: further arguments of `keras.Model.compile`.
        """
        objective = self.resolve(objective) if labelled else Objective()
        settings = {**self.settings, **settings}
        if not labelled:
            settings.pop("weighted_metrics", None)
        keras.Model.compile(
            model,
            loss=_loss(objective.loss),
            loss_weights=objective.loss_weights,
            metrics=fresh(objective.metrics),
            weighted_metrics=fresh(settings.pop("weighted_metrics", None)),
            **settings,
        )

    def compile_as_given(self, model: Model, variables: Sequence[ModelVariable]) -> str:
        """Compile `model` as the user's was. Where that fails it stays uncompiled, and the reason is returned.

        Args:
            model: a model that takes the place of the user's.
            variables: its variables, in the order of the user's.
        """
        if self.optimizer is None:
            return ""
        try:
            as_it_was = Training(Objective(), None, learning_rate="own", decay="constant")
            optimizer = self.optimizer_for(as_it_was, None, variables)
            self.compile(model, Objective(), optimizer=optimizer)
        except Exception as error:  # the user's own classes raise anything, and nothing may be lost now
            uncompile(model)
            return f"result.model is not compiled: {brief(error)}"
        return ""

    def optimizer_for(
        self, training: Training, steps: int | None, variables: Sequence[ModelVariable]
    ) -> KerasOptimizer:
        """A fresh optimizer for a run of training.

        Args:
            training: the run.
            steps: steps of an epoch, or None where they are not known.
            variables: the variables that take the place of the user's.

        Raises:
            ConfigError: the optimizer is not known, or there is no decay such as the run asks for.
        """
        given = training.optimizer if training.optimizer is not None else self.optimizer
        optimizer = _optimizer("adam" if given is None else given)
        rate = rate_for(training, steps, optimizer)
        if rate is not None and hasattr(optimizer, "inner_optimizer"):
            optimizer.inner_optimizer.learning_rate = rate
        elif rate is not None:
            optimizer = type(optimizer).from_config({**optimizer.get_config(), "learning_rate": rate})
        self._exclude_alike(given, optimizer, variables)
        return optimizer

    def check_names(self, training: Training, variables: Sequence[ModelVariable]) -> None:
        """Check, without data, that the optimizer, the loss and the metrics of a run of training are known.

        Raises:
            ConfigError: one is not.
        """
        self.optimizer_for(training, training.steps_per_epoch or 1, variables)
        objective = self.resolve(training.objective)
        for given, find in ((objective.loss, keras.losses.get), (objective.metrics, _metric)):
            for name in keras.tree.flatten(given):
                if isinstance(name, str):
                    try:
                        find(name)
                    except ValueError as error:
                        raise ConfigError(f"Keras knows no loss or metric {name!r}: {brief(error)}") from error

    @staticmethod
    def spare(optimizer: KerasOptimizer, variables: Sequence[ModelVariable]) -> None:
        """Exclude further variables from the weight decay of an optimizer that is not built yet."""
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        exclude_from_decay(inner, excluded_from_decay(inner) | {optimizer_key(variable) for variable in variables})

    def _exclude_alike(self, given: Any, optimizer: KerasOptimizer, variables: Sequence[ModelVariable]) -> None:
        """Exclude from weight decay what the given optimizer excludes."""
        if excluded := excluded_from_decay(given):
            places = dict(zip(self.keys, variables, strict=True))
            exclude_from_decay(optimizer, (optimizer_key(places[key]) for key in excluded if key in places))
        exclude_names_alike(given, optimizer)


def fresh(given: Any) -> Any:
    """New metrics for those in `given`, so that the user's own hold no state of ours."""
    if isinstance(given, list | tuple):
        return _like(given, [fresh(item) for item in given])
    if isinstance(given, dict):
        if "class_name" in given:
            return _made(given, Kind.METRIC)
        return {key: fresh(value) for key, value in given.items()}
    if not isinstance(given, keras.metrics.Metric):
        return given
    copy = copy_object(given)
    copy.reset_state()
    return copy


def _like(given: Any, items: list[Any]) -> Any:
    """A tuple for a tuple: Keras compares the structure of losses with that of the targets."""
    return tuple(items) if isinstance(given, tuple) else items


def _metric(name: str) -> Any:
    return name if name in ("accuracy", "acc", "crossentropy", "ce") else keras.metrics.get(name)


def _loss(given: Any) -> Any:
    """Losses hold no state and are shared; those that a recipe brings as data are made."""
    if isinstance(given, list | tuple):
        return _like(given, [_loss(item) for item in given])
    if isinstance(given, dict):
        if "class_name" in given:
            return _made(given, Kind.LOSS)
        return {key: _loss(value) for key, value in given.items()}
    return given


def _optimizer(given: Any) -> KerasOptimizer:
    try:
        if isinstance(given, keras.optimizers.Optimizer):
            return type(given).from_config(given.get_config())
        return _made(given, Kind.OPTIMIZER) if isinstance(given, dict) else keras.optimizers.get(given)
    except ConfigError:
        raise
    except Exception as error:  # a user's own optimizer may raise anything
        raise ConfigError(f"optimizer {given!r} cannot be recreated: {brief(error)}") from error


def _made(given: Any, kind: Kind) -> KerasOptimizer:
    """The object of a configuration, which may come from a recipe.

    Raises:
        ConfigError: it names what is no loss, metric, optimizer or schedule of Keras's or of this process.
    """
    try:
        read = Configuration().read(given, kind, kind.name.lower())
    except NotAllowedError as error:
        raise ConfigError(str(error)) from error
    if isinstance(read, str):  # a function
        return keras.losses.get(read) if kind is Kind.LOSS else keras.metrics.get(read)
    return keras.saving.deserialize_keras_object(read)
