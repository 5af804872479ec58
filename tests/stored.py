"""A stored model from the fields that a header has, for tests of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitwidth.artifact import Architecture, StoredModel, StoredParameter
from bitwidth.encodings import Encoding


def stored_model(
    name: str,
    framework: str,
    architecture: Any,
    reason: str,
    inputs: Any,
    variables: list[Any],
    parameters: tuple[StoredParameter, ...],
    assets: Mapping[str, bytes] | None = None,
    activations: Mapping[str, tuple[Encoding | None, ...]] | None = None,
    layers: Sequence[str] = (),
) -> StoredModel:
    """The model that a header of these fields describes."""
    paths = tuple(parameter.path for parameter in parameters)
    built = Architecture(framework, architecture, reason, inputs, variables, assets or {}, tuple(layers), paths)
    return StoredModel(name, built, parameters, activations or {})


def rebuilt(model: StoredModel, **fields: Any) -> StoredModel:
    """The model with some fields of its architecture exchanged."""
    return replace(model, architecture=replace(model.architecture, **fields))
