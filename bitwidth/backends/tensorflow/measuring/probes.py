"""How each kind of probe is answered: a function per kind, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.constraints.activations import on_grids
from bitwidth.backends.tensorflow.data.source import Batch, Source
from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFTensor
from bitwidth.backends.tensorflow.measuring.gradients import SquaredGradients
from bitwidth.backends.tensorflow.measuring.moments import input_moments
from bitwidth.backends.tensorflow.measuring.norms import batch_statistics
from bitwidth.backends.tensorflow.measuring.observing import observed
from bitwidth.backends.tensorflow.measuring.paired import paired_moments
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import UnsupportedModelError
from bitwidth.fitting import Moments
from bitwidth.graph import Graph
from bitwidth.probes import (
    GradientProbe,
    MomentsProbe,
    Observed,
    OutputProbe,
    Paired,
    PairedMomentsProbe,
    Probe,
    RangeProbe,
    StatisticsProbe,
)
from bitwidth.typing import Array, Model, Nest

_BATCH = 64  # samples at a time where features are looked at one operation after another
_KEPT_BYTES = 1 << 26  # of the inputs that are kept to look at the outputs for them again
Arrays = Mapping[str, Array]


@final
@dataclass(frozen=True)
class Watched:
    """A model that may be run, and how.

    Attributes:
        model: the model; whoever runs it puts back what it moves.
        trace: of it.
        variables: its variables, by the path of the parameter.
        batch_size: samples that the model is made for at a time, if it is made for so many.
        gradients: compiled functions for squared gradients, by likelihoods and labels; valid while nothing is attached
            to the model or taken off it.
        kept: inputs to look at the outputs for them again, by `id` of the data, which lives as long, and samples.
    """

    model: Model
    trace: FuncTrace
    variables: Mapping[str, ModelVariable]
    batch_size: int | None
    gradients: dict[tuple[tuple[str, ...], str], SquaredGradients] = field(default_factory=dict)
    kept: dict[tuple[int, int], list[Any]] = field(default_factory=dict)

    def batches(self, data: Source, samples: int, size: int = _BATCH) -> Iterator[Batch]:
        """The first samples of the data."""
        return data.samples(samples, self.batch_size or size)


def answered(watched: Watched, graph: Graph, probe: Probe[Any], data: Source) -> Any:
    """The answer to a probe.

    Args:
        watched: the model, with the values of `graph`.
        graph: what it computes with.
        probe: what is asked.
        data: what it is run on.

    Raises:
        UnsupportedModelError: this backend does not know such a probe.
    """
    handler = next((HANDLERS[kind] for kind in type(probe).__mro__ if kind in HANDLERS), None)
    if handler is None:
        raise UnsupportedModelError(f"the TensorFlow backend does not answer {type(probe).__name__}")
    return handler(watched, graph, probe, data)


def _ranges(watched: Watched, graph: Graph, probe: RangeProbe, data: Source) -> Mapping[str, Observed]:
    inputs = (batch.inputs for batch in watched.batches(data, probe.samples))
    return observed(watched.trace, probe.tensors, inputs, on_grids(graph.activations))


def _moments(watched: Watched, graph: Graph, probe: MomentsProbe, data: Source) -> Mapping[str, tuple[Moments, ...]]:
    uses = {path: [use.op for use in graph[path].uses] for path in probe.paths}
    inputs = (batch.inputs for batch in watched.batches(data, probe.samples))
    return input_moments(watched.trace, watched.variables, uses, inputs, on_grids(graph.activations))


def _paired(
    watched: Watched, graph: Graph, probe: PairedMomentsProbe, data: Source
) -> Mapping[str, tuple[Paired, ...]]:
    uses = {path: [use.op for use in graph[path].uses] for path in probe.paths}
    inputs = (batch.inputs for batch in watched.batches(data, probe.samples))
    return paired_moments(watched.trace, watched.variables, uses, inputs, probe.values, on_grids(graph.activations))


def _gradients(watched: Watched, graph: Graph, probe: GradientProbe, data: Source) -> Arrays:
    key = (probe.likelihoods, probe.labels)
    if key not in watched.gradients:
        watched.gradients[key] = SquaredGradients(watched.model, *key)
    found = watched.gradients[key].over(data, probe.samples, probe.seed)
    return {parameter.path: found[parameter.index] for parameter in graph}


def _statistics(watched: Watched, graph: Graph, probe: StatisticsProbe, data: Source) -> Arrays:
    found = batch_statistics(watched.model, watched.trace.names, watched.batches(data, probe.samples, probe.batch_size))
    return {path: found[id(v)] for path, v in watched.variables.items() if id(v) in found}


def _outputs(watched: Watched, graph: Graph, probe: OutputProbe, data: Source) -> tuple[Array, ...]:
    key = (id(data), probe.samples)
    if key not in watched.kept:
        watched.kept[key] = list(_few(batch.inputs for batch in watched.batches(data, probe.samples)))
    batches = [
        [_array(output) for output in keras.tree.flatten(watched.model(inputs, training=False))]
        for inputs in watched.kept[key]
    ]
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def _few(batches: Iterable[Nest]) -> Iterator[Nest]:
    """Batches until they take enough memory; one at least."""
    size = 0
    for inputs in batches:
        yield inputs
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(inputs, expand_composites=True)]
        size += sum(int(tf.size(leaf)) * max(1, leaf.dtype.size) for leaf in leaves)
        if size >= _KEPT_BYTES:
            return


def _array(output: TFTensor) -> Array:
    if isinstance(output, tf.RaggedTensor):
        output = output.flat_values
    elif isinstance(output, tf.SparseTensor):
        output = tf.sparse.to_dense(output)
    return np.atleast_1d(keras.ops.convert_to_numpy(output))


HANDLERS: dict[type[Probe[Any]], Callable[[Watched, Graph, Any, Source], Any]] = {
    RangeProbe: _ranges,
    MomentsProbe: _moments,
    PairedMomentsProbe: _paired,
    GradientProbe: _gradients,
    StatisticsProbe: _statistics,
    OutputProbe: _outputs,
}
