"""A model's architecture as plain data, and back. Never code: a configuration that carries code is refused."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bitwidth.artifact import Architecture
from bitwidth.backend import LayerInputs, Stored
from bitwidth.backends.tensorflow.constraints.activations import attach, attached_to
from bitwidth.backends.tensorflow.internals.layers import declared_inputs, flat_inputs, layers_of
from bitwidth.backends.tensorflow.models.allowed import Kind
from bitwidth.backends.tensorflow.models.assets import assets_of, check_assets, load_assets
from bitwidth.backends.tensorflow.models.configuration import Configuration
from bitwidth.backends.tensorflow.models.deferred import deferred, finish, give_value
from bitwidth.backends.tensorflow.models.plain_data import NotAllowedError, a_dtype, sizes
from bitwidth.backends.tensorflow.models.promises import inputs_kept, keep_promises, kept_promises
from bitwidth.backends.tensorflow.reading.inlining import inline_functions
from bitwidth.backends.tensorflow.reading.naming import Names, names_of
from bitwidth.backends.tensorflow.reading.specs import input_specs
from bitwidth.encodings import Encoding
from bitwidth.errors import BitwidthError, ModelError, UnsafeFileError
from bitwidth.graph import KeptInputs
from bitwidth.text import brief, quoted
from bitwidth.typing import CustomObjects, Json, Model, Nest


def architecture_of(model: Model, specs: Nest, names: Names) -> Architecture:
    """The architecture of a built model.

    Args:
        model: the model.
        specs: nest of `tf.TensorSpec` of its inputs.
        names: of its layers and variables.
    """
    config, reason = configuration_of(model)
    if config is not None:
        reason = _not_rebuilt(config, specs, model)
        config = None if reason else config
    variables = [[v.name, [int(n) for n in v.shape], str(v.dtype)] for v in model.variables]
    layers, paths = [path for path, _, _ in names.layers], [path for path, _, _ in names.variables]
    return Architecture("keras", config, reason, _inputs(specs), variables, assets_of(model), layers, paths)


def build_model(
    architecture: Architecture,
    stored: Stored,
    inputs: LayerInputs,
    custom_objects: CustomObjects | None = None,
    model: Model = None,
) -> Model:
    """See `Backend.build`."""
    if model is not None:
        return _fill_whole(model, architecture, stored, inputs)
    if architecture.config is None:
        raise ModelError(
            f"the file holds no architecture ({quoted(architecture.reason)}): build the model and pass it as `model=`"
        )
    model = rebuild(architecture.config, architecture.inputs, custom_objects)
    _check_variables(model, architecture)
    _check_paths(model, architecture)
    _check_inputs(model, architecture)
    check_assets(model, architecture.assets)
    _fill(model, architecture, stored, inputs)
    return model


# ---- a model from its configuration


def rebuild(config: Json, inputs: Any, custom_objects: CustomObjects | None = None) -> Model:
    """A model built from a configuration, without values: `give_value` gives them. No initializer runs.

    Args:
        config: what `Architecture.config` holds; untrusted.
        inputs: shapes and dtypes of the inputs, as `Architecture.inputs`; untrusted.
        custom_objects: the caller's classes and functions by name.

    Raises:
        UnsafeFileError: the configuration names what a file may not.
        ModelError: the model cannot be built.
    """
    try:
        read = Configuration(custom_objects).read(config, Kind.LAYER, "the configuration")
        skeleton = _skeleton(inputs)
    except NotAllowedError as error:
        raise UnsafeFileError(str(error)) from error
    with _random_states_kept():
        with inline_functions(), deferred() as pending:
            model = _deserialized(read, skeleton, custom_objects)
        finish(pending, model)
    return model


def _deserialized(config: Json, skeleton: Any, custom_objects: CustomObjects | None) -> Any:
    try:
        model = keras.saving.deserialize_keras_object(config, custom_objects=dict(custom_objects or {}), safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ModelError(f"expected a model, got a {type(model).__name__}")
        if not model.built or not model.variables:
            model(skeleton)
    except Exception as error:  # a user's from_config or call may raise anything
        raise ModelError(f"the model cannot be built from its configuration: {brief(error)}") from error
    return model


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Constructors draw seeds from these for values that are replaced."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def configuration_of(model: Model) -> tuple[Any, str]:
    """The configuration of a model as JSON, without what it was compiled with; None and why where it has none."""
    try:
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    except Exception as error:  # a user's get_config may raise anything
        return None, f"{type(model).__name__} has no configuration: {brief(error)}"
    found = next(_lambdas(config), None)
    if found is not None:
        return None, f"its configuration carries Python code ({found}), which a file must not hold"
    return _uncompiled(config), ""


def _uncompiled(config: Json) -> Any:
    """`config` without what its models were compiled with, nested ones too: a reader builds none of it."""
    if isinstance(config, dict):
        compiled = "class_name" in config and "config" in config
        return {k: _uncompiled(v) for k, v in config.items() if not (compiled and k == "compile_config")}
    return [_uncompiled(part) for part in config] if isinstance(config, list) else config


def _lambdas(config: Json, name: str = "a lambda") -> Iterator[str]:
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


def _not_rebuilt(config: Json, specs: Nest, model: Model) -> str:
    """Why a model cannot be built from its own configuration; empty where it can."""
    try:
        shapes = [tuple(v.shape) for v in built_again(config, specs, model).variables]
    except BitwidthError as error:
        return str(error)
    if shapes != [tuple(v.shape) for v in model.variables]:
        return "a model built from its configuration has other variables"
    return ""


def built_again(config: Json, specs: Nest, model: Model) -> Model:
    """A model of the configuration of another one, or of one that was made from that, with its classes; see `rebuild`.

    Args:
        config: the configuration.
        specs: nest of `tf.TensorSpec` of its inputs.
        model: the other model.
    """
    classes = {type(layer).__name__: type(layer) for layer in layers_of(model)}
    own = {name: cls for name, cls in classes.items() if not cls.__module__.startswith("keras.")}
    return rebuild(config, _inputs(specs), own)


# ---- its values


def _fill(model: Model, architecture: Architecture, stored: Stored, inputs: LayerInputs) -> None:
    """Give a model its values, and all that it needs to be used and compressed further."""
    encodings: dict[int, Encoding] = {}
    for index, (variable, (values, encoding)) in enumerate(zip(model.variables, stored(), strict=True)):
        give_value(variable, values)
        encodings[index] = encoding
    load_assets(model, architecture.assets)
    finalize(model)
    attach(model, _by_present_names(model, inputs, architecture.layers))
    keep_promises(model, encodings, _checked_inputs(model, architecture.kept_inputs))


def _fill_whole(model: Model, architecture: Architecture, stored: Stored, inputs: LayerInputs) -> Any:
    """Fill a user's own model: after all was read and checked, and with what it had before if that fails after all."""
    if not isinstance(model, keras.Model):
        raise ModelError(f"model=: expected a built keras.Model, got {quoted(model)}")
    _check_variables(model, architecture)
    check_assets(model, architecture.assets)
    for _ in stored():
        pass  # each is decoded and checked, and none is kept
    with _put_back(model):
        _fill(model, architecture, stored, inputs)
    return model


