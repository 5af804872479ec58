"""Models built without values: variables have shapes and dtypes, take no memory, and no initializer runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, final

import keras
import tensorflow as tf
from typing_extensions import override

from bitwidth.backends.tensorflow.internals.deferral import (
    creation_replaced,
    declared_dtype,
    initialize,
    initializer_of,
    set_initializer,
    values_deferred_to,
)
from bitwidth.backends.tensorflow.internals.types import ModelVariable
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.errors import ModelError
from bitwidth.typing import Model

MAX_VARIABLES = 1 << 18
MAX_ELEMENTS = 1 << 31  # of all variables together
_SMALL = 1 << 24  # elements of what may take memory before its time: a stand-in, a variable beside the model
_LOCK = threading.RLock()


@final
class Pending(list[Any]):
    """The variables that wait for values. Each is refused, when it is created, if it is one too many or too large."""

    elements = 0

    @override
    def append(self, variable: ModelVariable) -> None:
        """Called by Keras with each variable that is created.

        Raises:
            ModelError: the variables are more, or larger together, than a model may have.
        """
        self.elements += prod(variable.shape)
        if len(self) >= MAX_VARIABLES or self.elements > MAX_ELEMENTS:
            raise ModelError(
                f"more than {MAX_VARIABLES:,} variables or {MAX_ELEMENTS:,} values: "
                f"{variable.path} has shape {tuple(variable.shape)}"
            )
        set_initializer(variable, _StandIn(initializer_of(variable)))
        super().append(variable)


@final
class _StandIn:
    """What a layer reads while it is built, in the place of a value: nothing is drawn."""

    def __init__(self, initializer: Callable[..., Any]) -> None:
        self.initializer = initializer

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if isinstance(self.initializer, _Given):
            return self.initializer(shape, dtype)
        if tf.executing_eagerly() and prod(shape) > _SMALL:
            raise ModelError(f"a layer reads a variable of shape {tuple(shape)} before it has a value")
        return tf.zeros(shape, dtype)


@final
class _Given:
    """The value that a variable was created with, where that was no initializer."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return tf.cast(self.value, dtype) if dtype else self.value


@contextmanager
def deferred() -> Iterator[Pending]:
    """Variables that Keras creates within this context, in this thread, have no values until `give_value`."""
    pending = Pending()
    with _values_taken_in(), values_deferred_to(pending):
        yield pending


@contextmanager
def _values_taken_in() -> Iterator[None]:
    """Let variables be created with values too (states of recurrent layers), which a StatelessScope refuses."""
    thread = threading.get_ident()

    def replace(original: Callable[..., None]) -> Callable[..., None]:
        def create(
            self: Any, initializer: Any, shape: Any = None, dtype: Any = None, *args: Any, **kwargs: Any
        ) -> None:
            if threading.get_ident() == thread and not callable(initializer) and not isinstance(initializer, str):
                value = keras.ops.convert_to_tensor(initializer, dtype=dtype)
                initializer, shape, dtype = _Given(value), value.shape, dtype or value.dtype
            original(self, initializer, shape, dtype, *args, **kwargs)

        return create

    with _LOCK, creation_replaced(replace):
        yield


def has_value(variable: ModelVariable) -> bool:
    """Whether a variable has a value."""
    return tf_variable(variable) is not None


def give_value(variable: ModelVariable, value: Any) -> None:
    """Give a variable its value; one that waits for its first has it from then on.

    Args:
        variable: a Keras variable.
        value: array or tensor of its shape; cast to its dtype.
    """
    if has_value(variable):
        variable.assign(value)
        return
    with tf.init_scope():
        initialize(variable, keras.ops.convert_to_tensor(value, dtype=declared_dtype(variable)))


def finish(pending: Pending, model: Model) -> None:
    """Give their first values to variables beside the model: states of recurrent layers, and of seeds of initializers.

    Raises:
        ModelError: one of them is too large for that.
    """
    own = {id(variable) for variable in model.variables}
    for variable in pending:
        if id(variable) in own or has_value(variable):
            continue
        if prod(variable.shape) > _SMALL:
            raise ModelError(f"{variable.path} of shape {tuple(variable.shape)} is not a variable of the model")
        give_value(variable, _first_value(variable))


def _first_value(variable: ModelVariable) -> Any:
    """Zeros, unless the variable was created with a value, or is the state of a seed, which is not drawn either."""
    initializer = initializer_of(variable).initializer
    dtype = declared_dtype(variable)
    if isinstance(initializer, _Given) or ("int" in dtype and tuple(variable.shape) == (2,)):
        return initializer(variable.shape, dtype=dtype)
    return tf.zeros(variable.shape, dtype)
