"""Steering: what changes the encodings while the model trains."""

from __future__ import annotations

from typing import final

import keras

from bitwidth.backend import Progress, Steer
from bitwidth.backends.tensorflow.constraints.constrained import ConstrainedModel
from bitwidth.backends.tensorflow.internals.compiled import momentums
from bitwidth.backends.tensorflow.internals.types import KerasCallback
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph

_CALLS = 200  # how often a pass is asked during one training, at most


@final
class Steering:
    """The pass that changes the encodings in force during a run of training.

    Attributes:
        constrained: the model under them.
        total: steps of the whole run, or None where the data has no length.
        every_step: whether the pass is asked after every step.
        remarks: what there is to say when the training has ended.
    """

    def __init__(self, constrained: ConstrainedModel, steer: Steer | None, every_step: bool = False) -> None:
        self.constrained = constrained
        self.total: int | None = None
        self.remarks: list[str] = []
        self.every_step = every_step
        self._steer = steer
        self._done = self._last = 0

    @property
    def is_steered(self) -> bool:
        """Whether a pass changes the encodings."""
        return self._steer is not None

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self._done

    @property
    def reached(self) -> float:
        """Fraction of the run at which the pass was asked last."""
        return self._last / self.total if self.total else 0.0

    def callbacks(self) -> list[KerasCallback]:
        """The Keras callback that asks the pass, or none.

        Raises:
            ConfigError: a pass wants to steer, and the number of steps is not known.
        """
        if self._steer is None:
            return []
        if self.total is None:
            raise ConfigError("a ramp needs the number of steps: give steps_per_epoch, the data has no length")
        return [keras.callbacks.LambdaCallback(on_train_batch_end=self._step, on_train_begin=self._begin)]

    def _begin(self, logs: object = None) -> None:
        self._ask()

    def _step(self, batch: int, logs: object = None) -> None:
        assert self.total is not None
        self._done += 1
        between = 1 if self.every_step else max(1, self.total // _CALLS)
        if self._done % between == 0 or self._done == self.total:
            self._ask()

    def _ask(self) -> None:
        assert self._steer is not None
        assert self.total is not None
        before = self.constrained.graph
        with self.constrained.masters() as masters:
            new = self._steer(Progress(self._done, self.total, self._last), masters)
            self._last = self._done
            self.constrained.advance(new, masters)
        self._stop_masked(before)

    def _stop_masked(self, before: Graph) -> None:
        """Take the momentum from weights that are masked from now on, so that their masters stay where they are."""
        masked = {id(tf_variable(variable)): keep for variable, keep in self.constrained.newly_masked(before)}
        if masked:
            for variable, momentum in momentums(self.constrained.model.optimizer):
                keep = masked.get(id(tf_variable(variable)))
                if keep is not None:
                    momentum.assign(momentum * keep)
