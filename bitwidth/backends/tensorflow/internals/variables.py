"""Keras variables: the TensorFlow variable beneath, and what optimizers know them by."""

from __future__ import annotations

from collections.abc import Hashable

import keras
import tensorflow as tf


def tf_variable(variable: keras.Variable | tf.Variable) -> tf.Variable:
    """The `tf.Variable` beneath a Keras variable, None before it has a value; a `tf.Variable` is its own.

    Since Keras 3.0 (`Variable._value`).
    """
    return getattr(variable, "_value", variable)


def optimizer_key(variable: keras.Variable) -> Hashable:
    """What an optimizer knows a variable by in its exclusions from weight decay.

    Since Keras 3.0 (`Variable._value`) and TensorFlow 2.0 (`Variable._unique_id`).
    """
    key: Hashable = tf_variable(variable)._unique_id
    return key


def autocast(variable: keras.Variable, value: tf.Tensor) -> tf.Tensor:
    """A value as layers read it from a variable: in the dtype that the layer around computes in.

    Since Keras 3.0 (`Variable._maybe_autocast`).
    """
    return variable._maybe_autocast(value)
