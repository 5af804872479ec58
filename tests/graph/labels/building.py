"""Graphs built by hand, one operation at a time, and what their labels say in short."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwidth.graph import Graph, Kind, Layer, Op, Parameter, Structure, Tensor, Use
from bitwidth.graph.labels import Coupling, couple

Shape = tuple[int | None, ...]


class Net:
    """A graph in the making. Tensors are known by the names that `op` returns."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.tensors: list[Tensor] = []
        self.parameters: list[Parameter] = []
        self.layers: list[Layer] = []
        self.inputs: list[str] = []
        self.static: dict[str, tuple[str, ...]] = {}

    def input(self, *shape: int | None) -> str:
        """An input of the model."""
        name = str(self.op("input", (), shape))
        self.inputs.append(name)
        return name

    def op(self, kind: Kind, inputs: tuple[str, ...], shape: Shape | list[Shape], layer: str = "", **attrs: Any) -> Any:
        """An operation with one output, or with one for each shape in a list."""
        shapes = shape if isinstance(shape, list) else [shape]
        name = f"{kind}{len(self.ops)}"
        outputs = tuple(f"{name}:{place}" for place in range(len(shapes)))
        read = tuple(dict.fromkeys(path for item in inputs for path in self.static.get(item, ())))
        if inputs and all(item in self.static for item in inputs):
            self.static.update(dict.fromkeys(outputs, read))
        self.tensors += [Tensor(output, given, "float32") for output, given in zip(outputs, shapes, strict=True)]
        self.ops.append(Op(name, kind, layer, inputs, outputs, read, tuple(attrs.items()), label=kind.title()))
        return outputs if isinstance(shape, list) else outputs[0]

    def parameter(self, path: str, *shape: int) -> str:
        """A parameter that is read; its layer is what its path begins with."""
        layer = path.rpartition("/")[0]
        use = Use("", "other", layer)
        self.parameters.append(Parameter(path, shape, "float32", "kernel", layer, uses=(use,)))
        name = f"variable{len(self.ops)}"
        self.tensors += [Tensor(name, (), "resource"), Tensor(f"{name}/read", shape, "float32")]
        self.ops += [
            Op(name, "input", layer, (), (name,), (path,)),
            Op(f"{name}/read", "read", layer, (name,), (f"{name}/read",), (path,)),
        ]
        self.static[f"{name}/read"] = (path,)
        return f"{name}/read"

    def constant(self, value: Any) -> str:
        """A small constant."""
        name = self.op("constant", (), np.shape(value), value=np.asarray(value).tolist())
        self.static[name] = ()
        return str(name)

    def dense(self, x: str, path: str, size: int, units: int, ahead: Shape = (None,)) -> str:
        """`x @ kernel` with a kernel of its own."""
        kernel = self.parameter(f"{path}/kernel", size, units)
        return str(self.op("matmul", (x, kernel), (*ahead, units), path))

    def graph(self, *outputs: str) -> Graph:
        """The graph with these outputs."""
        values = {p.path: np.arange(p.size, dtype=np.float32).reshape(p.shape) + 1 for p in self.parameters}
        structure = Structure(
            "net", tuple(self.ops), tuple(self.tensors), tuple(self.layers), tuple(self.inputs), outputs
        )
        return Graph(structure, self.parameters, values)

    def couple(self, *outputs: str, inputs: bool = False) -> Coupling:
        """The coupling of the graph with these outputs."""
        return couple(self.graph(*outputs), inputs)


def shown(coupling: Coupling) -> dict[str, dict[str, list[int]]]:
    """By group, and by member as `path:axis`, the unit of each index."""
    return {
        group.name: {f"{member.path}:{member.axis}": member.units.tolist() for member in group.members}
        for group in coupling.groups
    }


def roles(coupling: Coupling) -> dict[str, str]:
    """By member as `path:axis` what it does: produces, consumes, or nothing for a vector."""
    return {
        f"{member.path}:{member.axis}": "produces" * member.produces + "consumes" * member.consumes
        for group in coupling.groups
        for member in group.members
    }


def stays(coupling: Coupling) -> dict[str, str]:
    """By frozen axis as `path:axis` the reason."""
    return {f"{item.path}:{item.axis}": item.reason for item in coupling.frozen}
