"""Modules under the names that they had before: they go on working until the next minor release, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from typing_extensions import override

MOVED = {
    "bitwidth.tensors.blocks": "bitwidth.encodings.blocks",
    "bitwidth.tensors.codebook": "bitwidth.fitting.codebook",
    "bitwidth.tensors.coder": "bitwidth.coder",
    "bitwidth.tensors.dense": "bitwidth.encodings.dense",
    "bitwidth.tensors.encoding": "bitwidth.encodings.encoding",
    "bitwidth.tensors.escape": "bitwidth.encodings.escape",
    "bitwidth.tensors.escaping": "bitwidth.fitting.escaping",
    "bitwidth.tensors.fitting": "bitwidth.fitting.fitting",
    "bitwidth.tensors.floats": "bitwidth.encodings.floats",
    "bitwidth.tensors.leading": "bitwidth.encodings.leading",
    "bitwidth.tensors.levels": "bitwidth.encodings.levels",
    "bitwidth.tensors.masked": "bitwidth.encodings.masked",
    "bitwidth.tensors.matrices": "bitwidth.fitting.matrices",
    "bitwidth.tensors.planes": "bitwidth.fitting.planes",
    "bitwidth.tensors.prefix": "bitwidth.encodings.prefix",
    "bitwidth.tensors.quantized": "bitwidth.encodings.quantized",
    "bitwidth.tensors.rounding": "bitwidth.fitting.rounding",
    "bitwidth.tensors.rows": "bitwidth.encodings.rows",
    "bitwidth.tensors.rules": "bitwidth.fitting.rules",
    "bitwidth.tensors.scales": "bitwidth.fitting.scales",
    "bitwidth.tensors.search": "bitwidth.fitting.search",
    "bitwidth.tensors.snap": "bitwidth.fitting.snap",
    "bitwidth.tensors.strips": "bitwidth.fitting.strips",
    "bitwidth.tensors.tables": "bitwidth.fitting.tables",
}


class _Moved(MetaPathFinder, Loader):
    """Finds the modules of the table under their old names: modules whose names are looked up in the new ones."""

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if _new_name(fullname) is None else ModuleSpec(fullname, self, is_package=fullname in MOVED)

    @override
    def exec_module(self, module: ModuleType) -> None:
        new = _new_name(module.__name__)
        assert new is not None
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=6)
        module.__dict__["__getattr__"] = partial(getattr, import_module(new))


def _new_name(name: str) -> str | None:
    package = next((old for old in MOVED if name == old or name.startswith(f"{old}.")), None)
    return None if package is None else MOVED[package] + name[len(package) :]


def install() -> None:
    """Let the old names be found, once."""
    if not any(type(finder).__name__ == _Moved.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
