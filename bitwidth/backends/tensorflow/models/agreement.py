"""Whether two models compute the same: outputs on inputs that are drawn for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import product
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.layers import layers_of
from bitwidth.errors import ModelError
from bitwidth.text import brief
from bitwidth.typing import Array, Model, Nest

_SAMPLES = 4  # of the first axis, where the model leaves it open
_LENGTHS = (12, 6, 3, 1)  # of others; a table of positions may be shorter
_NEAR = {"float64": 1e-8, "float32": 1e-5}  # of models that compute in the type
HIDDEN_SIZES = "the model computes with sizes that its layers do not show"
HIDDEN_KERNELS = "the model computes with kernels otherwise than its layers show, or rounding makes that much"
_COARSE = 2e-2  # of models that compute in 16 bits


def tried(model: Model, specs: Nest, rows: Iterable[int]) -> tuple[Nest, list[Array]]:
    """Inputs for a model, and its outputs: normal numbers, integers below the rows of a table, one word.

    Taken are the table with the most rows, and of a few lengths for axes that are open the greatest, with which the
    model runs.

    Args:
        model: it is called.
        specs: nest of `tf.TensorSpec`.
        rows: how many rows each table has in which integers may be looked up.

    Raises:
        ModelError: the model runs with none of them, or takes ragged inputs.
    """
    reason = ""
    for below, length in product(sorted({2, *rows}, reverse=True), _LENGTHS):
        inputs = _drawn(specs, below, length)
        try:
            with keras.StatelessScope():
                return inputs, outputs_of(model, inputs)
        except Exception as error:  # a user's call raises anything
            reason = reason or brief(error)
    raise ModelError(f"the model {model.name!r} cannot be compared with another: it fails on random inputs: {reason}")


def _drawn(specs: Nest, below: int, length: int) -> Nest:
    rng = np.random.default_rng(0)

    def drawn(spec: Any) -> Any:
        if isinstance(spec, tf.RaggedTensorSpec):
            raise ModelError("the model cannot be compared with another: it takes ragged inputs")
        sizes = [(length if place else _SAMPLES) if n is None else n for place, n in enumerate(spec.shape.as_list())]
        if spec.dtype.is_floating:
            return tf.constant(rng.standard_normal(sizes), spec.dtype)
        if spec.dtype == tf.string:
            return tf.constant(np.full(sizes, "a"))
        return tf.cast(tf.constant(rng.integers(0, max(below, 1), sizes)), spec.dtype)

    return keras.tree.map_structure(drawn, specs)


def outputs_of(model: Model, inputs: Nest, training: bool = False) -> list[Array]:
    """What a model gives in inference, or in training, flat."""
    with tf.device("CPU:0"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about masks and the like, as when the model was built
        found = model(inputs, training=training)
    return [np.asarray(keras.ops.convert_to_numpy(output)) for output in keras.tree.flatten(found)]


def tolerance(model: Model) -> float:
    """How far outputs of two models may be apart that compute the same: 1e-5 where all layers compute in float32."""
    dtypes = {keras.backend.standardize_dtype(layer.compute_dtype) for layer in layers_of(model)}
    return max(_NEAR.get(dtype, _COARSE) for dtype in dtypes)


def check_same(
    expected: list[Array], found: list[Array], near: float, name: str = "the cut model", why: str = HIDDEN_SIZES
) -> None:
    """Raise unless two models computed the same.

    Args:
        expected: outputs of the one.
        found: outputs of the other.
        near: the most that the root mean square of their difference may be, as a share of that of the outputs;
            infinity where they are to be finite and of the same shapes only.
        name: of the other model, for the message.
        why: they may differ.

    Raises:
        ModelError: they did not.
    """
    for place, (one, two) in enumerate(zip(expected, found, strict=True)):
        if one.shape != two.shape:
            raise ModelError(f"output {place} of {name} has the shape {two.shape}, not {one.shape}")
        if one.dtype.kind not in "fV" or not one.size:
            continue
        first, second = one.astype(np.float64), two.astype(np.float64)
        scale, apart = float(np.sqrt(np.mean(first**2))), float(np.sqrt(np.mean((first - second) ** 2)))
        if not np.isfinite(apart) or apart > near * max(scale, 1e-30):
            raise ModelError(
                f"output {place} of {name} differs from that of the model before by {apart:.2g}, at a root mean "
                f"square of {scale:.2g}: {why}"
            )
