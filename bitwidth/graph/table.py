"""The table that `print(graph)` shows."""

from __future__ import annotations

from collections.abc import Sequence

from bitwidth.graph.model import Parameter, Structure
from bitwidth.text import shape_text, table


def graph_table(structure: Structure, parameters: Sequence[Parameter]) -> str:
    """A table of the parameters of a model: what each is, how it is held, and what reads it."""
    kinds = {layer.path: layer.kind for layer in structure.layers}
    rows = [
        [
            parameter.path + ("" if parameter.trainable else " (frozen)"),
            kinds.get(parameter.layer, ""),
            shape_text(parameter.shape),
            parameter.role,
            ",".join(map(str, parameter.channel_axes)) if len(parameter.shape) > 1 else "",
            parameter.encoding.describe(),
            _readers(parameter),
        ]
        for parameter in parameters
    ]
    count = sum(parameter.size for parameter in parameters)
    head = (
        f"{structure.name}: {len(structure.layers)} layers, {len(structure.ops)} ops, "
        f"{len(parameters)} parameters holding {count:,} values"
    )
    columns = ["parameter", "layer", "shape", "role", "channels", "encoding", "read by"]
    return "\n".join([head, table(columns, rows), *structure.notes])


def _readers(parameter: Parameter) -> str:
    readers = dict.fromkeys(use.shown for use in parameter.uses)
    return ", ".join(readers) or "nothing"
