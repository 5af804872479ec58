"""Old names of modules: they go on working for a while, with a warning."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import bitwidth as bw
from bitwidth import encodings, fitting, moved


@pytest.mark.parametrize("name", [*encodings.__all__, *fitting.__all__])
def test_the_names_of_the_old_room_are_found_in_the_new_ones(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"import {name} from bitwidth"):
        found = getattr(import_module("bitwidth.tensors"), name)
    assert found is getattr(encodings if name in encodings.__all__ else fitting, name)


@pytest.mark.parametrize("old", [*moved.MOVED, "bitwidth.tensors.coder.rans"])
def test_a_module_is_found_under_its_old_name(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now bitwidth"):
        module = import_module(old)
    new = import_module(moved.MOVED.get(old, "bitwidth.coder.rans"))
    own = [name for name, value in vars(new).items() if getattr(value, "__module__", "") == new.__name__]
    assert own or old == "bitwidth.tensors.coder"
    assert all(getattr(module, name) is getattr(new, name) for name in own)


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = import_module("bitwidth.tensors").Nothing
    with pytest.raises(ModuleNotFoundError):
        import_module("bitwidth.tensors.nothing")


def test_an_encoding_of_the_old_room_is_that_of_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="import Dense from bitwidth.encodings"):
        from bitwidth.tensors import Dense
    assert Dense is encodings.Dense
    moved.install()
    assert sum(type(finder).__name__ == "_Moved" for finder in sys.meta_path) == 1
    assert bw.bitplanes is fitting.bitplanes
