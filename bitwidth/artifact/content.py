"""What a .bw file holds, apart from how it is laid out in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from bitwidth.tensors import Encoding


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
    """

    path: str
    role: str
    dtype: str
    trainable: bool
    encoding: Encoding
    values: NDArray[Any]


@dataclass(frozen=True)
class Content:
    """A compressed model as plain data.

    Attributes:
        name: the model's name.
        framework: package of the framework that builds it (`"keras"`).
        architecture: its configuration (JSON), or None; never code.
        reason: why there is no architecture; empty where there is one.
        inputs: shapes and dtypes of the inputs (JSON).
        variables: name, shape and dtype of each variable in the model's order (JSON).
        parameters: one entry per variable, in the same order.
        assets: state that is not a variable, by name.
        activations: how the input tensors of layers are held, by the layer's path; one scale for a tensor of any shape.
        layers: paths of all layers, in the model's order; kept where there are activations.
    """

    name: str
    framework: str
    architecture: Any
    reason: str
    inputs: Any
    variables: list[Any]
    parameters: tuple[StoredParameter, ...]
    assets: Mapping[str, bytes] = field(default_factory=dict)
    activations: Mapping[str, tuple[Encoding | None, ...]] = field(default_factory=dict)
    layers: Sequence[str] = ()
