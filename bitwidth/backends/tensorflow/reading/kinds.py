"""Kinds: TensorFlow's types of operations, mapped onto the vocabulary of the graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFOperation, TFTensor
from bitwidth.graph.ops import SPECS, Kind, OpSpec

_TYPES: dict[Kind, tuple[str, ...]] = {
    "input": ("Placeholder",),
    "constant": ("Const",),
    "read": ("ReadVariableOp",),
    "call": ("PartitionedCall", "StatefulPartitionedCall"),
    "loop": ("While", "StatelessWhile"),
    "branch": ("If", "StatelessIf", "Case", "StatelessCase"),
    "matmul": ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"),
    "einsum": ("Einsum",),
    "conv": ("Conv2D", "Conv3D"),
    "transposed_conv": ("Conv2DBackpropInput", "Conv3DBackpropInputV2"),
    "depthwise_conv": ("DepthwiseConv2dNative",),
    "gather": ("Gather", "GatherV2", "ResourceGather"),
    "gather_nd": ("GatherNd", "ResourceGatherNd"),
    "add": ("Add", "AddV2", "AddN"),
    "bias_add": ("BiasAdd",),
    "subtract": ("Sub",),
    "multiply": ("Mul", "MulNoNan"),
    "divide": ("RealDiv", "Div", "DivNoNan"),
    "integer_divide": ("FloorDiv", "TruncateDiv"),
    "remainder": ("FloorMod",),
    "power": ("Pow",),
    "squared_difference": ("SquaredDifference",),
    "maximum": ("Maximum",),
    "minimum": ("Minimum",),
    "clip": ("ClipByValue",),
    "abs": ("Abs",),
    "negative": ("Neg",),
    "sign": ("Sign",),
    "round": ("Round", "Rint", "Floor", "Ceil"),
    "compare": ("Equal", "NotEqual", "ApproximateEqual", "Less", "LessEqual", "Greater", "GreaterEqual"),
    "logical": ("LogicalAnd", "LogicalOr", "LogicalNot"),
    "select": ("Select", "SelectV2"),
    "bucketize": ("Bucketize",),
    "in_top_k": ("InTopKV2",),
    "relu": ("Relu",),
    "leaky_relu": ("LeakyRelu",),
    "sigmoid": ("Sigmoid",),
    "softmax": ("Softmax",),
    "elementwise": (
        *("Relu6", "Elu", "Selu", "Softsign", "Tanh", "Erf", "Expm1", "Log1p", "Sqrt", "Square", "Sin"),
        *("Atan", "Asinh", "Sinh", "Softplus", "Erfc", "Exp", "Log", "Rsqrt", "Reciprocal", "Inv", "Cos", "Cosh"),
    ),
    "batch_norm": ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
    "reduce_mean": ("Mean",),
    "reduce_max": ("Max",),
    "reduce_min": ("Min",),
    "reduce_sum": ("Sum",),
    "reduce_product": ("Prod",),
    "reduce_logical": ("All", "Any"),
    "average_pool": ("AvgPool", "AvgPool3D"),
    "max_pool": ("MaxPool", "MaxPoolV2", "MaxPool3D"),
    "resize": ("ResizeNearestNeighbor", "ResizeBilinear", "ResizeBicubic", "ResizeArea"),
    "identity": ("Identity", "CheckNumerics"),
    "identity_n": ("IdentityN",),
    "stop_gradient": ("StopGradient", "PreventGradient"),
    "cast": ("Cast",),
    "reshape": ("Reshape",),
    "squeeze": ("Squeeze",),
    "expand_dims": ("ExpandDims",),
    "transpose": ("Transpose",),
    "concat": ("ConcatV2",),
    "split": ("Split", "SplitV"),
    "stack": ("Pack",),
    "unstack": ("Unpack",),
    "slice": ("Slice",),
    "strided_slice": ("StridedSlice",),
    "reverse": ("ReverseV2",),
    "tile": ("Tile",),
    "broadcast": ("BroadcastTo",),
    "pad": ("Pad", "PadV2"),
    "mirror_pad": ("MirrorPad",),
    "space_to_batch": ("SpaceToBatchND",),
    "batch_to_space": ("BatchToSpaceND",),
    "list_new": ("TensorListReserve", "EmptyTensorList"),
    "list_from_tensor": ("TensorListFromTensor",),
    "list_get": ("TensorListGetItem",),
    "list_set": ("TensorListSetItem",),
    "list_stack": ("TensorListStack",),
    "fill": ("Fill",),
    "fill_like": ("ZerosLike", "OnesLike"),
    "range": ("Range",),
    "shape": ("Shape", "ShapeN", "VariableShape"),
    "size": ("Size",),
    "rank": ("Rank",),
}
KINDS: dict[str, Kind] = {name: kind for kind, names in _TYPES.items() for name in names}

# Places of the operands, in the vocabulary's order, of the types that have another one.
_ORDER = {"Split": (1, 0), "Conv2DBackpropInput": (2, 1, 0), "Conv3DBackpropInputV2": (2, 1, 0)}
# What the vocabulary has as attributes and TensorFlow as operands: name, and place among TensorFlow's.
_GIVEN: dict[str, tuple[tuple[str, int], ...]] = {
    "ConcatV2": (("axis", -1),),
    "GatherV2": (("axis", 2),),
    "All": (("axes", 1),),
    "Any": (("axes", 1),),
    "Max": (("axes", 1),),
    "Mean": (("axes", 1),),
    "Min": (("axes", 1),),
    "MirrorPad": (("pads", 1),),
    "Pad": (("pads", 1),),
    "PadV2": (("pads", 1), ("fill", 2)),
    "Prod": (("axes", 1),),
    "Split": (("axis", 0),),
    "SplitV": (("axis", 2),),
    "Sum": (("axes", 1),),
    "Transpose": (("order", 1),),
}
# What the vocabulary has as attributes and these types cannot change.
_FIXED: dict[str, dict[str, Any]] = {"Gather": {"axis": 0}, "Pad": {"fill": 0}, "ResourceGather": {"axis": 0}}
# Types of the kind "elementwise" that are 0 at 0.
_KEEP_ZERO = frozenset(
    "Relu6 Elu Selu Softsign Tanh Erf Expm1 Log1p Sqrt Square Sin Atan Asinh Sinh".split()  # noqa: SIM905
)
_TRANSPOSED = {"MatMul": ("transpose_a", "transpose_b")}  # all other products: adjoints
_ADJOINTS = ("adj_x", "adj_y")


def kind_of(op: TFOperation) -> Kind:
    """The kind of a TensorFlow operation; `"other"` for a type that the vocabulary does not have.

    Example:
        >>> with tf.Graph().as_default():
        ...     kind_of(tf.nn.relu(tf.zeros((2, 2))).op), kind_of(tf.linalg.inv(tf.eye(2)).op)
        ('relu', 'other')
    """
    return KINDS.get(op.type, "other")


def spec_of(op: TFOperation) -> OpSpec:
    """What is known about the kind of a TensorFlow operation."""
    return SPECS[kind_of(op)]


def operands(op: TFOperation) -> list[TFTensor]:
    """The tensors that a TensorFlow operation reads, in the order that its kind has."""
    given = list(op.inputs)
    return [given[place] for place in _ORDER.get(op.type, range(len(given)))]


def transposes(op: TFOperation) -> tuple[bool, bool]:
    """Whether a matrix product transposes its first operand, and whether its second."""
    first, second = _TRANSPOSED.get(op.type, _ADJOINTS)
    return op.get_attr(first), op.get_attr(second)


def given_attributes(op: TFOperation) -> dict[str, Any]:
    """Attributes that the kind of an operation has, and TensorFlow has as operands or under other names.

    Example:
        >>> with tf.Graph().as_default():
        ...     given_attributes(tf.reduce_mean(tf.zeros((2, 3, 4)), (0, 1)).op)
        {'axes': (0, 1)}
    """
    found = dict(_FIXED.get(op.type, {}))
    if kind_of(op) == "matmul":
        found["transpose_a"], found["transpose_b"] = transposes(op)
    elif kind_of(op) == "elementwise":
        found["keeps_zero"] = op.type in _KEEP_ZERO
    for name, place in _GIVEN.get(op.type, ()):
        operand = op.inputs[place].op
        if operand.type == "Const":
            value = tf.get_static_value(operand.outputs[0])
            found[name] = tuple(value.reshape(-1).tolist()) if name in ("axes", "order") else value.tolist()
    return found
