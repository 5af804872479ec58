"""Names for objects of TensorFlow and Keras, which bring no types."""

from __future__ import annotations

from typing import Any, TypeAlias

KerasLayer: TypeAlias = Any
"""A `keras.Layer`."""

ModelVariable: TypeAlias = Any
"""A `keras.Variable`."""

TFTensor: TypeAlias = Any
"""A tensor of TensorFlow, eager or symbolic: dense, sparse or ragged."""

TFOperation: TypeAlias = Any
"""A `tf.Operation`."""

KerasOptimizer: TypeAlias = Any
"""A `keras.optimizers.Optimizer`."""

KerasCallback: TypeAlias = Any
"""A `keras.callbacks.Callback`."""
