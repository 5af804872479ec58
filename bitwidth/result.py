"""`Result`: a compressed model with its report, ready to be used, saved, or compressed further."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import Any

from typing_extensions import override

from bitwidth.artifact import Content, StoredParameter, pack, write_file
from bitwidth.artifact.writer import PackedFile
from bitwidth.backend import Session
from bitwidth.errors import FileError, ModelError
from bitwidth.graph import Graph, layer_inputs
from bitwidth.report import Report


class Result:
    """What a run of passes gave.

    A run on a result goes on from where the run before ended, float weights behind the compressed ones included: a
    chain of passes cut into several runs gives what the whole chain gives. A file does not hold them.

    Attributes:
        model: an ordinary model of the framework, with the decoded values in its variables; compiled as the user's was.
        graph: the same as a graph, with its encodings.

    Example:
        >>> from bitwidth import PassManager, Prune
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> result = PassManager([Prune(sparsity=0.5, scope="local")]).run(model)
        >>> round(result.graph["hidden/kernel"].encoding.mask.mean(), 1)
        np.float64(0.5)
    """

    def __init__(self, graph: Graph, session: Session, report: Report) -> None:
        self.graph = graph
        self.model: Any = session.finish(graph)
        self._session, self._report = session, report

    @property
    def complete(self) -> bool:
        """Whether every pass was done; else the run was cancelled, and this is the last state that was verified."""
        return self._report.complete

    @property
    def report(self) -> Report:
        """What each pass did; with the bytes that each parameter takes in the file."""
        notes = (*self._report.notes, *self._session.remarks)
        return replace(self._report, file_bytes=self._packed.parameter_bytes, notes=notes)

    @property
    def size(self) -> int:
        """Bytes of the file that `save` writes, all included."""
        return len(self._packed.data)

    def save(self, path: str | os.PathLike[str], *, architecture: bool = True) -> None:
        """Write the compressed model to a `.bw` file: whole, or not at all.

        Args:
            path: the file; one that exists is replaced when the new one is complete.
            architecture: True to write a file that `bitwidth.load` can build the model from. False writes values only:
                for models without a configuration; they are loaded with `load(path, model=...)`.

        Raises:
            ModelError: `result.model` was changed since the run: trained, or its layers exchanged.
            FileError: the model has no configuration to build it from, or the file cannot be written.
        """
        self.check_unchanged()
        if architecture and self._content.architecture is None:
            raise FileError(
                f"{path}: the model could not be built from the file: {self._content.reason}. "
                "Give the class a get_config, or save(..., architecture=False) and load with load(path, model=...)"
            )
        write_file(path, self._packed.data)

    def check_unchanged(self) -> None:
        """Raise if `model` is no longer what the run gave, so that nothing of its owner's is dropped silently.

        Raises:
            ModelError: it was trained, LoRA was enabled, or layers were added or removed; with what to do.
        """
        found = self._session.changed(self.graph)
        if found:
            raise ModelError(
                f"result.model was changed since the run ({found}): take that in with "
                "`bw.PassManager([]).run(result.model)`, and go on with the result of that"
            )

    def release(self) -> None:
        """Drop the float weights behind the compressed ones, from which `run(result)` would go on training.

        They take as much memory as the model. A later run starts from the values that the model computes with.
        """
        self.graph = self.graph.released()

    @cached_property
    def _content(self) -> Content:
        architecture = self._session.architecture()
        stored = tuple(
            StoredParameter(p.path, p.role, p.dtype, p.trainable, p.encoding, self.graph.values[p.path])
            for p in sorted(self.graph, key=lambda parameter: parameter.index)
        )
        return Content(
            name=self.graph.name,
            framework=architecture.framework,
            architecture=architecture.config,
            reason=architecture.reason,
            inputs=architecture.inputs,
            variables=architecture.variables,
            parameters=stored,
            assets=architecture.assets,
            activations=layer_inputs(self.graph.structure),
            layers=architecture.layers,
        )

    @cached_property
    def _packed(self) -> PackedFile:
        return pack(self._content)

    @override
    def __repr__(self) -> str:
        return f"<Result {self.graph.name!r}: {len(self._report.passes)} passes over {len(self.graph)} parameters>"
