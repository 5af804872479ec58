"""Whether the parts of a header belong together: variables with parameters, and assets with a folder for each layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bitwidth.artifact.format.limits import DTYPES, MAX_PARAMETERS, checked_shape
from bitwidth.errors import CorruptFileError

_MAX_NAME = 1024  # bytes of an asset's name
_MAX_FOLDERS = 32  # around it
_MAX_PART = 255  # and of one part of it, as file systems have it
_INDEX = re.compile(r"(0|[1-9][0-9]{0,8})/.")
_DRIVE = re.compile(r"[A-Za-z]:")

Described = tuple[tuple[int, ...], str]  # shape and dtype


def checked_variables(items: Any, name: str) -> list[Any]:
    """`items` as a list of name, shape and dtype of each variable.

    Raises:
        CorruptFileError: it is anything else.
    """
    if not isinstance(items, list) or len(items) > MAX_PARAMETERS:
        raise CorruptFileError(f"{name}: its header does not describe variables: {str(items)[:80]}")
    for item in items:
        if not isinstance(item, list) or len(item) != 3 or not all(isinstance(item[place], str) for place in (0, 2)):
            raise CorruptFileError(f"{name}: its header does not describe a variable: {str(item)[:80]}")
        checked_shape(item[1], f"{name}: variable {item[0]!r}")
        checked_dtype(item[2], f"{name}: variable {item[0]!r}")
    return items


def checked_dtype(dtype: str, where: str) -> str:
    """`dtype`, if a file can hold values of it.

    Raises:
        CorruptFileError: it cannot.
    """
    if dtype not in DTYPES:
        raise CorruptFileError(f"{where}: values of an unknown dtype {dtype[:80]!r}")
    return dtype


def check_variables(variables: Sequence[Any], parameters: Sequence[Described], name: str) -> None:
    """Raise unless there is one parameter for each variable, in the same order, of its shape and dtype.

    Raises:
        CorruptFileError: saying which is not.
    """
    if len(variables) != len(parameters):
        raise CorruptFileError(f"{name}: {len(parameters)} parameters for {len(variables)} variables")
    for place, ((variable, shape, dtype), found) in enumerate(zip(variables, parameters, strict=True)):
        if (tuple(shape), dtype) != found:
            raise CorruptFileError(
                f"{name}: variable {place} ({variable!r}) is {dtype} of shape {tuple(shape)}, its parameter is "
                f"{found[1]} of shape {found[0]}"
            )


def check_assets(names: Sequence[str], where: str) -> None:
    """Raise unless every name is a plain relative path, so that together they make a folder of files on any system.

    Raises:
        CorruptFileError: naming the first that is not.
    """
    for name in names:
        _check_path(name, f"{where}: asset {name[:80]!r}")
    known = set(names)
    for name in names:
        end = name.find("/")
        while end >= 0:
            if name[:end] in known:
                raise CorruptFileError(f"{where}: asset {name[:end][:80]!r} is the folder of another")
            end = name.find("/", end + 1)


def check_owners(names: Sequence[str], where: str) -> None:
    """Raise unless every name of an asset begins with the number of the layer that it belongs to.

    Raises:
        CorruptFileError: naming the first that does not.
    """
    for name in names:
        if not _INDEX.match(name):
            raise CorruptFileError(f"{where}: asset {name[:80]!r} does not begin with the number of a layer")


def _check_path(name: str, where: str) -> None:
    parts = name.split("/")
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME:
        raise CorruptFileError(f"{where}: a name of more than {_MAX_NAME} bytes")
    if len(parts) > _MAX_FOLDERS:
        raise CorruptFileError(f"{where}: in more than {_MAX_FOLDERS} folders")
    for part in parts:
        if part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > _MAX_PART:
            raise CorruptFileError(f"{where}: not a path of plain names of at most {_MAX_PART} bytes")
        if "\\" in part or _DRIVE.match(part) or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in part):
            raise CorruptFileError(f"{where}: a name with a character that a path cannot hold everywhere")
        if any(0xD800 <= ord(c) < 0xE000 for c in part):
            raise CorruptFileError(f"{where}: a name that is not a text")
