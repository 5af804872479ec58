"""`ReestimateBatchNorm`: measure the statistics of batch normalisations again, with the present weights."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from typing_extensions import override

from bitwidth.context import Context, check_count
from bitwidth.graph import Graph
from bitwidth.passes.base import Pass
from bitwidth.passes.keywords import keywords_from
from bitwidth.probes import StatisticsProbe

_STATISTICS = ("mean", "variance")


@keywords_from(1)
@dataclass(frozen=True)
class ReestimateBatchNorm(Pass, name="reestimate_batch_norm"):
    """Give batch normalisations the means and variances that they meet in the compressed model.

    Few bits change the mean and the spread of a kernel's outputs, and the statistics are still those of the float
    weights (Sun et al. 2019, "Hybrid 8-bit Floating Point Training and Inference", section 3.3; the same after pruning
    in Li et al. 2020, "EagleEye", section 3.3). The data are run through the model with each normalisation taking the
    statistics of its batch; means are averaged over batches, variances are those of all batches together. No labels are
    needed. Frozen normalisations (those of `FoldBatchNorm`) stay unchanged.

    Attributes:
        samples: how many samples of the data are looked at, at most; the first ones.
        batch_size: samples that are run together, for data that is not batched yet.

    Raises:
        ConfigError: a field is not an integer of at least 1.

    Example:
        >>> ReestimateBatchNorm(samples=512).batch_size
        256
    """

    samples: int = 2048
    _: KW_ONLY
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size"):
            check_count(getattr(self, name), "ReestimateBatchNorm", name)

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There are data."""
        context.session.check_data(context.need_data("ReestimateBatchNorm"), "data")

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Measure, and put each statistic into the form in which it is held."""
        data = context.need_data("ReestimateBatchNorm")
        found = context.session.probe(graph, StatisticsProbe(self.samples, self.batch_size), data)
        kinds, values = graph.layers, {}
        for parameter in context.select(graph):
            layer = kinds.get(parameter.layer)
            if parameter.path in found:
                values[parameter.path] = parameter.encoding.project(found[parameter.path].astype(parameter.dtype))
            elif parameter.role in _STATISTICS and layer is not None and layer.kind == "BatchNormalization":
                reason = "the data did not reach it where it could be measured" if layer.trainable else "it is frozen"
                context.skip(parameter, reason)
        context.remark(f"{len(values) // 2} batch normalisations, {self.samples:,} samples at most")
        return graph.update(values)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Only values change: the graph itself."""
        context.select(graph)
        context.remark("measures the statistics of batch normalisations again")
        return graph
