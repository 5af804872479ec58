"""A model built again with chains of layers in the place of some: its configuration with more layers, and no values.

A chain stands in the configuration of a Sequential or Functional model, where the layer stood: the new model is one
that Keras would make of it, and is saved, loaded and trained without this library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import keras

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.models.architecture import built_again, configuration_of
from bitwidth.backends.tensorflow.models.assets import assets_of, load_assets
from bitwidth.backends.tensorflow.reading.fixed import fixed_layers
from bitwidth.backends.tensorflow.reading.naming import Names, names_of
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import ModelError
from bitwidth.graph.chains import Chain, Chains
from bitwidth.graph.foreseen import Equations
from bitwidth.typing import Json, JsonDict, Model

_Path = tuple[str, ...]


def chained(model: Model, trace: FuncTrace, chains: Chains) -> Model:
    """Build a model again, with chains in the place of layers.

    Args:
        model: the model; it is not changed.
        trace: of it.
        chains: of layers that are not fixed.

    Returns:
        A model without values.

    Raises:
        ModelError: a layer cannot be replaced, or the configuration cannot say the chain; with the layer.
    """
    config, reason = configuration_of(model)
    if config is None:
        raise ModelError(reason)
    refused = fixed_layers(model, trace.names)
    layers = {path: layer for path, layer, _ in trace.names.layers}
    for chain in chains.chains:
        if chain.layer not in layers:
            raise ModelError(f"{chain.layer}: the model has no such layer")
        if chain.layer in refused:
            raise ModelError(f"{chain.layer}: {refused[chain.layer]}")
        if chain.stages[0].layer in layers:
            raise ModelError(f"{chain.stages[0].layer}: the model has a layer of that name")
        places = dict(_places(config))
        if tuple(chain.layer.split("/")) not in places:
            raise ModelError(f"{chain.layer}: it does not stand in the configuration of the model")
        siblings, place = places[tuple(chain.layer.split("/"))]
        entries = _entries(siblings[place], type(layers[chain.layer]), chain)
        siblings[place : place + 1] = entries
    found = built_again(config, trace.specs, model)
    _check_variables(found, trace.names, chains)
    load_assets(found, _moved_assets(model, found, trace.names))
    return found


def _places(config: Json, path: _Path | None = None) -> Iterator[tuple[_Path, tuple[list[Any], int]]]:
    """Each layer of a configuration of models: the names that lead to it, the list that it stands in, its place."""
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        return
    held = inner.get("layers")
    layers: list[Any] = held if isinstance(held, list) else []
    for place, entry in enumerate(layers):
        own = entry.get("config") if isinstance(entry, dict) else None
        name = own.get("name", entry.get("name")) if isinstance(own, dict) else None
        if isinstance(name, str):
            below = (*(path or ()), name)
            yield below, (layers, place)
            yield from _places(entry, below)


def _entries(entry: JsonDict, kind: type[Any], chain: Chain) -> list[JsonDict]:
    """The entries of the stages of a chain, in the place of that of a layer."""
    made = [deepcopy(entry) for _ in chain.stages]
    for place, (one, stage) in enumerate(zip(made, chain.stages, strict=True)):
        config = one["config"]
        name = stage.layer.rpartition("/")[2]
        config["name"] = name
        if "name" in one:
            one["name"] = name
        one.pop("build_config", None)
        if place < len(made) - 1:
            config.update(_PLAIN)
            if "use_bias" in config:
                config["use_bias"] = False
        if place and "inbound_nodes" in one:
            _follow(one["inbound_nodes"], chain.stages[place - 1].layer.rpartition("/")[2], chain.layer)
    _RULES[kind](made, chain)
    return made


_PLAIN = {"activation": "linear", "activity_regularizer": None, "bias_regularizer": None, "bias_constraint": None}


def _follow(nodes: list[JsonDict], name: str, layer: str) -> None:
    """Let calls take what the same calls of the layer of that name give."""
    for place, node in enumerate(nodes):
        tensors = list(_tensors([node["args"], node["kwargs"]]))
        if len(tensors) != 1:
            raise ModelError(f"{layer}: it is called with {len(tensors)} tensors, and one was expected")
        tensors[0]["config"]["keras_history"] = [name, place, 0]


def _tensors(value: Json) -> Iterator[JsonDict]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value
            return
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _tensors(item)


# ---- what each kind of layer says of its kernel


def _dense(made: list[JsonDict], chain: Chain) -> None:
    if chain.stages[0].axes != (0,):
        raise ModelError(f"{chain.layer}: the first stage of its chain has the inputs")
    made[0]["config"]["units"] = chain.rank


def _einsum_dense(made: list[JsonDict], chain: Chain) -> None:
    """The first stage sums over the inputs; its output has one axis in their place."""
    first, last = (entry["config"] for entry in made)
    split = Equations.of(last["equation"], chain)
    if any(letter in split.result for letter in split.one) or any(letter in split.taken for letter in split.other):
        raise ModelError(f"{chain.layer}: in {last['equation']!r} the kernel has an axis in common with both sides")
    sizes = {**_sizes(split.result, last["output_shape"]), split.spare: chain.rank}
    first["equation"], first["bias_axes"] = split.first, None
    first["output_shape"] = [sizes.get(letter) for letter in _named(split.between)]
    last["equation"] = split.last


def _named(labels: str) -> str:
    """The labels whose sizes stand in `output_shape`: not the batch, which is in front where `...` is not."""
    return labels[3:] if labels.startswith("...") else labels.replace("...", "")[1:]


def _sizes(result: str, held: Json) -> dict[str, int | None]:
    return dict(zip(_named(result), [held] if isinstance(held, int) else held, strict=False))


def _conv(made: list[JsonDict], chain: Chain) -> None:
    """Each stage moves windows along its own axes of positions, and is one position wide along the others."""
    if chain.windows != len(made[0]["config"]["kernel_size"]):
        raise ModelError(f"{chain.layer}: a chain of windows with {chain.windows} axes does not fit it")
    for entry, stage, kernel in zip(made, chain.stages, chain.kernels.values(), strict=True):
        config = entry["config"]
        config["filters"] = kernel.shape[-1]
        config["kernel_size"] = list(kernel.shape[:-2])
        for name in ("strides", "dilation_rate"):
            config[name] = [size if axis in stage.axes else 1 for axis, size in enumerate(config[name])]


_RULES: Mapping[type[Any], Callable[[list[JsonDict], Chain], None]] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.Conv1D: _conv,
    keras.layers.Conv2D: _conv,
    keras.layers.Conv3D: _conv,
}


# ---- the model that comes out


def _check_variables(found: Model, before: Names, chains: Chains) -> None:
    """Raise ModelError unless a model has the variables of the one before, and those of the chains."""
    wanted = {path: tuple(variable.shape) for path, variable, _ in before.variables}
    wanted |= {path: kernel.shape for path, kernel in chains.kernels.items()}
    here = {path: tuple(variable.shape) for path, variable, _ in names_of(found).variables}
    for path, shape in wanted.items():
        if here.get(path) != shape:
            raise ModelError(f"{path}: expected of shape {shape}, and the model that is built has {here.get(path)}")
    if odd := set(here) - set(wanted):
        raise ModelError(f"{min(odd)}: is in the model that is built, and was not expected")


def _moved_assets(model: Model, found: Model, names: Names) -> dict[str, bytes]:
    """The assets of a model by the places that their layers have in the new one."""
    there = {path: layer for path, layer, _ in names_of(found).layers}
    order = {id(layer): place for place, layer in enumerate(tracked.layers_of(found))}
    moved = {}
    for key, data in assets_of(model).items():
        place, _, name = key.partition("/")
        path = names.layer_path(tracked.layers_of(model)[int(place)]) or ""
        moved[f"{order[id(there[path])]}/{name}"] = data
    return moved
