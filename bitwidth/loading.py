"""`load`: a model from a .bw file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bitwidth.artifact import read_content
from bitwidth.backend import BACKENDS, Architecture, load_backend
from bitwidth.errors import ConfigError, CorruptFileError
from bitwidth.tensors import MAX_BITS


def load(
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    model: Any = None,
) -> Any:
    """Build the model of a `.bw` file; its weights are the decoded ones, bit for bit.

    Nothing in the file is code, and none of it is run. A later `PassManager.run` on the model keeps what the passes
    promised.

    Args:
        path: the file.
        bits: 2 to 16: read only the first `bits` bits (the sign included) of each weight on a grid of integers, which
            are bit planes in the file, and leave the rest of the file unread and unchecked. The weights of the model
            are then on the narrower grids that those bits make, and a later run keeps them there. Weights that are
            held otherwise, or in no more bits, are read whole. None reads all.
        custom_objects: classes and functions of the user's by name, as in Keras.
        model: a built model of the same architecture to fill in place of building one, for a file without an
            architecture; it is filled only after the whole file was read and checked.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ConfigError: `bits` is no whole number of 2 to 16.
        FileError: the file cannot be opened.
        CorruptFileError: it is no .bw file, or was cut off, or altered anywhere that is read.
        VersionError: it was written by a newer version of the format.
        ModelError: the model cannot be built, or `model` has other variables.
    """
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= MAX_BITS):
        raise ConfigError(f"load: bits must be a whole number of 2 to {MAX_BITS}, got {bits!r}")
    content = read_content(path, bits)
    if content.framework not in BACKENDS:
        raise CorruptFileError(f"{path}: a model of an unknown framework {content.framework!r}")
    architecture = Architecture(
        content.framework,
        content.architecture,
        content.reason,
        content.inputs,
        content.variables,
        content.assets,
        content.layers,
    )
    values = [parameter.values for parameter in content.parameters]
    encodings = {index: parameter.encoding for index, parameter in enumerate(content.parameters)}
    return load_backend(content.framework).build(
        architecture, values, encodings, content.activations, custom_objects, model
    )
