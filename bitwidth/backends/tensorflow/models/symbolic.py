"""A model called on symbolic tensors with its composites seen through: layers and operations of Keras are noted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, final

import keras
from typing_extensions import override

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.symbolic import (
    CALLS,
    functions_replaced,
    seen_through,
    training_told,
    training_untold,
)
from bitwidth.backends.tensorflow.internals.types import KerasLayer, TFTensor
from bitwidth.backends.tensorflow.models.composites import around_composites, holds_state, is_composite
from bitwidth.backends.tensorflow.models.masks import forget_masks, with_masks
from bitwidth.backends.tensorflow.models.open_sizes import OpenSizes
from bitwidth.backends.tensorflow.models.tables import Tables
from bitwidth.backends.tensorflow.reading.inlining import inline_functions
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.errors import Refused
from bitwidth.text import brief
from bitwidth.typing import Model, Nest

_ADVICE = "write it with layers of Keras and keras.ops, so that it needs no values, tf operations and states"


@final
@dataclass(frozen=True)
class Failure:
    """A composite that was not inlined, and why."""

    path: str
    kind: str
    reason: str


@final
class _Training:
    """What `training` is while the model is called: handed on to layers of Keras, which the new model tells itself.

    A composite that branches on it goes the way of training. Whether that is the way of inference too shows when
    the outputs are compared.
    """

    def __init__(self, within: _Within) -> None:
        self._within = within

    def __bool__(self) -> bool:
        if self._within.leaf:
            return False
        if self._within.simple:
            raise Refused("its call branches on training")
        return True

    @override
    def __eq__(self, other: object) -> bool:
        return bool(self) is other if isinstance(other, bool) else self is other

    @override
    def __hash__(self) -> int:
        return id(self)


@final
@dataclass
class _Within:
    """Whose code runs: that of a layer which stays a layer, or of a composite without weights and layers."""

    leaf: bool = False
    simple: bool = False


@final
class Inlining:
    """One call of a model.

    Attributes:
        tables: the variables that composites read themselves.
        failures: the composites that were not inlined, and stayed layers for now.

    Args:
        model: a copy, which is called; its layers get nodes.
        names: of it.
        kept: ids of the layers that are not to be inlined.
        tables: its variables as tensors.
        batch: one of the inputs.
    """

    def __init__(self, model: Model, names: Names, kept: set[int], tables: Tables, batch: TFTensor) -> None:
        self.tables = tables
        self.failures: list[Failure] = []
        self._model, self._names, self._kept = model, names, kept
        self._within = _Within()
        self._training = _Training(self._within)
        self._sizes = OpenSizes(batch)
        self._thread = threading.get_ident()

    def outputs(self, inputs: Nest, anchor: Callable[[TFTensor], TFTensor]) -> Nest:
        """The outputs of the model for symbolic inputs.

        Args:
            inputs: as the model takes them.
            anchor: makes a constant depend on the inputs, so that a layer that is called on it is part of the model.

        Raises:
            Refused: the call of the model itself cannot be followed.
        """
        self._anchor = anchor
        with inline_functions(), self._watching(), self.tables.in_place(tracked.layers_of(self._model)):
            return self._model(inputs, training=self._training)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        layer_call, operation_call = keras.Layer.__call__, keras.Operation.symbolic_call
        draw = keras.random.SeedGenerator.next
        filtering = keras.config.is_traceback_filtering_enabled()

        @wraps(layer_call)
        def called(layer: KerasLayer, *args: Any, **kwargs: Any) -> Any:
            if not self._active():
                return layer_call(layer, *args, **kwargs)
            return self._call(layer_call, layer, args, kwargs)

        @wraps(operation_call)
        def noted(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._active():
                return operation_call(operation, *args, **kwargs)
            return self._operation(operation_call, operation, args, kwargs)

        @wraps(draw)
        def drawn(generator: Any, *args: Any, **kwargs: Any) -> Any:
            if self._active():
                raise Refused("its call draws random numbers itself; layers such as Dropout and GaussianNoise may")
            return draw(generator, *args, **kwargs)

        with ExitStack() as stack:
            stack.enter_context(CALLS)
            stack.enter_context(functions_replaced(self._sizes.functions(self._active)))
            keras.Layer.__call__, keras.Operation.symbolic_call = called, noted
            keras.random.SeedGenerator.next = drawn
            keras.config.disable_traceback_filtering()
            try:
                yield
            finally:
                keras.Layer.__call__, keras.Operation.symbolic_call = layer_call, operation_call
                keras.random.SeedGenerator.next = draw
                if filtering:
                    keras.config.enable_traceback_filtering()

    def _active(self) -> bool:
        """Whether the code that runs is that of a composite."""
        return threading.get_ident() == self._thread and not self._within.leaf

    @contextmanager
    def _in(self, leaf: bool = False, simple: bool = False) -> Iterator[None]:
        before = self._within.leaf, self._within.simple
        self._within.leaf, self._within.simple = leaf, simple
        try:
            yield
        finally:
            self._within.leaf, self._within.simple = before

    def _operation(self, original: Any, operation: Any, args: Any, kwargs: Any) -> Any:
        self.tables.check_readable((args, kwargs))
        if type(operation).__name__ == "GetItem" and isinstance(args[1], slice):
            args = (args[0], (args[1],))  # Keras takes a bare slice of tensors with values only
        said = self._sizes.instead(operation, args)
        if said is not None:
            return said
        with self._in(leaf=True):
            return original(operation, *args, **kwargs)

    def _call(self, original: Any, layer: KerasLayer, args: Any, kwargs: Any) -> Any:
        self.tables.check_readable((args, kwargs))
        whole = layer is self._model
        if id(layer) in self._kept or not (whole or is_composite(layer)):
            return self._as_layer(original, layer, args, kwargs)
        failed = len(self.failures)
        try:
            return self._inlined(original, layer, args, kwargs)
        except Exception as error:  # a user's call raises anything on what is not a tensor with values
            failure = Failure(self._path(layer), type(layer).__name__, self._reason(error))
            if whole:
                raise Refused(failure.reason) from error
            del self.failures[failed:]
            if not _is_simple(layer):
                self.failures.append(failure)
            return self._for_now(original, layer, args, kwargs, failure)

    def _for_now(self, original: Any, layer: KerasLayer, args: Any, kwargs: Any, failure: Failure) -> Any:
        """Call a composite that was not inlined as a layer, so that all that is in the way is found at once."""
        try:
            return self._as_layer(original, layer, args, kwargs)
        except Exception as error:
            raise Refused(f"in {failure.path} ({failure.kind}): {failure.reason}") from error

    def _reason(self, error: Exception) -> str:
        if isinstance(error, Refused):
            return error.reason
        hint = ", and does not ask for sizes that are only known when the model runs" if self._sizes.asked else ""
        said = brief(error).partition(". ")[0].rstrip(".")
        return f"its call does not run on symbolic tensors ({said}): {_ADVICE}{hint}"

    def _inlined(self, original: Any, layer: KerasLayer, args: Any, kwargs: Any) -> Any:
        """Call a composite as Keras does, but run its code on the tensors themselves."""
        if layer.activity_regularizer is not None:
            raise Refused("it has an activity regularizer; use the layer keras.layers.ActivityRegularization")
        with self._in(simple=_is_simple(layer)), seen_through(layer, layer.call):
            return original(layer, *args, **kwargs)

    def _as_layer(self, original: Any, layer: KerasLayer, args: Any, kwargs: Any) -> Any:
        """Call a layer that stays one."""
        inner = around_composites(layer)
        if inner and id(layer) not in self._kept:
            reason = f"it calls the layer of the class {inner} in it by itself"
            self.failures.append(Failure(self._path(layer), type(layer).__name__, reason))
        told = kwargs.pop("training", None)
        if told is None:
            told = training_told()
        if isinstance(told, bool):
            self._check_training(layer, told)
        kwargs = with_masks(layer, args, kwargs)
        if _holds_variables(layer) and not any(
            isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten((args, kwargs))
        ):
            args = keras.tree.map_structure(self._anchor, args)
        with self._in(leaf=True), self.tables.variables_of(layer), training_untold(then=told):
            outputs = original(layer, *args, **kwargs)
        forget_masks(layer, (args, kwargs))
        return outputs

    def _check_training(self, layer: KerasLayer, training: bool) -> None:
        """Raise if a layer is told whether it trains, and that matters: in a Functional model it follows the model.

        Raises:
            Refused: it does; with what to do.
        """
        for part in tracked.layers_of(layer):
            moves = part.trainable and any(not variable.trainable for variable in tracked.own_variables(part))
            if moves or tracked.seed_generators(part):
                how = "leave the argument out" if training or not moves else "freeze it (trainable = False)"
                raise Refused(
                    f"its call calls {self._path(part)}, or a layer before it, with training={training}, which in "
                    f"Keras holds from there on: {how}"
                )

    def _path(self, layer: KerasLayer) -> str:
        return self._names.layer_path(layer) or str(layer.name)


def _is_simple(layer: KerasLayer) -> bool:
    """Whether a layer is a user's own without layers in it: it may stay one."""
    return tracked.is_own(layer) and not tracked.children(layer)


def _holds_variables(layer: KerasLayer) -> bool:
    """Whether there are variables in a layer, or in those in it."""
    return any(holds_state(part) for part in tracked.layers_of(layer))
