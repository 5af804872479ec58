"""Steering: what changes the encodings while the model trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bitwidth.backend import Progress, Steer
from bitwidth.backends.tensorflow.constraints.lowering import Lowering
from bitwidth.backends.tensorflow.reading.graphs import value_of
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, moved

_CALLS = 200  # how often a pass is asked during one training, at most


class Steering:
    """The encodings in force during a run of training, and the pass that changes them.

    Attributes:
        graph: the graph whose encodings are in force.
        total: steps of the whole run, or None where the data has no length.
        every_step: whether the pass is asked after every step.
        remarks: what there is to say when the training has ended.
    """

    def __init__(
        self,
        graph: Graph,
        lowerings: Mapping[str, Lowering],
        steer: Steer | None,
        variables: Mapping[str, Any],
        every_step: bool = False,
    ) -> None:
        self.graph = graph
        self.total: int | None = None
        self.remarks: list[str] = []
        self.every_step = every_step
        self._lowerings, self._steer, self._variables = lowerings, steer, variables
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
        self._ask()

    def _step(self, batch: int, logs: Any = None) -> None:
        assert self.total is not None
        self._done += 1
        between = 1 if self.every_step else max(1, self.total // _CALLS)
        if self._done % between == 0 or self._done == self.total:
            self._ask()

    def _ask(self) -> None:
        assert self._steer is not None
        assert self.total is not None
        masters = _Masters(self.graph, self._variables)
        new = self._steer(Progress(self._done, self.total, self._last), masters.graph)
        self._last = self._done
        for parameter in new:
            if parameter.encoding is not self.graph[parameter.path].encoding:
                if parameter.path not in self._lowerings:
                    raise ConfigError(f"a ramp cannot start to constrain {parameter.path} while training runs")
                self._lowerings[parameter.path].update(parameter.encoding)
        if new is not masters.graph:
            self._move(moved(masters.graph, new) if self._may_move(new) else {})
            self.graph = new
        masters.close()

    def _may_move(self, new: Graph) -> bool:
        """Whether the values of a graph are new, and not those of one that a schedule keeps by."""
        return not all(new.values.same(self.graph.values, path) for path in new.values)

    def _move(self, values: Mapping[str, NDArray[Any]]) -> None:
        for path, array in values.items():
            self._variables[path].assign(array)


class _Masters:
    """What the variables hold at this step, as a graph: read when it is asked for, until it is closed."""

    def __init__(self, graph: Graph, variables: Mapping[str, Any]) -> None:
        self._open = True
        readers = {p.path: self._reader(variables[p.path]) for p in graph if p.is_float}
        self.graph = Graph(graph.structure, tuple(graph), graph.values.replace(readers))

    def close(self) -> None:
        """No value that was not read is read any more: training goes on and changes the variables."""
        self._open = False

    def _reader(self, variable: Any) -> Callable[[], NDArray[np.float32]]:
        def read() -> NDArray[np.float32]:
            if not self._open:
                raise ContractError(f"the weights of a step can be read in that step only: read {variable.path} there")
            return value_of(variable)

        return read
