"""`bitwidth.extend`: the one module that extensions import from, beside `bitwidth` itself."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

import bitwidth as bw
from bitwidth import extend
from tests.test_docs import blocks

ROOT = Path(__file__).parents[1]
PUBLIC = {"bitwidth", "bitwidth.extend", "bitwidth.testing", "bitwidth.errors"}


@pytest.mark.parametrize("page", ["docs/extending.md", "CONTRIBUTING.md"])
def test_extensions_import_what_is_public(page: str) -> None:
    found = set()
    for block in blocks(ROOT / page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    assert {name for name in found if name.split(".")[0] == "bitwidth"} <= PUBLIC


def test_every_name_is_documented() -> None:
    table = (ROOT / "docs/extending.md").read_text("utf-8").rpartition("# Names")[2].partition("| for |")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == set(extend.__all__)


@pytest.mark.parametrize("name", extend.__all__)
def test_every_name_is_that_of_the_package(name: str) -> None:
    assert getattr(extend, name) is not None
    if name in bw.__all__:
        assert getattr(bw, name) is getattr(extend, name)


def test_only_names_are_there() -> None:
    tree = ast.parse(Path(str(extend.__file__)).read_text("utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == ["__getattr__"]
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = import_module("bitwidth.extend").Nothing
