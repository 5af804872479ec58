"""Fixed layers: those that no other layers can take the place of, and why."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from bitwidth.backends.tensorflow.internals.layers import is_functional
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.typing import Model

REPLACEABLE = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
"""Classes of the layers that are replaced; classes derived from them are not."""
UNTRACKED = "it is no part of the model"


def fixed_layers(model: Model, names: Names) -> dict[str, str]:
    """Why layers cannot be replaced, by path; those that can are left out."""
    around = {path: (layer, parent) for path, layer, parent in names.layers}
    reasons = {path: _reason(model, layer, parent, around) for path, layer, parent in names.layers}
    return {path: reason for path, reason in reasons.items() if reason}


def _reason(model: Model, layer: KerasLayer, parent: str, around: Mapping[str, tuple[KerasLayer, str]]) -> str:
    place = parent
    while place:
        holder, above = around[place]
        if not _is_plain(holder):
            return f"it is a part of {place} ({type(holder).__name__}), which makes it by itself"
        place = above
    if not _is_plain(model):
        return (
            f"the model is of the class {type(model).__name__}, whose code calls its layers; "
            "bw.functionalize makes a Functional model of it, where that can be"
        )
    if type(layer) not in REPLACEABLE:
        return f"layers of the kind {type(layer).__name__} cannot be replaced by a chain"
    if getattr(layer, "kernel_constraint", None) is not None:
        return "its kernel has a constraint, which factors would not keep"
    return ""


def _is_plain(holder: KerasLayer) -> bool:
    """Whether layers stand in the configuration of what holds them, in a graph or a row."""
    return isinstance(holder, keras.Sequential) or is_functional(holder)
