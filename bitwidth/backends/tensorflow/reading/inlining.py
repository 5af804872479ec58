"""Inlining: models with a `tf.function` around a call, and what such a function keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.graphs import FUNCTION, forget_trace, untraced
from bitwidth.backends.tensorflow.internals.types import KerasLayer


@contextmanager
def inline_functions() -> Iterator[None]:
    """Within this context a `tf.function` runs as the plain function that it decorates.

    A layer that is first called on symbolic tensors inside a `tf.function` makes its variables there, and what the
    function keeps as its graph computes with their initial values in place of them: later calls would use that graph.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def forget_traces(layer: KerasLayer) -> None:
    """Let each `tf.function` among the methods of a layer be traced again: what it has traced reads as it did then."""
    for cls in type(layer).__mro__:
        for value in vars(cls).values():
            if isinstance(value, FUNCTION):
                forget_trace(value, layer)
    for name, value in list(vars(layer).items()):
        if isinstance(value, FUNCTION):
            layer.__dict__[name] = untraced(value)
