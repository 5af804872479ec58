"""Plain data in the configurations of strangers: numbers, words, shapes, arrays of numbers, tensors of a graph.

Each function returns its argument, checked, or raises; where a value stands goes into the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any, final

import keras
import numpy as np

from bitwidth.text import quoted
from bitwidth.typing import Json, JsonDict, JsonMapping, is_integer

CONSTANTS = ("__numpy__", "__tensor__")
NUMBERS = ("bool", *(f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)), "float16", "float32", "float64")
DTYPES = frozenset({*NUMBERS, "bfloat16", "string", "complex64", "complex128"})
MAX_AXES = 16
MAX_CONSTANT = 1 << 22  # numbers in one constant
_MAX_TEXT = 1 << 12
_LIKE_A_PATH = re.compile(r"[/\\:\x00-\x1f\x7f]|^~|^\.\.?$")


@final
class NotAllowedError(ValueError):
    """A configuration holds what a file or a recipe may not; the message says what, and where in it."""


Argument = Callable[[Any], Any]


def plain(value: Json, where: str) -> Json:
    """Numbers, texts that are no paths, arrays of numbers, and lists and dicts of them."""
    if isinstance(value, list | tuple):
        return [plain(part, where) for part in value]
    if isinstance(value, str):
        return word(value, where)
    if not isinstance(value, Mapping):
        return leaf(value, where)
    if "class_name" in value:
        return constant(value, where)
    return {key: plain(part, where) for key, part in items(value, where)}


def leaf(value: Json, where: str) -> Json:
    """None, a boolean or a number."""
    if value is None or isinstance(value, bool | np.bool_ | Number):
        return value
    raise NotAllowedError(f"{where}: expected plain data, got {quoted(value)}")


def word(text: str, where: str) -> str:
    """A word of Keras's: a dtype, an equation, a mode; no path and no address.

    Where it were the name of a class or function of the user's own, Keras would put that in its place.
    """
    if _LIKE_A_PATH.search(text) or len(text) > _MAX_TEXT:
        raise NotAllowedError(f"{where}: {quoted(text)} could be a path or an address")
    if keras.saving.get_registered_object(text) is not None:
        raise NotAllowedError(f"{where}: {quoted(text)} is the name of a registered class or function")
    return text


def words(value: Json, where: str) -> Json:
    """A vocabulary: the words themselves. A text would be a path, and Keras would read what lies there."""
    if value is None:
        return None
    found = list(entries(value, where))
    if not all(isinstance(entry, str | Number) for entry in found):
        raise NotAllowedError(f"{where}: a vocabulary is a list of words or numbers")
    return found


def constant(value: JsonMapping, where: str) -> JsonDict:
    """An array of numbers: `{"class_name": "__numpy__", "config": {"value": ..., "dtype": ...}}`."""
    kind = value.get("class_name")
    if kind not in CONSTANTS:
        raise NotAllowedError(f"{where}: {quoted(kind)} may not stand here")
    inner = fields(value, ("value", "dtype"), where)
    if inner["dtype"] not in (*NUMBERS, "bfloat16"):
        raise NotAllowedError(f"{where}: expected a constant of numbers, got dtype {quoted(inner['dtype'])}")
    try:
        array = np.asarray(inner["value"])
    except ValueError as error:
        raise NotAllowedError(f"{where}: a constant that is not an array") from error
    if array.dtype.kind not in "biuf" or array.size > MAX_CONSTANT or array.ndim > MAX_AXES:
        raise NotAllowedError(f"{where}: expected a constant of at most {MAX_CONSTANT:,} numbers")
    return {"class_name": kind, "config": inner}


def call(node: Json, names: Collection[str], where: str) -> JsonDict:
    """The arguments of a call in a graph: plain data, slices, and at least one tensor of the graph.

    Args:
        node: `{"args": [...], "kwargs": {...}}`.
        names: of the graph's layers.
        where: for messages.
    """
    shape = isinstance(node, Mapping) and set(node) == {"args", "kwargs"}
    if not shape or not isinstance(node["args"], list | tuple) or not isinstance(node["kwargs"], Mapping):
        raise NotAllowedError(f"{where}: expected the arguments of a call, got {quoted(node)}")
    tensors: list[Json] = []

    def argument(value: Json) -> Json:
        if isinstance(value, list | tuple):
            return [argument(part) for part in value]
        if not isinstance(value, Mapping):
            return plain(value, where)
        kind = value.get("class_name")
        if kind == "__keras_tensor__":
            tensors.append(value)
            return tensor(value, names, where)
        if kind == "__slice__":
            bounds = fields(value, ("start", "stop", "step"), where)
            return {"class_name": kind, "config": {key: argument(part) for key, part in bounds.items()}}
        if kind == "__ellipsis__":
            return {"class_name": kind, "config": {}}
        if "class_name" in value:
            return constant(value, where)
        return {key: argument(part) for key, part in items(value, where)}

    made = {"args": argument(node["args"]), "kwargs": argument(node["kwargs"])}
    if not tensors:
        raise NotAllowedError(f"{where}: a call without a tensor of the model")
    return made


def tensor(value: JsonMapping, names: Collection[str], where: str) -> JsonDict:
    """A tensor of a graph, by the layer that makes it."""
    inner = fields(value, ("shape", "dtype", "keras_history"), where)
    made = {
        "shape": sizes(inner["shape"], where),
        "dtype": a_dtype(inner["dtype"], where),
        "keras_history": origin(inner["keras_history"], names, where),
    }
    return {"class_name": "__keras_tensor__", "config": made}


def sizes(value: Json, where: str) -> list[int | None]:
    """The shape of a tensor; None for an axis of any size."""
    axes = entries(value, where)
    if len(axes) > MAX_AXES or not all(size is None or is_count(size) for size in axes):
        raise NotAllowedError(f"{where}: expected the shape of a tensor, got {quoted(value)}")
    return list(axes)


def a_dtype(value: Json, where: str) -> str:
    """The dtype of a tensor."""
    if not isinstance(value, str) or value not in DTYPES:
        raise NotAllowedError(f"{where}: expected a dtype, got {quoted(value)}")
    return value


def origin(value: Json, names: Collection[str], where: str) -> list[Json]:
    """`[layer, node, tensor]`: where a tensor of a graph comes from."""
    found = list(entries(value, where))
    if len(found) != 3 or not isinstance(found[0], str) or found[0] not in names or not all(map(is_count, found[1:])):
        raise NotAllowedError(f"{where}: expected a layer of the model, a node and a tensor, got {quoted(value)}")
    return found


def ends(value: Json, names: Collection[str], where: str) -> Json:
    """Inputs or outputs of a graph: where a tensor comes from, or lists and dicts of that."""
    if isinstance(value, Mapping):
        return {key: ends(part, names, where) for key, part in items(value, where)}
    found = entries(value, where)
    if len(found) == 3 and isinstance(found[0], str):
        return origin(value, names, where)
    return [ends(part, names, where) for part in found]


def items(value: JsonMapping, where: str) -> Iterator[tuple[str, Json]]:
    """The entries of an object whose keys are texts."""
    for key, part in value.items():
        if not isinstance(key, str):
            raise NotAllowedError(f"{where}: expected a text as a key, got {quoted(key)}")
        yield key, part


def entries(value: Json, where: str) -> Sequence[Json]:
    """The entries of a list."""
    if not isinstance(value, list | tuple):
        raise NotAllowedError(f"{where}: expected a list, got {quoted(value)}")
    return list(value)


def fields(value: JsonMapping, names: Sequence[str], where: str) -> JsonDict:
    """The `config` of a special object, which has these fields and no others."""
    inner = value.get("config")
    if not isinstance(inner, Mapping) or set(inner) != set(names):
        raise NotAllowedError(
            f"{where}: {quoted(value.get('class_name'))} needs {', '.join(names)}, got {quoted(inner)}"
        )
    return dict(inner)


def is_count(value: Json) -> bool:
    """Whether a value is an integer of at least 0."""
    return is_integer(value) and value >= 0
