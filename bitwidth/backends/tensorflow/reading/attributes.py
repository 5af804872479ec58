"""Attributes of a TensorFlow operation as plain data: numbers, strings, tuples."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFOperation
from bitwidth.backends.tensorflow.reading.kinds import given_attributes

_LARGEST_CONSTANT = 64  # elements: axes, permutations and shapes are told, tables are not
_LEFT_OUT = ("T", "Tidx", "Tshape", "output_shapes", "adj_x", "adj_y")


def plain_attributes(op: TFOperation) -> tuple[tuple[str, Any], ...]:
    """The attributes of `op` by name, as its kind has them and without TensorFlow's private ones.

    A small constant has its `value` as a number, string or nested list, and one of the same number in all places has
    that as `fill`; dtypes are numpy names, shapes tuples with None for unknown sizes.
    """
    found: dict[str, Any] = {}
    for name, value in sorted(op.node_def.attr.items()):
        if name.startswith("_") or name == "value" or name in _LEFT_OUT:
            continue
        read = _plain(value)
        if read is not None:
            found[name] = read
    if op.type == "Const":
        found |= _constant(tf.get_static_value(op.outputs[0]))
    return tuple({**found, **given_attributes(op)}.items())


def dtype_name(dtype: Any) -> str:
    """Numpy's name of a TensorFlow dtype (`"string"`, `"resource"` and `"variant"` unchanged)."""
    return str(dtype.name).removesuffix("_ref")


def sizes(shape: Any) -> tuple[int | None, ...] | None:
    """A TensorFlow shape as a tuple, None where even the rank is unknown."""
    return None if shape.rank is None else tuple(shape.as_list())


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "s":
        return _text(value.s)
    if kind in ("i", "f", "b"):
        return getattr(value, kind)
    if kind == "type":
        return dtype_name(tf.as_dtype(value.type))
    if kind == "shape":
        return sizes(tf.TensorShape(value.shape))
    if kind == "list":
        items = value.list
        return (
            *(_text(item) for item in items.s),
            *items.i,
            *items.f,
            *items.b,
            *(dtype_name(tf.as_dtype(item)) for item in items.type),
            *(sizes(tf.TensorShape(item)) for item in items.shape),
        )
    return None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _constant(value: Any) -> dict[str, Any]:
    found = {"value": _listed(value)} if np.size(value) <= _LARGEST_CONSTANT else {}
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "fiub" and (value == value.flat[0]).all():
        found["fill"] = value.flat[0].item()
    return found


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value
