"""`Finetune`: train the model under everything that the passes before it promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from math import inf
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from bitwidth.backend import Objective, Pricing, Steer, Training
from bitwidth.context import Context, Notes, check_choice, check_count
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.passes.base import TrainingPass
from bitwidth.passes.filesize import Size
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.paying import RAMPED, Payment, check_paying, ramped
from bitwidth.typing import Loss, is_number

_NEITHER = (bool, int, float, complex, bytes, set, np.ndarray, np.generic)  # names, objects and lists are taken
_WEIGHTS = (type(None), int, float, list, tuple, Mapping)


@keywords_from(1)
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
            stay. Where bits are paid for, the scales of what is paid for train in any case. What is learned trains with
            the same optimizer and learning rate, without weight decay: an Adam of 1e-3 moves a scale by a thousandth of
            it in a step.
        price: what a bit of the coded kernels costs, in units of the loss: the loss that is trained by has the price
            times the expected code length of every kernel on a uniform grid besides (Ballé et al. 2017, "End-to-end
            Optimized Image Compression", section 3), with scales that are learned. It rises from 0 over the first
            30 % of the training, after which the learning rate falls. Masks stay; other weights at zero can come back.
            None for nothing.
        size: the bytes that the file is to have when this pass is the last, a number or a text ("12 kB"; kB is 1,000
            bytes, KiB 1,024): the price is found while the model trains. The file is at most that long; codes that it
            is too long by at the end are rounded again for the least sum of error and length. With `price` or `size`
            the history has `code_bytes`, `price` and `zeros`, the share of codes that are zero.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> Finetune(epochs=2, loss="mse", learning_rate=1e-4).epochs
        2
    """

    epochs: int = 1
    _: KW_ONLY
    loss: Loss = None
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
    price: float | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_epoch"):
            if name != "steps_per_epoch" or self.steps_per_epoch is not None:
                check_count(getattr(self, name), self.label, name)
        self._check_rate()
        self._check_callbacks()
        self._check_compiled()
        check_choice(self.jit_compile, (True, False, None), self.label, "jit_compile")
        check_choice(self.learn_steps, (True, False), self.label, "learn_steps")
        check_paying(self, self.label)
        if not isinstance(self.verbose, int) or self.verbose not in (0, 1, 2):
            raise ConfigError(f"{self.label}: verbose must be 0, 1 or 2, got {self.verbose!r}")
        object.__setattr__(self, "callbacks", tuple(self.callbacks))

    def _check_callbacks(self) -> None:
        """Each is something that a model can be told of; that it is one of the framework's is checked before a run."""
        if not isinstance(self.callbacks, list | tuple):
            raise ConfigError(f"{self.label}: callbacks must be a list of Keras callbacks, got {self.callbacks!r}")
        for place, item in enumerate(self.callbacks):
            if isinstance(item, type):
                raise ConfigError(f"{self.label}: callbacks[{place}] is the class {item.__name__}: call it")
            if not hasattr(item, "set_model"):
                raise ConfigError(f"{self.label}: callbacks[{place}]: callbacks must be Keras callbacks, got {item!r}")

    def _check_compiled(self) -> None:
        """What `compile` and `fit` take is of a kind that they may take."""
        if any(isinstance(value, type) for value in (self.loss, self.optimizer, self.metrics)):
            raise ConfigError(
                f"{self.label}: loss, optimizer and metrics are objects or names, not classes: call the class"
            )
        kinds = {"loss": "a name, a loss or a list or dict of these", "optimizer": "a name or an optimizer"}
        kinds["metrics"] = "a list or dict of names or metrics"
        for name, words in kinds.items():
            if isinstance(getattr(self, name), _NEITHER):
                raise ConfigError(f"{self.label}: {name} must be {words}, got {getattr(self, name)!r}")
        if isinstance(self.optimizer, list | tuple):
            raise ConfigError(f"{self.label}: optimizer must be {kinds['optimizer']}, got {self.optimizer!r}")
        weights = self.loss_weights
        if isinstance(weights, bool) or not isinstance(weights, _WEIGHTS):
            raise ConfigError(f"{self.label}: loss_weights must be a list or dict of numbers, got {weights!r}")
        if self.class_weight is not None and not isinstance(self.class_weight, Mapping):
            raise ConfigError(
                f"{self.label}: class_weight must be a dict, a number for each class: {self.class_weight!r}"
            )

    def _check_rate(self) -> None:
        rate = self.learning_rate
        if not (
            rate is None or (is_number(rate) and 0 < float(rate) < inf) or (isinstance(rate, str) and rate == "own")
        ):
            raise ConfigError(f'{self.label}: learning_rate must be a finite number above 0, or "own", got {rate!r}')
        check_choice(self.decay, ("constant", "cosine", None), self.label, "decay")

    @override
    def objective(self) -> Objective | None:
        """The loss and metrics given here."""
        if self.loss is None and self.metrics is None:
            return None
        return Objective(self.loss, self.loss_weights, self.metrics)

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There are data with targets, a loss, and an optimizer and callbacks that Keras knows."""
        context.session.check_training(self._training(graph, context))

    @override
    def train(self, graph: Graph, context: Context, steer: Steer | None) -> Graph:
        """Train from the graph's values on."""
        training = self._training(graph, context)
        payment = Payment.of(self, graph, context, training.only, self.label)
        if payment is None:
            return context.train(graph, training, steer)
        waiting = replace(context, settled=max(context.settled, RAMPED))
        trained = waiting.train(graph, replace(training, pricing=payment.pricing), steer)
        return payment.settled(trained, context)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Training changes values only: the graph unchanged. What is to be paid for is there."""
        if self.pays:
            quiet = replace(context, notes=Notes())
            same = {p.path: p.shape for p in graph} == {p.path: p.shape for p in context.session.graph}
            item = self if same else replace(self, size=None, price=0.0)  # no file of a model that is yet to be made
            Payment.of(item, graph, quiet, self._only(graph), self.label)
        return super().preview(graph, context)

    @property
    def pays(self) -> bool:
        """Whether it pays for code length."""
        return self.price is not None or self.size is not None

    def _only(self, graph: Graph) -> frozenset[str] | None:
        """Paths of the parameters to train; None for all."""
        return None

    def _training(self, graph: Graph, context: Context) -> Training:
        return Training(
            objective=Objective(self.loss, self.loss_weights, self.metrics),
            data=context.data if context.planned else context.need_data(self.label),
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
            only=self._only(graph),
            settled=context.settled,
            pricing=Pricing(frozenset(), ramped(0.0)) if self.pays else None,
        )
