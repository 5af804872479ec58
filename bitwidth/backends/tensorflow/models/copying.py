"""Copy a model by its object graph: new variables and layers, everything else shared.

`copy.deepcopy` and `keras.models.clone_model` fail on models whose constructor takes arguments that cannot be
serialised. Here every object that leads to a variable or a layer is created again without calling its constructor, and
every object that does not (a vocabulary table, a tokenizer, an open connection, an initializer) is the user's own
object, shared.
"""

from __future__ import annotations

import collections
import functools
import types
import weakref
from collections.abc import Iterable
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.compiled import forget_compiled
from bitwidth.backends.tensorflow.internals.containers import DictWrapper, ListWrapper, renumber
from bitwidth.backends.tensorflow.internals.graphs import FUNCTION, clone_of
from bitwidth.backends.tensorflow.internals.layers import layers_of
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.typing import Model

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.BuiltinFunctionType)
_FOREIGN = ("tensorflow", "numpy", "threading", "logging", "weakref", "inspect", "h5py", "_thread", "re", "contextvars")
_COPIES: weakref.WeakSet[Any] = weakref.WeakSet()


def copy_model(model: Model) -> Model:
    """An uncompiled copy of a Keras model that shares no variable with it.

    Args:
        model: a built `keras.Model`.

    Returns:
        A model of the same class with the same weights. Optimizer, loss and metrics stay behind.
    """
    copy = copy_object(model)
    uncompile(copy)
    return copy


def is_copy(layer: KerasLayer) -> bool:
    """Whether a layer was made by copying a model, and is not the user's own."""
    return layer in _COPIES


def copy_object(value: Any) -> Any:
    """A copy of any object that holds variables (a metric, say) that shares none of them."""
    copier = _Copier(value)
    copy = copier.new(value)
    copier.fill()
    return copy


def uncompile(model: Model) -> None:
    """Drop optimizer, loss, metrics and compiled functions of a model and of the models in it."""
    for layer in layers_of(model):
        if isinstance(layer, keras.Model):
            forget_compiled(layer)


