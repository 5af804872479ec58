"""Tracing: one run of a model into a TensorFlow graph, watched for which layer made which operation."""

from __future__ import annotations

import inspect
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.data.rows import ragged_words
from bitwidth.backends.tensorflow.internals.types import KerasLayer, ModelVariable, TFOperation, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.reading.frames import Frame, frame_tree
from bitwidth.backends.tensorflow.reading.naming import Names, joined, names_of
from bitwidth.errors import ModelError
from bitwidth.typing import Model, Nest

_LOG = logging.getLogger(__name__)
_LOCK = threading.RLock()


@final
@dataclass(frozen=True)
class Reader:
    """An operation that takes a variable's handle.

    Attributes:
        op: its name, with the names of the loops around it in front.
        kind: its type.
        layer: path of the innermost layer whose call made it.
        scope: its name scope in TensorFlow.
        graph: name of the graph that holds it.
        live: whether the model's outputs are computed from it.
    """

    op: str
    kind: str
    layer: str
    scope: str
    graph: str
    live: bool


@final
@dataclass(frozen=True)
class Call:
    """One call of a layer, with the graph it was made in and the tensors it took (masks among them) and gave."""

    layer: str
    graph: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    masks: tuple[Any, ...] = ()


@final
@dataclass(eq=False)
class FuncTrace:
    """A model as TensorFlow sees it: the traced function, its graphs, and which layer made what.

    Attributes:
        function: the concrete function; it keeps the graphs alive.
        specs: the nest of `tf.TensorSpec` it was traced with.
        frame: its graph, with the graphs of loops, branches and calls in it.
        names: paths of the model's layers and variables.
        calls: the calls of layers, in the order in which they ended.
        operations: the same of operations of Functional models that are no layers.
        untracked: layers that were called but that the model does not track: `(path, layer, path around it)`.
        made_by: path of the innermost layer of an operation, by the id of its graph and its name; see `layer_of`.
    """

    function: Any
    specs: Nest
    frame: Frame
    names: Names
    calls: list[Call]
    operations: list[Call] = field(default_factory=list)
    untracked: list[tuple[str, Any, str]] = field(default_factory=list)
    made_by: dict[tuple[int, str], str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[Any]:
        """The tensors of the graph that stand for the model's inputs, in the flat order of `specs`."""
        return list(self.frame.inputs[: len(self.frame.inputs) - len(self.frame.graph.captures)])

    def layer_of(self, frame: Frame, op: TFOperation) -> str:
        """Path of the innermost layer whose call made `op`; an operation of a loop may belong to the loop's layer."""
        path = self.made_by.get((id(frame.graph), op.name))
        if path is None:
            return "" if frame.outer is None else self.layer_of(frame.outer, frame.op)
        return path

    def readers(self, variable: ModelVariable) -> list[Reader]:
        """Every operation, also in loops and branches, that takes the handle of `variable` itself.

        Args:
            variable: a Keras variable (its `_value` counts, whatever its `value` computes) or a `tf.Variable`.
        """
        handle = tf_variable(variable).handle
        captured = next((inner for outer, inner in self.frame.graph.captures if outer is handle), None)
        return [] if captured is None else self._readers.get(captured.name, [])

    @cached_property
    def _readers(self) -> dict[str, list[Reader]]:
        """Every operation that takes a resource, by the name of the capture that the resource comes from."""
        found: dict[str, list[Reader]] = {}
        for frame in self.frame.walk():
            for op in frame.graph.get_operations():
                if op.name in frame.inner or op.type == "Identity":
                    continue
                sources = {frame.root_source(tensor).name for tensor in op.inputs if tensor.dtype == tf.resource}
                for source in sources:
                    found.setdefault(source, []).append(self._reader(frame, op))
        return found

    def _reader(self, frame: Frame, op: TFOperation) -> Reader:
        scope = op.name.rpartition("/")[0]
        return Reader(frame.name(op), op.type, self.layer_of(frame, op), scope, frame.graph.name, op.name in frame.live)


def trace_function(model: Model, specs: Nest, names: Names | None = None) -> FuncTrace:
    """Trace `model` on inputs of the given specs, as in inference, on the CPU.

    Nothing of the model changes: variables are neither made nor assigned, losses are not kept, counters of names stay.

    Args:
        model: a built model.
        specs: the nest of `tf.TensorSpec` for the first argument of its call; see `input_specs`.
        names: of the model, where they are known.

    Raises:
        ModelError: a layer that the call reaches is not built, or the model cannot be called on such inputs.
    """
    started = time.perf_counter()
    names = names or names_of(model)
    recorder = _Recorder(names)

    def call(inputs: Any) -> Any:
        # TensorFlow wraps lists and dicts of inputs; Keras is to see the plain ones.
        inputs = keras.tree.pack_sequence_as(specs, tf.nest.flatten(inputs))
        with keras.StatelessScope():
            return keras.tree.map_structure(_plain, model(inputs, training=False))

    with recorder.watching(), tf.device("CPU:0"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about the model's own code came when it was built
        try:
            function = tf.function(call, autograph=False).get_concrete_function(specs)
        except ModelError:
            raise
        except Exception as error:
            flat = keras.tree.flatten(specs)
            shown = ", ".join(f"{spec.dtype.name}{list(spec.shape)}" for spec in flat)
            ragged = any(isinstance(spec, tf.RaggedTensorSpec) for spec in flat)
            hint = f"; it has ragged inputs: {ragged_words()}" if ragged else ""
            raise ModelError(f"the model {model.name!r} cannot be traced on inputs {shown}: {error}{hint}") from error
    frame = frame_tree(function.graph)
    count, seconds = len(function.graph.get_operations()), time.perf_counter() - started
    _LOG.debug("%s: traced in %.2f seconds, %d operations", model.name, seconds, count)
    noted = recorder.calls, recorder.operations, recorder.untracked
    return FuncTrace(function, specs, frame, names, *noted, recorder.made_by())


def _plain(output: TFTensor) -> Any:
    return output.value if isinstance(output, keras.Variable) else output


@final
class _Recorder:
    """Notes, while a model is traced, what each call of a layer takes, makes and returns."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.calls: list[Call] = []
        self.operations: list[Call] = []
        self.untracked: list[tuple[str, Any, str]] = []
        self._paths: dict[int, str] = {}
        self._stack: list[str] = []
        self._ranges: list[tuple[Any, int, int, str]] = []
        self._unbuilt: list[Any] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every call of a layer or operation in this thread; the classes are as before afterwards."""
        with _LOCK:
            original, plain, thread = keras.Layer.__call__, keras.Operation.__call__, threading.get_ident()

            @wraps(original)
            def watched(layer: KerasLayer, *args: Any, **kwargs: Any) -> Any:
                if threading.get_ident() != thread:
                    return original(layer, *args, **kwargs)
                return self._call(original, layer, args, kwargs)

            @wraps(plain)
            def noted(operation: Any, *args: Any, **kwargs: Any) -> Any:
                outputs = plain(operation, *args, **kwargs)
                if threading.get_ident() == thread and self._stack and not isinstance(operation, keras.Layer):
                    self._note(operation, args, kwargs, outputs)
                return outputs

            keras.Layer.__call__, keras.Operation.__call__ = watched, noted
            try:
                yield
            finally:
                keras.Layer.__call__, keras.Operation.__call__ = original, plain
                for layer in self._unbuilt:
                    layer.built = False

    def _note(self, operation: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        graph, path = tf.compat.v1.get_default_graph(), joined(self._stack[-1], operation.name)
        self.operations.append(Call(path, graph, _tensors((args, kwargs)), _tensors(outputs)))

    def made_by(self) -> dict[tuple[int, str], str]:
        """Path of the innermost layer for each operation, by the id of its graph and its name."""
        made: dict[tuple[int, str], str] = {}
        operations: dict[int, list[Any]] = {}
        for graph, start, stop, path in self._ranges:  # in the order in which calls ended: inner ones first
            listed = operations.setdefault(id(graph), graph.get_operations())
            for op in listed[start:stop]:
                made.setdefault((id(graph), op.name), path)
        return made

    def _call(self, original: Any, layer: KerasLayer, args: Any, kwargs: Any) -> Any:
        path = self._path(layer)
        self._check_built(layer, path)
        graph = tf.compat.v1.get_default_graph()
        start = graph.num_operations()
        self._stack.append(path)
        try:
            with _without_cudnn(layer):
                outputs = original(layer, *args, **kwargs)
        finally:
            self._stack.pop()
        self._ranges.append((graph, start, graph.num_operations(), path))
        self.calls.append(Call(path, graph, _tensors((args, kwargs)), _tensors(outputs), _masks(layer, args, kwargs)))
        return outputs

    def _path(self, layer: KerasLayer) -> str:
        if not self._stack:
            return ""  # the model itself
        path = self.names.layer_path(layer) or self._paths.get(id(layer))
        if path is None:
            path = joined(self._stack[-1], layer.name)
            self._paths[id(layer)] = path
            self.untracked.append((path, layer, self._stack[-1]))
        return path

    def _check_built(self, layer: KerasLayer, path: str) -> None:
        if layer.built:
            return
        if type(layer).build is not keras.Layer.build:
            raise ModelError(
                f"the layer {path or layer.name!r} is not built, so its variables do not exist yet; "
                "call the model on a batch of data once"
            )
        self._unbuilt.append(layer)


@contextmanager
def _without_cudnn(layer: KerasLayer) -> Iterator[None]:
    """Within this context a recurrent layer runs as a loop: with a GPU it would become one opaque operation."""
    setting = getattr(layer, "use_cudnn", False)
    if setting:
        layer.use_cudnn = False
    try:
        yield
    finally:
        if setting:
            layer.use_cudnn = setting


def _tensors(nest: Nest) -> tuple[Any, ...]:
    leaves = tf.nest.flatten(keras.tree.flatten(nest), expand_composites=True)
    return tuple(leaf for leaf in leaves if tf.is_symbolic_tensor(leaf))


def _masks(layer: KerasLayer, args: Any, kwargs: Any) -> tuple[Any, ...]:
    """Tensors that a call is given for arguments whose names say that they are masks."""
    try:
        given = {**inspect.signature(layer.call).bind_partial(*args).arguments, **kwargs}
    except (TypeError, ValueError):  # a callable without a signature
        given = kwargs
    return _tensors([value for name, value in given.items() if "mask" in name.lower()])
