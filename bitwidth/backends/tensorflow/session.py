"""`KerasSession`: a copy of a Keras model, opened to be compressed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from bitwidth.artifact import Architecture
from bitwidth.backend import Change, Objective, Steer, Teaching, Trained, Training
from bitwidth.backends.tensorflow.constraints.activations import attach, detach
from bitwidth.backends.tensorflow.constraints.constrained import ConstrainedModel
from bitwidth.backends.tensorflow.constraints.store import VariableStore
from bitwidth.backends.tensorflow.constraints.views import forget_functions, parameters_of
from bitwidth.backends.tensorflow.data.columns import columns_of
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.measuring.norms import freeze
from bitwidth.backends.tensorflow.measuring.probes import Watched, answered
from bitwidth.backends.tensorflow.measuring.undisturbed import state_of, undisturbed, untracked_of
from bitwidth.backends.tensorflow.models.agreement import HIDDEN_KERNELS, check_same, outputs_of, tolerance, tried
from bitwidth.backends.tensorflow.models.architecture import architecture_of, finalize
from bitwidth.backends.tensorflow.models.chained import chained
from bitwidth.backends.tensorflow.models.check import check_apart, check_model
from bitwidth.backends.tensorflow.models.composites import advice
from bitwidth.backends.tensorflow.models.copying import copy_model, uncompile
from bitwidth.backends.tensorflow.models.deferred import give_value
from bitwidth.backends.tensorflow.models.handed import Handed
from bitwidth.backends.tensorflow.models.promises import inputs_kept, keep_promises, kept_promises, promised
from bitwidth.backends.tensorflow.models.resizing import Resized, resized
from bitwidth.backends.tensorflow.reading.graphs import graph_of
from bitwidth.backends.tensorflow.reading.naming import Names, names_of
from bitwidth.backends.tensorflow.reading.tracing import trace_function
from bitwidth.backends.tensorflow.training.around import waiting
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.backends.tensorflow.training.fit import fit
from bitwidth.backends.tensorflow.training.seeds import reset_drawn_seeds, set_drawn_seeds
from bitwidth.backends.tensorflow.training.steering import Steering
from bitwidth.backends.tensorflow.training.teachers import Teacher, teacher_for
from bitwidth.backends.tensorflow.training.trials import Trials, traced_for_training
from bitwidth.encodings import scaled
from bitwidth.errors import ModelError
from bitwidth.graph import Chains, Cut, Graph, Structure, cut_graph, layer_inputs, with_kept_inputs
from bitwidth.graph.labels import Removal
from bitwidth.probes import Answer, Probe
from bitwidth.typing import Array, Data, Model, Nest

_LOG = logging.getLogger(__name__)
MEASURING_BATCH = 256  # samples at a time where nothing is trained, for a model that is not made for a batch size


@final
class KerasSession:
    """A copy of a Keras model, with the values of whichever graph was written to it last.

    Attributes:
        model: the copy.
        graph: the model as it was opened.

    Args:
        model: the model.
        data: from which an example is taken, where the model does not know its inputs.
        own: whether nobody else has the model, so that it need not be copied.
    """

    def __init__(self, model: Model, data: Data = None, own: bool = False) -> None:
        started = time.perf_counter()
        given = check_model(model)
        self._compiled = Compiled.of(model)
        self._columns = columns_of(model, inputs_kept(model))
        self._sources: dict[int, tuple[Any, Source]] = {}
        copy = model if own else copy_model(model)
        uncompile(copy)
        self._take_in(model, copy, given, data)
        self._given, self._first = self.graph, None  # the model as it was opened, and what held it before a move
        count, size = len(self.graph.parameters), sum(parameter.size for parameter in self.graph)
        seconds = time.perf_counter() - started
        _LOG.info("%s: opened in %.2f seconds, %d parameters of %d values", model.name, seconds, count, size)

    def _take_in(self, model: Model, copy: Model, given: Names, data: Data) -> None:
        """Trace the copy of a model of the given names, and begin with it."""
        self.model = copy
        names = names_of(self.model)
        detach(self.model, names)
        if not kept_promises(model):  # else its generators are where a run left them
            reset_drawn_seeds(self.model)
        example = None if data is None else self._source(data, "data").peek(2).inputs
        trace = traced_for_training(self.model, example, names)
        self._trace, self._specs = trace, trace.specs
        if copy is not model:
            check_apart(model, trace)
        self.graph = promised(model, given, opened := graph_of(self.model, trace))
        variables = self.model.variables  # Keras gathers them anew each time
        self._variables = {parameter.path: variables[parameter.index] for parameter in self.graph}
        self._structure: Structure | None = None  # whose grids of activations are attached
        self._store = VariableStore(opened, self._variables)
        self._watched = Watched(self.model, trace, self._variables, self._declared_batch)
        self._constrained = ConstrainedModel(
            self.model, self.graph, self._store, lambda: trace_function(self.model, self._specs, names)
        )
        self._teachers: dict[Hashable, tuple[Any, Teacher]] = {}
        self._trials = Trials(
            self.model,
            self._compiled,
            self._source,
            self._undisturbed,
            self._declared_batch,
            self._trace,
            self._teacher,
        )

    def move(self, graph: Graph, model: Model, cut: Cut) -> Graph:
        """See `Session.move`."""
        return self._move(graph, model, copy_model, cut)

    def _move(self, graph: Graph, model: Model, copied: Callable[[Model], Model], cut: Cut) -> Graph:
        if self._store.shared:
            raise ModelError("a session that several results share cannot go on with another model")
        given = check_model(model)
        self._store.settle()
        held = dict(vars(self))
        self._first = self.model if self._first is None else self._first
        try:
            self._take_in(model, copied(model), given, None)
            after = cut_graph(graph, cut, self.graph)
            self.write(after)
        except BaseException:
            vars(self).update(held)  # on with the model that there was
            raise
        return after

    def rebuild(self, graph: Graph, change: Change) -> Graph:
        """See `Session.rebuild`."""
        if self._store.shared:
            raise ModelError("a session that several results share cannot go on with another model")
        kept = change.kept_inputs(graph)
        made = self._rebuilt(graph, change)
        after = with_kept_inputs(self._move(graph, made.model, lambda own: own, change.cut), kept)
        self._columns = columns_of(self.model, kept)
        held = {path: scaled(after[path].encoding, by) for path, by in made.factors.items()}
        return after.update({path: after.values[path] * by for path, by in made.factors.items()}, held)

    def check_rebuild(self, graph: Graph, change: Change) -> None:
        """See `Session.check_rebuild`."""
        self._rebuilt(graph, change)

    def _rebuilt(self, graph: Graph, change: Change) -> Resized:
        return self._smaller(graph, change) if isinstance(change, Removal) else self._chained(graph, change)

    def _chained(self, graph: Graph, chains: Chains) -> Resized:
        """The model with chains, which computes what the model computes with their products for kernels."""
        made = chained(self.model, self._trace, chains)
        inputs, expected = self._expected(chains.joined(graph))
        for path, variable, _ in names_of(made).variables:
            give_value(variable, chains.kernels[path] if path in chains.kernels else graph.values[path])
        finalize(made)
        check_same(expected, outputs_of(made, inputs), tolerance(self.model), "the model with chains", HIDDEN_KERNELS)
        return Resized(made, {})

    def _smaller(self, graph: Graph, removal: Removal) -> Resized:
        """The smaller model, which computes what the model computes with zeros for what is removed."""
        try:
            return self._compared(graph, removal)
        except ModelError as error:
            raise ModelError(f"{error}{advice(self.model)}") from error

    def _compared(self, graph: Graph, removal: Removal) -> Resized:
        made = resized(self.model, self._trace, removal.cut, removal.left)
        inputs, expected = self._expected(removal.zeroed(graph))
        for parameter, variable in zip(sorted(graph, key=attrgetter("index")), made.model.variables, strict=True):
            path = parameter.path
            give_value(variable, removal.cut.take(path, graph.values[path]) * made.factors.get(path, 1))
        finalize(made.model)
        near = tolerance(self.model) if removal.is_exact else np.inf
        check_same(expected, outputs_of(made.model, self._left_of(inputs, removal)), near)
        return made

    def _expected(self, graph: Graph) -> tuple[Nest, list[Array]]:
        """Inputs that are drawn for the model, and its outputs with the values of a graph and no grids of activations.

        See `tried`.
        """
        tables = [parameter.shape[0] for parameter in graph if parameter.role == "embedding"]
        self.write(graph.without_activations())
        with self._undisturbed():
            return tried(self.model, self._specs, tables)

    def _left_of(self, inputs: Nest, removal: Removal) -> Nest:
        """Inputs of a model as the smaller one takes them."""

        def taken(array: Any, name: str) -> Any:
            for axis, left in enumerate(removal.left(name)):
                array = array if left is None else tf.gather(array, left, axis=axis)
            return array

        flat = zip(keras.tree.flatten(inputs), self.graph.structure.inputs, strict=True)
        return keras.tree.pack_sequence_as(inputs, [taken(*pair) for pair in flat])

    def write(self, graph: Graph) -> None:
        """Make the model compute with the values of `graph`."""
        if self._store.write(graph):
            finalize(self.model)
        if self._structure is not graph.structure:
            self._structure = graph.structure
            frozen = freeze(self._trace.names, graph.structure)
            if attach(self.model, layer_inputs(graph.structure), self._trace.names) or frozen:
                self._watched.gradients.clear()
                forget_functions(self.model)

    def check_data(self, data: Data, name: str, targets: bool = False) -> None:
        """See `Session.check_data`."""
        self._trials.data(data, name, targets)

    def check_training(self, training: Training) -> None:
        """See `Session.check_training`."""
        self._trials.training(training)

    def check_measuring(self, objective: Objective, data: Data) -> None:
        """See `Session.check_measuring`."""
        self._trials.measuring(objective, data, self._declared_batch or MEASURING_BATCH)

    def resolve(self, given: Objective, brought: Objective) -> Objective:
        """See `Session.resolve`."""
        return Compiled(brought).resolve(self._compiled.resolve(given))

    def can_measure(self, objective: Objective) -> bool:
        """See `Session.can_measure`."""
        return self._trials.can_measure(objective)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Within this context the model may run: counters, seeds and states that it moves are put back."""
        self._store.settle()
        with undisturbed(state_of(self.model, self._trace)):
            yield

    @property
    def _declared_batch(self) -> int | None:
        """The batch size that the model is made for, if it is made for one."""
        sizes = [spec.shape[0] for spec in keras.tree.flatten(self._specs) if spec.shape.rank]
        return sizes[0] if sizes else None

    def _source(self, data: Data, name: str) -> Source:
        """The data, converted and checked once; `data` is kept, so that its id stays its own."""
        if id(data) not in self._sources:
            self._sources[id(data)] = (data, Source(data, name, lambda: self._columns))
        return self._sources[id(data)][1]

    def measure(
        self, graph: Graph, objective: Objective, data: Data, batch_size: int = MEASURING_BATCH
    ) -> Mapping[str, float]:
        """See `Session.measure`."""
        self.write(graph)
        source = self._source(data, "validation")
        if not source.has_targets and not self._trials.adds_loss:
            return {}
        self._compiled.compile(self.model, objective)
        started = time.perf_counter()
        with self._undisturbed():
            batches = source.for_fit(self._declared_batch or batch_size, None)
            found = {k: float(v) for k, v in self.model.evaluate(batches, return_dict=True, verbose=0).items()}
        _LOG.debug("%s: measured in %.2f seconds: %s", graph.name, time.perf_counter() - started, found)
        return found

    def probe(self, graph: Graph, probe: Probe[Answer], data: Data) -> Answer:
        """See `Session.probe`."""
        self.write(graph)
        source = self._trials.watched(data)
        with self._undisturbed():
            found: Answer = answered(self._watched, graph, probe, source)
            return found

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        """See `Session.train`."""
        self.write(graph)
        self._store.settle()
        set_drawn_seeds(self.model, training.seed)
        steering = Steering(self._constrained, steer, training.every_step)
        taught = training.teaching
        teacher = None if taught is None else self._teacher(taught, self._source(training.data, "data"))
        self._watched.gradients.clear()
        try:
            paid = frozenset() if training.pricing is None else training.pricing.paths
            self._constrained.attach(graph, training.only, training.learn, paid)
            with waiting(training), undisturbed(untracked_of(self.model, self._trace)):
                history = self._fit(training, steering, teacher) if self.model.trainable_variables else {}
        except BaseException:
            self._store.lose()
            raise
        finally:
            self._constrained.detach()
            self._watched.gradients.clear()
        return Trained(self._constrained.bake(), history, self._constrained.refused, tuple(steering.remarks))

    def _fit(self, training: Training, steering: Steering, teacher: Teacher | None) -> dict[str, list[float]]:
        validation = None
        if training.validation is not None:
            source = self._source(training.validation, "validation")
            if source.has_targets or self._trials.adds_loss or (teacher is not None and teacher.stored is None):
                whole = teacher.beside if teacher is not None and teacher.takes_all else None
                validation = source.for_fit(self._declared_batch or MEASURING_BATCH, None, whole)
        data = self._source(training.data, "data")
        return fit(training, steering, self._compiled, data, validation, self._variables, teacher)

    def _teacher(self, teaching: Teaching, source: Source) -> Teacher:
        """The teacher that is asked for, tried on the data once; it is kept, so that its id stays its own."""
        key = (id(teaching.teacher), teaching.features, teaching.attention)
        if key not in self._teachers:
            with self._undisturbed():
                found = teacher_for(teaching, self._original, source, self.model, self._declared_batch or 2)
            self._teachers[key] = (teaching.teacher, found)
        return self._teachers[key][1]

    def _original(self) -> Model:
        """The model as it was opened."""
        model = copy_model(self.model) if self._first is None else self._first
        detach(model)
        variables = model.variables
        for parameter in self._given:
            give_value(variables[parameter.index], self._given.values[parameter.path])
        finalize(model)
        attach(model, layer_inputs(self._given.structure))
        forget_functions(model)
        return model

    def share(self) -> None:
        """See `Session.share`."""
        self._store.settle()
        self._store.shared = True

    def finish(self, graph: Graph) -> Handed:
        """See `Session.finish`."""
        self._teachers, self._first = {}, None
        self.write(graph)
        self._store.settle()
        uncompile(self.model)
        remark = self._compiled.compile_as_given(self.model, parameters_of(self.model))
        if self._store.shared:
            uncompile(self.model)
            return Handed(graph, partial(self._copy, graph), remark)
        _promise(self.model, graph)
        return Handed(graph, lambda: self.model, remark)

    def _copy(self, graph: Graph) -> Model:
        """A model of its own with the values of `graph`, compiled as the user's was."""
        self.write(graph)
        model = copy_model(self.model)
        detach(model)
        attach(model, layer_inputs(graph.structure))
        self._compiled.compile_as_given(model, parameters_of(model))
        _promise(model, graph)
        return model

    def architecture(self, graph: Graph) -> Architecture:
        """See `Session.architecture`."""
        self.write(graph)
        return replace(
            architecture_of(self.model, self._specs, self._trace.names), kept_inputs=graph.structure.kept_inputs
        )


def _promise(model: Model, graph: Graph) -> None:
    held = {parameter.index: parameter.encoding for parameter in graph}
    keep_promises(model, held, graph.structure.kept_inputs)
