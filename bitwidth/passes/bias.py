"""`CorrectBias`: shift biases so that the mean of what a layer gives stays as it was before a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis import InputMoments
from bitwidth.backend import Objective
from bitwidth.context import Context
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter, Value, Wiring
from bitwidth.graph.wiring import Target
from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.compose import check_pass
from bitwidth.passes.roles import is_matrix
from bitwidth.passes.rounding import moments_of
from bitwidth.tensors import Moments


@dataclass(frozen=True)
class CorrectBias(Pass, name="correct_bias"):
    """Run a pass, and make up in the biases for what it does to the mean of each layer's output.

    A kernel whose values change from W to W' shifts the output of its layer by E[x] (W' - W) on average; the bias takes
    the opposite (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
    4.2). E[x] is measured on unlabelled data, on the model as it was before the pass. Where a layer has no bias and a
    batch normalisation follows it, the mean of that one takes the shift. The report names each kernel that has neither.

    Attributes:
        of: the pass, `Quantize(...)` or `Prune(...)` say, or a chain of them; no training.
        samples: how many samples of the data are looked at, at most; the first ones.

    Raises:
        ConfigError: `of` is no pass or trains, or `samples` is no whole number of at least 1.

    Example:
        >>> from bitwidth import Quantize
        >>> CorrectBias(Quantize(bits=3), samples=512).of.bits
        3
    """

    of: Pass
    samples: int = 2048

    def __post_init__(self) -> None:
        check_pass(self.of, "CorrectBias", "of")
        training = next(_training(self.of), None)
        if training is not None:
            raise ConfigError(f"CorrectBias: {training.label} trains, and a shift of the biases would undo part of it")
        InputMoments(self.samples)

    @property
    def label(self) -> str:
        """The pass inside too."""
        return f"CorrectBias({self.of.label})"

    def objective(self) -> Objective | None:
        """That of the pass inside."""
        return self.of.objective()

    def check(self, graph: Graph, context: Context) -> None:
        """There are data, and the pass inside can work."""
        InputMoments(self.samples).check(graph, context)
        self.of.check(graph, context)

    def requires(self, graph: Graph, context: Context) -> None:
        """What the pass inside requires."""
        self.of.requires(graph, context)

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass inside, and shift the biases."""
        after = self.of.apply(graph, context)
        changed = tuple(p for p in graph if is_matrix(p) and _differ(graph, after, p.path))
        inside = {parameter.path for parameter in context.fresh_notes().select(graph)}
        wiring = Wiring(graph)
        shifts: dict[str, NDArray[np.float64]] = {}
        corrected = 0
        for parameter, moments in moments_of(graph, context, changed, self.samples) if changed else ():
            target = _target(wiring, parameter, moments, inside)
            if isinstance(target, str):
                context.remark(f"{parameter.path}: no bias corrected, {target}")
                continue
            error = graph.values[parameter.path].astype(np.float64) - after.values[parameter.path]
            path = target.parameter.path
            shifts.setdefault(path, np.zeros(target.parameter.shape))
            target.add(shifts[path], _mean_shift(error, moments[0]))
            corrected += 1
        context.remark(f"biases corrected for {corrected} of {len(changed)} kernels that have changed")
        return _shifted(after, shifts)

    def preview(self, graph: Graph, context: Context) -> Graph:
        """Preview the pass inside; biases would move."""
        return self.of.preview(graph, context)

    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """What the pass inside promises."""
        self.of.ensures(before, after, context.fresh_notes())


def _target(wiring: Wiring, parameter: Parameter, moments: Sequence[Moments], inside: set[str]) -> Target | str:
    """Where the shift of a kernel's output goes: the same place for each of its uses; or why nowhere."""
    if len(moments) != 1 or moments[0].arrangement.index is not None:
        return f"it is used in {len(moments)} ways" if moments else "it was not seen to multiply features"
    _, _, outputs = moments[0].arrangement.matrix
    count = moments[0].arrangement.matrix[0] * outputs
    found = [wiring.target(use.op, count) for use in parameter.uses]
    first = found[0]
    if isinstance(first, str):
        return first
    if any(other != first for other in found):
        return "its uses lead to several biases"
    if first.parameter.path not in inside:
        return f"{first.parameter.path} is not selected by `where`"
    return first


def _mean_shift(error: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
    """E[x] times the error, one value for each output: those of the first group come first."""
    matrices = moments.arrangement.take(error)
    shift: NDArray[np.float64] = np.einsum("gi,gio->go", moments.mean.astype(np.float64), matrices).reshape(-1)
    return shift


def _shifted(graph: Graph, shifts: dict[str, NDArray[np.float64]]) -> Graph:
    """The graph with shifts added to its masters, each put into the form in which it is held."""
    changes = {}
    for path, shift in shifts.items():
        old = graph.values.value(path)
        master = ((old.read() if old.master is None else old.master) + shift).astype(graph[path].dtype)
        changes[path] = Value(graph[path].encoding.project(master), master)
    return Graph(graph.structure, tuple(graph), graph.values.replace(changes))


def _differ(before: Graph, after: Graph, path: str) -> bool:
    if before.values.value(path) is after.values.value(path):
        return False
    return not np.array_equal(before.values[path], after.values[path])


def _training(item: Pass) -> Iterator[Pass]:
    """The passes in a pass, itself included, that train."""
    if isinstance(item, TrainingPass):
        yield item
    for field in fields(item):
        value = getattr(item, field.name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Pass):
                yield from _training(inner)