@final
class _Copier:
    """The state of one copy: which objects are created again, and the new object of each."""

    def __init__(self, root: Any) -> None:
        self._kept: list[Any] = []  # ids stay unique only while their objects live
        self._remade = self._find(root)
        self._memo: dict[int, Any] = {}
        self._open: list[Any] = []

    def _find(self, root: Any) -> set[int]:
        """Ids of the objects that lead to a variable or a layer."""
        parents: dict[int, list[int]] = collections.defaultdict(list)
        anchors: list[int] = []
        seen, stack = {id(root)}, [root]
        while stack:
            value = stack.pop()
            self._kept.append(value)
            if isinstance(value, keras.Variable | tf.Variable | keras.Layer):
                anchors.append(id(value))
            for child in _children(value):
                parents[id(child)].append(id(value))
                if id(child) not in seen:
                    seen.add(id(child))
                    stack.append(child)
        leading = set(anchors)
        while anchors:
            for parent in parents[anchors.pop()]:
                if parent not in leading:
                    leading.add(parent)
                    anchors.append(parent)
        return leading

    def new(self, value: Any) -> Any:
        """The new object for `value`, or `value` itself where it is shared. Its contents are filled in by `fill`."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if isinstance(value, _ATOMS) or not (id(value) in self._remade or _is_mutable(value)):
            return value
        made = self._shell(value)
        self._memo[id(value)] = made
        return made

    def fill(self) -> None:
        """Fill in the contents of every new object."""
        while self._open:
            value = self._open.pop()
            self._fill(value, self._memo[id(value)])
        for value in self._kept:
            if id(value) in self._memo:
                renumber(self._memo[id(value)])

    def _shell(self, value: Any) -> Any:
        """A new, still empty object for `value`; immutable ones are made whole at once."""
        self._kept.append(value)
        if isinstance(value, tf.Variable):
            return tf.Variable(value, trainable=value.trainable, name=value.name.split(":")[0], dtype=value.dtype)
        if isinstance(value, FUNCTION):
            return clone_of(value, self.new(value.python_function))
        if isinstance(value, collections.deque):
            return collections.deque((self.new(item) for item in value), value.maxlen)
        if isinstance(value, DictWrapper):
            return DictWrapper({self.new(key): self.new(item) for key, item in value.items()})
        if isinstance(value, ListWrapper):
            return ListWrapper([self.new(item) for item in value])
        if isinstance(value, tuple):
            items = [self.new(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(tuple(items))
        if isinstance(value, frozenset):
            return frozenset(self.new(item) for item in value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.new(value.__func__), self.new(value.__self__))
        if isinstance(value, functools.partial):
            arguments = {key: self.new(item) for key, item in value.keywords.items()}
            return functools.partial(self.new(value.func), *map(self.new, value.args), **arguments)
        self._open.append(value)
        if isinstance(value, types.FunctionType):
            cells = tuple(self.new(cell) for cell in value.__closure__ or ())
            return types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
        if isinstance(value, types.CellType):
            return types.CellType()
        if isinstance(value, collections.defaultdict):
            return collections.defaultdict(value.default_factory)
        kind: Any = type(value)
        made = kind.__new__(kind) if _is_mutable(value) else object.__new__(kind)
        if isinstance(value, keras.Layer):
            _COPIES.add(made)
        return made

    def _fill(self, value: Any, made: Any) -> None:
        if isinstance(value, types.CellType):
            if _cell_content(value):
                made.cell_contents = self.new(value.cell_contents)
            return
        if isinstance(value, types.FunctionType):
            made.__defaults__ = self.new(value.__defaults__)
            made.__kwdefaults__ = self.new(value.__kwdefaults__)
            made.__qualname__, made.__doc__ = value.__qualname__, value.__doc__
        if isinstance(value, list):
            list.extend(made, [self.new(item) for item in value])
        elif isinstance(value, dict):
            for key, item in value.items():
                dict.__setitem__(made, self.new(key), self.new(item))
        elif isinstance(value, set):
            set.update(made, {self.new(item) for item in value})
        if hasattr(value, "__dict__"):
            attributes = {name: self.new(item) for name, item in vars(value).items()}
            made.__dict__.update(attributes)
        for name in _slots(value):
            if hasattr(value, name):
                object.__setattr__(made, name, self.new(getattr(value, name)))


def _children(value: Any) -> Iterable[Any]:
    """The objects that `value` holds and that may lead to a variable."""
    if isinstance(value, (*_ATOMS, tf.Variable)):
        return []
    if isinstance(value, dict | DictWrapper):
        children = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        children = list(value)
    elif isinstance(value, FUNCTION):
        return [value.python_function]
    elif isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    elif isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.CellType):
        return _cell_content(value)
    elif isinstance(value, types.FunctionType):
        defaults = [value.__defaults__, value.__kwdefaults__]
        children = [*(value.__closure__ or ()), *(item for item in defaults if item is not None)]
    elif type(value).__module__.split(".")[0] in _FOREIGN:
        return []
    else:
        children = [getattr(value, name) for name in _slots(value) if hasattr(value, name)]
    if hasattr(value, "__dict__"):
        children += vars(value).values()
    return [child for child in children if not isinstance(child, _ATOMS)]


def _slots(value: Any) -> list[str]:
    if isinstance(value, list | dict | set | tuple | types.FunctionType):
        return []
    slots: list[str] = []
    for base in type(value).__mro__:
        names = base.__dict__.get("__slots__", ())
        slots += [names] if isinstance(names, str) else list(names)
    return [name for name in slots if name not in ("__dict__", "__weakref__")]


def _cell_content(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # an empty cell
        return []


def _is_mutable(value: Any) -> bool:
    return isinstance(value, list | dict | set | collections.deque | DictWrapper)
