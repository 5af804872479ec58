"""Exactness: which tensors a layer takes for what they are exactly, so that no grid may round them."""

from __future__ import annotations

from bitwidth.graph.graph import Graph
from bitwidth.graph.model import Layer, Op
from bitwidth.graph.wiring import Wiring

COMPARISONS = frozenset(
    {"Equal", "NotEqual", "ApproximateEqual", "Less", "LessEqual", "Greater", "GreaterEqual", "Bucketize", "InTopKV2"}
)
# Operations that hand values on, moved or computed from constants only: an index stays an index behind them.
_MOVES = frozenset(
    {
        "BatchToSpaceND",
        "BroadcastTo",
        "Cast",
        "ConcatV2",
        "ExpandDims",
        "Identity",
        "IdentityN",
        "Pack",
        "Pad",
        "PadV2",
        "PartitionedCall",
        "Placeholder",
        "Reshape",
        "ReverseV2",
        "Slice",
        "Split",
        "SplitV",
        "Squeeze",
        "StatefulPartitionedCall",
        "StopGradient",
        "StridedSlice",
        "TensorListFromTensor",
        "TensorListGetItem",
        "Tile",
        "Transpose",
        "Unpack",
    }
)
_WITH_CONSTANTS = frozenset(
    {
        "Abs",
        "Add",
        "AddV2",
        "Ceil",
        "ClipByValue",
        "Floor",
        "FloorDiv",
        "FloorMod",
        "Maximum",
        "Minimum",
        "Mul",
        "Neg",
        "RealDiv",
        "Rint",
        "Round",
        "Sub",
    }
)


def exact_inputs(graph: Graph) -> dict[str, str]:
    """Floating point tensors that some layer looks up, compares, casts to integers or takes as a mask, with the reason.

    Token ids that arrive as float32 are such tensors, and so is what a layer only moves about, or computes with
    constants, before it does one of these.

    Args:
        graph: the model.

    Returns:
        By the name of a tensor that enters a layer, what is done with it.
    """
    dtypes = {tensor.name: tensor.dtype for tensor in graph.structure.tensors}
    wiring = Wiring(graph)
    found: dict[str, str] = {}
    for layer in graph.structure.layers:
        for call in layer.calls if layer.tracked else ():
            for name in call.inputs:
                if name in found or "float" not in dtypes.get(name, ""):
                    continue
                reason = "takes it as a mask" if name in call.masks else _reason(wiring, dtypes, layer, name)
                if reason is not None:
                    found[name] = f"{layer.path} {reason}"
    return found


def _reason(wiring: Wiring, dtypes: dict[str, str], layer: Layer, tensor: str) -> str | None:
    """What the layer does with a tensor that needs its exact values; None for nothing of that kind."""
    pending, seen = [tensor], {tensor}
    while pending:
        name = pending.pop()
        for op in wiring.readers.get(name, ()):
            if op.layer != layer.path and not op.layer.startswith(f"{layer.path}/"):
                continue
            if op.kind in COMPARISONS:
                return "compares it"
            if op.kind == "Cast" and "float" not in dtypes[op.outputs[0]]:
                return "casts it to truth values" if dtypes[op.outputs[0]] == "bool" else "casts it to integers"
            if _hands_on(wiring, op):
                new = [output for output in op.outputs if output not in seen]
                seen.update(new)
                pending.extend(new)
    return None


def _hands_on(wiring: Wiring, op: Op) -> bool:
    if op.kind in _MOVES:
        return True
    return op.kind in _WITH_CONSTANTS and not op.parameters and len(wiring.features(op)) == 1
