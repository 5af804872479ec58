"""`EqualizeLayers`: move scale from layer to layer, channel by channel, so that a kernel's channels fit one grid."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.context import Context, check_count
from bitwidth.graph import (
    Contraction,
    Graph,
    Norm,
    Op,
    Parameter,
    Refused,
    Where,
    Wiring,
    check_where,
    frozen_where,
    spec,
)
from bitwidth.graph.channels import Channels, channels_made, channels_taken
from bitwidth.graph.ops import channels_first, last_axis_stays
from bitwidth.graph.paths import forward
from bitwidth.graph.wiring import need_free
from bitwidth.passes.base import Pass
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.roles import need_selected

_SETTLED = 1e-4  # greatest change of the logarithm of a scale
_FURTHEST = 1e6  # a scale moves at most that far in one step


@keywords_from(1)
@dataclass(frozen=True)
class EqualizeLayers(Pass, name="equalize_layers"):
    """Give the channels between two layers equal ranges in both kernels: one divides by a scale, the next multiplies.

    With per-tensor grids (and with activations on grids) a channel of a small range gets few levels; dividing the
    kernel's channel j and its bias by s_j and multiplying the next kernel's inputs from it by s_j changes nothing in
    what the model computes, up to rounding, where only operations lie between that scale with their input (Nagel et al.
    2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1): ReLU, LeakyReLU,
    pooling, zero padding, Flatten, and a normalisation folded by `FoldBatchNorm`. With s_j = sqrt(r_j / q_j), where r_j
    and q_j are the greatest magnitudes of channel j in the first kernel and in the second, both become sqrt(r_j q_j).
    Pairs are gone through in turn until nothing moves. Needs no data.

    The report has the reason for every kernel that starts no pair: something else reads its output, ReLU6 or a sigmoid
    follows, a value is on a grid already. Masks stay. Equalize before `Quantize`.

    Attributes:
        iterations: how often all pairs are gone through, at most; at least 1.
        where: the parameters that may change, by path or layer; None for all. A pair is equalized where both kernels
            and all that lies between them are named.

    Raises:
        ConfigError: `iterations` is not an integer of at least 1.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> layers = [keras.Input((6,)), keras.layers.Dense(8, "relu", name="a"), keras.layers.Dense(2, name="b")]
        >>> result = bw.PassManager([EqualizeLayers()]).run(keras.Sequential(layers))
        >>> a, b = (np.abs(result.graph.values[path]) for path in ("a/kernel", "b/kernel"))
        >>> bool(np.allclose(a.max(axis=0), b.max(axis=1), rtol=1e-3))
        True
    """

    iterations: int = 20
    _: KW_ONLY
    where: Where = None

    def __post_init__(self) -> None:
        check_count(self.iterations, "EqualizeLayers", "iterations")
        check_where(self.where, "EqualizeLayers")
        object.__setattr__(self, "where", frozen_where(self.where))

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """`where` names something."""
        context.selection(graph, self.where)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Equalize each pair of layers that can be."""
        inside = {parameter.path for parameter in context.select(graph, self.where)}
        pairs = []
        wiring = Wiring(graph)
        for op, read in wiring.contractions():
            try:
                pairs.append(_pair(wiring, wiring.contraction(op), inside))
            except Refused as refusal:
                for parameter in read:
                    context.notes.skipped.setdefault(parameter.path, f"starts no pair: {refusal.reason}")
        values = {path: graph.values[path].astype(np.float64) for pair in pairs for path in pair.paths}
        for _ in range(self.iterations):
            moved = max((pair.equalize(values) for pair in pairs), default=0.0)
            if moved < _SETTLED:
                break
        context.remark(f"{len(pairs)} pairs of layers equalized")
        held = {path: graph[path].encoding.project(array.astype(np.float32)) for path, array in values.items()}
        return graph.update(held)


