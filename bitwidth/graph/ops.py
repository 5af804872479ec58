"""The vocabulary of operations: what each kind of operation does, in the words of no framework.

A backend maps the operations of its framework onto these kinds while it builds the graph; whoever works on graphs asks
`spec` and needs no framework's names. What a framework has and this vocabulary has not is of the kind `"other"`, about
which nothing is assumed. A new kind is one entry of `Kind`, one of `SPECS` and one in the mapping of each backend.

Operand 0 of every kind is the tensor that the operation is about: the features where it joins some with a kernel, the
table where it looks something up. Operand 1 is what joins it. Channels are the last axis of features unless
`channels_first` says otherwise. Kernels of convolutions have the axes

- `conv`: positions, inputs of one group, outputs;
- `transposed_conv`: positions, outputs, inputs;
- `depthwise_conv`: positions, channels, outputs of each channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from bitwidth.errors import ModelError

if TYPE_CHECKING:
    from bitwidth.graph.model import Op, Use

Kind = Literal[
    # Structure. In the attributes of those that run other operations, `<part>_outputs` names what each part returns.
    "input",  # of the model, or a variable; in a loop or call it has one operand, the tensor that it stands for
    "constant",  # attributes `value`: a number, string or nested list, if it is small; `fill`: the one number it holds
    "read",  # of a variable
    "call",  # of a function; its operations are in the graph too
    "loop",
    "branch",
    # Sums over features, with a kernel.
    "matmul",  # attributes `transpose_a`, `transpose_b`: of the last two axes of operand 0, of operand 1
    "einsum",  # attribute `equation`
    "conv",  # attribute `data_format`: see `channels_first`
    "transposed_conv",  # likewise; operand 2 is the shape of the result
    "depthwise_conv",  # likewise
    "gather",  # attribute `axis`, if that is a constant
    "gather_nd",
    # Arithmetic, one element by another.
    "add",  # of any number of operands
    "bias_add",  # operand 1 has one value for each channel
    "subtract",
    "multiply",
    "divide",
    "integer_divide",
    "remainder",
    "power",
    "squared_difference",
    "maximum",
    "minimum",
    "clip",
    "abs",
    "negative",
    "sign",
    "round",  # to integers: to the nearest, down or up
    # Comparisons of values.
    "compare",
    "logical",  # of truth values
    "select",  # operand 1 where operand 0 is true, else operand 2
    "bucketize",
    "in_top_k",
    # Activations and normalisations.
    "relu",
    "leaky_relu",
    "sigmoid",
    "softmax",
    "elementwise",  # any other function of each element by itself; attribute `keeps_zero`: whether it is 0 at 0
    "batch_norm",  # in one operation; operands 1 to 4: scale, offset, mean, variance
    # Reductions. Attributes `axes`: a tuple, if it is constant; `keep_dims`: whether they stay, with one index each.
    "reduce_mean",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "reduce_product",
    "reduce_logical",
    "average_pool",  # attributes `data_format`, and `ksize`: the window along each axis
    "max_pool",  # likewise
    "resize",  # of the positions of an image
    # Moves: every element of the result is one of operand 0, or of the operands.
    "identity",
    "identity_n",  # of each operand
    "stop_gradient",
    "cast",
    "reshape",
    "squeeze",
    "expand_dims",
    "transpose",  # attribute `order`: a tuple, if it is constant
    "concat",  # attribute `axis`, if it is constant
    "split",  # attribute `axis`, if it is constant
    "stack",  # attribute `axis`
    "unstack",  # attribute `axis`
    "slice",  # operands 1 and 2: where each axis begins, and how long it is
    "strided_slice",  # operands 1 to 3: where each axis begins, ends, its step; five attributes `..._mask`
    "reverse",
    "tile",
    "broadcast",
    "pad",  # attributes `pads`: (before, after) of each axis, and `fill`, if they are constants
    "mirror_pad",  # attribute `pads`
    "space_to_batch",  # positions of an image become a part of the batch, as for a dilated convolution
    "batch_to_space",
    "list_new",  # without elements
    "list_from_tensor",
    "list_get",
    "list_set",  # operand 2 in the place of operand 1
    "list_stack",
    # Of no features.
    "fill",  # operand 0 is the shape, operand 1 the number in all places
    "fill_like",  # operand 0 has the shape
    "range",
    # Of a tensor's shape; its values are not read.
    "shape",
    "size",
    "rank",
    # Anything else.
    "other",
]
Effect = Literal["contract", "look_up", "normalise", "add", "multiply", "none"]


@dataclass(frozen=True)
class OpSpec:
    """What is known about one kind of operation.

    Attributes:
        kind: the kind.
        effect: what it does to features with a parameter that it reads: sums over them with a kernel, looks rows up,
            normalises, adds or multiplies element by element; `"none"` where that is not known.
        kernel_channels: axes of its kernel, from the end, that become channels; empty where the operation says which.
        moves: whether it hands elements on unchanged, moved, repeated or left out.
        keeps_last_axis: whether its result has the last axis of operand 0, element by element.
        reshapes: whether it leaves the elements of operand 0 in their order, under another shape.
        passes_scale: whether channels that are s > 0 times as large make its result s times as large, channel by
            channel, given that channels are the last axis and stay whole.
        arithmetic: whether an index computed by it, from an index and constants, still is one.
        compares: whether it compares values, so that their rounding shows.
        stops_gradient: whether no gradient comes back through it.
        shape_only: whether it reads the shape of its operands and no values.

    Example:
        >>> SPECS["depthwise_conv"].effect, SPECS["depthwise_conv"].kernel_channels
        ('contract', (-2, -1))
        >>> SPECS["other"].effect
        'none'
    """

    kind: Kind
    effect: Effect = "none"
    kernel_channels: tuple[int, ...] = ()
    moves: bool = False
    keeps_last_axis: bool = False
    reshapes: bool = False
    passes_scale: bool = False
    arithmetic: bool = False
    compares: bool = False
    stops_gradient: bool = False
    shape_only: bool = False

    @property
    def is_contraction(self) -> bool:
        """Whether it sums over features with a kernel."""
        return self.effect == "contract"

    @property
    def is_convolution(self) -> bool:
        """Whether it is a contraction of windows of positions."""
        return bool(self.kernel_channels)

    @property
    def is_addition(self) -> bool:
        """Whether it adds a parameter to features, with the sign that it has."""
        return self.effect == "add" and self.kind != "subtract"

    @property
    def is_transparent(self) -> bool:
        """Whether the elements of operand 0 come out in their order, at most under another shape."""
        return self.keeps_last_axis or self.reshapes


_SPECS = (
    OpSpec("input", moves=True),
    OpSpec("constant"),
    OpSpec("read"),
    OpSpec("call", moves=True),
    OpSpec("loop"),
    OpSpec("branch"),
    OpSpec("matmul", "contract"),
    OpSpec("einsum", "contract"),
    OpSpec("conv", "contract", kernel_channels=(-1,)),
    OpSpec("transposed_conv", "contract", kernel_channels=(-2,)),
    OpSpec("depthwise_conv", "contract", kernel_channels=(-2, -1)),
    OpSpec("gather", "look_up"),
    OpSpec("gather_nd", "look_up"),
    OpSpec("add", "add", arithmetic=True),
    OpSpec("bias_add", "add"),
    OpSpec("subtract", "add", arithmetic=True),
    OpSpec("multiply", "multiply", arithmetic=True),
    OpSpec("divide", "multiply", arithmetic=True),
    OpSpec("integer_divide", arithmetic=True, stops_gradient=True),
    OpSpec("remainder", arithmetic=True),
    OpSpec("power"),
    OpSpec("squared_difference"),
    OpSpec("maximum", arithmetic=True),
    OpSpec("minimum", arithmetic=True),
    OpSpec("clip", arithmetic=True),
    OpSpec("abs", arithmetic=True),
    OpSpec("negative", arithmetic=True),
    OpSpec("sign", stops_gradient=True),
    OpSpec("round", arithmetic=True, stops_gradient=True),
    OpSpec("compare", compares=True),
    OpSpec("logical"),
    OpSpec("select"),
    OpSpec("bucketize", compares=True),
    OpSpec("in_top_k", compares=True),
    OpSpec("relu", passes_scale=True),
    OpSpec("leaky_relu", passes_scale=True),
    OpSpec("sigmoid"),
    OpSpec("softmax"),
    OpSpec("elementwise"),
    OpSpec("batch_norm", "normalise"),
    OpSpec("reduce_mean", passes_scale=True),
    OpSpec("reduce_max", passes_scale=True),
    OpSpec("reduce_min"),
    OpSpec("reduce_sum", passes_scale=True),
    OpSpec("reduce_product"),
    OpSpec("reduce_logical"),
    OpSpec("average_pool", passes_scale=True),
    OpSpec("max_pool", passes_scale=True),
    OpSpec("resize"),
    OpSpec("identity", moves=True, keeps_last_axis=True, passes_scale=True),
    OpSpec("identity_n", moves=True),
    OpSpec("stop_gradient", moves=True, keeps_last_axis=True, passes_scale=True, stops_gradient=True),
    OpSpec("cast", moves=True, keeps_last_axis=True, passes_scale=True),
    OpSpec("reshape", moves=True, reshapes=True, passes_scale=True),
    OpSpec("squeeze", moves=True, reshapes=True, passes_scale=True),
    OpSpec("expand_dims", moves=True, reshapes=True, passes_scale=True),
    OpSpec("transpose", moves=True),
    OpSpec("concat", moves=True),
    OpSpec("split", moves=True),
    OpSpec("stack", moves=True),
    OpSpec("unstack", moves=True),
    OpSpec("slice", moves=True),
    OpSpec("strided_slice", moves=True),
    OpSpec("reverse", moves=True),
    OpSpec("tile", moves=True),
    OpSpec("broadcast", moves=True),
    OpSpec("pad", moves=True, passes_scale=True),
    OpSpec("mirror_pad", passes_scale=True),
    OpSpec("space_to_batch", passes_scale=True),
    OpSpec("batch_to_space", moves=True, keeps_last_axis=True, passes_scale=True),
    OpSpec("list_new"),
    OpSpec("list_from_tensor", moves=True),
    OpSpec("list_get", moves=True),
    OpSpec("list_set"),
    OpSpec("list_stack"),
    OpSpec("fill"),
    OpSpec("fill_like"),
    OpSpec("range"),
    OpSpec("shape", shape_only=True),
    OpSpec("size", shape_only=True),
    OpSpec("rank", shape_only=True),
    OpSpec("other"),
)
SPECS: Mapping[Kind, OpSpec] = MappingProxyType({item.kind: item for item in _SPECS})


def spec(op: Op | Use) -> OpSpec:
    """What is known about the kind of an operation, or of the operation that a use stands for.

    Raises:
        ModelError: a kind that is not in the vocabulary; a backend says `"other"` for what it cannot place.

    Example:
        >>> from bitwidth.graph import Op
        >>> spec(Op("dense/product", "matmul", "dense", ("x", "k"), ("y",))).is_contraction
        True
    """
    try:
        return SPECS[op.kind]
    except KeyError:
        raise ModelError(f'{op.kind!r} is not a kind of operation; see bitwidth.graph.ops, or use "other"') from None


def attribute(op: Op, name: str) -> Any:
    """An attribute of an operation, None where it has none of this name.

    Example:
        >>> from bitwidth.graph import Op
        >>> op = Op("parts", "split", "", ("x",), ("y", "z"), attributes=(("axis", 0),))
        >>> attribute(op, "axis"), attribute(op, "value")
        (0, None)
    """
    return dict(op.attributes).get(name)


def channels_first(op: Op) -> bool:
    """Whether the channels of an operation's features are the axis behind the batch, not the last one.

    Read from the attribute `data_format`, `"NHWC"` or `"NCHW"` with as many position axes as there are.
    """
    return str(attribute(op, "data_format") or "").startswith("NC")


def last_axis_stays(op: Op, rank: int) -> bool:
    """Whether what a reduction or padding does along axes leaves the last one of `rank` axes alone.

    False where the axes, the pads or the fill are not known, or a pad is filled with anything but zeros.

    Example:
        >>> from bitwidth.graph import Op
        >>> pool = Op("pool", "reduce_mean", "", ("x",), ("y",), attributes=(("axes", (1, 2)),))
        >>> last_axis_stays(pool, 4), last_axis_stays(pool, 3)
        (True, False)
    """
    if op.kind in ("pad", "mirror_pad"):
        pads = attribute(op, "pads")
        return bool(pads) and tuple(pads[-1]) == (0, 0) and (op.kind == "mirror_pad" or attribute(op, "fill") == 0)
    if op.kind in ("reduce_mean", "reduce_max", "reduce_sum"):
        axes = attribute(op, "axes")
        return rank > 0 and bool(axes) and all(axis % rank != rank - 1 for axis in axes)
    return True
