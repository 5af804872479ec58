"""Every example in a docstring of the library runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil
from collections.abc import Iterator

import numpy as np
import pytest

import bitwidth

# the command line: importing it runs nothing, but it has no examples either
SKIPPED = {"bitwidth.__main__"}


def modules() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(bitwidth.__path__, "bitwidth.")]
    return ["bitwidth", *(name for name in sorted(found) if name not in SKIPPED)]


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    with np.printoptions(precision=8, suppress=False, threshold=1000, linewidth=75, legacy=False):
        yield


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    out = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=out.write)
    assert not runner.failures, out.getvalue()


def test_there_are_examples() -> None:
    """So that a finder which finds nothing does not pass for one that found no fault."""
    module = importlib.import_module("bitwidth.encodings.levels")
    found = {test.name for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples}
    assert "bitwidth.encodings.levels.TableLevels" in found
