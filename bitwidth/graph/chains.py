"""Chains: a layer as two that follow each other, each with a factor of its kernel.

Each factor has some of the kernel's axes, and one more in common with the other, whose size is the rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from bitwidth.errors import ModelError
from bitwidth.fitting.factors import joined
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.inputs import KeptInputs
from bitwidth.typing import Array


@final
@dataclass(frozen=True, eq=False)
class Stage:
    """One layer of a chain.

    Attributes:
        layer: its path.
        axes: ascending axes of the whole kernel that it has.
        values: float32: its factor, `axes` and the rank behind them; of the last stage, the rank in front.
    """

    layer: str
    axes: tuple[int, ...]
    values: Array


@final
@dataclass(frozen=True, eq=False)
class Chain:
    """Two layers in the place of one.

    The last stage is the layer itself, with another kernel: it keeps its path, bias and activation. The first is new,
    stands in front of it, and has neither. Where the layer is shared, both are.

    Attributes:
        kernel: path of the layer's kernel.
        stages: the two layers, in order.
        windows: how many axes of the kernel, the first ones, are positions of the windows of a convolution. Strides,
            dilation and padding along such an axis go to the stage that has it; the kernel of the other has one
            position there.

    Raises:
        ModelError: the stages do not fit each other, or do not have each axis once.

    Example:
        >>> first = Stage("hidden_factor", (0,), np.ones((6, 2), np.float32))
        >>> chain = Chain("hidden/kernel", (first, Stage("hidden", (1,), np.ones((2, 4), np.float32))))
        >>> {path: kernel.shape for path, kernel in chain.kernels.items()}
        {'hidden_factor/kernel': (6, 2), 'hidden/kernel': (2, 4)}
        >>> chain.product.shape
        (6, 4)
    """

    kernel: str
    stages: tuple[Stage, Stage]
    windows: int = 0

    def __post_init__(self) -> None:
        axes = [axis for stage in self.stages for axis in stage.axes]
        first, last = (stage.values for stage in self.stages)
        ranks = all(stage.values.ndim == len(stage.axes) + 1 for stage in self.stages)
        if not ranks or sorted(axes) != list(range(len(axes))) or first.shape[-1] != last.shape[0]:
            raise ModelError(
                f"{self.kernel}: factors of shapes {first.shape} and {last.shape} with the axes "
                f"{self.stages[0].axes} and {self.stages[1].axes} are no chain"
            )

    @property
    def layer(self) -> str:
        """Path of the layer."""
        return self.stages[1].layer

    @property
    def rank(self) -> int:
        """Size of the axis that the factors have in common."""
        return int(self.stages[0].values.shape[-1])

    def path(self, stage: Stage) -> str:
        """Path of a stage's kernel."""
        return f"{stage.layer}/{self.kernel.rpartition('/')[2]}"

    @cached_property
    def kernels(self) -> dict[str, Array]:
        """The kernels of both stages as their layers hold them, by path."""
        return {self.path(stage): self._kernel(stage) for stage in self.stages}

    def _kernel(self, stage: Stage) -> Array:
        if not self.windows:
            return stage.values
        positions = [axis for axis in stage.axes if axis < self.windows]
        values = stage.values if stage is self.stages[0] else np.moveaxis(stage.values, 0, len(positions))
        lengths = iter(values.shape)
        spread = [next(lengths) if axis in positions else 1 for axis in range(self.windows)]
        return np.ascontiguousarray(values.reshape(*spread, *values.shape[len(positions) :]))

    @cached_property
    def product(self) -> Array:
        """The one kernel, float32, with which the layer would compute what the chain computes."""
        first, last = (stage.values.astype(np.float64) for stage in self.stages)
        axes = [axis for stage in self.stages for axis in stage.axes]
        return np.ascontiguousarray(joined(first, last).transpose(np.argsort(axes)).astype(np.float32))

    @property
    def cut(self) -> Cut:
        """The lineage: every kernel of the chain is made of the one that there was."""
        return Cut(made=dict.fromkeys(self.kernels, (self.kernel,)), entrances=((self.layer, self.stages[0].layer),))


@final
@dataclass(frozen=True, eq=False)
class Chains:
    """Chains in the place of several layers of a model.

    Attributes:
        chains: each of another layer.
    """

    chains: tuple[Chain, ...]

    @cached_property
    def kernels(self) -> dict[str, Array]:
        """The kernels of all their layers, by path."""
        return {path: kernel for chain in self.chains for path, kernel in chain.kernels.items()}

    @cached_property
    def cut(self) -> Cut:
        """The lineage of all of them."""
        return Cut.of_all(chain.cut for chain in self.chains)

    def joined(self, graph: Graph) -> Graph:
        """The model as it was, with the products of factors for kernels: what the new model has to agree with."""
        return graph.update({chain.kernel: chain.product for chain in self.chains})

    def kept_inputs(self, graph: Graph) -> KeptInputs | None:
        """Which features of the inputs of a model are left: as many as before."""
        return graph.structure.kept_inputs
