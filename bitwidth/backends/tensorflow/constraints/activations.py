"""Activations on grids: a layer takes its inputs through fake quantization, in training and in inference.

The layer object gets a `call` of its own that rounds the floating point inputs first; its class, its configuration and
its variables stay unchanged. Gradients pass straight through inside the range of the grid and stop outside of it
(Jacob et al. 2018, "Quantization and Training of Neural Networks", section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backend import LayerInputs
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.reading.naming import Names, names_of
from bitwidth.encodings import Encoding
from bitwidth.errors import ModelError
from bitwidth.typing import Model

Inputs = tuple[Encoding | None, ...]


@final
class QuantizedCall:
    """The `call` of a layer, behind fake quantization of its inputs.

    Attributes:
        call: the layer's own.
        inputs: how each input is held, in the order of the flattened arguments; None for no encoding.
    """

    def __init__(self, call: Any, inputs: Inputs) -> None:
        self.call, self.inputs = call, inputs

    def __call__(self, *args: Any, **kwargs: Any) -> TFTensor:
        """Call the layer on rounded inputs."""
        leaves = keras.tree.flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if is_tensor(leaf)]
        for place, encoding in zip(places, self.inputs, strict=False):
            if encoding is not None:
                leaves[place] = fake_quantized(leaves[place], encoding)
        args, kwargs = keras.tree.pack_sequence_as((args, kwargs), leaves)
        return self.call(*args, **kwargs)


def is_tensor(leaf: TFTensor) -> bool:
    """Whether an argument of a call is a tensor, as the trace counts them: a variable that is handed over is none.

    A stateful recurrent layer calls its cell on its state variables once, outside of the loop over the steps.
    """
    if isinstance(leaf, keras.Variable):
        return False
    return tf.is_tensor(leaf) or isinstance(leaf, keras.KerasTensor)


def fake_quantized(x: TFTensor, encoding: Encoding) -> TFTensor:
    """`encoding.project(x)` of a float tensor of any shape, in its dtype; what is no float tensor stays unchanged."""
    grid = encoding.grid
    if grid is None or not grid.levels.is_integer:
        raise ModelError(f"activations are held on integer grids, not as {encoding.describe()}")
    if isinstance(x, keras.KerasTensor) or not x.dtype.is_floating:
        return x
    if isinstance(x, tf.SparseTensor):  # zero is on every grid of activations
        return x.with_values(fake_quantized(x.values, encoding))
    if isinstance(x, tf.RaggedTensor):
        return x.with_flat_values(fake_quantized(x.flat_values, encoding))
    low, high = grid.levels.bounds
    zero = 0 if grid.zero_point is None else int(grid.zero_point)
    scale, reciprocal = float(grid.scale), float(grid.reciprocal)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rounded(value: TFTensor) -> tuple[TFTensor, TFTensor]:
        wide = tf.cast(value, tf.float32) * reciprocal
        level = tf.clip_by_value(tf.round(wide), float(low - zero), float(high - zero))

        def gradient(upstream: TFTensor) -> TFTensor:
            inside = (wide >= low - zero - 0.5) & (wide <= high - zero + 0.5)
            return tf.where(inside, upstream, tf.zeros_like(upstream))

        return tf.cast(level * scale, value.dtype), gradient

    return rounded(x)


def on_grids(activations: Mapping[str, Encoding]) -> dict[str, Callable[[TFTensor], TFTensor]]:
    """What is used in the place of tensors that are held on grids, by their names: for the replay of a trace."""
    return {name: partial(fake_quantized, encoding=encoding) for name, encoding in activations.items()}


def attach(model: Model, inputs: LayerInputs, names: Names | None = None) -> bool:
    """Let layers take their inputs through grids, by path; all other layers take theirs unchanged.

    Returns:
        Whether anything has changed.

    Raises:
        ModelError: the model has no layer of that path.
    """
    layers = {path: layer for path, layer, _ in (names or names_of(model)).layers}
    missing = sorted(set(inputs) - set(layers))
    if missing:
        raise ModelError(f"no layer {missing[0]!r}, whose inputs are to be held on a grid")
    changed = False
    for path, layer in layers.items():
        call = layer.__dict__.get("call")
        if isinstance(call, QuantizedCall):
            if inputs.get(path) == call.inputs:
                continue
            del layer.__dict__["call"]
            changed = True
        if path in inputs:
            layer.__dict__["call"] = QuantizedCall(layer.call, inputs[path])
            changed = True
    return changed


def attached_to(model: Model, names: Names | None = None) -> LayerInputs:
    """How the layers of a model take their inputs, by path; those that take them unchanged are left out."""
    calls = {path: layer.__dict__.get("call") for path, layer, _ in (names or names_of(model)).layers}
    return {path: call.inputs for path, call in calls.items() if isinstance(call, QuantizedCall)}


def detach(model: Model, names: Names | None = None) -> None:
    """Let every layer take its inputs unchanged."""
    attach(model, {}, names)
