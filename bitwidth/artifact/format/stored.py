"""What a .bw file holds, apart from how it is laid out in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from bitwidth.encodings import Encoding
from bitwidth.graph import KeptInputs
from bitwidth.typing import Array, Json, JsonMapping


@final
@dataclass(frozen=True)
class Architecture:
    """What it takes to build a model again, as plain data and bytes; never code.

    Attributes:
        framework: package of the framework that builds it (`"keras"`), a key of `bitwidth.backend.BACKENDS`.
        config: the model's configuration (JSON), or None where the model has none.
        reason: why there is no configuration; empty where there is one.
        inputs: shapes and dtypes of the inputs (JSON), to build a model that its configuration leaves unbuilt.
        variables: name, shape and dtype of each variable, in the model's order (JSON).
        assets: state that is not a variable (vocabularies), by name.
        layers: paths of the layers, in the model's order. A file holds them only where activations are on grids.
        paths: paths of the variables, in the model's order.
        kept_inputs: which features of an input are left; None where none was removed.
    """

    framework: str
    config: Json
    reason: str
    inputs: Any
    variables: list[Any]
    assets: Mapping[str, bytes] = field(default_factory=dict)
    layers: Sequence[str] = ()
    paths: Sequence[str] = ()
    kept_inputs: KeptInputs | None = None


@final
@dataclass(frozen=True)
class StoredParameter:
    """One parameter: what it is, how it is held, and its values.

    Attributes:
        path: its path in the graph.
        role: what it does in the model.
        dtype: numpy name of its dtype.
        trainable: whether training may change it.
        encoding: how its values are held.
        values: the values, on the encoding; shape and dtype of the parameter.
        more: what a pass or a tool keeps with the parameter, where a part of it came from say, as JSON; written and
            read as it is, and not interpreted.
        arrays: arrays that belong to that (the float weights behind a grid), by name; any numeric dtype.
    """

    path: str
    role: str
    dtype: str
    trainable: bool
    encoding: Encoding
    values: Array
    more: JsonMapping = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class StoredModel:
    """A compressed model as plain data: what is written to a file, and read from one.

    Attributes:
        name: the model's name.
        architecture: what it takes to build it.
        parameters: one entry per variable, in the order of `architecture.variables`.
        activations: how the input tensors of layers are held, by the layer's path; one scale for a tensor of any shape.
    """

    name: str
    architecture: Architecture
    parameters: tuple[StoredParameter, ...]
    activations: Mapping[str, tuple[Encoding | None, ...]] = field(default_factory=dict)
