"""Lineage: a graph after a cut, and what was cut off between two graphs."""

from __future__ import annotations

from dataclasses import replace

from bitwidth.encodings import Encoding
from bitwidth.errors import ModelError
from bitwidth.graph.cuts import Cut
from bitwidth.graph.graph import Graph
from bitwidth.graph.inputs import KeptInputs
from bitwidth.graph.model import Structure
from bitwidth.graph.values import Value


def cut_between(before: Graph, after: Graph) -> Cut:
    """What was cut off, and made, since an earlier graph that a later one was made from: empty where nothing was.

    Raises:
        ModelError: the later graph has entries that the earlier one does not have.
    """
    return after.structure.cut.since(before.structure.cut)


def tensors_between(before: Structure, after: Structure) -> dict[str, str]:
    """The name in a later structure of each tensor that a layer takes in an earlier one, by layer and call."""
    calls = {layer.path: layer.calls for layer in after.layers}
    cut = after.cut.since(before.cut)
    found: dict[str, str] = {}
    for layer in before.layers:
        for old, new in zip(layer.calls, calls.get(cut.entrance(layer.path), ()), strict=False):
            found.update(zip(old.inputs, new.inputs, strict=False))
    return found


def with_kept_inputs(graph: Graph, kept: KeptInputs | None) -> Graph:
    """The graph of a model that takes these features of an input; all of them for None."""
    return Graph(replace(graph.structure, kept_inputs=kept), tuple(graph), graph.values)


def cut_graph(graph: Graph, cut: Cut, fresh: Graph) -> Graph:
    """The graph after a cut: values, float masters and encodings of what is left, over the cut model's structure.

    Args:
        graph: the model before.
        cut: what is left of it, and what was made.
        fresh: the cut model as a backend reads it: its parameters have the shapes that are left. What was made has its
            values there.

    Raises:
        ModelError: the cut model has other parameters, or of other shapes.
        EncodingError: the cut goes through a group that shares a scale.
    """
    odd = (set(graph.parameters) | set(cut.made)) ^ set(fresh.parameters)
    if odd:
        raise ModelError(f"the cut model and the one before differ in their parameters: {min(odd)}")
    parameters, values = [], {}
    for parameter in fresh:
        path = parameter.path
        if path in cut.made:
            parameters.append(replace(parameter, trainable=graph[cut.made[path][0]].trainable))
            values[path] = fresh.values.value(path)
            continue
        old = graph[path]
        left = cut.shape(path, old.shape)
        if parameter.shape != left:
            raise ModelError(f"{path}: of shape {parameter.shape} in the cut model, and {left} is left of it")
        encoding = cut.encoding(path, old.encoding) if path in cut.kept else old.encoding
        parameters.append(replace(parameter, encoding=encoding, trainable=old.trainable))
        values[path] = _taken(graph.values.value(path), cut, path, encoding)
    structure = replace(fresh.structure, cut=graph.structure.cut.then(cut), kept_inputs=graph.structure.kept_inputs)
    names = tensors_between(graph.structure, structure)
    held = {names.get(name, name): encoding for name, encoding in graph.activations.items()}
    tensors = tuple(replace(item, encoding=held.get(item.name, item.encoding)) for item in structure.tensors)
    return Graph(replace(structure, tensors=tensors), parameters, values)


def _taken(value: Value, cut: Cut, path: str, encoding: Encoding) -> Value:
    if path not in cut.kept:
        return value
    master = None if value.master is None else cut.take(path, value.master)
    return Value(cut.take(path, value.read()), master, encoding)
