"""Neighbours of a contraction: where a shift of its output can be added, and what a normalisation takes from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import Refused
from bitwidth.graph.channels import einsum_in_order
from bitwidth.graph.model import Op, Parameter
from bitwidth.graph.ops import attribute, spec
from bitwidth.graph.paths import backward, forward
from bitwidth.graph.wiring import Contraction, Norm, Wiring


@dataclass(frozen=True)
class Target:
    """Where a constant that is added to the output of a contraction goes.

    Attributes:
        parameter: a bias, or the mean of a batch normalisation, which is subtracted.
        sign: 1, or -1 for a mean.
        row: of a bias of several rows, each added to another kernel's output (a GRU's), the one that counts; else None.

    Example:
        >>> total = np.zeros(2)
        >>> Target(Parameter("norm/mean", (2,), "float32", "mean", "norm"), -1).add(total, np.array([1.0, 2.0]))
        >>> total
        array([-1., -2.])
    """

    parameter: Parameter
    sign: int = 1
    row: int | None = None

    def add(self, total: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        """Add a shift of the output, one value for each channel, to `total`, of the parameter's shape."""
        part = total if self.row is None else total[self.row]
        part += self.sign * shift.reshape(part.shape)


def target(wiring: Wiring, op_name: str, count: int) -> Target:
    """Where a shift of the output of a contraction, one value for each of `count` channels, can be added.

    That is a bias that is added further on in the same layer, or the mean of the batch normalisation that follows.

    Args:
        wiring: of the graph.
        op_name: name of the contraction.
        count: how many channels its output has.

    Raises:
        Refused: there is no such place, or something else depends on the output unchanged.
    """
    start = wiring.ops.get(op_name)
    if start is None or not spec(start).is_contraction:
        raise Refused("it is looked up")
    if start.kind == "einsum" and not einsum_in_order(start):
        raise Refused("its outputs are transposed")
    for tensor, taker in forward(wiring, start.outputs[0], _means(wiring, count), lead="no bias: "):
        if isinstance(taker, Norm):
            if taker.mean is None or not all(wiring.is_alone(norm) for norm in wiring.norms if norm.source == tensor):
                raise Refused("a normalisation and something else follow it")
            return Target(taker.mean, -1)
        if spec(taker).is_addition and taker.layer == start.layer:
            found = _bias(wiring, taker, count) or _bias_beside(wiring, taker, tensor, count)
            if found is not None:
                return found
        elif not wiring.keeps_last_axis(taker) and not _keeps_tail(wiring, taker, count):
            raise Refused(f"no bias, but {taker.shown} follows it")
    raise AssertionError("a way forward ends in a Refused only")


def in_front(wiring: Wiring, norm: Norm) -> tuple[Contraction, Parameter | None]:
    """The contraction whose output, plus at most one bias, is all that a normalisation takes; with that bias.

    Raises:
        Refused: it takes something else, or something else takes that output too.
    """
    if norm.source is None or norm.result is None:
        calls = len(norm.layer.calls)
        raise Refused(f"it is called {calls} times" if calls != 1 else "it has a mask")
    if not norm.is_last:
        raise Refused("it does not normalise the last axis")
    if wiring.is_held(norm.source):
        raise Refused("its input is held on a grid")
    if not wiring.is_alone(norm):
        raise Refused("something else reads its input too")
    bias: Parameter | None = None
    for _, op in backward(wiring, norm.source, alone=True):
        shared = next((p for p, _ in wiring.uses.get(op.name, []) if len(p.uses) > 1), None)
        if shared is not None:
            raise Refused(f"{shared.path} is used {len(shared.uses)} times")
        found = wiring.added(op)
        if found is not None and bias is None:
            bias = found[0]
        elif spec(op).is_contraction:
            return wiring.contraction(op), bias
        elif not wiring.keeps_last_axis(op):
            raise Refused(f"no kernel in front of it, but {op.shown}")
    raise Refused("no kernel in front of it, but an input")


def _means(wiring: Wiring, count: int) -> dict[str, Norm]:
    """The normalisations of `count` channels that subtract a mean, by the tensor that they take."""
    return {
        norm.source: norm
        for norm in wiring.norms
        if norm.source is not None
        and norm.is_last
        and norm.mean is not None
        and norm.mean.size == count == wiring.width(norm.source)
    }


def _keeps_tail(wiring: Wiring, op: Op, count: int) -> bool:
    """Whether a reshape leaves the last `count` elements together, as one axis or several."""
    shapes = [wiring.shape(op.inputs[0]), wiring.shape(op.outputs[0])] if spec(op).reshapes else [()]
    return all(any(prod(d or 0 for d in shape[start:]) == count for start in range(len(shape))) for shape in shapes)


def _bias(wiring: Wiring, op: Op, count: int) -> Target | None:
    """The bias of `count` values that an addition adds; a row of it where it is taken apart into rows first."""
    for parameter, _ in wiring.uses.get(op.name, []):
        if parameter.size == count and wiring.is_plain(op, parameter):
            return Target(parameter)
        rows = parameter.shape[0] if len(parameter.shape) == 2 else 0
        row = _row(wiring, op, parameter, rows)
        if row is not None and parameter.size == rows * count:
            return Target(parameter, 1, row)
    return None


def _bias_beside(wiring: Wiring, op: Op, tensor: str, count: int) -> Target | None:
    """The bias in what an addition adds to a tensor, where that is the output of an addition in the same layer."""
    for name in wiring.features(op):
        maker = wiring.makers.get(name)
        if name != tensor and maker is not None and maker.layer == op.layer and wiring.is_only_reader(op, name):
            return _bias(wiring, maker, count) if spec(maker).is_addition else None
    return None


def _row(wiring: Wiring, op: Op, parameter: Parameter, rows: int) -> int | None:
    """Which row of a parameter an operation reads, where the trace takes it apart along its first axis."""
    for name in op.inputs:
        if not wiring.reads_statically(name, parameter):
            continue
        way = ((tensor, maker) for tensor, maker in backward(wiring, name) if not spec(maker).is_transparent)
        tensor, maker = next(way, (name, None))
        if maker is None or attribute(maker, "axis") != 0 or len(maker.outputs) != rows:
            continue
        if maker.kind == "unstack" or (maker.kind == "split" and wiring.shape(tensor)[:1] == (1,)):
            return maker.outputs.index(tensor)
    return None
