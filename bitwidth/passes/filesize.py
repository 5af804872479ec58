"""The size of the file that a graph would take, as the writer packs it."""

from __future__ import annotations

from typing import final

from bitwidth.artifact import pack
from bitwidth.context import Context
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.report import FileSize
from bitwidth.result import stored_model

Size = int | str
"""Bytes, as a number or as a text with a unit."""
_UNITS = {"B": 1, "kB": 1_000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20}


def bytes_of(size: object, owner: str, field: str = "size") -> int:
    """A size in bytes: a number of them, or a text with a unit; kB is 1,000 bytes and KiB is 1,024.

    Raises:
        ConfigError: it is neither, or below one byte.

    Example:
        >>> bytes_of("12 kB", "Distill"), bytes_of("1.5 KiB", "Distill"), bytes_of(4096, "Distill")
        (12000, 1536, 4096)
    """
    found = 0.0
    if isinstance(size, int) and not isinstance(size, bool):
        found = size
    elif isinstance(size, str):
        number = size.rstrip("BKMik").strip()
        unit = size[len(size.rstrip("BKMik")) :]
        if unit in _UNITS and number.replace(".", "", 1).isdecimal():
            found = float(number) * _UNITS[unit]
    if not 1 <= found < float("inf"):
        raise ConfigError(
            f'{owner}: {field} must be a number of bytes, or a text such as "12 kB" ({", ".join(_UNITS)}), got {size!r}'
        )
    return int(found)


@final
class Sizes:
    """What files of one model take, whatever its values.

    Args:
        graph: the model.
        context: whose session has it.
    """

    def __init__(self, graph: Graph, context: Context) -> None:
        self._architecture = context.session.architecture(graph)

    def of(self, graph: Graph) -> FileSize:
        """The size of the file of a graph; of masters, when each is projected onto its encoding."""
        held = {p.path: p.encoding.project(graph.values[p.path]) for p in graph if p.is_float}
        packed = pack(stored_model(graph.update(held), self._architecture))
        return FileSize(packed.size, packed.parameter_bytes)
