"""What changed from one file to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from typing_extensions import override

from bitwidth.artifact.format.opening import FilePath
from bitwidth.artifact.format.stored import Architecture, StoredModel, StoredParameter
from bitwidth.artifact.reader import Base, OpenFile, open_file
from bitwidth.artifact.updates import values_hash
from bitwidth.artifact.version3.changes import is_same
from bitwidth.artifact.writer import pack
from bitwidth.errors import FileError
from bitwidth.text import printable, shape_text, table

_LONGEST = 500


@final
@dataclass(frozen=True)
class Difference:
    """What changed in one parameter.

    Attributes:
        path: its path.
        what: `"same"`, `"changed"`, `"added"` or `"removed"`.
        shape: sizes of its axes; in the new file, if it is there.
        held: how its values are held in the old and in the new file, in words; empty where it is not there.
        values: how many values changed.
        largest: the largest difference of a value, in units of the value; 0 where the shapes differ.
    """

    path: str
    what: str
    shape: tuple[int, ...]
    held: tuple[str, str]
    values: int
    largest: float


@final
@dataclass(frozen=True)
class Diff:
    """What changed from one file to another; as text, a table.

    Attributes:
        old: the old file.
        new: the new file.
        old_hash: of the values of the old file, by which an update names it; see `bitwidth.artifact.updates`.
        new_hash: of the values of the new file.
        parameters: what changed in each.
        new_bytes: size of a file that holds all of the new model.
        update_bytes: size of a file that holds what changed, as `Result.save(path, base=old)` writes it; None where the
            old file cannot be a base.
        architecture: whether the configurations of the models are the same, and the inputs that they take.
    """

    old: str
    new: str
    old_hash: str
    new_hash: str
    parameters: tuple[Difference, ...]
    new_bytes: int
    update_bytes: int | None
    architecture: bool

    @override
    def __str__(self) -> str:
        changed = [one for one in self.parameters if one.what != "same"]
        rows = [
            [
                *(printable(one.path, _LONGEST), shape_text(one.shape), one.what),
                one.held[1] if one.held[0] == one.held[1] else " -> ".join(filter(None, one.held)),
                *(f"{one.values:,}", f"{one.largest:.3g}"),
            ]
            for one in changed
        ]
        columns = ["parameter", "shape", "what", "held as", "values changed", "largest difference"]
        update = "no update is possible" if self.update_bytes is None else f"{self.update_bytes:,} bytes as an update"
        head = f"{printable(self.old)} ({self.old_hash}) to {printable(self.new)} ({self.new_hash})"
        counts = (
            f"{len(changed)} of {len(self.parameters)} parameters changed; {update}, {self.new_bytes:,} bytes whole"
        )
        model = [] if self.architecture else ["the configurations of the models differ"]
        return "\n".join([head, counts, *model, *([table(columns, rows)] if rows else [])])


def diff(old: FilePath, new: FilePath, *, base: Base = None) -> Diff:
    """What changed from one `.bw` file to another.

    Args:
        old: a file.
        new: a file; one that holds changes is read with `old` as its base where `base` is not given.
        base: what either of them holds changes of, as for `bitwidth.load`.

    Raises:
        ConfigError: `old`, `new` or `base` is not a path.
        FileError: a file cannot be read, or holds changes of another file.
        CorruptFileError: a file is not a .bw file, or was cut off or altered.
        VersionError: a newer version of the format.

    Example:
        >>> import keras, bitwidth as bw
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2, name="out")])
        >>> bw.PassManager([bw.Quantize(bits=4)]).run(model).save("old.bw")
        >>> model.layers[-1].bias.assign([1.0, 2.0]).shape
        TensorShape([2])
        >>> bw.PassManager([bw.Quantize(bits=4)]).run(model).save("new.bw")
        >>> [one.path for one in bw.diff("old.bw", "new.bw").parameters if one.what == "changed"]
        ['out/bias']
    """
    with open_file(old, base) as first, open_file(new, old if base is None else base) as second:
        parameters = tuple(_differences(first, second))
        one, stored = first.architecture(), second.stored()
        return Diff(
            old=first.name,
            new=second.name,
            old_hash=values_hash(first.parameters()),
            new_hash=values_hash(stored.parameters),
            parameters=parameters,
            new_bytes=pack(stored).size,
            update_bytes=_update_bytes(first, stored),
            architecture=_built(one) == _built(stored.architecture),
        )


def _built(architecture: Architecture) -> tuple[Any, ...]:
    return architecture.framework, architecture.config, architecture.kept_inputs


def _update_bytes(old: OpenFile, new: StoredModel) -> int | None:
    try:
        return pack(new, base=old).size
    except FileError:
        return None


def _differences(old: OpenFile, new: OpenFile) -> Iterator[Difference]:
    paths = [[entry.path for entry in file.header.entries] for file in (old, new)]
    if [path.rpartition("/")[2] for path in paths[0]] == [path.rpartition("/")[2] for path in paths[1]]:
        yield from (_difference(*pair) for pair in zip(old.parameters(), new.parameters(), strict=True))
        return
    common = set(paths[0]) & set(paths[1])
    before = {one.path: one for one in old.parameters() if one.path in common}
    for parameter in new.parameters():
        yield _difference(before.get(parameter.path), parameter)
    yield from (_difference(one, None) for one in old.parameters() if one.path not in common)


def _difference(old: StoredParameter | None, new: StoredParameter | None) -> Difference:
    found = new if new is not None else old
    assert found is not None
    held = tuple("" if one is None else one.encoding.describe().replace("dense", one.dtype) for one in (old, new))
    shape = tuple(found.values.shape)
    if old is None or new is None:
        what = "removed" if new is None else "added"
        return Difference(found.path, what, shape, (held[0], held[1]), found.values.size, 0.0)
    what = "same" if is_same(new, old) else "changed"
    if old.values.shape != shape or old.dtype != new.dtype:
        return Difference(found.path, what, shape, (held[0], held[1]), found.values.size, 0.0)
    one, other = (part.values.astype(np.float64) for part in (old, new))
    away = np.abs(other - one)
    return Difference(
        found.path, what, shape, (held[0], held[1]), int(np.count_nonzero(away)), float(away.max(initial=0.0))
    )
