"""What a model is, as data: operations over tensors, layers as named scopes over them, and the parameters they read.

Nothing here knows TensorFlow; a backend fills these records in by tracing the model once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bitwidth.encodings import Dense, Encoding
from bitwidth.graph.cuts import Cut
from bitwidth.graph.inputs import KeptInputs
from bitwidth.graph.ops import Kind

Role = Literal[
    "kernel",  # multiplies features: dense, convolution, einsum, the input kernel of a recurrent cell
    "recurrent_kernel",  # multiplies the state of a recurrent cell
    "embedding",  # rows looked up by an integer
    "bias",  # added to features
    "scale",  # multiplies features one by one (gamma of a normalisation)
    "offset",  # added after a normalisation (beta)
    "mean",  # a running or adapted mean
    "variance",  # a running or adapted variance
    "state",  # integer or string state: counters, seeds
    "other",  # floating point, and none of the above could be shown
]


@dataclass(frozen=True)
class Use:
    """One operation that reads a parameter.

    Attributes:
        op: name of the reading operation in `Graph.ops`.
        kind: its kind, see `bitwidth.graph.ops`.
        layer: path of the innermost layer whose call runs it (`""` for the model itself).
        channel_axes: axes of the parameter that become output channels there; empty where that is not known.
        input_axes: axes of the parameter that are summed over there; empty where that is not known.
        label: the framework's name for the operation, for messages only.
    """

    op: str
    kind: Kind
    layer: str
    channel_axes: tuple[int, ...] = ()
    input_axes: tuple[int, ...] = ()
    label: str = ""

    @property
    def shown(self) -> str:
        """The operation as a message names it."""
        return _shown(self)


@dataclass(frozen=True)
class Parameter:
    """One variable of the model. A tied parameter is one parameter with several uses.

    Attributes:
        path: unique name, the layer's path and the variable's name: `"block/dense/kernel"`.
        shape: sizes of its axes.
        dtype: numpy name of its dtype (`"bfloat16"` and `"string"` too).
        role: what it does in the model.
        layer: path of the layer that owns it.
        trainable: whether training may change it (a frozen layer's parameters are not trainable).
        uses: the operations that read it, in the order of the trace.
        aliases: other paths under which the same variable is reached.
        index: its position in the model's list of variables.
        encoding: how its values are held.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    role: Role
    layer: str
    trainable: bool = True
    uses: tuple[Use, ...] = ()
    aliases: tuple[str, ...] = ()
    index: int = 0
    encoding: Encoding = field(default_factory=Dense)

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def is_float(self) -> bool:
        """Whether the values are floating point numbers."""
        return "float" in self.dtype

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """Axes that become output channels, from the first use that knows them; by the role where none does."""
        for use in self.uses:
            if use.channel_axes:
                return use.channel_axes
        if len(self.shape) < 2:
            return tuple(range(len(self.shape)))
        return (0,) if self.role == "embedding" else (len(self.shape) - 1,)

    @property
    def input_axes(self) -> tuple[int, ...]:
        """Axes that are summed over, from the first use that knows them; else every axis that is no channel axis."""
        for use in self.uses:
            if use.input_axes:
                return use.input_axes
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.channel_axes)


@dataclass(frozen=True)
class Tensor:
    """One value that flows between operations.

    Attributes:
        name: unique in the graph.
        shape: sizes of its axes, None where the size is only known when the model runs.
        dtype: numpy name of its dtype.
        encoding: how its values are held; None for no encoding.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    encoding: Encoding | None = None


@dataclass(frozen=True)
class Op:
    """One primitive operation of the trace.

    Attributes:
        name: unique in the graph; operations in the body of a loop carry the loop's name in front.
        kind: its kind, for example `"conv"`; see `bitwidth.graph.ops`.
        layer: path of the innermost layer whose call runs it (`""` for the model itself).
        inputs: names of the tensors it reads, in the order that its kind has.
        outputs: names of the tensors it makes, in order.
        parameters: paths of the parameters that it reads, directly or through reads, casts and reshapes.
        attributes: what the kind needs to be understood (axes, equation, padding), as plain data.
        label: the framework's name for the operation, for messages only.
    """

    name: str
    kind: Kind
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    label: str = ""

    @property
    def shown(self) -> str:
        """The operation as a message names it."""
        return _shown(self)


def _shown(item: Op | Use) -> str:
    name = item.label or item.kind
    return f"{name} in {item.layer}" if item.layer else name


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: the tensors it took and the tensors it gave. A shared layer has several.

    Attributes:
        inputs: names of the tensors it took, in the order of its flattened arguments.
        outputs: names of the tensors it gave.
        masks: those of the inputs that were given for an argument whose name says that it is a mask.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    masks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A named scope over operations.

    Attributes:
        path: unique name: the names of the layers around it and its own, joined by `/`.
        kind: name of its class.
        parent: path of the layer around it (`""` for a layer of the model itself).
        trainable: whether it is marked trainable.
        calls: its calls, in the order of the trace; empty for a layer that the trace did not reach.
        tracked: whether it is a part of the model; False for one that is made or found while the model is called.
        fixed: why no chain can take its place; empty where one can.
    """

    path: str
    kind: str
    parent: str = ""
    trainable: bool = True
    calls: tuple[LayerCall, ...] = ()
    tracked: bool = True
    fixed: str = ""


@dataclass(frozen=True)
class Structure:
    """The part of a graph that passes over parameters never change: one object, shared by every snapshot of it.

    Attributes:
        name: of the model.
        ops: the operations, in an order in which each comes after those it reads from.
        tensors: what flows between them.
        layers: the layers, outer ones first.
        inputs: names of the tensors that the model takes.
        outputs: names of those that it returns.
        notes: what there is to say about the model as it was read.
        cut: what is left of its parameters since it was opened.
        kept_inputs: which features of an input it still takes; None where none was removed.
        own_code: a class of the user's in whose code sizes may stand, so that a removal may fail; empty where all
            layers are the framework's.
    """

    name: str
    ops: tuple[Op, ...]
    tensors: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cut: Cut = field(default_factory=Cut)
    kept_inputs: KeptInputs | None = None
    own_code: str = ""


def layer_inputs(structure: Structure) -> dict[str, tuple[Encoding | None, ...]]:
    """How each layer's input tensors are held, by path, in the order of its call; layers with none on a grid are left

    out, and so are those that are no part of the model. Of a layer that is called several times the calls share their
    grids.
    """
    held = {tensor.name: tensor.encoding for tensor in structure.tensors if tensor.encoding is not None}
    found: dict[str, tuple[Encoding | None, ...]] = {}
    if not held:
        return found
    for layer in structure.layers:
        for call in layer.calls if layer.tracked else ():
            encodings = tuple(held.get(name) for name in call.inputs)
            if any(encodings):
                found.setdefault(layer.path, encodings)
    return found
