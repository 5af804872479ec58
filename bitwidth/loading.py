"""`load`: a model from a .bw file.

Here the reader of files meets the backend that builds models. Reading the bytes belongs in `bitwidth.artifact`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence

from bitwidth.artifact import OpenFile, open_file
from bitwidth.backend import BACKENDS, load_backend
from bitwidth.encodings import MAX_BITS, Encoding
from bitwidth.errors import ConfigError, CorruptFileError, ModelError, UnsafeFileError
from bitwidth.text import quoted
from bitwidth.typing import Array, CustomObjects, Model, is_integer

_LOG = logging.getLogger(__name__)


def load(
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    base: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    custom_objects: CustomObjects | None = None,
    model: Model = None,
) -> Model:
    """Build the model of a `.bw` file; its weights are the decoded ones, bit for bit.

    Files may come from strangers: nothing in one is run or fetched. What it says of the model is read before Keras sees
    it, and may name layers, operations and the like of Keras, and classes and functions that this process registered
    with Keras or that `custom_objects` gives. A later `PassManager.run` on the model keeps what the passes promised.

    Args:
        path: the file.
        bits: 2 to 16: put weights on wider grids of integers on grids of so many bits, which a later run keeps. Up to
            4 bits, weights that lie in layers in the file (`inspect` says which) are read as their first 4 bits only,
            and the rest of the file is left unread and unchecked. Weights with any other encoding, or with at most
            `bits` bits, stay as they are. None reads all.
        base: the file that `path` holds changes of (see `Result.save`), or several, each the base of the next. A whole
            file needs none.
        custom_objects: classes and functions of the user's by name, as in Keras.
        model: a built model of the same architecture to fill in place of building one, for a file without an
            architecture; it is filled only after the whole file was read and checked, and stays as it was on an error.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ConfigError: `bits` is not an integer from 2 to 16, `custom_objects` not a dict, or `path` not a path.
        FileError: the file cannot be opened, or holds changes of another file than `base`.
        CorruptFileError: it is not a .bw file, or was cut off, or altered anywhere that is read.
        UnsafeFileError: what it says of the model names code, files, addresses or other objects than a model's.
        VersionError: it was written by a newer version of the format.
        ModelError: the model cannot be built, or `model` has other variables.
    """
    if bits is not None and (not is_integer(bits) or not 2 <= bits <= MAX_BITS):
        raise ConfigError(f"load: bits must be an integer of 2 to {MAX_BITS}, got {bits!r}")
    with open_file(path, base) as file:
        return build(file, bits, custom_objects, model)


def build(
    file: OpenFile, bits: int | None = None, custom_objects: CustomObjects | None = None, model: Model = None
) -> Model:
    """The model of an open file; see `load` for the arguments and what is raised."""
    if custom_objects is not None and not isinstance(custom_objects, Mapping):
        raise ConfigError(f"load: custom_objects must be a dict of classes and functions, got {quoted(custom_objects)}")
    framework = file.header.architecture.framework
    if framework not in BACKENDS:
        raise CorruptFileError(f"{file.name}: a model of an unknown framework {quoted(framework)}")
    for entry in file.header.entries:
        if ("float" in entry.dtype) == (entry.role == "state"):
            raise CorruptFileError(f"{file.name}: {entry.path}: values of {entry.dtype} have no role {entry.role!r}")
    architecture = file.architecture()

    def stored() -> Iterator[tuple[Array, Encoding]]:
        return ((parameter.values, parameter.encoding) for parameter in file.parameters(bits))

    backend = load_backend(framework)
    started = time.perf_counter()
    try:
        built = backend.build(architecture, stored, file.header.activations, custom_objects, model)
    except (ModelError, UnsafeFileError) as error:
        raise type(error)(f"{file.name}: {error}") from error
    seconds = time.perf_counter() - started
    count, size = len(file.header.entries), file.preamble.total
    _LOG.info("%s: %d parameters loaded from %d bytes in %.2f seconds", file.name, count, size, seconds)
    return built
