"""A model built again with smaller layers: its configuration with the sizes that are left, and no values.

What a layer is made of stands in its configuration and nowhere else, so that the new model is one that Keras would make
of it: it is saved, loaded and trained without this library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.backends.tensorflow.models.architecture import built_again, configuration_of
from bitwidth.backends.tensorflow.models.assets import assets_of, load_assets
from bitwidth.backends.tensorflow.models.sized import (
    Ends,
    Factors,
    Indices,
    Part,
    resize,
    resize_inputs,
    resize_operation,
)
from bitwidth.backends.tensorflow.reading.tracing import Call, FuncTrace
from bitwidth.errors import ModelError
from bitwidth.graph import Cut
from bitwidth.typing import Json, JsonDict, Model, Nest

Left = Callable[[str], Indices]
"""Of a tensor of the graph, by name: for each axis the indices that are left, None for all."""
_Chain = tuple[str, ...]


@final
@dataclass(frozen=True)
class Resized:
    """A model of the sizes that are left.

    Attributes:
        model: it has no values yet.
        factors: what parameters have to be multiplied by, by path.
    """

    model: Model
    factors: Factors


def resized(model: Model, trace: FuncTrace, cut: Cut, left: Left) -> Resized:
    """Build a model again, without the entries that a cut removes.

    Args:
        model: the model; it is not changed.
        trace: of it.
        cut: what is left of its parameters.
        left: what is left of its tensors.

    Raises:
        ModelError: the model has no configuration, or it cannot say the sizes that are left; with the layer.
    """
    config, reason = configuration_of(model)
    if config is None:
        raise ModelError(reason)
    factors = _Resizing(model, trace, cut, left).into(config)
    found = built_again(config, _specs(trace, left), model)
    for (path, variable, _), new in zip(trace.names.variables, found.variables, strict=False):
        wanted = cut.shape(path, tuple(variable.shape))
        if tuple(new.shape) != wanted:
            raise ModelError(
                f"{path}: {wanted} is left of it, and the layer that its configuration makes has {tuple(new.shape)}"
            )
    if len(found.variables) != len(trace.names.variables):
        raise ModelError("the model that its configuration makes has other variables")
    load_assets(found, assets_of(model))
    return Resized(found, factors)


def _specs(trace: FuncTrace, left: Left) -> Nest:
    """The inputs that the model takes when features of them are gone."""

    def resized_spec(spec: Any, tensor: Any) -> Any:
        axes = left(trace.frame.name(tensor))
        if all(kept is None for kept in axes):
            return spec
        sizes = [size if kept is None else len(kept) for size, kept in zip(spec.shape, axes, strict=True)]
        return tf.TensorSpec(sizes, spec.dtype, spec.name)

    flat = zip(keras.tree.flatten(trace.specs), trace.arguments, strict=True)
    return keras.tree.pack_sequence_as(trace.specs, [resized_spec(*pair) for pair in flat])


@final
class _Resizing:
    """The sizes of all parts of a model, and the entry of each in the model's configuration."""

    def __init__(self, model: Model, trace: FuncTrace, cut: Cut, left: Left) -> None:
        self._trace, self._cut, self._left = trace, cut, left
        self._layers = dict(_chains(model, (), ()))
        self._shapes = {path: tuple(variable.shape) for path, variable, _ in trace.names.variables}
        self._calls: dict[str, Call] = {}
        for call in (*trace.calls, *trace.operations):
            if call.graph is trace.frame.graph:
                self._calls.setdefault(call.layer, call)

    def into(self, config: JsonDict) -> Factors:
        """Put them into the configuration, in place."""
        factors: Factors = {}
        for chain, entry in _entries(config, None):
            layer = self._layers.get(chain)
            if layer is not None and chain:
                path = self._trace.names.layer_path(layer) or ""
                part = self._part(path)
                if part is not None:
                    factors |= resize(entry["config"], layer, part)
            elif not chain:
                resize_inputs(entry["config"], self._ends(tuple(self._trace.arguments)))
            elif "inbound_nodes" in entry:
                part = self._part("/".join(chain))
                if part is not None:
                    resize_operation(entry, part)
        return factors

    def _part(self, path: str) -> Part | None:
        """A layer or operation; None where nothing of it changes."""
        before = {
            name.removeprefix(f"{path}/"): shape for name, shape in self._shapes.items() if name.startswith(f"{path}/")
        }
        after = {name: self._cut.shape(f"{path}/{name}", shape) for name, shape in before.items()}
        call = self._calls.get(path)
        takes, gives = (Ends(), Ends()) if call is None else (self._ends(call.inputs), self._ends(call.outputs))
        whole = all(kept is None for ends in (takes, gives) for axes in ends.left for kept in axes)
        return None if whole and before == after else Part(path, before, after, takes, gives)

    def _ends(self, tensors: tuple[Any, ...]) -> Ends:
        shapes, left = [], []
        for tensor in tensors:
            holder = self._trace.frame.holder(tensor)
            if holder is None or tensor.shape.rank is None:
                continue
            sizes = tuple(tensor.shape.as_list())
            shapes.append(sizes)
            left.append(self._left(holder.name(tensor)) or (None,) * len(sizes))
        return Ends(tuple(shapes), tuple(left))


def _chains(layer: KerasLayer, chain: _Chain, around: tuple[int, ...]) -> Iterator[tuple[_Chain, KerasLayer]]:
    """Every layer below a layer, itself first, with the names that Keras gives to those around it and to it."""
    if id(layer) in around:
        return
    yield chain, layer
    for child in tracked.children(layer):
        yield from _chains(child, (*chain, child.name), (*around, id(layer)))


def _entries(config: Json, chain: _Chain | None) -> Iterator[tuple[_Chain, JsonDict]]:
    """Every object of a configuration that has a name, with the names of those around it and its own."""
    if isinstance(config, list):
        for item in config:
            yield from _entries(item, chain)
        return
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if not isinstance(inner, dict) or "class_name" not in config:
        for value in config.values():
            yield from _entries(value, chain)
        return
    name = inner.get("name", config.get("name"))
    below = chain
    if chain is None or isinstance(name, str):
        below = () if chain is None else (*chain, str(name))
        yield below, config
    yield from _entries(list(inner.values()), below)
