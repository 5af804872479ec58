"""What is checked about a model and its data: before any work starts, and when training has ended."""

from __future__ import annotations

import keras
import numpy as np

from bitwidth.backend import Training
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.backends.tensorflow.internals.layers import is_quantized
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.naming import Names, names_of
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import ConfigError, DataError, ModelError, UnsupportedModelError
from bitwidth.text import quoted
from bitwidth.typing import Array, Model

_SHOWN = 3  # how many names a message lists


def check_model(model: Model) -> Names:
    """Raise unless `model` is a built Keras 3 model on TensorFlow with finite, not yet quantized variables.

    Args:
        model: what the user passed as a model.

    Raises:
        UnsupportedModelError: another framework or Keras backend, quantized by Keras, or with LoRA enabled.
        ModelError: not built, without variables, or holding NaN or infinite values.
    """
    _check_framework(model)
    if not model.built:
        raise ModelError(
            f"the model {model.name!r} is not built, so it has no variables yet; "
            "call it on a batch of data once, or call model.build(input_shape)"
        )
    names = names_of(model)
    if not names.variables:
        unbuilt = [path for path, layer, _ in names.layers if not layer.built]
        raise ModelError(
            f"the model {model.name!r} has no variables, so there is nothing to compress"
            + (f"; not built: {_listed(unbuilt)}; call the model on a batch of data once" if unbuilt else "")
        )
    for path, layer, _ in [("", model, ""), *names.layers]:
        _check_layer(path or model.name, layer)
    _check_finite(names)
    return names


def check_apart(model: Model, trace: FuncTrace) -> None:
    """Refuse a model whose copy still reads the user's variables.

    Raises:
        UnsupportedModelError: naming the variable.
    """
    captured = {id(outer) for outer, _ in trace.frame.graph.captures}
    shared = [variable.path for variable in model.variables if id(tf_variable(variable).handle) in captured]
    if shared:
        raise UnsupportedModelError(
            f"{model.name!r} cannot be copied: something in it holds on to {shared[0]} (a global, or an object that is "
            "neither a layer nor a container); keep layers and variables in attributes, lists or dicts"
        )


def _check_framework(model: Model) -> None:
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    homes = {base.__module__ for base in type(model).__mro__}
    if any(home.split(".")[0] == "torch" for home in homes):
        raise UnsupportedModelError(
            f"expected a Keras 3 model, got the PyTorch module {kind}; only Keras 3 is supported"
        )
    if not isinstance(model, keras.Model):
        if any(home.split(".")[0] == "tf_keras" or home.startswith("keras.engine") for home in homes):
            raise UnsupportedModelError(
                f"expected a Keras 3 model, got {kind}, a model of Keras 2 (tf_keras); build it with `import keras` "
                "(Keras 3), or save it as .keras there and load that with keras.models.load_model, "
                "and unset TF_USE_LEGACY_KERAS"
            )
        if isinstance(model, keras.Layer):
            raise UnsupportedModelError(f"expected a keras.Model, got the layer {kind}; put it in a keras.Sequential")
        raise UnsupportedModelError(f"expected a built Keras 3 model (keras.Model), got {kind}")
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            f"Keras runs on the {keras.backend.backend()!r} backend, but only TensorFlow is supported; "
            "set the environment variable KERAS_BACKEND=tensorflow before importing keras"
        )


def _check_layer(path: str, layer: KerasLayer) -> None:
    mode = getattr(layer, "quantization_mode", None)
    if mode or is_quantized(layer):
        raise UnsupportedModelError(
            f"{path}: Keras has already quantized this layer ({mode or 'model.quantize'}); "
            "pass the model as it was before model.quantize"
        )
    if getattr(layer, "lora_enabled", False):
        raise UnsupportedModelError(
            f"{path}: LoRA is enabled on this layer; merge it first: save the model, rebuild it without enable_lora "
            "and load the file's weights (saving merges LoRA into the kernel)"
        )


def _check_finite(names: Names) -> None:
    bad: list[str] = []
    for path, variable, _ in names.variables:
        if "float" not in variable.dtype:
            continue
        values = np.asarray(tf_variable(variable).numpy())
        if count := values.size - int(np.isfinite(values).sum()):
            bad.append(f"{path} ({count} of {values.size} values)")
    if bad:
        raise ModelError(
            f"the model has values that are NaN or infinite: {_listed(bad)}; train it again or restore a checkpoint"
        )


def _listed(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_callbacks(training: Training) -> None:
    """Raise ConfigError unless the callbacks are Keras's, and such as a pass that steers the training can live with."""
    for place, callback in enumerate(training.callbacks):
        if not isinstance(callback, keras.callbacks.Callback):
            hint = "; it is a class: call it" if isinstance(callback, type) else ""
            raise ConfigError(
                f"callbacks[{place}]: callbacks must be Keras callbacks (keras.callbacks.Callback), "
                f"got {quoted(callback)}{hint}"
            )
        if training.settled and isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ConfigError(
                "BackupAndRestore puts back weights of another strength than the ramp has then: leave it out of the "
                "ramp, and give it to a Finetune after the ramp"
            )


def need_targets(source: Source) -> None:
    """Raise DataError unless the data has targets."""
    if not source.has_targets:
        raise DataError(f"{source.name} has no targets: give (inputs, targets)")


def _numbers(array: Array) -> Array:
    """`array` in a dtype that numpy can test: the floats of other packages as float32."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array
