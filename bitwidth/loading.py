"""`load`: a model from a .bw file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bitwidth.artifact import read_content
from bitwidth.backend import BACKENDS, Architecture, load_backend
from bitwidth.errors import CorruptFileError


def load(path: str | os.PathLike[str], *, custom_objects: Mapping[str, Any] | None = None, model: Any = None) -> Any:
    """Build the model of a `.bw` file; its weights are the decoded ones, bit for bit.

    Nothing in the file is code, and none of it is run. A later `PassManager.run` on the model keeps what the passes
    promised.

    Args:
        path: the file.
        custom_objects: classes and functions of the user's by name, as in Keras.
        model: a built model of the same architecture to fill in place of building one, for a file without an
            architecture; it is filled only after the whole file was read and checked.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        FileError: the file cannot be opened.
        CorruptFileError: it is no .bw file, or was cut off or altered anywhere.
        VersionError: it was written by a newer version of the format.
        ModelError: the model cannot be built, or `model` has other variables.
    """
    content = read_content(path)
    if content.framework not in BACKENDS:
        raise CorruptFileError(f"{path}: a model of an unknown framework {content.framework!r}")
    architecture = Architecture(
        content.framework, content.architecture, content.reason, content.inputs, content.variables, content.assets
    )
    values = [parameter.values for parameter in content.parameters]
    encodings = {index: parameter.encoding for index, parameter in enumerate(content.parameters)}
    return load_backend(content.framework).build(architecture, values, encodings, custom_objects, model)
