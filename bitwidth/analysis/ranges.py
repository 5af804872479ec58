"""`ActivationRanges`: between which values the tensors of a model lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwidth.context import Context, check_count
from bitwidth.graph import Graph
from bitwidth.probes import Observed, RangeProbe


@dataclass(frozen=True)
class ActivationRanges:
    """Least and greatest value of tensors over samples of the data, and an even selection of their values.

    Attributes:
        tensors: names in `Graph.structure.tensors`.
        samples: how many samples are looked at, at most; the first ones of the data.

    Raises:
        ConfigError: `samples` is not an integer of at least 1.

    Example:
        >>> ActivationRanges(("dense/Relu:0",), samples=256).samples
        256
    """

    tensors: tuple[str, ...]
    samples: int = 2048

    def __post_init__(self) -> None:
        check_count(self.samples, "ActivationRanges", "samples")

    def answer(self, graph: Graph, context: Context) -> Mapping[str, Observed]:
        """What was seen of each tensor, by name."""
        data = context.need_data("ActivationRanges")
        return context.session.probe(graph, RangeProbe(self.samples, self.tensors), data)
