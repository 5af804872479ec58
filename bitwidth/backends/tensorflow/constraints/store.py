"""The variables of a model and the snapshots that they hold or held."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import final

import numpy as np

from bitwidth.backends.tensorflow.internals.types import ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.graphs import value_of
from bitwidth.errors import ContractError
from bitwidth.graph import Graph, Parameter, Value
from bitwidth.typing import Array


@final
class VariableStore:
    """Writes snapshots into variables, and takes snapshots of them.

    A snapshot that was written is not held twice: it reads the variables when it is asked, and has read them before
    they change.

    Attributes:
        variables: by the path of the parameter.
        shared: whether snapshots hold their own arrays instead, as they must where several results come from a session.

    Args:
        graph: the model as it was opened.
        variables: of its copy, by the path of the parameter.
    """

    def __init__(self, graph: Graph, variables: Mapping[str, ModelVariable]) -> None:
        self.variables = variables
        self.shared = False
        self._held: dict[str, Value] = {path: graph.values.value(path) for path in graph.values}

    def write(self, graph: Graph) -> bool:
        """Give the variables the values of `graph`; whether any of them changed."""
        changed = [path for path in self.variables if not self._held[path].same(graph.values.value(path))]
        for path in changed:
            self._held[path].read()  # an older snapshot may still have to read this variable
            self._held[path] = graph.values.value(path)
            self.variables[path].assign(self._held[path].read())
            if not self.shared:
                self._held[path].lend(partial(value_of, self.variables[path]))
        return bool(changed)

    def settle(self) -> None:
        """Let snapshots read what the variables hold, before something else than `write` changes them."""
        for value in self._held.values():
            value.read()

    def load_masters(self, graph: Graph) -> None:
        """Put the float masters behind the values of `graph` into the variables: training goes on from them.

        What nothing moves, in frozen layers, stays as it was; so do counters and seeds.
        """
        layers = graph.layers
        for parameter in graph:
            master = graph.values.value(parameter.path).master
            layer = layers.get(parameter.layer)
            moves = parameter.trainable or layer is None or layer.trainable
            if master is not None and parameter.is_float and moves:
                tf_variable(self.variables[parameter.path]).assign(master)
                self._held[parameter.path] = Value(master)

    def lose(self) -> None:
        """Take note that something else than `write` has changed the variables, after `settle`."""
        self._held = {path: Value(partial(value_of, variable)) for path, variable in self.variables.items()}

    def taken(self, before: Graph, last: Graph, only: frozenset[str] | None) -> Graph:
        """The snapshot at the end of training: what each encoding holds of its master, by numpy.

        Args:
            before: the snapshot that training started from.
            last: the encodings at its end.
            only: paths of what was trained; None for all. Statistics beside them moved with the data, and go back.

        Raises:
            ContractError: a master is not finite.
        """
        changed: dict[str, Value] = {}
        for parameter in last:
            if only is None or parameter.path in only:
                old = before.values.value(parameter.path)
                new = self._now(parameter, old)
                if new is not old:
                    changed[parameter.path] = new
        after = Graph(last.structure, tuple(last), before.values.replace(changed))
        self.lose()
        self.write(after)
        return after

    def _now(self, parameter: Parameter, old: Value) -> Value:
        master = value_of(self.variables[parameter.path])
        if parameter.is_float:
            check_finite(parameter.path, master)
        held = parameter.encoding.project(master) if parameter.is_float else master
        if not np.array_equal(held, old.read()):
            return Value(held, master, parameter.encoding)
        return old.with_master(master, parameter.encoding) if parameter.trainable else old


def check_finite(path: str, *arrays: Array) -> None:
    """Raise ContractError if training left something for the parameter at `path` that is not finite."""
    for array in arrays:
        numbers = array.astype(np.float32) if array.dtype.kind == "V" else array  # the floats of other packages
        if not np.isfinite(numbers).all():
            raise ContractError(f"training left values in {path} that are not finite: lower the learning rate")
