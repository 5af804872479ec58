"""The shapes and dtypes that a model is traced with: from the model itself, or from a batch of its inputs."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.layers import build_shapes, declared_inputs
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.errors import ModelError
from bitwidth.typing import Model, Nest


def input_specs(model: Model, example: Nest = None) -> Nest:
    """The nest of `tf.TensorSpec` that `model` is called with.

    Sizes are None where the model declares None; the batch size is None for a model that declares nothing. A
    subclassed model remembers the shapes it was built with but not the dtypes: they are floating point here unless
    `example` says more.

    Args:
        model: a built model.
        example: inputs of the model (a batch, as a nest of arrays or tensors); needed where the model does not know
            its own.

    Raises:
        ModelError: the model does not know its inputs, and `example` is None.
    """
    if (declared := declared_inputs(model)) is not None:
        return keras.tree.map_structure(_declared, declared)
    if example is not None:
        return keras.tree.map_structure(_given, example)
    shapes = build_shapes(model)
    if len(shapes) == 1:
        return _from_shapes(next(iter(shapes.values())), model.input_dtype)
    spec = keras.tree.flatten(model.input_spec)[0] if model.input_spec is not None else None
    if spec is not None and spec.shape is not None:
        return tf.TensorSpec((None, *spec.shape[1:]), spec.dtype or model.input_dtype)
    raise ModelError(missing(model))


def missing(model: Model) -> str:
    """The message for a model whose inputs are not known."""
    return (
        f"the inputs of the subclassed model {model.name!r} are not known: pass data= (a batch of its inputs, all in "
        "the first argument of its call, as one array, list or dict), or build the model from keras.Input"
    )


def retyped(specs: Nest, dtype: str, leaves: set[int] | None = None) -> Nest:
    """`specs` with the dtype of some leaves (by their place in the flattened nest; None: all) exchanged."""
    flat = keras.tree.flatten(specs)
    changed = [_retyped(spec, dtype) if leaves is None or place in leaves else spec for place, spec in enumerate(flat)]
    return keras.tree.pack_sequence_as(specs, changed)


def _retyped(spec: Nest, dtype: str) -> Nest:
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensorSpec(spec.shape, dtype, spec.ragged_rank)
    return tf.TensorSpec(spec.shape, dtype)


def _declared(tensor: TFTensor) -> Nest:
    """The spec of a declared input. One that may be sparse is traced, and given data, as a dense one: see `rows`."""
    if getattr(tensor, "ragged", False):
        return tf.RaggedTensorSpec(tensor.shape, tensor.dtype, tensor.ragged_rank or 1)
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _given(array: Nest) -> Nest:
    if isinstance(array, tf.RaggedTensor):
        inner = array.flat_values.shape[1:]
        return tf.RaggedTensorSpec([None] * (1 + array.ragged_rank) + inner, array.dtype, array.ragged_rank)
    if isinstance(array, tf.SparseTensor):
        return tf.type_spec_from_value(array)
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        array = np.asarray(array)
    kind = getattr(array.dtype, "kind", "")
    dtype = tf.string if kind in "OUS" and kind else tf.as_dtype(array.dtype)
    if dtype == tf.float64:  # as Keras does with numpy's default dtype
        dtype = tf.as_dtype(keras.config.floatx())
    return tf.TensorSpec((None, *array.shape[1:]), dtype)


def _from_shapes(shapes: Nest, dtype: str) -> Nest:
    """Specs from what Keras recorded when it built the model: a shape, or a list or dict of shapes."""
    if isinstance(shapes, dict):
        return {name: _from_shapes(inner, dtype) for name, inner in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec((None, *shapes[1:]), dtype)
    return type(shapes)(_from_shapes(inner, dtype) for inner in shapes)
