"""`EqualizeLayers`: move scale from layer to layer, channel by channel, so that a kernel's channels fit one grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.context import Context, check_count
from bitwidth.graph import Contraction, Graph, Parameter, Where, Wiring, check_where, frozen_where
from bitwidth.graph.channels import CONTRACTIONS, Channels, channels_made, channels_taken
from bitwidth.graph.model import Op
from bitwidth.graph.wiring import Norm, bound
from bitwidth.passes.base import Pass
from bitwidth.passes.roles import left_out

_SETTLED = 1e-4  # greatest change of the logarithm of a scale
_FURTHEST = 1e6  # a scale moves at most that far in one step
_HOMOGENEOUS = (
    "Relu",
    "LeakyRelu",
    "MaxPool",
    "MaxPool3D",
    "MaxPoolV2",
    "AvgPool",
    "AvgPool3D",
    "MirrorPad",
    "SpaceToBatchND",
)
_REDUCTIONS = ("Mean", "Max", "Sum")


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
        ConfigError: `iterations` is no whole number of at least 1.

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
    where: Where = None

    def __post_init__(self) -> None:
        check_count(self.iterations, "EqualizeLayers", "iterations")
        check_where(self.where, "EqualizeLayers")
        object.__setattr__(self, "where", frozen_where(self.where))

    def check(self, graph: Graph, context: Context) -> None:
        """`where` names something."""
        context.selection(graph, self.where)

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Equalize each pair of layers that can be."""
        inside = {parameter.path for parameter in context.select(graph, self.where)}
        pairs = []
        wiring = Wiring(graph)
        for start in wiring.contractions():
            kernel = start.kernel if isinstance(start, Contraction) else start[0]
            found = _pair(wiring, start, inside) if isinstance(start, Contraction) else start[1]
            if isinstance(found, Pair):
                pairs.append(found)
            else:
                context.notes.skipped.setdefault(kernel.path, f"starts no pair: {found}")
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
    """Two kernels, the second of which takes what the first gives.

    Attributes:
        first: where the channels stand in the kernel that gives them.
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


def _pair(wiring: Wiring, start: Contraction, inside: set[str]) -> Pair | str:
    """The pair that begins with a contraction, or why there is none."""
    first = channels_made(start.op, start.kernel, start.use)
    if isinstance(first, str):
        return first
    if first.count != wiring.width(start.op.outputs[0]):
        return "its channels are not the last axis of its output"
    between: list[Parameter] = []
    end = _end(wiring, start.op.outputs[0], first.count, between)
    if isinstance(end, str):
        return end
    op, tensor = end
    contraction = wiring.contraction(op)
    if isinstance(contraction, str):
        return contraction
    width = wiring.width(tensor)
    if width is None or width % first.count:
        return f"{op.kind} takes its channels in another order"
    second = channels_taken(op, contraction.kernel, contraction.use, width)
    if isinstance(second, str):
        return f"{contraction.kernel.path}: {second}"
    changed = (start.kernel, contraction.kernel, *between)
    reason = left_out(changed, inside) or bound(changed)
    return reason or Pair(first, second, tuple(parameter.path for parameter in between))


def _end(wiring: Wiring, tensor: str, count: int, between: list[Parameter]) -> tuple[Op, str] | str:
    """The contraction that takes a tensor through operations that scale with it, and the tensor that it takes.

    What is added on the way goes into `between`.
    """
    norms = {norm.source: norm for norm in wiring.norms if norm.source is not None}
    while True:
        if tensor in norms:
            norm = norms[tensor]
            reason = _blocked(wiring, norm, count)
            if reason is not None or norm.result is None:
                return reason or "it gives nothing"
            between.extend(p for p in (norm.mean, norm.offset) if p is not None)
            tensor = norm.result
            continue
        reader = wiring.only_reader(tensor)
        if isinstance(reader, str):
            return reader
        if reader.kind in CONTRACTIONS:
            return reader, tensor
        added = wiring.added(reader)
        if added is not None and added[0].size == count == wiring.width(tensor):
            between.append(added[0])
        elif not _scales(wiring, reader, tensor, count):
            return f"{reader.kind} in {reader.layer} follows" if reader.layer else f"{reader.kind} follows"
        tensor = reader.outputs[0]


def _blocked(wiring: Wiring, norm: Norm, count: int) -> str | None:
    """Why scales do not go through a normalisation, or None if they do."""
    path = norm.layer.path
    if norm.layer.trainable:
        return f"the batch normalisation {path} follows, and is not folded"
    if norm.result is None or not wiring.is_alone(norm):
        return f"something else than {path} reads what it gives"
    if not norm.is_last or any(parameter.size != count for parameter in norm.parameters):
        return f"{path} does not normalise the last axis"
    return None


def _scales(wiring: Wiring, op: Op, tensor: str, count: int) -> bool:
    """Whether an operation gives s times as much, channel by channel, for a tensor that is s times as large."""
    attributes = dict(op.attributes)
    if op.kind in _HOMOGENEOUS:
        return not str(attributes.get("data_format", "")).startswith("NC")
    if wiring.keeps_last_axis(op):
        return True
    constants = [dict(wiring.makers[name].attributes).get("value") for name in op.inputs[1:] if name in wiring.makers]
    if op.kind in ("Pad", "PadV2"):
        return bool(constants) and _last_pad_is_zero(constants)
    shape = wiring.shape(tensor)
    if op.kind in _REDUCTIONS:
        axes = constants[0] if constants else None
        axes = [axes] if isinstance(axes, int) else axes
        return bool(shape) and bool(axes) and all(axis % len(shape) != len(shape) - 1 for axis in axes or ())
    return op.kind == "Reshape" and _keeps_turns(shape, wiring.width(op.outputs[0]), count)


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


def _last_pad_is_zero(constants: list[object]) -> bool:
    pads = constants[0]
    filled = constants[1] if len(constants) > 1 else 0
    return isinstance(pads, list) and list(pads[-1]) == [0, 0] and filled == 0
