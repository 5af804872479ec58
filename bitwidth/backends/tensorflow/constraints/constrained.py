"""`ConstrainedModel`: a model that computes under encodings while anybody trains it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.constraints.lowering import Lowering, lower
from bitwidth.backends.tensorflow.constraints.store import VariableStore, check_finite
from bitwidth.backends.tensorflow.constraints.views import SCOPE, attached, parameters_of
from bitwidth.backends.tensorflow.internals.types import ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.graphs import value_of
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, moved
from bitwidth.typing import Array, Model

Learned = dict[str, tuple[Array, ...]]


@final
@dataclass(frozen=True, eq=False)
class ConstrainedState:
    """Where a training under constraints stands, apart from the optimizer.

    Attributes:
        graph: its encodings are those in force.
        masters: what every variable holds, by path.
        learned: what is learned besides (scales, levels), by path.
    """

    graph: Graph
    masters: Mapping[str, Array]
    learned: Learned


@final
class ConstrainedModel:
    """A model whose layers read their parameters through encodings, from `attach` to `detach`.

    In between anything may train it: `fit`, or a loop of a user's own. Gradients reach the float masters.

    Attributes:
        model: the model.
        graph: the graph whose encodings are in force.
        refused: parameters that are not trained, with the reason, by path.

    Args:
        model: the model.
        graph: it, as it was opened.
        store: its variables.
        trace: traces the model, to see who reads what.
    """

    def __init__(self, model: Model, graph: Graph, store: VariableStore, trace: Callable[[], FuncTrace]) -> None:
        self.model, self.graph = model, graph
        self.refused: Mapping[str, str] = {}
        self._store, self._trace = store, trace
        self._before = graph
        self._only: frozenset[str] | None = None
        self._lowerings: dict[str, Lowering] = {}
        self._proven: dict[frozenset[str], Mapping[str, str]] = {}
        self._stack = ExitStack()

    def attach(
        self,
        graph: Graph,
        only: frozenset[str] | None = None,
        learn: bool = False,
        paid: frozenset[str] = frozenset(),
    ) -> None:
        """Begin: put the masters of `graph` into the variables, and its encodings between them and the layers.

        Args:
            graph: values to start from, and the encodings in force.
            only: paths of the parameters that train; None for all that are trainable.
            learn: whether the scales of grids and the levels of learned codebooks train too.
            paid: paths of the parameters whose code length is paid for: their scales train in any case.
        """
        self._store.settle()
        self._store.load_masters(graph)
        self.graph, self._before, self._only = graph, graph, only
        self._lowerings = _lowerings(graph)
        self.refused = self._read_past(graph, self._lowerings)
        views = {graph[path].index: low for path, low in self._lowerings.items() if path not in self.refused}
        for path, lowering in self._lowerings.items():
            if (learn or path in paid) and path not in self.refused and _is_in(path, only):
                lowering.learn(path in paid)
        with ExitStack() as stack:
            stack.enter_context(attached(self.model, views))
            stack.enter_context(self._frozen())
            self._stack = stack.pop_all()

    def detach(self) -> None:
        """End: the layers read the variables again. What they hold is the masters, until a snapshot is written."""
        self._stack.close()

    @property
    def learned(self) -> list[ModelVariable]:
        """The variables of what is learned besides the masters."""
        return [variable for lowering in self._lowerings.values() for variable in lowering.learned]

    def newly_masked(self, before: Graph) -> Iterator[tuple[ModelVariable, NDArray[np.bool_]]]:
        """The variables of which more is masked than in `before`, each with the mask in force, True where kept."""
        for path in self._lowerings:
            keep, earlier = self.graph[path].encoding.mask, before[path].encoding.mask
            if keep is not None and (~keep if earlier is None else earlier & ~keep).any():
                yield self._store.variables[path], keep

    @contextmanager
    def masters(self) -> Iterator[Graph]:
        """The masters of this moment as a graph, which can be read within this context only."""
        masters = _Masters(self.graph, self._store.variables)
        try:
            yield masters.graph
        finally:
            masters.close()

    @contextmanager
    def snapshot(self) -> Iterator[Graph]:
        """As `masters`, with what was learned in the encodings."""
        with self.masters() as masters:
            learned = {path: lowering for path, lowering in self._lowerings.items() if lowering.learned}
            held = {path: low.baked(self.graph[path].encoding, masters.values[path]) for path, low in learned.items()}
            parameters = tuple(replace(p, encoding=held.get(p.path, p.encoding)) for p in masters)
            yield Graph(masters.structure, parameters, masters.values) if held else masters

    def trained(self, paths: Collection[str]) -> dict[str, tuple[ModelVariable, Lowering]]:
        """Of these parameters those that train, each with its master and what it is read through; it is attached."""
        chosen = [path for path in self._lowerings if path in paths and path not in self.refused]
        return {
            path: (self._store.variables[path], self._lowerings[path]) for path in chosen if _is_in(path, self._only)
        }

    def advance(self, graph: Graph, masters: Graph) -> None:
        """Let the encodings of `graph` be in force from now on; where its values were moved, training goes on there.

        Args:
            graph: encodings with the structure of those in force.
            masters: what `masters` gave, from which `graph` was made.

        Raises:
            ConfigError: it constrains a parameter that was not when training began.
        """
        for parameter in graph:
            if parameter.encoding is not self.graph[parameter.path].encoding:
                if parameter.path not in self._lowerings:
                    raise ConfigError(f"a ramp cannot start to constrain {parameter.path} while training runs")
                self._lowerings[parameter.path].update(parameter.encoding)
        if graph is not masters:
            kept = all(graph.values.same(self.graph.values, path) for path in graph.values)  # by a schedule
            for path, array in ({} if kept else moved(masters, graph)).items():
                self._store.variables[path].assign(array)
            self.graph = graph

    def state(self) -> ConstrainedState:
        """Where it stands: enough to go on from here later, with an optimizer's state beside it."""
        masters = {path: value_of(variable) for path, variable in self._store.variables.items()}
        learned = {path: tuple(v.numpy() for v in lowering.learned) for path, lowering in self._lowerings.items()}
        return ConstrainedState(self.graph, masters, learned)

    def restore(self, state: ConstrainedState) -> None:
        """Go back to where it stood; it is attached, to the same parameters."""
        with self.masters() as masters:
            self.advance(state.graph, masters)
        for path, array in state.masters.items():
            tf_variable(self._store.variables[path]).assign(array)
        for path, arrays in state.learned.items():
            for variable, array in zip(self._lowerings[path].learned, arrays, strict=True):
                variable.assign(array)

    def bake(self) -> Graph:
        """The snapshot of this moment: what each encoding, with what was learned in it, holds of its master.

        It is detached by then, and the model has the values of the snapshot.

        Raises:
            ContractError: a master, or what was learned, is not finite.
        """
        encodings = {}
        for path, lowering in self._lowerings.items():
            if self._only is None or path in self._only:
                master = value_of(self._store.variables[path])
                check_finite(path, master, *(variable.numpy() for variable in lowering.learned))
                encodings[path] = lowering.baked(self.graph[path].encoding, master)
        parameters = tuple(replace(p, encoding=encodings.get(p.path, p.encoding)) for p in self.graph)
        last = Graph(self.graph.structure, parameters, self.graph.values)
        return self._store.taken(self._before, last, self._only)

    def _read_past(self, graph: Graph, lowerings: Mapping[str, Lowering]) -> Mapping[str, str]:
        """Reasons by path of the parameters that something reads past their view.

        A trace of the model with all views attached shows who takes a master's handle outside of its view.
        """
        key = frozenset(lowerings)
        if key not in self._proven:
            with attached(self.model, {graph[path].index: lowering for path, lowering in lowerings.items()}):
                trace = self._trace()
            self._proven[key] = _past(trace, lowerings, self._store.variables)
        return self._proven[key]

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Within this context only what is to train trains."""
        stays = {p.index for p in self.graph if p.path in self.refused or not _is_in(p.path, self._only)}
        variables = enumerate(parameters_of(self.model))
        stopped = [variable for index, variable in variables if index in stays and variable.trainable]
        for variable in stopped:
            variable.trainable = False
        try:
            yield
        finally:
            for variable in stopped:
                variable.trainable = True


@final
class _Masters:
    """What the variables hold at this step, as a graph: read when it is asked for, until it is closed."""

    def __init__(self, graph: Graph, variables: Mapping[str, ModelVariable]) -> None:
        self._open = True
        readers = {p.path: self._reader(variables[p.path]) for p in graph if p.is_float}
        self.graph = Graph(graph.structure, tuple(graph), graph.values.replace(readers))

    def close(self) -> None:
        """No value that was not read is read any more: training goes on and changes the variables."""
        self._open = False

    def _reader(self, variable: ModelVariable) -> Callable[[], NDArray[np.float32]]:
        def read() -> NDArray[np.float32]:
            if not self._open:
                raise ContractError(f"the weights of a step can be read in that step only: read {variable.path} there")
            return value_of(variable)

        return read


def _lowerings(graph: Graph) -> dict[str, Lowering]:
    """What each trained parameter is read through. Statistics that training itself moves are projected at its end:

    a layer moves them from what it reads, and steps below half a unit of a 16-bit format would be lost.
    """
    lowerings = {p.path: lower(p.encoding, p.shape) for p in graph if p.dtype == "float32" and p.trainable}
    return {path: lowering for path, lowering in lowerings.items() if lowering is not None}


def _past(trace: FuncTrace, paths: Collection[str], variables: Mapping[str, ModelVariable]) -> dict[str, str]:
    found = {}
    for path in paths:
        past = [reader for reader in trace.readers(variables[path]) if SCOPE not in reader.scope]
        if past:
            where = past[0].layer or "the model's call"
            found[path] = f"held fixed, not trained: {where} reads the variable past its view"
    return found


def _is_in(path: str, only: frozenset[str] | None) -> bool:
    return only is None or path in only
