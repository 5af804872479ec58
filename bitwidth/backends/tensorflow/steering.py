"""Steering: what changes the encodings while the model trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from bitwidth.backend import Steer
from bitwidth.backends.tensorflow.lowering import Lowering
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph

_CALLS = 200  # how often a pass is asked during one training, at most


class Steering:
    """The encodings in force during a run of training, and the pass that changes them.

    Attributes:
        graph: the graph whose encodings are in force.
        total: steps of the whole run, or None where the data has no length.
        every_step: whether the pass is asked after every step.
    """

    def __init__(
        self,
        graph: Graph,
        lowerings: Mapping[str, Lowering],
        steer: Steer | None,
        read: Callable[[Graph], Graph],
        every_step: bool = False,
    ) -> None:
        self.graph = graph
        self.total: int | None = None
        self.every_step = every_step
        self._lowerings, self._steer, self._read = lowerings, steer, read
        self._done = 0

    @property
    def is_steered(self) -> bool:
        """Whether a pass changes the encodings."""
        return self._steer is not None

    @property
    def learned(self) -> list[Any]:
        """The variables of what is learned besides the masters."""
        return [variable for lowering in self._lowerings.values() for variable in lowering.learned]

    def callbacks(self) -> list[Any]:
        """The Keras callback that asks the pass, or none.

        Raises:
            ConfigError: a pass wants to steer, and the number of steps is not known.
        """
        if self._steer is None:
            return []
        if self.total is None:
            raise ConfigError("a ramp needs the number of steps: give steps_per_epoch, the data has no length")
        return [keras.callbacks.LambdaCallback(on_train_batch_end=self._step, on_train_begin=self._begin)]

    def _begin(self, logs: Any = None) -> None:
        self._ask(0.0)

    def _step(self, batch: int, logs: Any = None) -> None:
        assert self.total is not None
        self._done += 1
        between = 1 if self.every_step else max(1, self.total // _CALLS)
        if self._done % between == 0 or self._done == self.total:
            self._ask(min(1.0, self._done / self.total))

    def _ask(self, fraction: float) -> None:
        assert self._steer is not None
        new = self._steer(fraction, self._read(self.graph))
        if new is self.graph:
            return
        for parameter in new:
            if parameter.encoding is not self.graph[parameter.path].encoding:
                if parameter.path not in self._lowerings:
                    raise ConfigError(f"a ramp cannot start to constrain {parameter.path} while training runs")
                self._lowerings[parameter.path].update(parameter.encoding)
        self.graph = new
