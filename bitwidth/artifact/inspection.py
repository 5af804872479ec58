"""What is inside a .bw file, from its header alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from typing_extensions import override

from bitwidth.artifact.format.header import Entry
from bitwidth.artifact.format.layout import PREAMBLE
from bitwidth.artifact.format.opening import FilePath
from bitwidth.artifact.reader import read_header
from bitwidth.encodings import Encoding
from bitwidth.text import bytes_text, printable, shape_text, table

_PREFIXES = (2, 4, 8)
_LONGEST = 500  # of a name in the text: names in a file may be as long as its header


@final
@dataclass(frozen=True)
class Inspection:
    """What is inside a file, from its header alone.

    As text, characters of the file's names that a terminal would obey are escaped; the attributes hold them as they
    are.

    Attributes:
        path: the file.
        name: the model's name.
        framework: package of the framework that builds it.
        bytes: size of the file.
        header_bytes: size of the preamble and the header.
        has_architecture: whether the model can be built from the file alone.
        reason: why not, where it cannot.
        parameters: what the header says of each parameter.
        assets: bytes of each asset, by name.
        activations: how the input tensors of layers are held, by the layer's path; None where it is not quantized.
        kept_inputs: which of an input's features the model takes, by their numbers before the first cut; None for all.
        base: of an update, the hash of the values of the file that it holds changes of (see `bitwidth.diff`); the
            parameters are then those that changed, and what it does not say of the model is as there. Empty otherwise.
    """

    path: str
    name: str
    framework: str
    bytes: int
    header_bytes: int
    has_architecture: bool
    reason: str
    parameters: tuple[Entry, ...]
    assets: Mapping[str, int]
    activations: Mapping[str, tuple[Encoding | None, ...]]
    kept_inputs: tuple[int, ...] | None = None
    base: str = ""

    @override
    def __str__(self) -> str:
        rows = [
            [
                *(e.path, shape_text(e.shape), e.role, e.kind, e.coded),
                *(bytes_text(e.bytes), f"{8 * e.bytes / max(1, e.count):.2f}"),
            ]
            for e in self.parameters
        ]
        rows = [[printable(cell, _LONGEST) for cell in row] for row in rows]
        columns = ["parameter", "shape", "role", "held as", "codes", "bytes", "bits/value"]
        tail = [printable(line, 2 * _LONGEST) for line in self._tail()]
        return "\n".join([self._head(), table(columns, rows), *tail])

    def _head(self) -> str:
        count = sum(entry.count for entry in self.parameters)
        size = f"{self.bytes:,} bytes ({self.header_bytes:,} of header)"
        name = printable(repr(self.name[:_LONGEST]))
        return f"{printable(self.path)}: {name}, {count:,} values in {size}"

    def _tail(self) -> list[str]:
        tail = [f"asset {name}: {size:,} bytes" for name, size in self.assets.items()]
        for path, held in self.activations.items():
            grids = ", ".join("unchanged" if grid is None else f"{grid.bits}-bit" for grid in held)
            tail.append(f"inputs of {path}: {grids}")
        if self.kept_inputs is not None:
            tail.append(f"kept inputs: {', '.join(map(str, self.kept_inputs))}")
        if any(len(entry.pieces) > 1 for entry in self.parameters):
            prefixes = ", ".join(f"bits={bits} {self.prefix_bytes(bits):,}" for bits in _PREFIXES)
            tail.append(f"bytes that load reads: {prefixes}, all {self.bytes:,}")
        if self.base:
            return [*tail, f"what changed since a file whose values have the hash {self.base}"]
        return tail if self.has_architecture else [*tail, f"no architecture: {self.reason}"]

    def prefix_bytes(self, bits: int) -> int:
        """Bytes of the file that `bitwidth.load(path, bits=bits)` reads: the first `bits` bits of each code.

        Args:
            bits: 2 to 16.
        """
        return self.bytes - sum(entry.bytes - entry.prefix_bytes(bits) for entry in self.parameters)


def inspect(path: FilePath) -> Inspection:
    """What is inside a .bw file: reads its header only, builds nothing.

    Args:
        path: the file.

    Raises:
        ConfigError: `path` is not a path.
        FileError: it cannot be opened.
        CorruptFileError: it is not a .bw file, or was cut off or altered.
        VersionError: a newer version of the format.
    """
    name, preamble, header = read_header(path)
    kept = header.architecture.kept_inputs
    return Inspection(
        path=name,
        name=header.name,
        framework=header.architecture.framework,
        bytes=preamble.total,
        header_bytes=PREAMBLE + preamble.stored,
        has_architecture=header.architecture.config is not None,
        reason=header.architecture.reason,
        parameters=header.entries,
        assets=dict(header.assets),
        activations=header.activations,
        kept_inputs=None if kept is None else kept.columns,
        base=header.base,
    )
