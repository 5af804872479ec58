"""`docs/architecture.md` is true: the rooms are those of the package, the walk is the one that a model takes."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.test_architecture import MODULES, PACKAGE, ROOMS, imported
from tests.test_docs import blocks

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
BACKEND = PACKAGE / "backends" / "tensorflow"
STOPS = [
    re.sub(r"^T\.", "bitwidth.backends.tensorflow.", name)
    for name in re.findall(r"^\d+\. `([\w.]+)`: ", TEXT, re.MULTILINE)
]


def rows(heading: str) -> list[tuple[str, str]]:
    """The rooms of a section's table, each with its line."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w./]+)` \| (.+) \|$", section, re.MULTILINE)


def shown(folder: Path, room: str, prefix: str = "") -> tuple[str, str]:
    """A room as the page has to show it: its path, and the first line of its docstring."""
    path = folder / room / "__init__.py" if (folder / room).is_dir() else folder / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    name = "__init__.py" if not room else f"{room}/" if path.name == "__init__.py" else path.name
    return prefix + name, docstring.splitlines()[0]


def test_the_rooms_are_those_of_the_package() -> None:
    assert rows("Rooms, bottom to top") == [shown(PACKAGE, room, "bitwidth/") for room in ROOMS]


def test_the_rooms_of_the_backend_are_those_of_its_folder() -> None:
    found = rows("Rooms of the TensorFlow backend, bottom to top")
    folders = {path.parent.name for path in BACKEND.glob("*/__init__.py")}
    assert {name.rstrip("/") for name, _ in found} == folders
    assert found == [shown(BACKEND, name.rstrip("/")) for name, _ in found]


def test_the_rooms_of_the_backend_import_from_those_above() -> None:
    order = [name.rstrip("/") for name, _ in rows("Rooms of the TensorFlow backend, bottom to top")]
    start = "bitwidth.backends.tensorflow."
    for name in MODULES:
        own = name.removeprefix(start).split(".")[0]
        if name.startswith(start) and own in order:
            others = {other.removeprefix(start).split(".")[0] for other in imported(name) if other.startswith(start)}
            assert others <= set(order[: order.index(own) + 1]), name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_room_says_what_belongs_in_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert "Here belong" in docstring or "old name" in docstring


def code_of(name: str) -> CodeType:
    """The code that a dotted name stands for: that of the function, or of the class's `__init__`."""
    parts = name.split(".")
    found: Any = None
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        break
    function: Any = inspect.getattr_static(found, "__init__") if isinstance(found, type) else inspect.unwrap(found)
    code: CodeType = function.__code__
    return code


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[CodeType]:
    """The stops that the run of the page reaches, in the order in which it reaches each first."""
    codes = {code_of(name) for name in STOPS}
    found: dict[CodeType, None] = {}

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code in codes:
            found.setdefault(frame.f_code)

    monkeypatch.chdir(tmp_path)
    (block,) = blocks(PAGE)
    program = compile(block, str(PAGE), "exec", dont_inherit=True)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        exec(program, {"__name__": "walk"})
    finally:
        sys.setprofile(before)
    assert (tmp_path / "small.bw").is_file()
    return list(found)


def test_the_walk_is_that_of_a_real_run(reached: list[CodeType]) -> None:
    names = {code_of(name): name for name in STOPS}
    assert len(names) == len(STOPS) > 30
    assert [names[code] for code in reached] == STOPS
