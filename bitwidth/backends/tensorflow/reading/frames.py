"""Frames: the graph of a traced function and, inside it, the graphs of its loops, branches and calls, as one tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, final

from bitwidth.backends.tensorflow.internals.graphs import graph_named
from bitwidth.backends.tensorflow.internals.types import TFOperation, TFTensor


@final
@dataclass(eq=False)
class Frame:
    """One use of one graph. A function that is called twice has two frames over the same graph.

    Attributes:
        graph: TensorFlow's graph.
        prefix: what stands before the names of its operations and tensors: `""` or `"outer_op/body/"`.
        outer: the frame of the operation that runs this graph, None for the traced function.
        op: that operation.
        sources: for each input of the graph by name, the tensor in the outer frame that it takes its (first) value
            from.
        inner: the frames of the operations of this graph that run graphs, by name of the operation.
        live: names of the operations that the graph's outputs are computed from.
        inputs: the inputs of the graph when it was traced.
        outputs: its outputs; TensorFlow adds others to a function when a gradient is taken through it.
    """

    graph: Any
    prefix: str = ""
    outer: Frame | None = None
    op: TFOperation = None
    sources: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, list[Frame]] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()

    def name(self, item: Any) -> str:
        """Unique name of an operation or tensor of this graph."""
        return f"{self.prefix}{item.name}"

    def walk(self) -> Iterator[Frame]:
        """Yield this frame and all frames in it."""
        yield self
        for frames in self.inner.values():
            for frame in frames:
                yield from frame.walk()

    def holder(self, tensor: TFTensor) -> Frame | None:
        """The frame around this one, or this one, whose graph `tensor` belongs to."""
        frame: Frame | None = self
        while frame is not None and frame.graph is not tensor.graph:
            frame = frame.outer
        return frame

    def root_source(self, tensor: TFTensor) -> Any:
        """The input of the traced function that `tensor` is handed down from, or the tensor where it was computed."""
        frame: Frame = self
        while tensor.op.type == "Identity" or tensor.name in frame.sources:
            if tensor.op.type == "Identity":
                tensor = tensor.op.inputs[0]
            elif frame.outer is not None:
                tensor, frame = frame.sources[tensor.name], frame.outer
        return tensor


def frame_tree(graph: Any) -> Frame:
    """The frames of a traced function."""
    frame = Frame(graph)
    _enter(frame)
    return frame


def _enter(frame: Frame) -> None:
    frame.inputs = tuple(frame.graph.inputs)
    given = None if frame.op is None else len(frame.op.outputs)
    frame.outputs = tuple(frame.graph.outputs[:given])
    frame.live = _live(frame)
    for op in frame.graph.get_operations():
        frames = []
        for label, graph in _graphs(op):
            inputs = list(op.inputs)[len(op.inputs) - len(graph.inputs) :]  # a branch has its condition in front
            sources = {inner.name: outer for inner, outer in zip(graph.inputs, inputs, strict=True)}
            frames.append(Frame(graph, f"{frame.prefix}{op.name}/{label}/", frame, op, sources))
        if frames:
            frame.inner[op.name] = frames
            for inner in frames:
                _enter(inner)


def _graphs(op: TFOperation) -> Iterator[tuple[str, Any]]:
    """The graphs that `op` runs on its own inputs, with the name of the attribute that holds each."""
    for attribute in op.op_def.attr:
        if attribute.type not in ("func", "list(func)"):
            continue
        value = op.get_attr(attribute.name)
        functions = value if attribute.type == "list(func)" else [value]
        for place, function in enumerate(functions):
            graph = graph_named(op.graph, function.name)
            if graph is not None and len(graph.inputs) <= len(op.inputs):
                yield attribute.name + (f"_{place}" if len(functions) > 1 else ""), graph


def _live(frame: Frame) -> set[str]:
    """Names of the operations that the outputs and the side effects of a graph need: the rest is never run."""
    pending = [*(tensor.op for tensor in frame.outputs), *frame.graph.control_outputs]
    live: set[str] = set()
    while pending:
        op = pending.pop()
        if op.name not in live:
            live.add(op.name)
            pending.extend(tensor.op for tensor in op.inputs)
    return live
