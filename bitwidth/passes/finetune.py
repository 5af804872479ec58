"""`Finetune`: train the model under everything that the passes before it promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from bitwidth.backend import Objective, Steer, Training
from bitwidth.context import Context, check_count
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.passes.base import TrainingPass


@dataclass(frozen=True)
class Finetune(TrainingPass, name="finetune"):
    """Train on labelled data, with every mask and grid in force.

    Layers read their parameters through the encodings (straight-through gradients), so what is trained is the
    compressed model; masks and grids hold at every step and exactly at the end. Frozen layers stay frozen.

    Attributes:
        epochs: passes over the data, at least 1.
        loss: as `model.compile` takes it; None for the loss that the model was compiled with.
        optimizer: as `model.compile` takes it; None for a fresh one of the kind that the model was compiled with, else
            Adam. A name says its kind only: the pass makes it.
        learning_rate: replaces the optimizer's own. None keeps a rate that somebody chose (of an optimizer given here,
            a schedule, or a number that the model was compiled with) and takes 0.3 of Keras's where nobody did: 3e-4
            for Adam. `"own"` keeps the optimizer's rate, Keras's included.
        decay: `"cosine"` lets the learning rate fall to zero along a half cosine (Loshchilov and Hutter 2017, "SGDR",
            section 3, without restarts), `"constant"` keeps it. None for a cosine where the pass makes the optimizer,
            and constant where an optimizer is given here, the model was compiled with a schedule, or a callback of
            Keras's sets the rate (ReduceLROnPlateau, LearningRateScheduler). Under a `Ramp` the fall begins when full
            strength is reached. Where the data does not tell its length the rate is constant in the first epoch, whose
            steps are counted, and falls over the others.
        batch_size: samples per step, for data that is not batched yet.
        steps_per_epoch: steps that make an epoch; None for all of the data.
        class_weight: as `model.fit` takes it.
        callbacks: Keras callbacks.
        loss_weights: as `model.compile` takes them.
        metrics: as `model.compile` takes them, also for the report; None for those that the model was compiled with.
        jit_compile: True or False for XLA or not; None leaves the choice to Keras.
        verbose: as `model.fit` takes it.
        learn_steps: True to train the scales of grids too, and the levels of learned codebooks (Esser et al. 2020,
            "Learned Step Size Quantization", section 2). A step takes about a tenth longer. When training ends they are
            rounded to the two bytes in which they are stored. Steps of integers without bounds (`Quantize(rate=...)`)
            stay. What is learned trains with the same optimizer and learning rate, without weight decay: an Adam of
            1e-3 moves a scale by a thousandth of it in a step.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> Finetune(epochs=2, loss="mse", learning_rate=1e-4).epochs
        2
    """

    epochs: int = 1
    loss: Any = None
    optimizer: Any = None
    learning_rate: float | Literal["own"] | None = None
    decay: Literal["constant", "cosine"] | None = None
    batch_size: int = 32
    steps_per_epoch: int | None = None
    class_weight: Mapping[int, float] | None = None
    callbacks: tuple[Any, ...] = ()
    loss_weights: Any = None
    metrics: Any = None
    jit_compile: bool | None = None
    verbose: Literal[0, 1, 2] = 0
    learn_steps: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_epoch"):
            if name != "steps_per_epoch" or self.steps_per_epoch is not None:
                check_count(getattr(self, name), "Finetune", name)
        self._check_rate()
        if not isinstance(self.callbacks, list | tuple):
            raise ConfigError(f"Finetune: callbacks must be a list of Keras callbacks, got {self.callbacks!r}")
        if isinstance(self.loss, type) or isinstance(self.optimizer, type):
            raise ConfigError("Finetune: loss and optimizer are objects or names, not classes: call the class")
        if not isinstance(self.learn_steps, bool):
            raise ConfigError(f"Finetune: learn_steps must be True or False, got {self.learn_steps!r}")
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    def _check_rate(self) -> None:
        rate = self.learning_rate
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not (rate is None or rate == "own" or (number and 0 < float(rate) < inf)):
            raise ConfigError(f'Finetune: learning_rate must be a finite number above 0, or "own", got {rate!r}')
        if self.decay not in (None, "constant", "cosine"):
            raise ConfigError(f'Finetune: decay must be "constant" or "cosine", got {self.decay!r}')

    def objective(self) -> Objective | None:
        """The loss and metrics given here."""
        if self.loss is None and self.metrics is None:
            return None
        return Objective(self.loss, self.loss_weights, self.metrics)

    def check(self, graph: Graph, context: Context) -> None:
        """There are data with targets, a loss, and an optimizer and callbacks that Keras knows."""
        context.session.check_training(self._training(graph, context))

    def train(self, graph: Graph, context: Context, steer: Steer | None) -> Graph:
        """Train from the graph's values on."""
        return context.train(graph, self._training(graph, context), steer)

    def _training(self, graph: Graph, context: Context) -> Training:
        return Training(
            objective=Objective(self.loss, self.loss_weights, self.metrics),
            data=context.data if context.planned else context.need_data("Finetune"),
            epochs=self.epochs,
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            decay=self.decay,
            class_weight=self.class_weight,
            callbacks=self.callbacks,
            jit_compile=self.jit_compile,
            validation=context.validation,
            seed=context.seed,
            verbose=self.verbose,
            learn=self.learn_steps,
            settled=context.settled,
        )
