"""A model's architecture as plain data, and back. Never code: a configuration that carries code is refused."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from bitwidth.backend import Architecture, LayerInputs
from bitwidth.backends.tensorflow.activations import attach
from bitwidth.backends.tensorflow.inlining import inline_functions
from bitwidth.backends.tensorflow.naming import names_of
from bitwidth.backends.tensorflow.promises import keep_promises
from bitwidth.errors import ModelError
from bitwidth.tensors import Encoding
from bitwidth.text import brief


def architecture_of(model: Any, specs: Any) -> Architecture:
    """The architecture of a built model.

    Args:
        model: the model.
        specs: nest of `tf.TensorSpec` of its inputs.
    """
    config, reason = _config(model)
    if config is not None:
        reason = _not_rebuilt(config, _inputs(specs), model)
        config = None if reason else config
    variables = [[v.name, [int(n) for n in v.shape], str(v.dtype)] for v in model.variables]
    layers = [path for path, _, _ in names_of(model).layers]
    return Architecture("keras", config, reason, _inputs(specs), variables, _assets(model), layers)


def build_model(
    architecture: Architecture,
    values: list[NDArray[Any]],
    encodings: Mapping[int, Encoding],
    inputs: LayerInputs,
    custom_objects: Mapping[str, Any] | None = None,
    model: Any = None,
) -> Any:
    """See `Backend.build`."""
    if model is None:
        if architecture.config is None:
            raise ModelError(
                f"the file holds no architecture ({architecture.reason}): build the model and pass it as `model=`"
            )
        model = _rebuild(architecture.config, architecture.inputs, custom_objects)
    _check_variables(model, architecture)
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
    _load_assets(model, architecture.assets)
    finalize(model)
    attach(model, _by_present_names(model, inputs, architecture.layers))
    keep_promises(model, encodings)
    return model


def _by_present_names(model: Any, inputs: LayerInputs, layers: Sequence[str]) -> LayerInputs:
    """`inputs` by the paths that layers have in `model`: a name that Keras made up, or a configuration left out, is

    another one in each model. Layers count by their place; where there are more or fewer of them, by name.
    """
    here = [path for path, _, _ in names_of(model).layers]
    present = dict(zip(layers, here, strict=True)) if len(layers) == len(here) else {}
    return {present.get(path, path): held for path, held in inputs.items()}


def finalize(model: Any) -> None:
    """Let layers that compute with constants made of their variables (Normalization) make them anew."""
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _config(model: Any) -> tuple[Any, str]:
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        config = json.loads(json.dumps(config))
    except Exception as error:  # a user's get_config may raise anything
        return None, f"{type(model).__name__} has no configuration: {brief(error)}"
    found = next(_lambdas(config), None)
    if found is not None:
        return None, f"its configuration carries Python code ({found}), which a file must not hold"
    return config, ""


def _lambdas(config: Any, name: str = "a lambda") -> Iterator[str]:
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            yield name
        inner = config.get("config")
        named = f"layer {inner['name']!r}" if isinstance(inner, dict) and "name" in inner else name
        for value in config.values():
            yield from _lambdas(value, named)
    elif isinstance(config, list):
        for value in config:
            yield from _lambdas(value, name)


def _not_rebuilt(config: Any, inputs: Any, model: Any) -> str:
    """Why a model cannot be built from its own configuration; empty where it can."""
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    custom = {name: cls for name, cls in classes.items() if not cls.__module__.startswith("keras.")}
    try:
        rebuilt = _rebuild(config, inputs, custom)
    except ModelError as error:
        return str(error)
    if [tuple(v.shape) for v in rebuilt.variables] != [tuple(v.shape) for v in model.variables]:
        return "a model built from its configuration has other variables"
    return ""


def _rebuild(config: Any, inputs: Any, custom_objects: Mapping[str, Any] | None) -> Any:
    config = json.loads(json.dumps(config))  # Keras takes things out of the configuration that it reads
    # Initializers without a seed, and constructors, draw from these for values that are replaced.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with inline_functions():
            model = keras.saving.deserialize_keras_object(
                config, custom_objects=dict(custom_objects or {}), safe_mode=True
            )
            if not model.built or not model.variables:
                model(_skeleton(inputs))
    except Exception as error:  # a user's from_config or call may raise anything
        raise ModelError(f"the model cannot be built from its configuration: {brief(error)}") from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    return model


def _check_variables(model: Any, architecture: Architecture) -> None:
    expected = [(name, tuple(shape)) for name, shape, _ in architecture.variables]
    found = [(variable.name, tuple(int(n) for n in variable.shape)) for variable in model.variables]
    if len(expected) != len(found):
        raise ModelError(f"the file holds {len(expected)} variables, the model {model.name!r} has {len(found)}")
    for position, (there, here) in enumerate(zip(expected, found, strict=True)):
        if there[1] != here[1]:
            raise ModelError(
                f"variable {position} of {model.name!r} is {here[0]} of shape {here[1]}; "
                f"the file holds {there[0]} of shape {there[1]}"
            )


def _inputs(specs: Any) -> Any:
    if isinstance(specs, dict):
        return {"dict": {key: _inputs(value) for key, value in specs.items()}}
    if isinstance(specs, list | tuple):
        return {"list": [_inputs(value) for value in specs]}
    return {"shape": list(specs.shape), "dtype": specs.dtype.name}


def _skeleton(inputs: Any) -> Any:
    if "dict" in inputs:
        return {key: _skeleton(value) for key, value in inputs["dict"].items()}
    if "list" in inputs:
        return [_skeleton(value) for value in inputs["list"]]
    return keras.KerasTensor(inputs["shape"], inputs["dtype"])


def _asset_owners(model: Any) -> Iterator[tuple[int, Any]]:
    inner: set[int] = set()
    for index, layer in enumerate(model._flatten_layers()):
        if hasattr(layer, "save_assets") and id(layer) not in inner:
            inner |= {id(part) for part in layer._flatten_layers(include_self=False)}
            yield index, layer


def _assets(model: Any) -> dict[str, bytes]:
    assets = {}
    for index, layer in _asset_owners(model):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    assets[f"{index}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return assets


def _load_assets(model: Any, assets: Mapping[str, bytes]) -> None:
    for index, layer in _asset_owners(model):
        mine = {name.partition("/")[2]: data for name, data in assets.items() if name.partition("/")[0] == str(index)}
        if not mine:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for name, data in mine.items():
                path = Path(folder, name)
                if not path.resolve().is_relative_to(Path(folder).resolve()):
                    raise ModelError(f"the file names an asset outside its folder: {name!r}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            layer.load_assets(folder)
