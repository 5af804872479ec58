"""Masks that Keras hands on from tensor to tensor, as arguments of calls: between operations they would be lost.

A composite that supports masking puts the mask of its input on its output. Once it is inlined nothing does that, so
what takes a mask is given it by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from bitwidth.backends.tensorflow.internals.symbolic import mask_of, set_mask
from bitwidth.backends.tensorflow.internals.types import KerasLayer, TFTensor
from bitwidth.typing import Nest

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def with_masks(layer: KerasLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, with the masks that Keras would find on its tensors."""
    given = dict(kwargs)
    try:
        signature = inspect.signature(layer.call)
        bound = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):  # Keras will say what is wrong
        return given
    tensors = {name: value for name, value in bound.items() if _is_symbolic(value)}
    masks = {name: keras.tree.map_structure(mask_of, value) for name, value in tensors.items()}
    found = {name: mask for name, mask in masks.items() if any(m is not None for m in keras.tree.flatten(mask))}
    if isinstance(layer, _ATTENTION):
        return _attended(found, bound.get("attention_mask"), given)
    for name, mask in found.items():
        wanted = "mask" if len(tensors) == 1 else f"{name}_mask"
        if wanted in signature.parameters and bound.get(wanted) is None:
            given[wanted] = mask
    return given


def _attended(masks: Mapping[str, TFTensor], told: TFTensor, given: dict[str, Any]) -> dict[str, Any]:
    """What may attend to what, as these layers find it; they look for the mask of queries on the tensor itself."""
    for name, axis in (("query", -1), ("value", -2), ("key", -2)):
        if name in masks:
            mask = keras.ops.expand_dims(masks[name], axis)
            told = mask if told is None else keras.ops.logical_and(told, mask)
    return given if told is None else {**given, "attention_mask": told}


def forget_masks(layer: KerasLayer, arguments: Nest) -> None:
    """Take the masks off what an attention was called on, as it does when it runs."""
    if isinstance(layer, keras.layers.MultiHeadAttention):
        for leaf in keras.tree.flatten(arguments):
            if isinstance(leaf, keras.KerasTensor):
                set_mask(leaf, None)


def _is_symbolic(value: Nest) -> bool:
    return any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(value))


def carrying(tensor: TFTensor, mask: TFTensor) -> TFTensor:
    """A tensor with a mask on it, from a model that does nothing else: no layer of Keras does.

    Keras warns about such a model when it is called, that it would destroy the mask. It does not.
    """
    inner = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name="inputs")
    policy = tensor.dtype if "float" in tensor.dtype else None
    model = keras.Model(inner, keras.layers.Identity(dtype=policy, name="masked")(inner), name="mask")
    return model(tensor, mask=mask)
