"""Views: a layer reads its parameter through a function of the master variable.

The variable object that the user's layers hold (in an attribute, a list, a dict, a closure, in a second layer) becomes
the view: its class is exchanged, so every reader sees what the encoding says. A new Keras variable over the same
storage becomes the master and takes the view's place in the lists from which optimizers, checkpoints and
`trainable_variables` are fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.constraints.custom_gradients import forget_gradients
from bitwidth.backends.tensorflow.constraints.lowering import LearnedVariable, Lowering, straight_through
from bitwidth.backends.tensorflow.internals.graphs import outside_loops
from bitwidth.backends.tensorflow.internals.layers import layers_of, tracked_trainable, variable_lists
from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFTensor
from bitwidth.backends.tensorflow.internals.variables import autocast, tf_variable
from bitwidth.backends.tensorflow.reading.inlining import forget_traces
from bitwidth.typing import Model

_COMPUTED: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
SCOPE = "bitwidth_view"  # name scope of the operations of every view


@final
class ViewVariable(keras.Variable):  # type: ignore[misc]
    """A variable whose value is computed from the master's; assignments go to the master."""

    _view: Callable[[Any], Any]

    @property
    def value(self) -> TFTensor:
        """What the layer reads."""
        if tf.executing_eagerly():
            return autocast(self, self._compute())
        graph = tf.compat.v1.get_default_graph()
        outer = outside_loops(graph)
        if outer is graph:
            return autocast(self, self._compute())
        # Computed once in front of a loop, not at each of its steps; the loop captures it.
        computed = _COMPUTED.setdefault(graph, {})
        if id(self) not in computed:
            with outer.as_default():
                computed[id(self)] = self._compute()
        return autocast(self, computed[id(self)])

    def _compute(self) -> TFTensor:
        with tf.name_scope(SCOPE):
            return self._view(tf.convert_to_tensor(tf_variable(self)))

    @property
    def handle(self) -> TFTensor:
        """The resource of the master, so that a tape watches and a graph captures the master."""
        return tf_variable(self).handle


@contextmanager
def attached(model: Model, lowerings: Mapping[int, Lowering]) -> Iterator[None]:
    """Within this context, `model.variables[i]` is read through `lowerings[i]` wherever the model reads it.

    What the lowerings learn is tracked as the model's own, so that `trainable_variables` gives it to any train step and
    `set_weights` puts it back; files of weights leave it out. `parameters_of` returns the variables without it.

    Args:
        model: the model that owns the variables.
        lowerings: by index in `model.variables`.
    """
    variables = model.variables  # Keras gathers them anew each time
    views = {index: variables[index] for index in lowerings}
    masters = {index: _master_of(view) for index, view in views.items()}
    lists = [pair for layer in layers_of(model) for pair in variable_lists(layer)]
    learned = [variable for lowering in lowerings.values() for variable in lowering.learned]
    try:
        _track(model, learned)
        for index, view in views.items():
            _exchange(lists, view, masters[index])
            view.__class__ = ViewVariable
            view._view = straight_through(lowerings[index])
        forget_functions(model)
        yield
    finally:
        _untrack(model, learned)
        for index, view in views.items():
            _exchange(lists, masters[index], view)
            view.__class__ = keras.Variable
            view.__dict__.pop("_view", None)
            view.trainable = masters[index].trainable
        forget_functions(model)
        forget_gradients(model.variables)


@contextmanager
def learning(model: Model, variables: list[LearnedVariable]) -> Iterator[None]:
    """Within this context further variables train with a model; they are in no file, see `attached`."""
    _track(model, variables)
    try:
        yield
    finally:
        _untrack(model, variables)


def parameters_of(model: Model) -> list[ModelVariable]:
    """`model.variables` without what lowerings learn: the same places as without views."""
    return _others(model.variables)


def _track(model: Model, learned: list[LearnedVariable]) -> None:
    if not learned:
        return
    tracked_trainable(model).extend(learned)
    for name in ("save_own_variables", "load_own_variables"):
        model.__dict__[name] = _without(model, name)


def _untrack(model: Model, learned: list[LearnedVariable]) -> None:
    tracked, own = tracked_trainable(model), {id(variable) for variable in learned}
    tracked[:] = [variable for variable in tracked if id(variable) not in own]
    if len(_others(tracked)) == len(tracked):  # nothing else is learned
        for name in ("save_own_variables", "load_own_variables"):
            model.__dict__.pop(name, None)


def _without(model: Model, name: str) -> Callable[[Any], Any]:
    """The method of the model's class, run with what is learned out of sight."""

    def method(store: Any) -> Any:
        variables = tracked_trainable(model)
        before = list(variables)
        variables[:] = _others(before)
        try:
            return getattr(type(model), name)(model, store)
        finally:
            variables[:] = before

    return method


def _others(variables: list[ModelVariable]) -> list[ModelVariable]:
    return [variable for variable in variables if not isinstance(variable, LearnedVariable)]


def _master_of(view: ModelVariable) -> ModelVariable:
    master = keras.Variable.__new__(keras.Variable)
    master.__dict__.update(view.__dict__)
    return master


def _exchange(lists: list[tuple[set[int], list[ModelVariable]]], old: Any, new: Any) -> None:
    for ids, variables in lists:
        for position, variable in enumerate(variables):
            if variable is old:
                variables[position] = new
                ids.discard(id(old))
                ids.add(id(new))


def forget_functions(model: Model) -> None:
    """Drop compiled functions: they hold the reads as they were when they were traced."""
    for layer in layers_of(model):
        forget_traces(layer)
        for name in ("train_function", "test_function", "predict_function"):
            if getattr(layer, name, None) is not None:
                setattr(layer, name, None)
