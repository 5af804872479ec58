"""Variables whose values Keras defers: the list of those that wait, and how one gets its first value.

Keras defers the values of variables that are created within a `keras.StatelessScope` and lists them as pending.

All of it since Keras 3.5 (`StatelessScope(initialize_variables=False)`); tried with 3.12 and 3.15.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import Variable as VariableBase

_PENDING = "uninitialized_variables"
_SEEDS = "global_seed_generator"  # made when something first draws without a seed of its own


@contextmanager
def values_deferred_to(pending: list[keras.Variable]) -> Iterator[None]:
    """Within this context, in this thread, variables are created without values, and appended to `pending`."""
    outer = {name: global_state.get_global_attribute(name) for name in (_PENDING, _SEEDS)}
    global_state.set_global_attribute(_PENDING, pending)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        for name, value in outer.items():
            global_state.set_global_attribute(name, value)


@contextmanager
def creation_replaced(replace: Callable[[Callable[..., None]], Callable[..., None]]) -> Iterator[None]:
    """Within this context variables are created by what `replace` makes of `Variable.__init__`, in all threads."""
    original = VariableBase.__init__
    VariableBase.__init__ = replace(original)
    try:
        yield
    finally:
        VariableBase.__init__ = original


def initializer_of(variable: keras.Variable) -> Any:
    """What a variable that waits will take its first value from."""
    return variable._initializer


def set_initializer(variable: keras.Variable, initializer: Callable[..., tf.Tensor]) -> None:
    """Let a variable that waits take its first value from `initializer`."""
    variable._initializer = initializer


def declared_dtype(variable: keras.Variable) -> str:
    """The dtype that a variable was created with, in whatever precision the layer around computes."""
    return str(variable._dtype)


def initialize(variable: keras.Variable, value: tf.Tensor) -> None:
    """Give a variable that waits its first value; it waits no more."""
    variable._initialize(value)
    variable._initializer = None
