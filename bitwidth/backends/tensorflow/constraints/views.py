"""Views: a layer reads its parameter through a function of the master variable.

The variable object that the user's layers hold (in an attribute, a list, a dict, a closure, in a second layer) becomes
the view: its class is exchanged, so every reader sees what the encoding says. A new Keras variable over the same
storage becomes the master and takes the view's place in the lists from which optimizers, checkpoints and
`trainable_variables` are fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
from keras.src.backend import Variable
from tensorflow.python.ops.control_flow_v2_func_graphs import (
    CondBranchFuncGraph,
    WhileBodyFuncGraph,
    WhileCondFuncGraph,
)

from bitwidth.backends.tensorflow.constraints.custom_gradients import forget_gradients
from bitwidth.backends.tensorflow.constraints.lowering import LearnedVariable, Lowering, straight_through
from bitwidth.backends.tensorflow.reading.inlining import forget_traces

_BODIES = (WhileBodyFuncGraph, WhileCondFuncGraph, CondBranchFuncGraph)
_COMPUTED: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
SCOPE = "bitwidth_view"  # name scope of the operations of every view


class ViewVariable(Variable):  # type: ignore[misc]
    """A variable whose value is computed from the master's; assignments go to the master."""

    _view: Callable[[Any], Any]

    @property
    def value(self) -> Any:
        """What the layer reads."""
        if tf.executing_eagerly():
            return self._maybe_autocast(self._compute())
        graph = tf.compat.v1.get_default_graph()
        outer = _outside_loops(graph)
        if outer is graph:
            return self._maybe_autocast(self._compute())
        # Computed once in front of a loop, not at each of its steps; the loop captures it.
        computed = _COMPUTED.setdefault(graph, {})
        if id(self) not in computed:
            with outer.as_default():
                computed[id(self)] = self._compute()
        return self._maybe_autocast(computed[id(self)])

    def _compute(self) -> Any:
        with tf.name_scope(SCOPE):
            return self._view(tf.convert_to_tensor(self._value))

    @property
    def handle(self) -> Any:
        """The resource of the master, so that a tape watches and a graph captures the master."""
        return self._value.handle


@contextmanager
def attached(model: Any, lowerings: Mapping[int, Lowering]) -> Iterator[None]:
    """Within this context, `model.variables[i]` is read through `lowerings[i]` wherever the model reads it.

    What the lowerings learn is tracked as the model's own, so that `trainable_variables` gives it to any train step and
    `set_weights` puts it back; files of weights leave it out. `parameters_of` returns the variables without it.

    Args:
        model: the model that owns the variables.
        lowerings: by index in `model.variables`.
    """
    views = {index: model.variables[index] for index in lowerings}
    masters = {index: _master_of(view) for index, view in views.items()}
    stores = list(_stores(model))
    learned = [variable for lowering in lowerings.values() for variable in lowering.learned]
    try:
        _track(model, learned)
        for index, view in views.items():
            _exchange(stores, view, masters[index])
            view.__class__ = ViewVariable
            view._view = straight_through(lowerings[index])
        forget_functions(model)
        yield
    finally:
        _untrack(model, learned)
        for index, view in views.items():
            _exchange(stores, masters[index], view)
            view.__class__ = Variable
            view.__dict__.pop("_view", None)
            view.trainable = masters[index].trainable
        forget_functions(model)
        forget_gradients(model.variables)


def parameters_of(model: Any) -> list[Any]:
    """`model.variables` without what lowerings learn: the same places as without views."""
    return _others(model.variables)


def _track(model: Any, learned: list[LearnedVariable]) -> None:
    if not learned:
        return
    model._trainable_variables.extend(learned)
    for name in ("save_own_variables", "load_own_variables"):
        model.__dict__[name] = _without(model, name)


def _untrack(model: Any, learned: list[LearnedVariable]) -> None:
    model._trainable_variables[:] = _others(model._trainable_variables)
    for name in ("save_own_variables", "load_own_variables") if learned else ():
        model.__dict__.pop(name, None)


def _without(model: Any, name: str) -> Callable[[Any], Any]:
    """The method of the model's class, run with what is learned out of sight."""

    def method(store: Any) -> Any:
        variables = model._trainable_variables
        before = list(variables)
        variables[:] = _others(before)
        try:
            return getattr(type(model), name)(model, store)
        finally:
            variables[:] = before

    return method


def _others(variables: list[Any]) -> list[Any]:
    return [variable for variable in variables if not isinstance(variable, LearnedVariable)]


def _outside_loops(graph: Any) -> Any:
    while isinstance(graph, _BODIES):
        graph = graph.outer_graph
    return graph


def _master_of(view: Any) -> Any:
    master = Variable.__new__(Variable)
    master.__dict__.update(view.__dict__)
    return master


def _stores(model: Any) -> Iterator[tuple[Any, list[Any]]]:
    for layer in model._flatten_layers():
        for name in ("trainable_variables", "non_trainable_variables"):
            yield layer._tracker.stored_ids[name], layer._tracker.config[name][1]
        for generator in layer._seed_generators:
            yield set(), generator._tracker.config["variables"][1] if hasattr(generator, "_tracker") else []


def _exchange(stores: list[tuple[Any, list[Any]]], old: Any, new: Any) -> None:
    for ids, variables in stores:
        for position, variable in enumerate(variables):
            if variable is old:
                variables[position] = new
                ids.discard(id(old))
                ids.add(id(new))


def forget_functions(model: Any) -> None:
    """Drop compiled functions: they hold the reads as they were when they were traced."""
    for layer in model._flatten_layers():
        forget_traces(layer)
        for name in ("train_function", "test_function", "predict_function"):
            if getattr(layer, name, None) is not None:
                setattr(layer, name, None)
