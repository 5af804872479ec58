"""`FoldBatchNorm`: put what a batch normalisation does into the kernel in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.context import Context
from bitwidth.errors import ContractError
from bitwidth.graph import Contraction, Graph, Norm, Parameter, Refused, Where, Wiring, check_where, frozen_where
from bitwidth.graph.channels import Channels, channels_made
from bitwidth.graph.neighbours import in_front
from bitwidth.graph.wiring import need_free
from bitwidth.passes.base import Pass
from bitwidth.passes.roles import need_selected

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FoldBatchNorm(Pass, name="fold_batch_norm"):
    """Multiply the scale of each batch normalisation into the kernel in front of it, so that grids see the product.

    What the model computes in inference stays the same up to rounding (Jacob et al. 2018, "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2). The layer stays where it is and has
    nothing left to do but add an offset, and not even that where the layer in front has a bias. It is frozen, so that
    later training keeps the function: it never normalises by a batch again.

    A normalisation is folded if all that it takes is the output of one dense, convolution or einsum layer (of any kind;
    the last kernel of a separable one) whose kernel nothing else uses. The report has the reason for every other one.
    Masks stay. Fold before `Quantize`: a kernel on a grid is left unchanged.

    Attributes:
        where: the parameters that may change, by path or layer; None for all. A normalisation is folded where its own
            parameters, the kernel and the bias in front of it are all named.

    Raises:
        SelectionError: `where` has not the form of a selector.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(name="norm")]
        >>> result = bw.PassManager([FoldBatchNorm()]).run(keras.Sequential(layers))
        >>> result.model.get_layer("norm").trainable
        False
        >>> result.report.passes[0].remarks
        ('1 of 1 batch normalisations folded',)
    """

    where: Where = None

    def __post_init__(self) -> None:
        check_where(self.where, "FoldBatchNorm")
        object.__setattr__(self, "where", frozen_where(self.where))

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """`where` names something."""
        context.selection(graph, self.where)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Fold each normalisation that can be folded."""
        inside = {parameter.path for parameter in context.select(graph, self.where)}
        wiring = Wiring(graph)
        norms = wiring.norms
        values: Arrays = {}
        folded = []
        for norm in norms:
            try:
                channels, contraction, bias = _in_front(wiring, norm, inside)
            except Refused as refusal:
                for parameter in norm.parameters:
                    context.notes.skipped.setdefault(parameter.path, f"not folded: {refusal.reason}")
                continue
            values.update(_folded(graph, norm, channels, contraction.kernel, bias))
            folded.append(norm.layer.path)
        context.remark(f"{len(folded)} of {len(norms)} batch normalisations folded")
        return graph.update(values).freeze(folded) if folded else graph

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """What was folded is frozen, and neither scales nor shifts by its statistics where it has an offset."""
        layers = before.layers
        for norm in Wiring(after).norms:
            path = norm.layer.path
            if norm.layer.trainable or not layers[path].trainable or norm.variance is None or norm.epsilon is None:
                continue
            scale = _scale(after, norm)
            if np.abs(scale - 1).max(initial=0.0) > 1e-6:
                raise ContractError(f"FoldBatchNorm left {path} with scales from {scale.min():g} to {scale.max():g}")


def _in_front(wiring: Wiring, norm: Norm, inside: set[str]) -> tuple[Channels, Contraction, Parameter | None]:
    """What a normalisation is folded into: the channels of a kernel, and the bias if there is one."""
    if norm.mean is None or norm.variance is None or norm.epsilon is None:
        raise Refused("its statistics or its epsilon are not seen in the trace")
    contraction, bias = in_front(wiring, norm)
    channels = channels_made(contraction.op, contraction.kernel, contraction.use)
    width = wiring.width(contraction.op.outputs[0])
    count = norm.variance.size
    if channels.count != count or width not in (count, None) or (bias is not None and bias.size != count):
        raise Refused(f"it normalises {count} channels along another axis than {contraction.kernel.path} makes")
    changed = (contraction.kernel, *norm.parameters, *(() if bias is None else (bias,)))
    need_selected(changed, inside)
    need_free(changed)
    return channels, contraction, bias


def _scale(graph: Graph, norm: Norm) -> NDArray[np.float64]:
    """What a normalisation multiplies with, `(channels,)`."""
    assert norm.variance is not None
    assert norm.epsilon is not None
    gamma = 1.0 if norm.scale is None else graph.values[norm.scale.path].astype(np.float64)
    scale: NDArray[np.float64] = gamma / np.sqrt(graph.values[norm.variance.path].astype(np.float64) + norm.epsilon)
    return scale


def _folded(graph: Graph, norm: Norm, channels: Channels, kernel: Parameter, bias: Parameter | None) -> Arrays:
    """New values: the kernel takes the scale, the bias all shifts; without a bias they become the offset."""
    assert norm.mean is not None
    assert norm.variance is not None
    assert norm.epsilon is not None
    scale = _scale(graph, norm)
    mean = graph.values[norm.mean.path].astype(np.float64) * scale
    offset = np.zeros_like(mean) if norm.offset is None else graph.values[norm.offset.path].astype(np.float64)
    new: dict[str, NDArray[np.float64]] = {
        kernel.path: channels.scaled(graph.values[kernel.path].astype(np.float64), scale),
        norm.variance.path: np.full(mean.shape, np.float32(1) - np.float32(norm.epsilon), np.float64),
        norm.mean.path: np.zeros_like(mean),
    }
    if norm.scale is not None:
        new[norm.scale.path] = np.ones_like(mean)
    if bias is not None:
        shifted = graph.values[bias.path].astype(np.float64).reshape(-1) * scale + offset - mean
        new[bias.path] = shifted.reshape(bias.shape)
        offset = np.zeros_like(mean)
    elif norm.offset is None:
        new[norm.mean.path] = mean
    else:
        offset = offset - mean
    if norm.offset is not None:
        new[norm.offset.path] = offset
    return {path: graph[path].encoding.project(array.astype(np.float32)) for path, array in new.items()}
