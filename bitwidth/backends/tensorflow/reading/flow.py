"""Flow: where each parameter's value goes, from its variable to the operations that join it with features.

Every tensor is one of three: computed from the model's inputs (features, None), a constant, or computed
from parameters and constants alone (the parameters with their axes); a variable that is not the model's is a constant
here. An operation with a parameter and features among its inputs uses the parameter; one with parameters and constants
only passes it on, so a kernel behind a cast, a reshape, a mask or a norm is still that kernel. A contraction or a
look-up is a use in any case. What is repeated along the kernel while that is computed (a gain for each channel, a
temperature, an offset) is not a kernel itself, but does to it what it was joined by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from bitwidth.backends.tensorflow.internals.types import TFOperation
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.axes import Axes, origins, repeats, whole
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.kinds import kind_of, spec_of
from bitwidth.backends.tensorflow.reading.rules import Effect, Reading, transformed, use_rule
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.graph import Use

Carried: TypeAlias = dict[str, Axes | None] | None


@final
@dataclass
class Flow:
    """What the trace shows about the parameters.

    Attributes:
        uses: by path, the uses of a parameter with what is done there, in the order of the trace.
        read_by: by the operation's unique name, the paths of the parameters it reads, directly or through others.
    """

    uses: dict[str, dict[Use, Reading]] = field(default_factory=dict)
    read_by: dict[str, tuple[str, ...]] = field(default_factory=dict)


def flow_of(trace: FuncTrace) -> Flow:
    """Follow every variable of the model through the live operations of the trace."""
    paths = {
        id(tf_variable(variable).handle): (path, whole(variable.shape)) for path, variable, _ in trace.names.variables
    }
    entering: dict[str, Carried] = {}
    for outer, inner in trace.frame.graph.captures:
        found = paths.get(id(outer))
        entering[inner.name] = {} if found is None else dict([found])
    follower = _Follower(trace)
    follower.follow(trace.frame, entering)
    follower.settle()
    return follower.flow


@final
class _Follower:
    def __init__(self, trace: FuncTrace) -> None:
        self.trace = trace
        self.flow = Flow()
        self._last: dict[str, tuple[Frame, Any]] = {}
        self._joined: dict[str, Effect] = {}  # what a parameter does to others that it was joined with first

    def follow(self, frame: Frame, entering: Mapping[str, Carried]) -> list[Carried]:
        """Go through one graph, given what its inputs carry; what its outputs carry comes back."""
        carried: dict[str, Carried] = {}
        for op in frame.graph.get_operations():
            if op.name not in frame.live:
                continue
            inputs = [carried[tensor.name] for tensor in op.inputs]
            if kind_of(op) == "input":
                outputs = [entering.get(op.outputs[0].name)]
                self._note(frame, op, outputs)
            elif op.name in frame.inner:
                self._note(frame, op, inputs)
                outputs = self._enter(frame, op, inputs)
            else:
                self._note(frame, op, inputs)
                outputs = self._step(frame, op, inputs)
            carried.update((tensor.name, output) for tensor, output in zip(op.outputs, outputs, strict=True))
        return [carried[tensor.name] for tensor in frame.outputs]

    def settle(self) -> None:
        """A parameter that is read and never joined with features is used by the operation that reads it last."""
        for path, (frame, op) in self._last.items():
            if path not in self.flow.uses:
                self._use(frame, op, path, Reading("unknown"))

    def _note(self, frame: Frame, op: TFOperation, inputs: list[Carried]) -> None:
        read = dict.fromkeys(path for item in inputs if item for path in item)
        if read:
            self.flow.read_by[frame.name(op)] = tuple(read)
        if kind_of(op) != "input" and not spec_of(op).shape_only:
            self._last.update((path, (frame, op)) for path in read)

    def _use(self, frame: Frame, op: TFOperation, path: str, reading: Reading) -> None:
        layer = self.trace.layer_of(frame, op)
        use = Use(frame.name(op), kind_of(op), layer, reading.channel_axes, reading.input_axes, label=op.type)
        self.flow.uses.setdefault(path, {})[use] = reading

    def _step(self, frame: Frame, op: TFOperation, inputs: list[Carried]) -> list[Carried]:
        has_features = any(item is None for item in inputs)
        if spec_of(op).shape_only:
            return [None if has_features else {} for _ in op.outputs]
        if not any(inputs):
            is_features = has_features or (not inputs and op.op_def.is_stateful)
            return [None if is_features else {} for _ in op.outputs]
        rule, always = use_rule(op)
        if not has_features and not always:
            self._join(op, inputs)
            return [_passed_on(op, inputs, output) for output in range(len(op.outputs))]
        for position, item in enumerate(inputs):
            for path, axes in (item or {}).items():
                reading = Reading("unknown") if axes is None else rule(op, position, axes)
                if axes is not None and reading.effect in ("contract", "look_up") and _is_repeated(path, axes, item):
                    reading = reading._replace(effect=self._joined.get(path, "multiply"))
                self._use(frame, op, path, reading)
        return [None if has_features else {} for _ in op.outputs]

    def _join(self, op: TFOperation, inputs: list[Carried]) -> None:
        """Note what each parameter does where it is first joined with others of more axes, one element by another."""
        rule, _ = use_rule(op)
        for position, item in enumerate(inputs):
            for path, axes in (item or {}).items():
                effect = "unknown" if axes is None else rule(op, position, axes).effect
                if effect in ("add", "multiply"):
                    self._joined.setdefault(path, effect)

    def _enter(self, frame: Frame, op: TFOperation, inputs: list[Carried]) -> list[Carried]:
        """Go into the graphs that an operation runs. What a loop changes, and what a branch chooses, are features."""
        is_loop, branches = kind_of(op) == "loop", frame.inner[op.name]
        results: list[list[Carried]] = []
        for inner in branches:
            offset = len(inputs) - len(inner.inputs)
            entering = {
                tensor.name: item if not is_loop or _is_invariant(branches, place) else None
                for place, (tensor, item) in enumerate(zip(inner.inputs, inputs[offset:], strict=True))
            }
            results.append(self.follow(inner, entering))
        if is_loop:
            return [inputs[place] if _is_invariant(branches, place) else None for place in range(len(op.outputs))]
        return results[0] if len(results) == 1 else [None for _ in op.outputs]


def _is_repeated(path: str, axes: Axes, item: Carried) -> bool:
    """Whether a parameter is repeated along an operand in which another one is not, or varies along no axis of it."""
    others = [held for other, held in (item or {}).items() if other != path]
    return not origins(axes) or (repeats(axes) and any(held is None or not repeats(held) for held in others))


def _is_invariant(branches: list[Frame], place: int) -> bool:
    """Whether a loop hands its input at `place` on as it came."""
    body = next(frame.graph for frame in branches if frame.prefix.endswith("/body/"))
    given = body.outputs[place]
    while kind_of(given.op) == "identity":
        given = given.op.inputs[0]
    return bool(given.name == body.inputs[place].name)


def _passed_on(op: TFOperation, inputs: list[Carried], output: int) -> Carried:
    """What an output of an operation over parameters and constants carries; of several ways, the first known one."""
    carried: dict[str, Axes | None] = {}
    for position, item in enumerate(inputs):
        if kind_of(op) == "identity_n" and position != output:
            continue
        for path, axes in (item or {}).items():
            known = None if axes is None else transformed(op, position, axes, output)
            carried[path] = known if carried.get(path) is None else carried[path]
    return carried
