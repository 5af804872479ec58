"""Assets: state of layers that is not a variable (vocabularies), as Keras writes it into files of a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from bitwidth.backends.tensorflow.internals.layers import layers_of
from bitwidth.backends.tensorflow.internals.types import KerasLayer
from bitwidth.errors import ModelError
from bitwidth.text import brief, quoted
from bitwidth.typing import Model

_OF_KERAS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)


def assets_of(model: Model) -> dict[str, bytes]:
    """The assets of a model: bytes by `<place of the layer>/<path that the layer gives>`."""
    return {f"{index}/{name}": data for index, layer in _owners(model) for name, data in _saved(layer).items()}


def check_assets(model: Model, assets: Mapping[str, bytes]) -> None:
    """Raise unless assets fit a model: each belongs to a layer, and each layer of Keras that needs some has them.

    Args:
        model: built; not changed.
        assets: as `assets_of` returns them; untrusted.

    Raises:
        ModelError: naming the asset, or the layer without one.
    """
    owners = dict(_owners(model))
    found = {index: set(files) for index, files in _by_layer(assets).items()}
    for index, names in found.items():
        if index not in owners:
            raise ModelError(f"the file has an asset for no layer: {quoted(f'{index}/{min(names)}')}")
    for index, layer in owners.items():
        needed = set(_saved(layer)) if type(layer) in _OF_KERAS else None
        if needed is not None and found.get(index, set()) != needed:
            raise ModelError(
                f"{layer.name}: the file has the assets {quoted(sorted(found.get(index, ())))} for this layer, "
                f"which needs {quoted(sorted(needed))}"
            )
        for name in needed or ():
            _check_text(assets[f"{index}/{name}"], f"{layer.name}: the asset {quoted(name)}")


def load_assets(model: Model, assets: Mapping[str, bytes]) -> None:
    """Give the layers of a model their assets.

    Raises:
        ModelError: a layer cannot load its own; the message says which.
    """
    owners = dict(_owners(model))
    for index, files in _by_layer(assets).items():
        layer = owners[index]
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            try:
                layer.load_assets(folder)
            except Exception as error:  # Keras and a user's own layer raise anything
                raise ModelError(f"{layer.name}: its assets cannot be loaded: {brief(error)}") from error


def _by_layer(assets: Mapping[str, bytes]) -> dict[int, dict[str, bytes]]:
    """Bytes by path, by the place of the layer. The reader of the file has checked the names."""
    found: dict[int, dict[str, bytes]] = {}
    for whole, data in assets.items():
        index, _, name = whole.partition("/")
        found.setdefault(int(index), {})[name] = data
    return found


def _owners(model: Model) -> Iterator[tuple[int, Any]]:
    inner: set[int] = set()
    for index, layer in enumerate(layers_of(model)):
        if hasattr(layer, "save_assets") and id(layer) not in inner:
            inner |= {id(part) for part in layers_of(layer, include_self=False)}
            yield index, layer


def _saved(layer: KerasLayer) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _check_text(data: bytes, where: str) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} is not text: {error}") from error
