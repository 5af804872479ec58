"""`Result`: a compressed model with its report, ready to be used, saved, or compressed further."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

from typing_extensions import override

from bitwidth.artifact import (
    Architecture,
    StoredModel,
    StoredParameter,
    open_checkpoint,
    open_file,
    pack,
    pack_checkpoint,
    write_file,
)
from bitwidth.artifact.reader import bases
from bitwidth.artifact.writer import PackedFile
from bitwidth.backend import Session, backend_for
from bitwidth.errors import ConfigError, CorruptFileError, FileError, ModelError
from bitwidth.graph import Graph, layer_inputs
from bitwidth.loading import build
from bitwidth.report import FileSize, Report, Weigh
from bitwidth.typing import CustomObjects, Model

BasePath = str | os.PathLike[str]
Turn = AbstractContextManager[Any]


class Result:
    """The outcome of a run of passes.

    A run on a result goes on from where the run before ended, float weights behind the compressed ones included: a
    chain of passes cut into several runs gives the same result as the whole chain. A file does not hold them.

    Attributes:
        graph: the model as a graph, with its encodings.
        report: what each pass did. The bytes in the file are known once they are asked for, by `print` too.

    Example:
        >>> from bitwidth import PassManager, Prune
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> result = PassManager([Prune(sparsity=0.5, scope="local")]).run(model)
        >>> round(result.graph["hidden/kernel"].encoding.mask.mean(), 1)
        np.float64(0.5)
    """

    def __init__(self, graph: Graph, session: Session, report: Report, turn: Turn | None = None) -> None:
        """Take over what a run gave.

        Args:
            graph: the model, compressed.
            session: of the model, whose values are those of `graph` now.
            report: of the run.
            turn: what to hold while the session is used, where other runs use it too.
        """
        self.graph = graph
        self._turn = turn or nullcontext()
        self._finished = session.finish(graph)
        self._file = _File(graph, session, self._turn)
        notes = (*report.notes, self._finished.remark) if self._finished.remark else report.notes
        self.report = replace(report, notes=notes, weigh=Weigh(self._file.size))

    @property
    def model(self) -> Model:
        """An ordinary model of the framework, with the decoded values in its variables; compiled as the user's was."""
        with self._turn:
            return self._finished.model

    @property
    def kept_inputs(self) -> tuple[int, ...] | None:
        """Which features the model takes of a flat input that was cut (`ShrinkDense(inputs=)`): columns of the data.

        They are numbered as before the first cut: `x[:, result.kept_inputs]` is what the model takes. None where all
        features are left.
        """
        kept = self.graph.structure.kept_inputs
        return None if kept is None else kept.columns

    @property
    def complete(self) -> bool:
        """Whether every pass was done; else the run was cancelled, and this is the last state that was verified."""
        return self.report.complete

    @property
    def size(self) -> int:
        """Bytes of the file that `save` writes, all included."""
        return self._file.size().total

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        architecture: bool = True,
        base: BasePath | Sequence[BasePath] | None = None,
    ) -> None:
        """Write the compressed model to a `.bw` file: whole, or not at all.

        Args:
            path: the file; one that exists is replaced when the new one is complete.
            architecture: True to write a file that `bitwidth.load` can build the model from. False writes values only:
                for models without a configuration; they are loaded with `load(path, model=...)`.
            base: a file that the readers of this one have, with the same parameters; several where it holds changes
                itself, each the base of the next. Only what changed since is written, and read with
                `load(path, base=...)`.

        Raises:
            ConfigError: `base` is neither a path nor paths.
            ModelError: `result.model` was changed since the run: trained, or its layers exchanged.
            FileError: the model has no configuration to build it from, the file cannot be written, or the base cannot
                be read or has other parameters.
        """
        self.check_unchanged()
        if architecture:
            self._file.check_architecture(
                f"{path}", ", or save(..., architecture=False) and load with load(path, model=...)"
            )
        if base is None:
            write_file(path, self._file.packed.parts())
            return
        *before, last = bases(base)
        with open_file(last, before or None) as known:
            write_file(path, pack(self._file.stored, base=known).parts())

    def check_unchanged(self) -> None:
        """Raise if `model` is no longer what the run gave, so that nothing of its owner's is dropped silently.

        Raises:
            ModelError: it was trained, LoRA was enabled, or layers were added or removed; with what to do.
        """
        found = self._finished.changed(self.graph)
        if found:
            raise ModelError(
                f"result.model was changed since the run ({found}): take that in with "
                "`bw.PassManager([]).run(result.model)`, and go on with the result of that"
            )

    def release(self) -> None:
        """Drop the float weights behind the compressed ones, from which `run(result)` would go on training.

        They take as much memory as the model. A later run starts from the values that the model computes with.
        """
        self.graph = self._file.graph = self.graph.released()

    def to_bytes(self) -> bytes:
        """The result as bytes, from which `from_bytes` makes it again, in another process or on another machine.

        They hold what `save` writes, the report, and the float weights behind the compressed ones: a run on what
        `from_bytes` returns gives the same result as a run on this one. What the model was compiled with is left out.

        Raises:
            ModelError: `result.model` was changed since the run.
            FileError: the model has no configuration to build it from.
        """
        self.check_unchanged()
        self._file.check_architecture("to_bytes")
        return pack_checkpoint(
            self._file.stored, self._file.packed.data, self.graph.values.masters(), self.report.to_dict()
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, custom_objects: CustomObjects | None = None) -> Result:
        """The result that `to_bytes` wrote; its model is not compiled.

        The bytes may come from a stranger, as those of a file that `bitwidth.load` reads.

        Args:
            data: what `to_bytes` returned.
            custom_objects: classes and functions of the user's by name, as in Keras.

        Raises:
            CorruptFileError: the bytes are not a checkpoint, or were cut off or altered.
            UnsafeFileError: what they say of the model names code, files, addresses or other objects than a model's.
            VersionError: they were written by a newer version.
            ModelError: the model cannot be built.

        Example:
            >>> from bitwidth import PassManager, Quantize
            >>> import keras
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> result = PassManager([Quantize(bits=4)]).run(model)
            >>> Result.from_bytes(result.to_bytes()).size == result.size
            True
        """
        with open_checkpoint(data) as checkpoint:
            model = build(checkpoint.file, custom_objects=custom_objects)
        try:
            report = Report.from_dict(checkpoint.report)
        except ConfigError as error:
            raise CorruptFileError(f"checkpoint: {error}") from error
        session = backend_for(model).open(model)
        return cls(session.graph.with_masters(checkpoint.masters), session, report)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return Result.from_bytes, (self.to_bytes(),)

    @override
    def __repr__(self) -> str:
        return f"<Result {self.graph.name!r}: {len(self.report.passes)} passes over {len(self.graph)} parameters>"


