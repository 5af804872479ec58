"""What is said about any pass, by comparing the graph before with the graph after it."""

from __future__ import annotations

from collections.abc import Iterator

from bitwidth.graph import Graph

_SHOWN = 4  # parameters that a remark names


def narrowed(before: Graph, after: Graph) -> Iterator[str]:
    """Say which parameters are held in fewer bits than an earlier pass chose for them."""
    found = [
        (p.path, before[p.path].encoding.bits, p.encoding.bits)
        for p in after
        if p.path in before.parameters
        and not before.same(after, p.path)
        and not before[p.path].encoding.summary().is_float
        and p.encoding.bits < before[p.path].encoding.bits
    ]
    if found:
        shown = ", ".join(f"{path} ({old:g} to {new:g})" for path, old, new in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield (
            f"in fewer bits than an earlier pass chose: {shown}{more}; to leave them as they were, "
            "`where=bw.AllBut([...])` or widths by layer, `bits={...: 8, None: 4}`"
        )
