"""What extensions are made of: all names for passes, questions, encodings and backends of your own.

Import from here or from `bitwidth`; the modules behind may move. Here stand names only: nothing is defined, and no
framework is imported until `Lowering`, `register_lowering` or `evaluate` is asked for. The conformance suites, which
say whether an extension does what it must, are in `bitwidth.testing`.

Example:
    >>> from bitwidth.extend import encoding_from_state, Dense
    >>> encoding_from_state(Dense("float16").state()).describe()
    'float16'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitwidth.analysis import ActivationRanges, Cost, Fisher, InputMoments, LayerCost, cost_of
from bitwidth.backend import (
    BACKENDS,
    Architecture,
    Backend,
    Finished,
    LayerInputs,
    Objective,
    Progress,
    Session,
    Steer,
    Stored,
    Trained,
    Training,
)
from bitwidth.context import Context, Question, check_choice, check_count
from bitwidth.encodings import (
    Affine,
    Dense,
    Encoding,
    EncodingState,
    EncodingSummary,
    Masked,
    Quantized,
    encoding_from_state,
    register_encoding,
)
from bitwidth.errors import Refused
from bitwidth.fitting import Arrangement, Moments, fit, plain_matrix
from bitwidth.graph import (
    Chain,
    Chains,
    Channels,
    Cut,
    Graph,
    KeptInputs,
    Layer,
    LayerCall,
    Op,
    OpSpec,
    Parameter,
    Selection,
    Stage,
    Structure,
    Tensor,
    Use,
    Value,
    Values,
    Wiring,
    check_where,
    cut_between,
    cut_graph,
    frozen_where,
    layer_inputs,
    moved,
    spec,
    with_kept_inputs,
)
from bitwidth.graph import Where as Selector
from bitwidth.graph.labels import Coupling, Frozen, Group, Member, couple
from bitwidth.graph.paths import backward, forward
from bitwidth.passes import Pass, TrainingPass, register_function, register_value
from bitwidth.passes.registry import register_pass
from bitwidth.passes.wrapping import Composite, Wrapping
from bitwidth.probes import (
    GradientProbe,
    MomentsProbe,
    Observed,
    OutputProbe,
    Probe,
    RangeProbe,
    StatisticsProbe,
)

if TYPE_CHECKING:
    from bitwidth.backends.tensorflow.constraints.lowering import Lowering, evaluate, register_lowering

_LAZY = dict.fromkeys(
    ("Lowering", "evaluate", "register_lowering"), "bitwidth.backends.tensorflow.constraints.lowering"
)


def __getattr__(name: str) -> Any:
    """The names that need TensorFlow, imported when they are asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


__all__ = [
    "BACKENDS",
    "ActivationRanges",
    "Affine",
    "Architecture",
    "Arrangement",
    "Backend",
    "Chain",
    "Chains",
    "Channels",
    "Composite",
    "Context",
    "Cost",
    "Coupling",
    "Cut",
    "Dense",
    "Encoding",
    "EncodingState",
    "EncodingSummary",
    "Finished",
    "Fisher",
    "Frozen",
    "GradientProbe",
    "Graph",
    "Group",
    "InputMoments",
    "KeptInputs",
    "Layer",
    "LayerCall",
    "LayerCost",
    "LayerInputs",
    "Lowering",
    "Masked",
    "Member",
    "Moments",
    "MomentsProbe",
    "Objective",
    "Observed",
    "Op",
    "OpSpec",
    "OutputProbe",
    "Parameter",
    "Pass",
    "Probe",
    "Progress",
    "Quantized",
    "Question",
    "RangeProbe",
    "Refused",
    "Selection",
    "Selector",
    "Session",
    "Stage",
    "StatisticsProbe",
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
    "cost_of",
    "couple",
    "cut_between",
    "cut_graph",
    "encoding_from_state",
    "evaluate",
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
    "with_kept_inputs",
]
