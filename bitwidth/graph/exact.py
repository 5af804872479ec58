"""Exactness: which tensors a layer takes for what they are exactly, so that no grid may round them."""

from __future__ import annotations

from bitwidth.graph.graph import Graph
from bitwidth.graph.model import Layer, Op
from bitwidth.graph.ops import spec
from bitwidth.graph.wiring import Wiring


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
            if spec(op).compares:
                return "compares it"
            if op.kind == "cast" and "float" not in dtypes[op.outputs[0]]:
                return "casts it to truth values" if dtypes[op.outputs[0]] == "bool" else "casts it to integers"
            if _hands_on(wiring, op):
                new = [output for output in op.outputs if output not in seen]
                seen.update(new)
                pending.extend(new)
    return None


def _hands_on(wiring: Wiring, op: Op) -> bool:
    """Whether values come out of an operation moved, or computed with constants only: an index still is one there."""
    if spec(op).moves:
        return True
    return spec(op).arithmetic and not op.parameters and len(wiring.features(op)) == 1
