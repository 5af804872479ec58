"""Variables that a call reads itself, as tensors of a Functional model: tables of which every row is looked up.

A Functional model has layers and operations, and no place for a variable beside them. An `Embedding` that is asked for
all of its rows gives its weights as a tensor: the same layer that is looked up elsewhere, where a model ties its logits
to its tokens; a new one for a variable of a composite's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any, final

import keras

from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.symbolic import set_mask
from bitwidth.backends.tensorflow.internals.types import KerasLayer, ModelVariable, TFTensor
from bitwidth.backends.tensorflow.models.composites import is_composite
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.errors import ModelError, Refused


@final
class Tables:
    """The variables of a model, each as a symbolic tensor.

    Attributes:
        layers: the layers that were made for variables, each with its variable.

    Args:
        names: of the model.
        kept: ids of the layers that stay layers though they are composites.
        anchor: the number 0, as a tensor that depends on the inputs.
    """

    def __init__(self, names: Names, kept: set[int], anchor: TFTensor) -> None:
        self.layers: list[tuple[KerasLayer, ModelVariable]] = []
        self._anchor = anchor
        whole = [layer for _, layer, _ in names.layers if id(layer) in kept or not is_composite(layer)]
        self._taken = {id(variable): layer for layer in whole for variable in tracked.own_variables(layer)}
        self._paths = {id(variable): path for path, variable, _ in names.variables}
        self._tensors: dict[int, TFTensor] = {}
        self._unreadable: dict[int, str] = {}
        self._held: dict[int, dict[str, tuple[Any, Any]]] = {}

    @contextmanager
    def in_place(self, layers: list[KerasLayer]) -> Iterator[None]:
        """Within this context layers hold tensors in the places of their variables."""
        for layer in layers:
            if isinstance(layer, keras.layers.Embedding):
                self._tensors[id(layer.embeddings)] = _all_rows(layer, self.rows(layer.embeddings.shape[0]))
        for layer in layers:
            read = partial(self._tensor, layer)
            self._held[id(layer)] = {
                name: (value, _replaced(value, read))
                for name, value in list(vars(layer).items())
                if not tracked.is_bookkeeping(name) and next(_variables(value), None) is not None
            }
        try:
            self._put(layers, tensors=True)
            yield
        finally:
            self._put(layers, tensors=False)

    @contextmanager
    def variables_of(self, layer: KerasLayer) -> Iterator[None]:
        """Within this context a layer, and those in it, hold their variables again."""
        layers = tracked.layers_of(layer)
        self._put(layers, tensors=False)
        try:
            yield
        finally:
            self._put(layers, tensors=True)

    def _put(self, layers: list[KerasLayer], tensors: bool) -> None:
        for layer in layers:
            for name, (variables, replaced) in self._held.get(id(layer), {}).items():
                layer.__dict__[name] = replaced if tensors else variables  # past Keras, which would track it

    def rows(self, count: int) -> TFTensor:
        """The numbers of as many rows, as a symbolic tensor."""
        ones = keras.ops.broadcast_to(keras.ops.add(self._anchor, 1), (count,))
        return keras.ops.subtract(keras.ops.cumsum(ones), 1)

    def check_readable(self, arguments: Any) -> None:
        """Raise if one of the arguments of a call stands for a variable that cannot be read as a tensor.

        Raises:
            Refused: it does; with the variable.
        """
        for leaf in keras.tree.flatten(arguments):
            if id(leaf) in self._unreadable:
                raise Refused(self._unreadable[id(leaf)])

    def _tensor(self, layer: KerasLayer, variable: ModelVariable) -> TFTensor:
        if id(variable) not in self._tensors:
            if id(variable) not in self._taken and "float" in variable.dtype:
                self._tensors[id(variable)] = self._table(layer, variable)
            else:
                path = self._paths.get(id(variable), variable.name)
                made = keras.KerasTensor(variable.shape, variable.dtype)
                self._tensors[id(variable)] = made
                self._unreadable[id(made)] = f"its call reads {path} itself: {self._how(variable)}"
        return self._tensors[id(variable)]

    def _how(self, variable: ModelVariable) -> str:
        if "float" not in variable.dtype:
            return f"{variable.dtype} variables are state, for which a Functional model has no place"
        kind = type(self._taken[id(variable)]).__name__
        return (
            f"of {kind} only the layer as a whole can be called; tables of Embedding, and its own weights, can be read"
        )

    def _table(self, layer: KerasLayer, variable: ModelVariable) -> TFTensor:
        """A variable of a composite as a table, in its own shape where it has two axes."""
        shape = tuple(variable.shape)
        rows = shape[0] if len(shape) > 1 else 1
        path = self._paths.get(id(variable), variable.name)
        if variable.constraint is not None and len(shape) != 2:
            raise ModelError(
                f"{path}: a constraint on a variable of {len(shape)} axes that a call reads itself cannot be kept"
            )
        table = keras.layers.Embedding(
            rows,
            prod(shape) // rows,
            embeddings_regularizer=variable.regularizer,
            embeddings_constraint=variable.constraint,
            dtype=layer.dtype_policy,
            name=path.replace("/", "_"),
            trainable=variable.trainable,
        )
        table.build((None,))
        table.embeddings.assign(keras.ops.reshape(variable, tuple(table.embeddings.shape)))
        self.layers.append((table, variable))
        found = _all_rows(table, self.rows(rows))
        return found if len(shape) == 2 else keras.ops.reshape(found, shape)


def _all_rows(table: KerasLayer, rows: TFTensor) -> TFTensor:
    found = table(rows)
    set_mask(found, None)
    return found


def _variables(value: Any) -> Iterator[ModelVariable]:
    """The variables that an attribute holds: itself, or in lists, dicts and tuples."""
    if isinstance(value, keras.Variable):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _variables(item)


def _replaced(value: Any, read: Callable[[ModelVariable], TFTensor]) -> Any:
    """What an attribute holds, with tensors in the places of variables."""
    if isinstance(value, keras.Variable):
        return read(value)
    if isinstance(value, dict):
        return {key: _replaced(item, read) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return type(value)(*(_replaced(item, read) for item in value))
    if isinstance(value, list | tuple):
        items = [_replaced(item, read) for item in value]
        return items if isinstance(value, list) and not isinstance(value, tuple) else tuple(items)
    return value
