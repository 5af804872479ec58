"""`Removal`: some units of a model, to be removed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.errors import ConfigError
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.labels.coupling import Coupling, Kept


@final
@dataclass(frozen=True, eq=False)
class Removal:
    """What is left of a model when some units are removed.

    Attributes:
        coupling: the units of the model.
        kept: by the name of a group, the units that are left; groups that are not named are whole.

    Raises:
        ConfigError: as of `Coupling.cut`, when it is first asked.
    """

    coupling: Coupling
    kept: Kept

    @cached_property
    def cut(self) -> Cut:
        """What is left of the parameters."""
        return self.coupling.cut(self.kept)

    def left(self, tensor: str) -> tuple[NDArray[np.intp] | None, ...]:
        """For each axis of a tensor the indices that are left, None for all; empty where its axes are not known."""
        try:
            return self.coupling.kept(tensor, self.kept)
        except ConfigError:
            return ()

    def zeroed(self, graph: Graph) -> Graph:
        """The model as it was, with zeros where removed units are read: what the cut model has to agree with."""
        return graph.update(self.coupling.zeroed(graph, self.kept))
