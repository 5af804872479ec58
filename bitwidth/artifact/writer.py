"""Write a .bw file: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bitwidth.artifact.activations import written
from bitwidth.artifact.content import Content
from bitwidth.artifact.layout import chunk_size, framed
from bitwidth.artifact.streams import all_finite, pack_parameter
from bitwidth.errors import EncodingError, FileError


@dataclass(frozen=True)
class PackedFile:
    """The bytes of a file, and how many of them each parameter takes.

    Attributes:
        data: the whole file.
        parameter_bytes: bytes of each parameter's chunk, by path; the rest is the header and the assets.
    """

    data: bytes
    parameter_bytes: dict[str, int]


def pack(content: Content, planes: bool | None = None) -> PackedFile:
    """The bytes of the file that holds `content`; the same content gives the same bytes.

    Args:
        content: the model.
        planes: whether integer codes are coded in bit planes; None where that costs no more than a percent.

    Raises:
        EncodingError: values that are not finite, or of a dtype that a file cannot hold.
    """
    chunks: list[bytes] = []
    entries: list[dict[str, Any]] = []
    sizes: dict[str, int] = {}
    for parameter in content.parameters:
        if not all_finite(parameter.values):
            raise EncodingError(f"{parameter.path}: values that are not finite cannot be stored")
        config, packed = pack_parameter(parameter.encoding, parameter.values, parameter.dtype, planes)
        entry = {
            "path": parameter.path,
            "role": parameter.role,
            "shape": list(parameter.values.shape),
            "dtype": parameter.dtype,
            "encoding": config,
            "streams": packed.description,
        }
        entries.append(entry if parameter.trainable else {**entry, "frozen": True})
        parts = [b"".join(packed.first), *packed.later]
        chunks += parts
        sizes[parameter.path] = sum(chunk_size([len(part)]) for part in parts)
    header = {
        "name": content.name,
        "framework": content.framework,
        "architecture": content.architecture,
        "reason": content.reason,
        "inputs": content.inputs,
        "variables": content.variables,
        "parameters": entries,
        "assets": [[name, len(data)] for name, data in content.assets.items()],
    }
    if content.activations:
        header["activations"] = written(content.activations)
        header["layers"] = list(content.layers)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    return PackedFile(framed(text.encode(), [*chunks, *content.assets.values()]), sizes)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, so that at any moment there is the old file (or none) or the new one, whole.

    The bytes go to a file without a name where the system has such (Linux), else to a hidden one beside `path`; only
    when they are on the disk does the file get its name.

    Raises:
        FileError: the folder does not exist or cannot be written to.
    """
    target = Path(path)
    try:
        with _temporary(target) as (file, name):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if not name.exists():
                _give_name(file.fileno(), name)
            os.replace(name, target)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:  # a path that names no file: "", ".", "/"
        raise FileError(f"{str(path)!r}: cannot be written: it names no file") from error


def _give_name(descriptor: int, name: Path) -> None:
    folder = os.open(name.parent, os.O_RDONLY)
    try:
        # given a folder descriptor, Python follows the link in /proc to the file (AT_SYMLINK_FOLLOW)
        os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An open file in the folder of `target`, and the name that it has or is to get before it is renamed."""
    name = target.with_name(f".bitwidth-{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
        if not Path(f"/proc/self/fd/{descriptor}").exists():
            os.close(descriptor)
            raise OSError
    except (OSError, AttributeError):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, name
    finally:
        name.unlink(missing_ok=True)
