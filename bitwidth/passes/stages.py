"""What the stages of a ramp have in common: which parameters they constrain, and how one follows another."""

from __future__ import annotations

from typing import Any

from bitwidth.context import Context
from bitwidth.encodings import Encoding, EncodingState
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.base import check_kept


def trains(parameter: Parameter) -> bool:
    """Whether training can move a parameter, and read it through an encoding that changes meanwhile."""
    return parameter.trainable and parameter.dtype == "float32"


def frozen_apart(graph: Graph, context: Context) -> frozenset[str]:
    """Paths of the parameters whose constraint can grow: those that train, within the selectors around."""
    return frozenset(parameter.path for parameter in context.selection(graph).chosen if trains(parameter))


def kept(before: Graph, after: Graph, strength: float, owner: str) -> Graph:
    """`after`, but below full strength each parameter stays unchanged where it would break what it promised.

    Raises:
        PromiseError: at full strength a promise would be broken.
    """
    if strength < 1.0:
        back = [p for p in before if p.encoding.broken_by(after[p.path].encoding) is not None]
        if back:
            own = {parameter.path: parameter for parameter in back}
            values = after.values.replace({path: before.values.value(path) for path in own})
            after = Graph(after.structure, tuple(own.get(p.path, p) for p in after), values)
    check_kept(before, after, owner)
    return after


def alike(graph: Graph, mild: Graph, full: Graph, ramped: frozenset[str], owner: str) -> None:
    """Check that a pass holds the same parameters in encodings of the same structure, mild and at full strength.

    Raises:
        ConfigError: it does not, or it changes what it was not given.
    """
    if mild.structure is not full.structure and set(mild.activations) != set(full.activations):
        raise ConfigError(f"{owner} cannot be ramped: it holds other activations on grids at full strength than mildly")
    for parameter in graph:
        path = parameter.path
        if path not in ramped:
            if not graph.same(full, path):
                raise ConfigError(
                    f"{owner} cannot be ramped: it changes {path}, which it was not given; "
                    "choose parameters with `context.select(graph, where)`"
                )
        elif _structure(mild[path].encoding) != _structure(full[path].encoding):
            first, last = mild[path].encoding.describe(), full[path].encoding.describe()
            raise ConfigError(
                f"{owner} cannot be ramped: {path} would be held as {first} at the mildest strength and as {last} at "
                "full strength, and training cannot change from one to the other; let `at(0)` return a mild encoding "
                "of the same structure"
            )


def _structure(encoding: Encoding) -> Any:
    def kinds(state: EncodingState) -> Any:
        config = {key: value for key, value in state.config.items() if key != "pattern"}  # the name of a mask
        words = {key: value if value is None or isinstance(value, str) else ... for key, value in config.items()}
        shapes = {name: array.shape for name, array in state.arrays.items()}
        return state.kind, words, shapes, {name: kinds(part) for name, part in state.parts.items()}

    return kinds(encoding.state())
