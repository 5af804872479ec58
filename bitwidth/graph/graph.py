"""`Graph`: a snapshot of a model, its structure and its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from typing_extensions import override

from bitwidth.encodings import Encoding, rebased
from bitwidth.errors import EncodingError, ModelError
from bitwidth.graph.model import Layer, Op, Parameter, Structure
from bitwidth.graph.selectors import Where, selected
from bitwidth.graph.table import graph_table
from bitwidth.graph.values import Value, Values
from bitwidth.typing import Array


class Graph:
    """A model as passes see it: operations, layers and parameters with their values. It never changes.

    `update` returns a new graph that shares all that stayed the same, so keeping many snapshots costs little. Values
    are read-only arrays; for a parameter with an encoding other than dense they are what the layer reads: the decoded
    values.

    Example:
        >>> from bitwidth.graph import Graph, Parameter, Structure
        >>> kernel = Parameter("dense/kernel", (2, 3), "float32", "kernel", layer="dense")
        >>> graph = Graph(Structure("net", (), (), (), (), ()), [kernel], {"dense/kernel": np.ones((2, 3), np.float32)})
        >>> graph.update({"dense/kernel": np.zeros((2, 3), np.float32)}).values["dense/kernel"].sum()
        np.float32(0.0)
        >>> graph.values["dense/kernel"].sum()
        np.float32(6.0)
    """

    def __init__(
        self,
        structure: Structure,
        parameters: Iterable[Parameter],
        values: Mapping[str, Array | Value] | Values,
    ) -> None:
        self._structure = structure
        self._parameters = MappingProxyType({parameter.path: parameter for parameter in parameters})
        self._values = values if isinstance(values, Values) else Values(values)
        if set(self._parameters) != set(self._values):
            odd = sorted(set(self._parameters) ^ set(self._values))
            raise ModelError(f"a graph needs one array for each parameter; without a partner: {', '.join(odd)}")

    @property
    def structure(self) -> Structure:
        """Operations, tensors, layers, inputs and outputs."""
        return self._structure

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters by path, in the order of the model's variables."""
        return self._parameters

    @property
    def values(self) -> Values:
        """Their values by path, each a read-only array of the parameter's shape."""
        return self._values

    def same(self, other: Graph, path: str) -> bool:
        """Whether two snapshots are known to hold a parameter alike: the same array, in the same encoding.

        The float master behind the array may differ.
        """
        return self._values.same(other._values, path) and self[path].encoding is other[path].encoding

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.structure.name

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operations, in an order in which each comes after those it reads from."""
        return self.structure.ops

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers by path."""
        return {layer.path: layer for layer in self.structure.layers}

    def __getitem__(self, path: str) -> Parameter:
        try:
            return self.parameters[path]
        except KeyError:
            raise ModelError(
                f"the model has no parameter {path!r}; it has: {', '.join(self.parameters) or 'none'}"
            ) from None

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters.values())

    def __len__(self) -> int:
        return len(self.parameters)

    def select(self, where: Where = None) -> tuple[Parameter, ...]:
        """The parameters that `where` names: all for None. See `bitwidth.graph.selectors`.

        Raises:
            SelectionError: `where` names nothing in this model.
        """
        return selected(self.structure, tuple(self), where)

    def update(
        self,
        values: Mapping[str, Array] | None = None,
        encodings: Mapping[str, Encoding] | None = None,
        activations: Mapping[str, Encoding] | None = None,
    ) -> Graph:
        """A new graph with some values and encodings exchanged.

        A parameter that gets an encoding and no values has its present values projected onto it, from the float master
        that they were projected from last, if there is one; training will go on from that master. A mask overrides the
        grid: an encoding without one is put under the mask that the parameter has, so what was pruned stays pruned.

        Args:
            values: new arrays by parameter path, of the parameter's shape; cast to its dtype.
            encodings: new encodings by parameter path.
            activations: new encodings of tensors, by name.

        Raises:
            ModelError: a path or name that the model does not have.
            EncodingError: an array of another shape, or an encoding that does not fit the parameter.
        """
        values = dict(values or {})
        encodings = {path: _held_as(self[path], encoding) for path, encoding in (encodings or {}).items()}
        changes: dict[str, Array | Value] = {p: _fitted(self[p], array) for p, array in values.items()}
        for path, encoding in encodings.items():
            if path not in values:
                master = self.values.value(path).start
                changes[path] = Value(_fitted(self[path], encoding.project(master)), master, encoding)
        parameters = [
            replace(parameter, encoding=encodings[parameter.path]) if parameter.path in encodings else parameter
            for parameter in self
        ]
        structure = self.structure if not activations else self._with_activations(activations)
        return Graph(structure, parameters, self.values.replace(changes))

    def resumed(self, earlier: Graph) -> Graph:
        """The graph with the float masters of an earlier snapshot of the same model: training goes on from them.

        Counters and seeds, which calls of the model may have moved since, are put back too.

        Args:
            earlier: a graph of the same parameters, with the same values.
        """
        known = [parameter for parameter in self if parameter.path in earlier.values]
        states = {p.path: earlier.values[p.path] for p in known if not p.is_float}
        masters = {p.path: earlier.values.value(p.path).master for p in known if p.is_float}
        graph = self.update(states) if states else self
        return graph.with_masters({path: master for path, master in masters.items() if master is not None})

    def with_masters(self, masters: Mapping[str, Array]) -> Graph:
        """The graph with float masters behind some of its values: training goes on from them.

        Args:
            masters: float arrays by parameter path, each of the parameter's shape.
        """
        held = {path: self.values.value(path).with_master(master) for path, master in masters.items()}
        return Graph(self.structure, tuple(self), self.values.replace(held))

    def released(self) -> Graph:
        """The graph without float masters: training would start from the values that its encodings hold."""
        return Graph(self.structure, tuple(self), Values(dict(self.values)))

    def freeze(self, layers: Iterable[str]) -> Graph:
        """A new graph in which training changes nothing in some layers: they compute as they do in inference.

        A frozen normalisation uses its moving statistics in training too.

        Args:
            layers: their paths; what is inside of a layer is frozen with it.

        Raises:
            ModelError: a path that the model does not have.

        Example:
            >>> layers = (Layer("block", "Sequential"), Layer("block/norm", "BatchNormalization", "block"))
            >>> graph = Graph(Structure("net", (), (), layers, (), ()), [], {})
            >>> [layer.trainable for layer in graph.freeze(["block/norm"]).layers.values()]
            [True, False]
        """
        paths = tuple(layers)
        unknown = set(paths) - set(self.layers)
        if unknown:
            raise ModelError(f"the model has no layer {min(unknown)!r}")

        def frozen(path: str) -> bool:
            return any(path == layer or path.startswith(f"{layer}/") for layer in paths)

        found = tuple(
            replace(layer, trainable=False) if frozen(layer.path) else layer for layer in self.structure.layers
        )
        parameters = [replace(p, trainable=False) if p.trainable and frozen(p.layer) else p for p in self]
        return Graph(replace(self.structure, layers=found), parameters, self.values)

    @property
    def activations(self) -> Mapping[str, Encoding]:
        """The tensors that are held on a grid, by name."""
        return {tensor.name: tensor.encoding for tensor in self.structure.tensors if tensor.encoding is not None}

    def without_activations(self) -> Graph:
        """The graph with no tensor held on a grid."""
        tensors = tuple(replace(tensor, encoding=None) for tensor in self.structure.tensors)
        structure = replace(self.structure, tensors=tensors) if self.activations else self.structure
        return Graph(structure, tuple(self), self.values)

    def _with_activations(self, encodings: Mapping[str, Encoding]) -> Structure:
        unknown = set(encodings) - {tensor.name for tensor in self.structure.tensors}
        if unknown:
            raise ModelError(f"the model has no tensor {min(unknown)!r}")
        tensors = tuple(
            replace(tensor, encoding=encodings[tensor.name]) if tensor.name in encodings else tensor
            for tensor in self.structure.tensors
        )
        return replace(self.structure, tensors=tensors)

    @override
    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self.layers)} layers, {len(self.ops)} ops, {len(self)} parameters>"

    @override
    def __str__(self) -> str:
        return graph_table(self.structure, tuple(self))


def _held_as(parameter: Parameter, encoding: Encoding) -> Encoding:
    """`encoding`, which must fit, under the mask that the parameter has where it brings none."""
    encoding.check(parameter.shape, parameter.path)
    return rebased(parameter.encoding, encoding) if encoding.mask is None else encoding


def _fitted(parameter: Parameter, array: Array) -> Array:
    array = np.asarray(array)
    if array.shape != parameter.shape:
        raise EncodingError(f"{parameter.path}: expected values of shape {parameter.shape}, got {array.shape}")
    castable = parameter.dtype.startswith(("float", "int", "uint", "bool"))
    if castable and array.dtype == parameter.dtype and not array.flags.writeable and array.flags.owndata:
        return array  # nobody can change it
    own = array.astype(parameter.dtype, copy=True) if castable else np.array(array)
    own.setflags(write=False)
    return own
