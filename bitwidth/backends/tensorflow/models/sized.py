"""The sizes in the configuration of a layer, after units were removed from it: one rule for each kind of layer.

A layer that no rule knows is taken for one whose sizes stand in its configuration as the integers that they are: each
that was the length of an axis and is not any more becomes what it is now. Whether that was right shows when the model
is built again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, final

import keras
import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ModelError
from bitwidth.typing import Json, JsonDict

Shape = tuple[int, ...]
Factors = dict[str, float]
"""What parameters are multiplied by, by path, so that a layer that computes with its size computes as before."""
Indices = tuple[NDArray[np.intp] | None, ...]
_NO_SIZES = frozenset({"axis", "axes", "dilation_rate", "kernel_size", "pool_size", "seed", "strides"})


@final
@dataclass(frozen=True)
class Ends:
    """The first tensors that a layer or an operation took and gave: sizes before, and what is left of each axis.

    Attributes:
        shapes: the sizes of each tensor before, None for one that is not known.
        left: of each axis the indices that are left; None for all.
    """

    shapes: tuple[tuple[int | None, ...], ...] = ()
    left: tuple[Indices, ...] = ()

    def sizes(self, place: int = 0) -> tuple[int | None, ...]:
        """The sizes of a tensor after, None for one that is not known."""
        return tuple(
            size if kept is None else len(kept) for size, kept in zip(self.shapes[place], self.left[place], strict=True)
        )


@final
@dataclass(frozen=True)
class Part:
    """One layer, or operation, of a model whose sizes change.

    Attributes:
        path: of the layer.
        before: shapes of the variables in it, by their names below its path.
        after: the same when the units are gone.
        takes: what it takes.
        gives: its outputs.
    """

    path: str
    before: Mapping[str, Shape]
    after: Mapping[str, Shape]
    takes: Ends
    gives: Ends

    def named(self, name: str) -> Shape:
        """The shape after of the variable of a name, wherever in the layer it is.

        Raises:
            ModelError: there is none.
        """
        found = [shape for path, shape in self.after.items() if path.rpartition("/")[2] == name]
        if not found:
            raise ModelError(f"{self.path}: it has no variable {name!r}")
        return found[0]


def resize(config: JsonDict, layer: Any, part: Part) -> Factors:
    """Put the new sizes into the configuration of a layer.

    Args:
        config: what its `get_config` gave, as JSON; changed in place.
        layer: the layer.
        part: what is left of it.

    Returns:
        What some of its parameters have to be multiplied by.

    Raises:
        ModelError: the configuration cannot say it.
    """
    for kinds, rule in _RULES:
        if isinstance(layer, kinds):
            return rule(config, part) or {}
    if part.after or not type(layer).__module__.startswith("keras."):
        _replace_sizes(config, part)
    return {}


def _dense(config: JsonDict, part: Part) -> None:
    config["units"] = part.named("kernel")[-1]


def _einsum_dense(config: JsonDict, part: Part) -> None:
    operands, _, result = config["equation"].partition("->")
    kernel = operands.partition(",")[2]
    if "..." not in kernel:
        now = dict(zip(kernel, part.named("kernel"), strict=True))
        labels = result.replace("...", "")
        held = config["output_shape"]
        whole = [held] if isinstance(held, int) else list(held)
        for place in range(1, len(whole) + 1):
            label = labels[-place] if place <= len(labels) else ""
            if label in now and whole[-place] is not None:
                whole[-place] = now[label]
        config["output_shape"] = whole[0] if isinstance(held, int) else whole


def _conv(config: JsonDict, part: Part) -> None:
    kernel = part.named("kernel")
    config["filters"] = kernel[-1]
    if config["groups"] > 1:
        sizes = part.takes.sizes()
        channels = sizes[1 if config["data_format"] == "channels_first" else -1]
        config["groups"] = int(channels or 0) // kernel[-2]


def _transposed_conv(config: JsonDict, part: Part) -> None:
    config["filters"] = part.named("kernel")[-2]


def _separable_conv(config: JsonDict, part: Part) -> None:
    config["filters"] = part.named("pointwise_kernel")[-1]
    config["depth_multiplier"] = part.named("depthwise_kernel")[-1]


def _depthwise_conv(config: JsonDict, part: Part) -> None:
    config["depth_multiplier"] = part.named("kernel")[-1]


def _embedding(config: JsonDict, part: Part) -> None:
    config["input_dim"], config["output_dim"] = part.named("embeddings")


def _recurrent(config: JsonDict, part: Part) -> None:
    config["units"] = part.named("recurrent_kernel")[0]


def _recurrent_conv(config: JsonDict, part: Part) -> None:
    config["filters"] = part.named("recurrent_kernel")[-2]


def _attention(config: JsonDict, part: Part) -> Factors:
    """Heads and their widths. Products of queries and keys are divided by the root of the width of a head."""
    heads, width = part.after["query/kernel"][-2:]
    before = part.before["query/kernel"][-1]
    grouped = "num_query_heads" in config
    if grouped:
        config.update(num_query_heads=heads, head_dim=width, num_key_value_heads=part.after["key/kernel"][-2])
    else:
        config.update(num_heads=heads, key_dim=width, value_dim=part.after["value/kernel"][-1])
        last = part.after["attention_output/kernel"][-1]
        if config.get("output_shape") is not None:
            config["output_shape"] = [last] if isinstance(config["output_shape"], list) else last
    if width == before:
        return {}
    queries = [name for name in part.after if name.startswith("query/") and name.endswith(("kernel", "bias"))]
    return {f"{part.path}/{name}": sqrt(width / before) for name in queries}


def _reshape(config: JsonDict, part: Part) -> None:
    config["target_shape"] = _sizes(config["target_shape"], part.gives.sizes()[1:])


def _nested(config: JsonDict, part: Part) -> None:
    resize_inputs(config, part.takes)


def resize_inputs(config: JsonDict, takes: Ends) -> None:
    """Put new sizes of its inputs into the configuration of a model.

    Args:
        config: of the model; changed in place.
        takes: its inputs.
    """
    layers = {
        layer["config"]["name"]: layer for layer in config.get("layers", []) if layer["class_name"] == "InputLayer"
    }
    names = [name for name in keras.tree.flatten(config.get("input_layers", list(layers))) if name in layers]
    for place, name in enumerate(names[: len(takes.shapes)]):
        held = layers[name]["config"]
        held["batch_shape"] = _sizes(held["batch_shape"], takes.sizes(place))
    if "build_input_shape" in config and takes.shapes:
        config["build_input_shape"] = _sizes(config["build_input_shape"], takes.sizes())


def _group_norm(config: JsonDict, part: Part) -> None:
    """As many groups as have channels left; -1 stands for a group for each channel."""
    axis, groups = config["axis"], config["groups"]
    kept, channels = part.takes.left[0][axis], part.takes.shapes[0][axis]
    if kept is not None and channels and groups > 0:
        config["groups"] = len(np.unique(kept // (channels // groups)))


def _normalization(config: JsonDict, part: Part) -> None:
    """Statistics that were given, and not adapted to data."""
    axes = config["axis"] if isinstance(config["axis"], list) else [config["axis"]]
    for name in ("mean", "variance"):
        held = np.asarray(config[name]) if isinstance(config[name], list) else None
        if held is not None and len(axes) == 1 and held.ndim and held.shape[-1] > 1:
            kept = part.takes.left[0][axes[0]]
            config[name] = held.tolist() if kept is None else held.take(kept, axis=-1).tolist()


def _nothing(config: JsonDict, part: Part) -> None:
    """A layer whose configuration says no size: of a normalisation, say, or a container of layers."""


_RULES: tuple[tuple[tuple[type[Any], ...], Callable[[JsonDict, Part], Factors | None]], ...] = (
    ((keras.Model,), _nested),
    ((keras.layers.Bidirectional, keras.layers.TimeDistributed, keras.layers.StackedRNNCells), _nothing),
    ((keras.layers.EinsumDense,), _einsum_dense),
    ((keras.layers.Dense,), _dense),
    ((keras.layers.SeparableConv1D, keras.layers.SeparableConv2D), _separable_conv),
    ((keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D), _depthwise_conv),
    (
        (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
        _transposed_conv,
    ),
    ((keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D), _conv),
    ((keras.layers.Embedding,), _embedding),
    ((keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D), _recurrent_conv),
    ((keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN), _recurrent),
    ((keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell), _recurrent),
    ((keras.layers.RNN,), _nothing),
    ((keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention), _attention),
    ((keras.layers.Reshape,), _reshape),
    ((keras.layers.GroupNormalization,), _group_norm),
    ((keras.layers.Normalization,), _normalization),
    ((keras.layers.BatchNormalization, keras.layers.LayerNormalization), _nothing),
)


def _replace_sizes(config: JsonDict, part: Part) -> None:
    """Give each integer that was the length of an axis the length that it has now."""
    now: dict[int, int] = {}
    for before, after in _changes(part):
        if now.setdefault(before, after) != after:
            raise ModelError(
                f"{part.path}: two of its axes of length {before} are to have {now[before]} and {after} entries; "
                "which of them its configuration means cannot be told"
            )
    for key, value in config.items():
        if key not in _NO_SIZES:
            config[key] = _replaced(value, now)


def _changes(part: Part) -> Iterator[tuple[int, int]]:
    for path, shape in part.after.items():
        yield from ((old, new) for old, new in zip(part.before[path], shape, strict=True) if old != new)
    for place, shape_ in enumerate(part.gives.shapes):
        sizes = part.gives.sizes(place)
        yield from ((old, new) for old, new in zip(shape_, sizes, strict=True) if old and new and old != new)


def _replaced(value: Json, now: Mapping[int, int]) -> Json:
    if isinstance(value, list):
        return [_replaced(item, now) for item in value]
    return now.get(value, value) if type(value) is int else value


# ---- operations


def resize_operation(entry: JsonDict, part: Part) -> None:
    """Put the new sizes into the configuration of an operation of a Functional model, which is no layer.

    Args:
        entry: of the operation in the configuration of the model, with the arguments of its call; changed in place.
        part: what is left of what it takes and gives.
    """
    config, kind = entry["config"], entry["class_name"]
    if kind == "Reshape":
        config["newshape"] = _sizes(config["newshape"], part.gives.sizes())
    elif kind == "BroadcastTo":
        config["shape"] = _sizes(config["shape"], part.gives.sizes())
    elif kind == "Split" and not isinstance(config["indices_or_sections"], int):
        axis = config["axis"]
        widths = [int(part.gives.sizes(place)[axis] or 0) for place in range(len(part.gives.shapes))]
        config["indices_or_sections"] = np.cumsum(widths)[:-1].tolist()
    elif kind == "GetItem":
        for node in entry["inbound_nodes"]:
            if len(node["args"]) > 1:
                node["args"][1] = _sliced(node["args"][1], part.takes)


def _sizes(held: Json, now: tuple[int | None, ...]) -> list[Any]:
    """Sizes that were held, as they are now; those that were left open stay so."""
    return [size if size in (-1, None) or new is None else new for size, new in zip(held, now, strict=True)]


def _sliced(key: Json, takes: Ends) -> Json:
    """The key of `x[key]` when entries of `x` are gone: its bounds counted among those that are left."""
    keys = key if isinstance(key, list) else [key]
    found: list[Any] = []
    axis = 0
    for place, part in enumerate(keys):
        if isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
            found.append(part)
            rest = sum(later is not None for later in keys[place + 1 :])
            axis = len(takes.shapes[0]) - rest
            continue
        found.append(_bounded(part, takes.shapes[0][axis], takes.left[0][axis]) if part is not None else None)
        axis += part is not None
    return found if isinstance(key, list) else found[0]


def _bounded(part: Json, size: int | None, kept: NDArray[np.intp] | None) -> Json:
    if kept is None or size is None:
        return part

    def moved(bound: Any) -> Any:
        return bound if bound is None else int(np.searchsorted(kept, bound + size if bound < 0 else bound))

    if isinstance(part, int):
        return moved(part)
    bounds = part["config"]
    return {**part, "config": {**bounds, "start": moved(bounds["start"]), "stop": moved(bounds["stop"])}}
