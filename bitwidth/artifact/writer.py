"""The bytes of a .bw file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, final

from bitwidth.artifact.activations import written
from bitwidth.artifact.agreement import check_assets
from bitwidth.artifact.layout import chunk_size, framed
from bitwidth.artifact.stored import StoredModel
from bitwidth.artifact.streams import all_finite, pack_parameter
from bitwidth.errors import CorruptFileError, EncodingError, FileError

_LOG = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class PackedFile:
    """The bytes of a file, and how many of them each parameter takes.

    Attributes:
        data: the whole file.
        parameter_bytes: bytes of each parameter's chunk, by path; the rest is the header and the assets.
    """

    data: bytes
    parameter_bytes: dict[str, int]


def pack(model: StoredModel, planes: bool | None = None) -> PackedFile:
    """The bytes of the file that holds `model`; equal models give equal bytes.

    Args:
        model: the model.
        planes: whether integer codes are coded in bit planes; None where that costs no more than a percent.

    Raises:
        EncodingError: values that are not finite, or of a dtype that a file cannot hold.
        FileError: names that a file cannot hold.
    """
    _check_names(model)
    chunks: list[bytes] = []
    entries: list[dict[str, Any]] = []
    sizes: dict[str, int] = {}
    for parameter in model.parameters:
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
    built = model.architecture
    header = {
        "name": model.name,
        "framework": built.framework,
        "architecture": built.config,
        "reason": built.reason,
        "inputs": built.inputs,
        "variables": built.variables,
        "parameters": entries,
        "assets": [[name, len(data)] for name, data in built.assets.items()],
    }
    if model.activations:
        header["activations"] = written(model.activations)
        header["layers"] = list(built.layers)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    data = framed(_utf8(text), [*chunks, *built.assets.values()])
    _LOG.debug("%s: %d parameters packed into %d bytes", model.name, len(entries), len(data))
    return PackedFile(data, sizes)


def _check_names(model: StoredModel) -> None:
    try:
        check_assets(list(model.architecture.assets), f"{model.name!r}")
    except CorruptFileError as error:
        raise FileError(f"{error}; it cannot be stored") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start : error.start + 1]
        raise FileError(f"the model's configuration or names hold half a character ({half!r})") from error
