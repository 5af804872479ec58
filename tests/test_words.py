"""The English of the docs, docstrings and messages: words of the house that readers stumbled over stay away."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(ROOT.glob("docs/*.md"))
PLAIN = {
    r"whole numbers?": "integer",
    r"anew": "again",
    r"some times": "sometimes, or periodically",
    r"it is none": "it is not one",
    r"as (wide|long|large) as (it comes|they come)": "as wide as needed",
    r"makes no sense": "malformed: expected ..., got ...",
    r"is no (data|frozen data)class": "is not a dataclass",
    r"(model|layer) gives it out": "its output is a model output",
    r"(what|that) it gives": "its output, or what it returns",
    r"gives (it )?back": "returns",
}


def strays(text: str) -> list[str]:
    """The house words of a text, each with the plain one; a line break in it is a space."""
    flat = " ".join(text.split())
    found = ((re.search(rf"\b{word}\b", flat, re.IGNORECASE), plain) for word, plain in PLAIN.items())
    return [f"{match[0]!r}: write {plain}" for match, plain in found if match]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and messages of a module, parts of f-strings included, each with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_in_plain_english(page: Path) -> None:
    assert not strays(page.read_text(encoding="utf-8"))


def test_docstrings_and_messages_are_in_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted((ROOT / "bitwidth").rglob("*.py"))
        for line, text in texts(path)
        for word in strays(text)
    ]
    assert not found, "\n".join(found)


def test_a_stray_word_is_found() -> None:
    """Over a line break too."""
    assert strays("bits must be a whole\n    number") == ["'whole number': write integer"]
    assert not strays("an integer, read again")
