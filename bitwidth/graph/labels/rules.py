"""Which rule goes with which kind of operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bitwidth.graph.labels import contractions, control, moves, pointwise, reductions
from bitwidth.graph.labels.axes import Labelled, Listed
from bitwidth.graph.labels.labelling import Labelling
from bitwidth.graph.model import Op
from bitwidth.graph.ops import Kind

Rule = Callable[[Labelling, Op, Sequence[Any]], Sequence[Labelled | Listed]]

_every = pointwise.pointwise(all)
_some = pointwise.pointwise(any)
_first = pointwise.pointwise(lambda zero: zero[0])
_never = pointwise.pointwise(lambda zero: False)
_chosen = pointwise.pointwise(lambda zero: all(zero[1:]))

RULES: Mapping[Kind, Rule] = MappingProxyType(
    {
        "call": control.call,
        "loop": control.loop,
        "branch": control.branch,
        "read": control.identity,
        "matmul": contractions.matmul,
        "einsum": contractions.einsum,
        "conv": contractions.conv,
        "transposed_conv": contractions.transposed_conv,
        "depthwise_conv": contractions.depthwise,
        "gather": contractions.gather,
        "gather_nd": contractions.gather_nd,
        "add": _every,
        "bias_add": pointwise.bias_add,
        "subtract": _every,
        "squared_difference": _every,
        "multiply": _some,
        "divide": _first,
        "integer_divide": _first,
        "remainder": _first,
        "power": _never,
        "maximum": _every,
        "minimum": _every,
        "clip": _never,
        "abs": pointwise.same,
        "negative": pointwise.same,
        "sign": pointwise.same,
        "round": pointwise.same,
        "compare": _never,
        "logical": _never,
        "select": _chosen,
        "bucketize": pointwise.function,
        "relu": pointwise.same,
        "leaky_relu": pointwise.same,
        "sigmoid": pointwise.function,
        "softmax": reductions.softmax,
        "elementwise": pointwise.function,
        "batch_norm": pointwise.batch_norm,
        "reduce_mean": reductions.reduction,
        "reduce_max": reductions.reduction,
        "reduce_min": reductions.reduction,
        "reduce_sum": reductions.reduction,
        "reduce_product": reductions.reduction,
        "reduce_logical": reductions.reduction,
        "average_pool": reductions.pool,
        "max_pool": reductions.pool,
        "resize": reductions.pool,
        "identity": control.identity,
        "identity_n": control.identity,
        "stop_gradient": control.identity,
        "cast": pointwise.same,
        "reshape": moves.reshape,
        "squeeze": moves.reshape,
        "expand_dims": moves.reshape,
        "transpose": moves.transpose,
        "concat": moves.concat,
        "split": moves.split,
        "stack": moves.stack,
        "unstack": moves.unstack,
        "slice": moves.slice_,
        "strided_slice": moves.strided_slice,
        "reverse": moves.reverse,
        "tile": moves.tile,
        "broadcast": moves.broadcast,
        "pad": moves.pad,
        "mirror_pad": moves.pad,
        "space_to_batch": moves.mixed_positions,
        "batch_to_space": moves.mixed_positions,
        "fill": control.fill,
        "fill_like": control.fill_like,
        "range": control.blank,
        "list_new": control.list_new,
        "list_from_tensor": control.list_from_tensor,
        "list_get": control.list_get,
        "list_set": control.list_set,
        "list_stack": control.list_stack,
        "shape": control.blank,
        "size": control.blank,
        "rank": control.blank,
    }
)
"""By kind; "input", "constant" and "other" have none."""
