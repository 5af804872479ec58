"""`CorrectBias`: shift biases so that the mean output of a layer stays what it was before a pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.analysis import InputMoments
from bitwidth.context import Context, check_count
from bitwidth.errors import ConfigError
from bitwidth.fitting import Arrangement, Moments
from bitwidth.graph import Graph, Parameter, Refused, Value, Wiring
from bitwidth.graph.neighbours import Target, target
from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.roles import is_matrix, need_selected
from bitwidth.passes.rounding import moments_of
from bitwidth.passes.wrapping import Wrapping, walk


@keywords_from(1)
@dataclass(frozen=True)
class CorrectBias(Wrapping, name="correct_bias"):
    """Run a pass, and make up in the biases for what it does to the mean of each layer's output.

    A kernel whose values change from W to W' shifts the output of its layer by E[x] (W' - W) on average; the bias takes
    the opposite (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section
    4.2). E[x] is measured on unlabelled data, on the model as it was before the pass. Where a layer has no bias and a
    batch normalisation follows it, the mean of that one takes the shift. The report names each kernel that has neither.

    Attributes:
        of: the pass, `Quantize(...)` or `Prune(...)` say, or a chain of them; no training.
        samples: how many samples of the data are looked at, at most; the first ones.
        sequential: correct one layer after the other, each for the inputs that it meets behind those corrected before
            it (appendix D of that paper). Runs the data through the model once for each kernel.

    Raises:
        ConfigError: `of` is not a pass, or trains, or `samples` is not an integer of at least 1.

    Example:
        >>> from bitwidth import Quantize
        >>> CorrectBias(Quantize(bits=3), samples=512).of.bits
        3
    """

    _: KW_ONLY
    samples: int = 2048
    sequential: bool = False

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        training = next(_training(self.of), None)
        if training is not None:
            raise ConfigError(f"CorrectBias: {training.label} trains, and a shift of the biases would undo part of it")
        cutting = next((item for item in walk(self.of) if item.cuts), None)
        if cutting is not None:
            raise ConfigError(
                f"CorrectBias: {cutting.label} goes on with other layers, whose outputs have none to be compared with"
            )
        check_count(self.samples, "CorrectBias", "samples")
        if not isinstance(self.sequential, bool):
            raise ConfigError(f"CorrectBias: sequential must be True or False, got {self.sequential!r}")

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There are data, and the pass inside can work."""
        super().check(graph, context)
        InputMoments(self.samples).check(graph, context)

    @override
    def at(self, strength: float) -> Self:
        raise ConfigError("CorrectBias cannot be ramped: training moves the biases itself; ramp the pass inside")

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Run the pass inside, and shift the biases."""
        after = super().apply(graph, context)
        changed = tuple(p for p in graph if is_matrix(p) and _differ(graph, after, p.path))
        inside = set(context.selection(graph).paths)
        wiring = Wiring(graph)
        places: list[_Place] = []
        for parameter, moments in moments_of(graph, context, changed, self.samples) if changed else ():
            try:
                found = _target(wiring, parameter, moments, inside)
            except Refused as refusal:
                context.remark(f"{parameter.path}: no bias corrected, {refusal.reason}")
            else:
                part = moments[0]
                places.append(_Place(parameter, found, part.arrangement, part.mean, part.mean))
        context.remark(f"biases corrected for {len(places)} of {len(changed)} kernels that have changed")
        if not self.sequential:
            return _shifted(graph, after, places)
        order = {op.name: place for place, op in enumerate(graph.ops)}
        places.sort(key=lambda place: order[place.kernel.uses[0].op])
        corrected, done = after, list[_Place]()
        for place in places:
            ((_, moments),) = moments_of(corrected, context, (place.kernel,), self.samples)
            done.append(replace(place, later=moments[0].mean))
            corrected = _shifted(graph, after, done)
        return corrected


@dataclass(frozen=True, eq=False)
class _Place:
    """A kernel that has changed, where the shift of its output goes, and the mean of what it meets.

    Attributes:
        kernel: the kernel, as it was before.
        target: where the shift goes.
        arrangement: where the kernel's elements stand in (groups, inputs, outputs).
        mean: (groups, inputs): mean of its inputs in the model as it was.
        later: likewise, in the model in which it is corrected.
    """

    kernel: Parameter
    target: Target
    arrangement: Arrangement
    mean: NDArray[np.float32]
    later: NDArray[np.float32]

    def shift(self, before: Graph, after: Graph) -> NDArray[np.float64]:
        """What is missing in the mean of each output; those of the first group come first."""
        total = np.zeros(self.arrangement.matrix[::2])
        for graph, mean, sign in ((before, self.mean, 1.0), (after, self.later, -1.0)):
            matrices = self.arrangement.take(graph.values[self.kernel.path].astype(np.float64))
            total += sign * np.einsum("gi,gio->go", mean.astype(np.float64), matrices)
        return total.reshape(-1)


def _target(wiring: Wiring, parameter: Parameter, moments: Sequence[Moments], inside: set[str]) -> Target:
    """Where the shift of a kernel's output goes: the same place for each of its uses."""
    if len(moments) != 1 or moments[0].arrangement.index is not None:
        raise Refused(f"it is used in {len(moments)} ways" if moments else "it was not seen to multiply features")
    groups, _, outputs = moments[0].arrangement.matrix
    first, *others = (target(wiring, use.op, groups * outputs) for use in parameter.uses)
    if any(other != first for other in others):
        raise Refused("its uses lead to several biases")
    need_selected([first.parameter], inside)
    return first


def _shifted(before: Graph, after: Graph, places: Iterable[_Place]) -> Graph:
    """`after` with the masters of biases shifted, each put into the form in which it is held."""
    shifts: dict[str, NDArray[np.float64]] = {}
    for place in places:
        parameter = place.target.parameter
        place.target.add(shifts.setdefault(parameter.path, np.zeros(parameter.shape)), place.shift(before, after))
    changes = {}
    for path, shift in shifts.items():
        master = (after.values.value(path).start + shift).astype(after[path].dtype)
        changes[path] = Value(after[path].encoding.project(master), master)
    return Graph(after.structure, tuple(after), after.values.replace(changes))


def _differ(before: Graph, after: Graph, path: str) -> bool:
    if before.values.same(after.values, path):
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
