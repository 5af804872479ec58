"""Calls on symbolic tensors: what Keras notes of them, and how a call is watched that builds a Functional model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import keras
from keras.src import ops as every_op
from keras.src.backend.common import global_state
from keras.src.layers import layer as layer_module
from keras.src.ops import core, numpy

from bitwidth.backends.tensorflow.internals.types import KerasLayer, TFTensor
from bitwidth.typing import Nest

_HOMES: tuple[ModuleType, ...] = (keras.ops, keras.ops.numpy, every_op, core, numpy)
CALLS = threading.RLock()
"""Held while somebody has exchanged the calls of layers or operations: who puts back what he found must be the last."""


@contextmanager
def seen_through(layer: KerasLayer, call: Callable[..., Nest]) -> Iterator[None]:
    """Within this context the call of a layer on symbolic tensors runs `call` in place of noting the layer as a node.

    Masks, dtypes, `training` and name scopes are handled as in any call. Inputs of a Functional model are cast where
    their dtype is another one, and not converted.

    Since Keras 3.0 (`Operation.symbolic_call`, `Node` beside `Layer`, `Functional._convert_inputs_to_tensors`).
    """
    functional = getattr(layer, "_functional", None) or layer
    original = layer_module.Node

    def node(operation: Any, **given: Any) -> Any:
        return None if operation is layer else original(operation, **given)

    layer.__dict__["symbolic_call"] = call
    if hasattr(functional, "_inputs_struct"):
        functional.__dict__["_convert_inputs_to_tensors"] = lambda given: _cast(given, functional.inputs)
    layer_module.Node = node
    try:
        yield
    finally:
        layer_module.Node = original
        layer.__dict__.pop("symbolic_call", None)
        functional.__dict__.pop("_convert_inputs_to_tensors", None)


def _cast(given: list[TFTensor], declared: list[TFTensor]) -> list[TFTensor]:
    pairs = zip(given, declared, strict=True)
    return [x if x is None or x.dtype == spec.dtype else keras.ops.cast(x, spec.dtype) for x, spec in pairs]


def training_told() -> Any:
    """What the layers around have been told of whether they train; None for nothing.

    Since Keras 3.0 (`current_call_ctx`, an object with the attribute `training`).
    """
    return getattr(global_state.get_global_attribute("current_call_ctx"), "training", None)


@contextmanager
def training_untold(then: Any) -> Iterator[None]:
    """Within this context the layers around have not been told whether they train, and behind it they are told `then`.

    So a call notes nothing of it. Keras itself lets what one layer is told hold for those that are called after it.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    if context is not None:
        context.training = None
    try:
        yield
    finally:
        if context is not None:
            context.training = then


@contextmanager
def functions_replaced(functions: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]]) -> Iterator[None]:
    """Within this context functions of `keras.ops` are what `functions` makes of them, by name, where looked up.

    Since Keras 3.0 (`keras.src.ops`, `.core` and `.numpy` hold them besides).
    """
    held = [(home, name, getattr(home, name)) for home in _HOMES for name in functions if hasattr(home, name)]
    try:
        for home, name, original in held:
            setattr(home, name, functions[name](original))
        yield
    finally:
        for home, name, original in held:
            setattr(home, name, original)


def operations_behind(outputs: Nest) -> list[tuple[Any, Nest]]:
    """The operations, layers among them, that symbolic tensors are made of, each call with its arguments, inputs first.

    Since Keras 3.0 (`KerasTensor._keras_history`, `Operation._inbound_nodes`).
    """
    found: dict[int, tuple[Any, Nest]] = {}
    stack = [(tensor, False) for tensor in reversed(keras.tree.flatten(outputs))]
    seen: set[int] = set()
    while stack:
        tensor, done = stack.pop()
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if done:
            found.setdefault(id(node), (history.operation, (node.arguments.args, node.arguments.kwargs)))
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((tensor, True))
            stack += [(source, False) for source in reversed(node.input_tensors)]
    return list(found.values())


def rename(operation: Any, name: str) -> None:
    """Give an operation or layer another name. Since Keras 3.0 (`Operation.name`, a plain attribute)."""
    operation.__dict__["name"] = name


def mask_of(tensor: TFTensor) -> Any:
    """The mask that Keras has attached to a tensor, None for none. Since Keras 3.0 (`tensor._keras_mask`)."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: TFTensor, mask: Any) -> None:
    """Attach a mask to a symbolic tensor, or none. Since Keras 3.0 (`tensor._keras_mask`)."""
    tensor._keras_mask = mask