def stored_model(graph: Graph, architecture: Architecture) -> StoredModel:
    """What the file of a graph holds.

    Args:
        graph: every value is what its encoding holds.
        architecture: of its model, as `Session.architecture` returned it.
    """
    parameters = tuple(
        StoredParameter(p.path, p.role, p.dtype, p.trainable, p.encoding, graph.values[p.path])
        for p in sorted(graph, key=lambda parameter: parameter.index)
    )
    return StoredModel(graph.name, architecture, parameters, layer_inputs(graph.structure))


class _File:
    """The file of a result, written in memory when it is first asked for."""

    def __init__(self, graph: Graph, session: Session, turn: Turn) -> None:
        self.graph, self._session, self._turn = graph, session, turn

    @cached_property
    def stored(self) -> StoredModel:
        graph = self.graph
        with self._turn:
            architecture = self._session.architecture(graph)
        return stored_model(graph, architecture)

    @cached_property
    def packed(self) -> PackedFile:
        return pack(self.stored)

    def size(self) -> FileSize:
        return FileSize(self.packed.size, self.packed.parameter_bytes)

    def check_architecture(self, what: str, otherwise: str = "") -> None:
        """Raise if the model could not be built from the file."""
        architecture = self.stored.architecture
        if architecture.config is None:
            raise FileError(
                f"{what}: the model could not be built from the file: {architecture.reason}. "
                f"Give the class a get_config{otherwise}"
            )
