"""Paths: a tensor followed from operation to operation, towards the model's outputs or back towards its inputs.

Both walks are lazy and never branch. Whoever follows looks at each step, and leaves the loop with what was found or
with a `Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bitwidth.errors import Refused
from bitwidth.graph.model import Op

if TYPE_CHECKING:
    from bitwidth.graph.wiring import Norm, Wiring


def forward(
    wiring: Wiring, tensor: str, whole: Mapping[str, Norm] | None = None, lead: str = ""
) -> Iterator[tuple[str, Op | Norm]]:
    """Each tensor on the way from one on, with the operation that takes it: the only one that reads it.

    Args:
        wiring: of the graph.
        tensor: name of the tensor to start from.
        whole: normalisations that are passed in one step, by the tensor that they take; it is up to the caller whether
            something else takes that too.
        lead: words in front of the reason where the way ends.

    Raises:
        Refused: the next tensor is an output of the model, is held on a grid, or has not exactly one reader.

    Example:
        >>> from bitwidth.graph import Graph, Structure, Wiring
        >>> ops = (Op("a", "relu", "", ("x",), ("y",)), Op("b", "reshape", "", ("y",), ("z",)))
        >>> wiring = Wiring(Graph(Structure("net", ops, (), (), ("x",), ("z",)), [], {}))
        >>> steps = forward(wiring, "x")
        >>> [(tensor, op.name) for tensor, op in (next(steps), next(steps))]
        [('x', 'a'), ('y', 'b')]
        >>> next(steps)
        Traceback (most recent call last):
        bitwidth.errors.Refused: its output is a model output
    """
    while True:
        taker: Op | Norm | None = (whole or {}).get(tensor)
        if taker is None:
            try:
                taker = wiring.only_reader(tensor)
            except Refused as refusal:
                raise Refused(f"{lead}{refusal.reason}") from None
        yield tensor, taker
        result = taker.outputs[0] if isinstance(taker, Op) else taker.result
        if result is None:
            raise Refused("it has no outputs")
        tensor = result


def backward(wiring: Wiring, tensor: str, alone: bool = False) -> Iterator[tuple[str, Op]]:
    """Each tensor on the way back from one, with the operation that makes it.

    The way goes along the first operand that is computed from the model's inputs; where none is, along operand 0. It
    ends at an input of the model, a constant or a variable.

    Args:
        wiring: of the graph.
        tensor: name of the tensor to start from.
        alone: refuse to go on to a tensor that is used elsewhere too.

    Raises:
        Refused: `alone`, and the next tensor has another use.

    Example:
        >>> from bitwidth.graph import Graph, Structure, Wiring
        >>> ops = (Op("a", "relu", "", ("x",), ("y",)), Op("b", "reshape", "", ("y",), ("z",)))
        >>> wiring = Wiring(Graph(Structure("net", ops, (), (), ("x",), ("z",)), [], {}))
        >>> [(tensor, op.name) for tensor, op in backward(wiring, "z")]
        [('z', 'b'), ('y', 'a')]
    """
    while (op := wiring.makers.get(tensor)) is not None:
        yield tensor, op
        before = wiring.features(op)[:1] or op.inputs[:1]
        if not before:
            return
        (tensor,) = before
        if alone and tensor in wiring.makers:
            try:
                wiring.only_reader(tensor)
            except Refused as refusal:
                raise Refused(f"{wiring.makers[tensor].shown}: {refusal.reason}") from None
