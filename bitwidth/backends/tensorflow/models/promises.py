"""What earlier passes promised about a model that came out of a run or a file, so that a later run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bitwidth.backend import LayerInputs
from bitwidth.backends.tensorflow.constraints.activations import attached_to
from bitwidth.backends.tensorflow.reading.naming import Names
from bitwidth.encodings import Encoding
from bitwidth.graph import Graph, KeptInputs, with_kept_inputs
from bitwidth.typing import Model

_INPUTS = "_bitwidth_inputs"
_HELD = "_bitwidth_encoding"  # an attribute of the variable, which goes with it into a larger model


def keep_promises(model: Model, encodings: Mapping[int, Encoding], kept: KeptInputs | None = None) -> None:
    """Remember how the variables of a model are held, by their index, and which features of an input it takes.

    Its layers know how they take their inputs.
    """
    model.__dict__[_INPUTS] = kept
    for index, variable in enumerate(model.variables):
        variable.__dict__[_HELD] = encodings.get(index)


def kept_promises(model: Model) -> dict[int, Encoding]:
    """How the variables of a model are held that came out of a run or a file, by their index in the model."""
    held = ((index, variable.__dict__.get(_HELD)) for index, variable in enumerate(model.variables))
    return {index: encoding for index, encoding in held if encoding is not None}


def inputs_kept(model: Model) -> KeptInputs | None:
    """Which features of an input a model takes that came out of a run or a file; None for all."""
    found = model.__dict__.get(_INPUTS)
    return found if isinstance(found, KeptInputs) else None


def _entering(graph: Graph, inputs: LayerInputs) -> dict[str, Encoding]:
    """The encodings of the tensors that enter layers, by the tensors' names."""
    return {
        name: encoding
        for layer in graph.structure.layers
        for call in layer.calls
        for name, encoding in zip(call.inputs, inputs.get(layer.path, ()), strict=False)
        if encoding is not None
    }


def promised(model: Model, names: Names, graph: Graph) -> Graph:
    """`graph`, with the encodings that `model` came with.

    Values changed since then are projected back, and a note says so.

    Args:
        model: the user's model.
        names: of its layers and variables.
        graph: the graph of a copy of it.
    """
    encodings = kept_promises(model)
    graph = with_kept_inputs(graph, inputs_kept(model)).update(activations=_entering(graph, attached_to(model, names)))
    found: dict[str, Encoding] = {}
    notes = []
    for parameter in graph:
        encoding = encodings.get(parameter.index)
        if encoding is None or encoding.summary().is_plain or not parameter.is_float:
            continue
        encoding.check(parameter.shape, parameter.path)
        off = int(np.count_nonzero(encoding.project(graph.values[parameter.path]) != graph.values[parameter.path]))
        if off:
            held_as = encoding.describe()
            notes.append(
                f"{parameter.path}: {off:,} values were changed since they were quantized ({held_as}); "
                "re-quantized to the recorded grid"
            )
        found[parameter.path] = encoding
    if not found:
        return graph
    held = graph.update(encodings=found)
    structure = replace(held.structure, notes=(*held.structure.notes, *notes))
    return Graph(structure, tuple(held), held.values)
