"""What extensions are made of: all names for passes, questions, encodings and backends of your own.

Import from here or from `bitwidth`; the modules behind may move. Here stand names only: nothing is defined, and no
framework is imported until `Lowering` or `register_lowering` is asked for. The conformance suites, which say whether an
extension does what it must, are in `bitwidth.testing`.

Example:
    >>> from bitwidth.extend import encoding_from_state, Dense
    >>> encoding_from_state(Dense("float16").state()).describe()
    'float16'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitwidth.analysis import ActivationRanges, Fisher, InputMoments
from bitwidth.backend import (
    BACKENDS,
    Architecture,
    Backend,
    Finished,
    LayerInputs,
    Objective,
    Observed,
    Progress,
    Session,
    Steer,
    Stored,
    Trained,
    Training,
)
from bitwidth.context import Context, Question, check_choice, check_count
from bitwidth.encodings import Dense, Encoding, EncodingState, Masked, Quantized, encoding_from_state, register_encoding
from bitwidth.fitting import Arrangement, Moments, fit, plain_matrix
from bitwidth.graph import (
    Channels,
    Graph,
    Layer,
    LayerCall,
    Op,
    OpSpec,
    Parameter,
    Refused,
    Selection,
    Structure,
    Tensor,
    Use,
    Value,
    Values,
    Wiring,
    check_where,
    frozen_where,
    layer_inputs,
    moved,
    spec,
)
from bitwidth.graph import Where as Selector
from bitwidth.graph.paths import backward, forward
from bitwidth.passes import Pass, TrainingPass, register_function, register_value
from bitwidth.passes.registry import register_pass
from bitwidth.passes.wrapping import Composite, Wrapping

if TYPE_CHECKING:
    from bitwidth.backends.tensorflow.constraints.lowering import Lowering, register_lowering

_LAZY = dict.fromkeys(("Lowering", "register_lowering"), "bitwidth.backends.tensorflow.constraints.lowering")


def __getattr__(name: str) -> Any:
    """The names that need TensorFlow, imported when they are asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


__all__ = [
    "BACKENDS",
    "ActivationRanges",
    "Architecture",
    "Arrangement",
    "Backend",
    "Channels",
    "Composite",
    "Context",
    "Dense",
    "Encoding",
    "EncodingState",
    "Finished",
    "Fisher",
    "Graph",
    "InputMoments",
    "Layer",
    "LayerCall",
    "LayerInputs",
    "Lowering",
    "Masked",
    "Moments",
    "Objective",
    "Observed",
    "Op",
    "OpSpec",
    "Parameter",
    "Pass",
    "Progress",
    "Quantized",
    "Question",
    "Refused",
    "Selection",
    "Selector",
    "Session",
    "Steer",
    "Stored",
    "Structure",
    "Tensor",
    "Trained",
    "Training",
    "TrainingPass",
    "Use",
    "Value",
    "Values",
    "Wiring",
    "Wrapping",
    "backward",
    "check_choice",
    "check_count",
    "check_where",
    "encoding_from_state",
    "fit",
    "forward",
    "frozen_where",
    "layer_inputs",
    "moved",
    "plain_matrix",
    "register_encoding",
    "register_function",
    "register_lowering",
    "register_pass",
    "register_value",
    "spec",
]
