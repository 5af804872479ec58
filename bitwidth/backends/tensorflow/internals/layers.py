"""Layers and models: what Keras tracks in them, and what it has noted about their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from bitwidth.typing import Nest

_TRACKED = ("_layers", "_metrics", "_trainable_variables", "_non_trainable_variables", "_seed_generators")


def layers_of(model: keras.Layer, include_self: bool = True) -> list[keras.Layer]:
    """A layer and all layers in it, each once. Since Keras 3.0 (`Layer._flatten_layers`)."""
    return list(model._flatten_layers(include_self=include_self))


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that a layer tracks as its own. Since Keras 3.0 (`Layer._layers`)."""
    return list(layer._layers)


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables that a layer itself tracks, without those of layers in it and without states of seeds.

    Since Keras 3.0 (`Layer._trainable_variables`, `Layer._non_trainable_variables`).
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def tracked_trainable(layer: keras.Layer) -> list[keras.Variable]:
    """The list in which a layer tracks its own trainable variables: changing it changes `trainable_variables`.

    Since Keras 3.0 (`Layer._trainable_variables`).
    """
    variables: list[keras.Variable] = layer._trainable_variables
    return variables


def seed_generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """The seed generators that a layer itself tracks. Since Keras 3.0 (`Layer._seed_generators`)."""
    return list(layer._seed_generators)


def variable_lists(layer: keras.Layer) -> Iterator[tuple[set[int], list[keras.Variable]]]:
    """The lists in which a layer and its seed generators track variables, each with the ids of what it tracks.

    Since Keras 3.0 (`Layer._tracker`, with `stored_ids` and `config`).
    """
    for name in ("trainable_variables", "non_trainable_variables"):
        yield layer._tracker.stored_ids[name], layer._tracker.config[name][1]
    for generator in layer._seed_generators:
        yield set(), generator._tracker.config["variables"][1] if hasattr(generator, "_tracker") else []


def is_bookkeeping(attribute: str) -> bool:
    """Whether an attribute of a layer is one in which Keras or TensorFlow tracks what others hold.

    Since Keras 3.0 (`Layer._layers` and the like) and TensorFlow 2.1 (`_self_...`, `_obj_...`).
    """
    return attribute in _TRACKED or attribute.startswith(("_self_", "_obj_"))


def is_functional(layer: keras.Layer) -> bool:
    """Whether a model is built from declared inputs: Functional has no public class.

    Since Keras 3.0 (`Functional._inputs_struct`).
    """
    return hasattr(layer, "_inputs_struct")


def declared_inputs(model: keras.Model) -> Nest:
    """The nest of Keras tensors that a Functional or Sequential model is built from, None for any other model.

    Since Keras 3.0 (`Sequential._functional`, `Functional._inputs_struct`).
    """
    return getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None)


def flat_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """The Keras tensors that a Functional or Sequential model is built from, in flat order; none for any other."""
    found = declared_inputs(model)
    return [] if found is None else keras.tree.flatten(found)


def build_shapes(model: keras.Model) -> Mapping[str, Any]:
    """The shapes that a model was built with, by argument of `build` or `call`; empty where Keras noted none.

    Since Keras 3.0 (`Layer._build_shapes_dict`).
    """
    return getattr(model, "_build_shapes_dict", None) or {}


def takes_training(layer: keras.Layer) -> bool:
    """Whether the call of a layer has an argument `training`. Since Keras 3.0 (`Layer._call_has_training_arg`)."""
    return bool(layer._call_has_training_arg)


def is_quantized(layer: keras.Layer) -> bool:
    """Whether Keras has quantized a layer. Since Keras 3.4 (`Layer._is_quantized`)."""
    return bool(getattr(layer, "_is_quantized", False))