@dataclass(frozen=True)
class Pair:
    """Two kernels, the second of which takes the output of the first.

    Attributes:
        first: where the channels stand in the kernel that computes them.
        second: where the features stand in the kernel that takes them, one or several for each channel in turn.
        between: paths of the parameters that are added between the two, one value for each channel.
    """

    first: Channels
    second: Channels
    between: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all parameters that change."""
        return (self.first.path, self.second.path, *self.between)

    def equalize(self, values: dict[str, NDArray[np.float64]]) -> float:
        """Equalize once, in place; how far the scales were from 1, as the greatest magnitude of their logarithm."""
        count = self.first.count
        repeats = self.second.count // count
        made = self.first.magnitudes(values[self.first.path])
        taken = self.second.magnitudes(values[self.second.path]).reshape(repeats, count).max(axis=0)
        alive = (made > 0) & (taken > 0)
        scale = np.sqrt(np.where(alive, made, 1.0) / np.where(alive, taken, 1.0))
        scale = np.clip(scale, 1 / _FURTHEST, _FURTHEST)
        values[self.first.path] = self.first.scaled(values[self.first.path], 1 / scale)
        values[self.second.path] = self.second.scaled(values[self.second.path], np.tile(scale, repeats))
        for path in self.between:
            values[path] = values[path] / scale.reshape(values[path].shape)
        return float(np.abs(np.log(scale)).max(initial=0.0))


def _pair(wiring: Wiring, start: Contraction, inside: set[str]) -> Pair:
    """The pair that begins with a contraction."""
    first = channels_made(start.op, start.kernel, start.use)
    if first.count != wiring.width(start.op.outputs[0]):
        raise Refused("its channels are not the last axis of its output")
    between: list[Parameter] = []
    op, tensor = _end(wiring, start.op.outputs[0], first.count, between)
    contraction = wiring.contraction(op)
    width = wiring.width(tensor)
    if width is None or width % first.count:
        raise Refused(f"{op.label or op.kind} takes its channels in another order")
    try:
        second = channels_taken(op, contraction.kernel, contraction.use, width)
    except Refused as refusal:
        raise Refused(f"{contraction.kernel.path}: {refusal.reason}") from None
    changed = (start.kernel, contraction.kernel, *between)
    need_selected(changed, inside)
    need_free(changed)
    return Pair(first, second, tuple(parameter.path for parameter in between))


def _end(wiring: Wiring, start: str, count: int, between: list[Parameter]) -> tuple[Op, str]:
    """The contraction that takes a tensor through operations that scale with it, and the tensor that it takes.

    What is added on the way goes into `between`.
    """
    norms = {norm.source: norm for norm in wiring.norms if norm.source is not None}
    for tensor, taker in forward(wiring, start, norms):
        if isinstance(taker, Norm):
            _need_folded(wiring, taker, count)
            between.extend(p for p in (taker.mean, taker.offset) if p is not None)
            continue
        if spec(taker).is_contraction:
            return taker, tensor
        added = wiring.added(taker)
        if added is not None and added[0].size == count == wiring.width(tensor):
            between.append(added[0])
        elif not _scales(wiring, taker, tensor, count):
            raise Refused(f"{taker.shown} follows")
    raise AssertionError("a way forward ends in a Refused only")


def _need_folded(wiring: Wiring, norm: Norm, count: int) -> None:
    """Check that scales go through a normalisation."""
    path = norm.layer.path
    if norm.layer.trainable:
        raise Refused(f"the batch normalisation {path} follows, and is not folded")
    if norm.result is None or not wiring.is_alone(norm):
        raise Refused(f"something else than {path} reads its output")
    if not norm.is_last or any(parameter.size != count for parameter in norm.parameters):
        raise Refused(f"{path} does not normalise the last axis")


def _scales(wiring: Wiring, op: Op, tensor: str, count: int) -> bool:
    """Whether scaling a channel of a tensor scales the same channel of the operation's output."""
    if wiring.keeps_last_axis(op):
        return True
    if not spec(op).passes_scale or channels_first(op):
        return False
    if spec(op).reshapes:
        return _keeps_turns(wiring.shape(tensor), wiring.width(op.outputs[0]), count)
    return last_axis_stays(op, len(wiring.shape(tensor)))


def _keeps_turns(shape: tuple[int | None, ...], width: int | None, count: int) -> bool:
    """Whether after a reshape to a last axis of `width` its elements are still the `count` channels in turn."""
    if not shape or width is None or shape[-1] is None or width % count:
        return False
    merged = 1
    for length in reversed(shape):
        merged *= length or 0
        if merged == width:
            return True
    return shape[-1] % width == 0