@contextmanager
def _put_back(model: Model) -> Iterator[None]:
    """Within this context a model may be changed; where it is left by an error, nothing of that stays."""
    before = [(variable, tf.convert_to_tensor(variable.value)) for variable in model.variables]
    assets, grids = assets_of(model), attached_to(model)
    promises, kept = kept_promises(model), inputs_kept(model)
    try:
        yield
    except BaseException:
        for variable, value in before:
            variable.value.assign(value)
        load_assets(model, assets)
        finalize(model)
        attach(model, grids)
        keep_promises(model, promises, kept)
        raise


def _checked_inputs(model: Model, kept: KeptInputs | None) -> KeptInputs | None:
    """The features that a model takes, if it has an input of so many.

    Raises:
        ModelError: it has none.
    """
    inputs = flat_inputs(model)
    if kept is not None and (kept.place >= len(inputs) or tuple(inputs[kept.place].shape)[1:] != (len(kept.columns),)):
        raise ModelError(f"{len(kept.columns)} features are left of input {kept.place}, and the model takes others")
    return kept


def _by_present_names(model: Model, inputs: LayerInputs, layers: Sequence[str]) -> LayerInputs:
    """`inputs` by the paths that layers have in `model`: a name that Keras made up, or a configuration left out, is

    another one in each model. Layers count by their place; where there are more or fewer of them, by name.
    """
    here = [path for path, _, _ in names_of(model).layers]
    present = dict(zip(layers, here, strict=True)) if len(layers) == len(here) else {}
    return {present.get(path, path): held for path, held in inputs.items()}


