"""The header's JSON, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from typing import Any


def strict_json(text: bytes) -> Any:
    """The value of a JSON text in UTF-8 whose objects name each key once.

    Infinity and NaN are read: the configuration of a layer may hold them. Every other place of a header asks for a type
    that they are not of.

    Raises:
        ValueError: the text is anything else.
        RecursionError: it is nested too deep.
    """
    data = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    if b"\\ud" in text.lower():  # halves of a character, which cannot be written in UTF-8
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"an object names {name[:80]!r} twice")
        found[name] = value
    return found
