"""`KerasSession`: a copy of a Keras model, opened to be compressed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import Architecture
from bitwidth.backend import Objective, Observed, Steer, Trained, Training
from bitwidth.backends.tensorflow.constraints.activations import attach, detach, on_grids
from bitwidth.backends.tensorflow.constraints.lowering import Lowering, lower
from bitwidth.backends.tensorflow.constraints.views import SCOPE, attached, forget_functions, parameters_of
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.measuring.gradients import SquaredGradients
from bitwidth.backends.tensorflow.measuring.moments import input_moments
from bitwidth.backends.tensorflow.measuring.norms import batch_statistics, freeze
from bitwidth.backends.tensorflow.measuring.observing import observed
from bitwidth.backends.tensorflow.measuring.undisturbed import state_of, undisturbed, untracked_of
from bitwidth.backends.tensorflow.models.architecture import architecture_of, finalize
from bitwidth.backends.tensorflow.models.check import check_apart, check_finite, check_model
from bitwidth.backends.tensorflow.models.copying import copy_model, uncompile
from bitwidth.backends.tensorflow.models.handed import Handed
from bitwidth.backends.tensorflow.models.promises import keep_promises, kept_promises, promised
from bitwidth.backends.tensorflow.reading.graphs import graph_of, value_of
from bitwidth.backends.tensorflow.reading.tracing import trace_function
from bitwidth.backends.tensorflow.training.around import masters_of, waiting, watching
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.backends.tensorflow.training.rates import counting
from bitwidth.backends.tensorflow.training.restoring import Restoring
from bitwidth.backends.tensorflow.training.seeds import reset_drawn_seeds, set_drawn_seeds
from bitwidth.backends.tensorflow.training.steering import Steering
from bitwidth.backends.tensorflow.training.trials import Trials, traced_for_training
from bitwidth.fitting import Moments
from bitwidth.graph import Graph, Structure, Value, layer_inputs

_LOG = logging.getLogger(__name__)
WATCHING_BATCH = 64  # samples at a time where features are looked at one operation after another
MEASURING_BATCH = 256  # samples at a time where nothing is trained, for a model that is not made for a batch size


class KerasSession:
    """A copy of a Keras model, with the values of whichever graph was written to it last.

    Attributes:
        model: the copy.
        graph: the model as it was opened.
    """

    def __init__(self, model: Any, data: Any = None) -> None:
        started = time.perf_counter()
        check_model(model)
        self._compiled = Compiled.of(model)
        self.model = copy_model(model)
        detach(self.model)
        if not kept_promises(model):  # else its generators are where a run left them
            reset_drawn_seeds(self.model)
        self._sources: dict[int, tuple[Any, Source]] = {}
        example = None if data is None else self._source(data, "data").peek(2).inputs
        trace = traced_for_training(self.model, example)
        self._trace, self._specs = trace, trace.specs
        check_apart(model, trace)
        self._shared = False  # between several results
        self.graph = promised(model, opened := graph_of(self.model, trace))
        self._variables = {parameter.path: self.model.variables[parameter.index] for parameter in self.graph}
        self._structure: Structure | None = None  # whose grids of activations are attached
        self._held: dict[str, Value] = {path: opened.values.value(path) for path in opened.values}
        self._gradients: dict[tuple[tuple[str, ...], str], SquaredGradients] = {}  # traced with the views of the moment
        self._proven: dict[frozenset[str], dict[str, str]] = {}
        self._trials = Trials(
            self.model, self._compiled, self._source, self._undisturbed, self._declared_batch, self._trace
        )
        count, size = len(opened.parameters), sum(parameter.size for parameter in opened)
        seconds = time.perf_counter() - started
        _LOG.info("%s: opened in %.2f seconds, %d parameters of %d values", model.name, seconds, count, size)

    def write(self, graph: Graph) -> None:
        """Make the model compute with the values of `graph`."""
        changed = [path for path in self._variables if not self._held[path].same(graph.values.value(path))]
        for path in changed:
            self._held[path].read()  # an older snapshot may still have to read this variable
            self._held[path] = graph.values.value(path)
            self._variables[path].assign(self._held[path].read())
            if not self._shared:
                self._held[path].lend(partial(value_of, self._variables[path]))
        if changed:
            finalize(self.model)
        if self._structure is not graph.structure:
            self._structure = graph.structure
            frozen = freeze(self.model, graph.structure)
            if attach(self.model, layer_inputs(graph.structure)) or frozen:
                self._gradients.clear()
                forget_functions(self.model)

    def _settle(self) -> None:
        """Let snapshots read what the variables hold, before something else than `write` changes them."""
        for value in self._held.values():
            value.read()

    def check_data(self, data: Any, name: str, targets: bool = False) -> None:
        """See `Session.check_data`."""
        self._trials.data(data, name, targets)

    def check_training(self, training: Training) -> None:
        """See `Session.check_training`."""
        self._trials.training(training)

    def check_measuring(self, objective: Objective, data: Any) -> None:
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
        self._settle()
        with undisturbed(state_of(self.model, self._trace)):
            yield

    @property
    def _declared_batch(self) -> int | None:
        """The batch size that the model is made for, if it is made for one."""
        sizes = [spec.shape[0] for spec in keras.tree.flatten(self._specs) if spec.shape.rank]
        return sizes[0] if sizes else None

    def _source(self, data: Any, name: str) -> Source:
        """The data, converted and checked once; `data` is kept, so that its id stays its own."""
        if id(data) not in self._sources:
            self._sources[id(data)] = (data, Source(data, name))
        return self._sources[id(data)][1]

    def measure(
        self, graph: Graph, objective: Objective, data: Any, batch_size: int = MEASURING_BATCH
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

    def squared_gradients(
        self, graph: Graph, data: Any, likelihoods: tuple[str, ...], labels: str, samples: int, seed: int
    ) -> Mapping[str, NDArray[Any]]:
        """See `Session.squared_gradients`."""
        self.write(graph)
        key = (likelihoods, labels)
        if key not in self._gradients:
            self._gradients[key] = SquaredGradients(self.model, likelihoods, labels)
        with self._undisturbed():
            found = self._gradients[key].over(self._trials.watched(data), samples, seed)
        return {parameter.path: found[parameter.index] for parameter in graph}

    def input_moments(
        self, graph: Graph, data: Any, samples: int, paths: Sequence[str]
    ) -> Mapping[str, tuple[Moments, ...]]:
        """See `Session.input_moments`."""
        self.write(graph)
        uses = {path: [use.op for use in graph[path].uses] for path in paths}
        batches = self._trials.watched(data).samples(samples, self._declared_batch or WATCHING_BATCH)
        with self._undisturbed():
            inputs = (batch.inputs for batch in batches)
            return input_moments(self._trace, self._variables, uses, inputs, on_grids(graph.activations))

    def observe(self, graph: Graph, data: Any, samples: int, tensors: Sequence[str]) -> Mapping[str, Observed]:
        """See `Session.observe`."""
        self.write(graph)
        batches = self._trials.watched(data).samples(samples, self._declared_batch or WATCHING_BATCH)
        with self._undisturbed():
            return observed(self._trace, tensors, (batch.inputs for batch in batches), on_grids(graph.activations))

    def batch_statistics(self, graph: Graph, data: Any, samples: int, batch_size: int) -> Mapping[str, NDArray[Any]]:
        """See `Session.batch_statistics`."""
        self.write(graph)
        batches = self._trials.watched(data).samples(samples, self._declared_batch or batch_size)
        with self._undisturbed():
            found = batch_statistics(self.model, batches)
        return {path: found[id(variable)] for path, variable in self._variables.items() if id(variable) in found}

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        """See `Session.train`."""
        self.write(graph)
        set_drawn_seeds(self.model, training.seed)
        self._settle()
        self._load_masters(graph)
        lowerings = self._lowerings(graph)
        refused = self._refused(lowerings)
        views = {graph[path].index: lowering for path, lowering in lowerings.items() if path not in refused}
        for path, lowering in lowerings.items():
            if training.learn and path not in refused and (training.only is None or path in training.only):
                lowering.learn()
        with self._attached(views), self._frozen(graph, training.only, refused), waiting(training):
            steering = Steering(graph, lowerings, steer, self._variables, training.every_step)
            with undisturbed(untracked_of(self.model, self._trace)):
                history = self._fit(training, steering) if self.model.trainable_variables else {}
        after = self._project(graph, self._baked(steering.graph, lowerings, training.only), training.only)
        return Trained(after, history, refused, tuple(steering.remarks))

    def share(self) -> None:
        """See `Session.share`."""
        self._settle()
        self._shared = True

    def finish(self, graph: Graph) -> Handed:
        """See `Session.finish`."""
        self.write(graph)
        self._settle()
        uncompile(self.model)
        remark = self._compiled.compile_as_given(self.model, parameters_of(self.model))
        if self._shared:
            uncompile(self.model)
            return Handed(graph, partial(self._copy, graph), remark)
        keep_promises(self.model, {parameter.index: parameter.encoding for parameter in graph})
        return Handed(graph, lambda: self.model, remark)

    def _copy(self, graph: Graph) -> Any:
        """A model of its own with the values of `graph`, compiled as the user's was."""
        self.write(graph)
        model = copy_model(self.model)
        detach(model)
        attach(model, layer_inputs(graph.structure))
        self._compiled.compile_as_given(model, parameters_of(model))
        keep_promises(model, {parameter.index: parameter.encoding for parameter in graph})
        return model

    def architecture(self, graph: Graph) -> Architecture:
        """See `Session.architecture`."""
        self.write(graph)
        return architecture_of(self.model, self._specs)

    def _lowerings(self, graph: Graph) -> dict[str, Lowering]:
        """What each trained parameter is read through. Statistics that training itself moves are projected at its end:

        a layer moves them from what it reads, and steps below half a unit of a 16-bit format would be lost.
        """
        lowerings = {p.path: lower(p.encoding, p.shape) for p in graph if p.dtype == "float32" and p.trainable}
        return {path: lowering for path, lowering in lowerings.items() if lowering is not None}

    def _refused(self, lowerings: Mapping[str, Lowering]) -> dict[str, str]:
        """Reasons by path of the parameters that something reads past their view.

        A trace of the model with all views attached shows who takes a master's handle outside of its view.
        """
        key = frozenset(lowerings)
        if key not in self._proven:
            views = {self.graph[path].index: lowering for path, lowering in lowerings.items()}
            with attached(self.model, views):
                trace = trace_function(self.model, self._specs)
            self._proven[key] = {}
            for path in lowerings:
                past = [reader for reader in trace.readers(self._variables[path]) if SCOPE not in reader.scope]
                if past:
                    where = past[0].layer or "the model's call"
                    self._proven[key][path] = f"held as it is, not trained: {where} reads the variable past its view"
        return self._proven[key]

    @contextmanager
    def _attached(self, views: Mapping[int, Lowering]) -> Iterator[None]:
        """Within this context the model reads through the views; what was traced outside of it is forgotten."""
        self._gradients.clear()
        try:
            with attached(self.model, views):
                yield
        finally:
            self._gradients.clear()

    @contextmanager
    def _frozen(self, graph: Graph, only: frozenset[str] | None, refused: Iterable[str]) -> Iterator[None]:
        """Within this context only the parameters of `only` train, and none of `refused`."""
        stays = {
            graph[path].index for path in graph.parameters if path in refused or (only is not None and path not in only)
        }
        stopped = [
            variable
            for index, variable in enumerate(parameters_of(self.model))
            if index in stays and variable.trainable
        ]
        for variable in stopped:
            variable.trainable = False
        try:
            yield
        finally:
            for variable in stopped:
                variable.trainable = True

    def _fit(self, training: Training, steering: Steering) -> dict[str, list[float]]:
        source = self._source(training.data, "data")
        steps = training.steps_per_epoch or source.steps(training.batch_size)
        steering.total = None if steps is None else steps * training.epochs
        settings: dict[str, Any] = {} if training.jit_compile is None else {"jit_compile": training.jit_compile}
        if steering.is_steered:
            settings["steps_per_execution"] = 1
        optimizer = self._compiled.optimizer_for(training, steps, parameters_of(self.model))
        self._compiled.spare(optimizer, steering.learned)
        self._compiled.compile(self.model, training.objective, optimizer=optimizer, **settings)
        validation = None if training.validation is None else self._source(training.validation, "validation")
        measured = validation is not None and (validation.has_targets or self._trials.adds_loss)
        restoring = Restoring(training, steering, self._variables, self.model)
        _LOG.info("%s: training for %d epochs of %s steps", self.model.name, training.epochs, steps or "unknown")
        started = time.perf_counter()
        history = self.model.fit(
            source.for_fit(training.batch_size, training.seed),
            epochs=training.epochs,
            steps_per_epoch=training.steps_per_epoch if source.batched else steps,
            validation_data=validation.for_fit(self._declared_batch or MEASURING_BATCH, None)
            if validation is not None and measured
            else None,
            class_weight=training.class_weight,
            callbacks=[
                *steering.callbacks(),
                *counting(optimizer),
                *restoring.callbacks(),
                *training.callbacks,
                *watching(training, steering.total),
            ],
            verbose=training.verbose,
            shuffle=False,
        )
        restoring.settle()
        steering.remarks += restoring.remarks
        found = {name: [float(value) for value in values] for name, values in history.history.items()}
        last = {name: values[-1] for name, values in found.items() if values}
        _LOG.info("%s: trained in %.1f seconds: %s", self.model.name, time.perf_counter() - started, last)
        return found

    def _load_masters(self, graph: Graph) -> None:
        """Put the float masters behind the values of `graph` into the variables: training goes on from them."""
        for path, master in masters_of(graph):
            self._variables[path]._value.assign(master)
            self._held[path] = Value(master)

    def _baked(self, last: Graph, lowerings: Mapping[str, Lowering], only: frozenset[str] | None) -> Graph:
        """`last` with what training has learned put into its encodings."""
        encodings = {}
        for path, lowering in lowerings.items():
            if only is not None and path not in only:
                continue
            master = value_of(self._variables[path])
            check_finite(path, master, *(variable.numpy() for variable in lowering.learned))
            encodings[path] = lowering.baked(last[path].encoding, master)
        parameters = tuple(replace(p, encoding=encodings.get(p.path, p.encoding)) for p in last)
        return Graph(last.structure, parameters, last.values)

    def _project(self, before: Graph, last: Graph, only: frozenset[str] | None) -> Graph:
        """The snapshot at the end of training: what each encoding holds of its master, by numpy."""
        changed: dict[str, Value] = {}
        for parameter in last:
            path = parameter.path
            if only is not None and path not in only:
                continue  # statistics outside of the selection moved with the data, and go back
            master = value_of(self._variables[path])
            if parameter.is_float:
                check_finite(path, master)
            held = parameter.encoding.project(master) if parameter.is_float else master
            old = before.values.value(path)
            if not np.array_equal(held, old.read()):
                changed[path] = Value(held, master)
            elif parameter.trainable:
                changed[path] = old.with_master(master)
        after = Graph(last.structure, tuple(last), before.values.replace(changed))
        self._held = {path: Value(partial(value_of, variable)) for path, variable in self._variables.items()}
        self.write(after)
        return after