def finalize(model: Model) -> None:
    """Let layers that compute with constants made of their variables (Normalization) recompute them."""
    for layer in layers_of(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


# ---- checks


def _check_variables(model: Model, architecture: Architecture) -> None:
    """Raise unless a model has the variables that the file holds: as many, of the same shapes and dtypes."""
    expected = [(name, tuple(shape), dtype) for name, shape, dtype in architecture.variables]
    found = [(v.name, tuple(int(n) for n in v.shape), str(v.dtype)) for v in model.variables]
    if len(expected) != len(found):
        raise ModelError(f"the file holds {len(expected)} variables, the model {model.name!r} has {len(found)}")
    for position, (there, here) in enumerate(zip(expected, found, strict=True)):
        if there[1:] != here[1:]:
            raise ModelError(
                f"variable {position} of {model.name!r} is {here[0]} of shape {here[1]} and dtype {here[2]}; "
                f"the file holds {quoted(there[0])} of shape {there[1]} and dtype {quoted(there[2])}"
            )


def _check_paths(model: Model, architecture: Architecture) -> None:
    """Raise unless the file calls its parameters what they are called in the model built from it.

    Names that Keras makes up from a counter differ from model to model within a user's own classes.
    """
    own = any(not type(layer).__module__.startswith("keras.") for layer in layers_of(model))
    here = [path for path, _, _ in names_of(model).variables]
    for there, path in zip(architecture.paths, here, strict=True):
        if there != path and (not own or _uncounted(there) != _uncounted(path)):
            raise ModelError(f"the file calls the parameter {path} of the model built from it {quoted(there)}")


def _check_inputs(model: Model, architecture: Architecture) -> None:
    """Raise unless a model that declares its inputs declares those that the file says."""
    if declared_inputs(model) is not None and _inputs(input_specs(model)) != architecture.inputs:
        raise ModelError(
            f"the file says that the model takes other inputs than the model built from it: "
            f"{quoted(architecture.inputs)}"
        )


def _uncounted(path: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", path)


def _inputs(specs: Nest) -> Any:
    if isinstance(specs, dict):
        return {"dict": {key: _inputs(value) for key, value in specs.items()}}
    if isinstance(specs, list | tuple):
        return {"list": [_inputs(value) for value in specs]}
    return {"shape": list(specs.shape), "dtype": specs.dtype.name}


def _skeleton(inputs: Any) -> Any:
    """Symbolic tensors for the inputs that a file describes."""
    if isinstance(inputs, dict) and isinstance(inputs.get("dict"), dict):
        return {key: _skeleton(value) for key, value in inputs["dict"].items()}
    if isinstance(inputs, dict) and isinstance(inputs.get("list"), list):
        return [_skeleton(value) for value in inputs["list"]]
    shape, dtype = (inputs.get("shape"), inputs.get("dtype")) if isinstance(inputs, dict) else (None, None)
    return keras.KerasTensor(sizes(shape, "the inputs"), a_dtype(dtype, "the inputs"))
