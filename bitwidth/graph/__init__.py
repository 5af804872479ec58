"""What a model is: operations, layers, parameters and their values, read-only and without any framework.

Here belongs what can be said of a model by looking at its graph: one vocabulary of operations (`ops`), one way to
follow tensors (`paths`), what surrounds a parameter (`wiring`, `neighbours`), which units go together (`labels`), and
the selectors of `where=`. How one tensor is held belongs in `bitwidth.encodings`, what a model computes on data in
`bitwidth.analysis` and the backend. Numpy only; no operation has a framework's name.
"""

from bitwidth.errors import Refused
from bitwidth.graph.chains import Chain, Chains, Stage
from bitwidth.graph.channels import Channels
from bitwidth.graph.cuts import Cut
from bitwidth.graph.foreseen import with_chains
from bitwidth.graph.graph import Graph
from bitwidth.graph.inputs import KeptInputs
from bitwidth.graph.lineage import cut_between, cut_graph, tensors_between, with_kept_inputs
from bitwidth.graph.model import Layer, LayerCall, Op, Parameter, Role, Structure, Tensor, Use, layer_inputs
from bitwidth.graph.moves import moved
from bitwidth.graph.ops import Kind, OpSpec, spec
from bitwidth.graph.selectors import AllBut, Selection, Where, check_where, frozen_where
from bitwidth.graph.values import Value, Values
from bitwidth.graph.wiring import Contraction, Norm, Wiring

__all__ = [
    "AllBut",
    "Chain",
    "Chains",
    "Channels",
    "Contraction",
    "Cut",
    "Graph",
    "KeptInputs",
    "Kind",
    "Layer",
    "LayerCall",
    "Norm",
    "Op",
    "OpSpec",
    "Parameter",
    "Refused",
    "Role",
    "Selection",
    "Stage",
    "Structure",
    "Tensor",
    "Use",
    "Value",
    "Values",
    "Where",
    "Wiring",
    "check_where",
    "cut_between",
    "cut_graph",
    "frozen_where",
    "layer_inputs",
    "moved",
    "spec",
    "tensors_between",
    "with_chains",
    "with_kept_inputs",
]
