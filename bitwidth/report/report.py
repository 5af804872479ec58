"""`Report`: what a run did, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from bitwidth.errors import ConfigError
from bitwidth.report.records import PassRecord
from bitwidth.report.tables import metric_changes, pass_lines, passes_table, result_table
from bitwidth.text import bytes_text
from bitwidth.typing import JsonDict


@dataclass(frozen=True)
class FileSize:
    """What a `.bw` file takes on the disk.

    Attributes:
        total: bytes of the whole file.
        parameters: entropy-coded bytes of each parameter, by path; the rest is the header and the assets.
    """

    total: int
    parameters: Mapping[str, int]


class Weigh:
    """A size that is found when it is first asked for; what was needed to find it is let go of then.

    A report outlives its model, which weighing needs.

    Example:
        >>> weigh = Weigh(lambda: FileSize(100, {"dense/kernel": 60}))
        >>> weigh().total
        100
    """

    def __init__(self, find: Callable[[], FileSize]) -> None:
        self._find: Callable[[], FileSize] | None = find
        self._found: FileSize | None = None

    def __call__(self) -> FileSize:
        """The size."""
        if self._found is None:
            assert self._find is not None
            self._found, self._find = self._find(), None
        return self._found


@dataclass(frozen=True)
class Report:
    """What each pass of a run did, to each parameter.

    Attributes:
        model: name of the model.
        passes: one record per pass, in order.
        initial: loss and metrics of the model as it was given; empty where they were not measured.
        planned: True for a dry run: nothing was done yet.
        notes: what there is to say about the model that was given and the one that is handed over.
        stopped: why the run ended early, and before which pass was done; empty where it is complete.
        weigh: returns what the `.bw` file takes, which is written in memory when `file` is first asked for, by
            `print(report)` too; None where there is no result yet.
    """

    model: str
    passes: tuple[PassRecord, ...]
    initial: Mapping[str, float] = field(default_factory=dict)
    planned: bool = False
    notes: tuple[str, ...] = ()
    stopped: str = ""
    weigh: Weigh | None = field(default=None, repr=False, compare=False)

    @property
    def file(self) -> FileSize | None:
        """What the `.bw` file takes; None for a dry run."""
        return None if self.weigh is None else self.weigh()

    @property
    def file_bytes(self) -> Mapping[str, int]:
        """Entropy-coded bytes of each parameter in the `.bw` file, by path; empty for a dry run."""
        return {} if self.file is None else self.file.parameters

    @property
    def complete(self) -> bool:
        """Whether every pass was done."""
        return not self.stopped

    def __iter__(self) -> Iterator[PassRecord]:
        return iter(self.passes)

    @property
    def skipped(self) -> Mapping[str, Mapping[str, str]]:
        """Reasons by parameter path, by pass."""
        return {f"{position}: {record.name}": record.skipped for position, record in enumerate(self.passes, start=1)}

    def to_dict(self) -> JsonDict:
        """Plain data, ready for `json.dumps`."""
        return {
            "model": self.model,
            "planned": self.planned,
            "complete": self.complete,
            "stopped": self.stopped,
            "initial": dict(self.initial),
            "file_bytes": dict(self.file_bytes),
            "notes": list(self.notes),
            "passes": [record.to_dict() for record in self.passes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The report of plain data that `to_dict` returned, without the sizes in the file: no file is at hand.

        Raises:
            ConfigError: the data does not describe a report.
        """
        try:
            return cls(
                model=str(data["model"]),
                passes=tuple(PassRecord.from_dict(record) for record in data["passes"]),
                initial={str(name): float(value) for name, value in data["initial"].items()},
                planned=bool(data["planned"]),
                notes=tuple(str(note) for note in data["notes"]),
                stopped=str(data["stopped"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"this does not describe a report: {type(error).__name__}: {error}") from error

    def text(self, full: bool = True) -> str:
        """The report as tables.

        Args:
            full: a row for every parameter and all names of those left alone; False gives one row per role and width
                where there are more than 40 of them, as `print(report)` does.
        """
        parts = [self._first_line(), passes_table(self.passes, self.initial)]
        parts += [f"  {note}" for note in self.notes]
        for position, record in enumerate(self.passes, start=1):
            parts += [f"\n{position}. {record.name}", *pass_lines(record, full)]
        if self.passes and self.passes[-1].parameters:
            parts += ["\nthe result", result_table(self.passes, self.file_bytes, full)]
        return "\n".join(parts)

    def _first_line(self) -> str:
        """What came of it: whether it is complete, bytes before and after, and the metrics before and after."""
        head = f"{self.model}: {'planned: ' if self.planned else ''}"
        if not self.complete:
            head += f"not complete, {self.stopped}: "
        return head + ", ".join([self._sizes(), *metric_changes(self.passes, self.initial)])

    def _sizes(self) -> str:
        given = self.passes[0].bytes_before if self.passes else None
        left, where = (self.passes[-1].bytes_after if self.passes else None), "packed"
        if self.file is not None:
            left, where = self.file.total, "in the file"
        before = "-" if given is None else bytes_text(given)
        after = "-" if left is None else bytes_text(left)
        ratio = f" ({given / left:.1f} times smaller)" if given and left and given > 1.05 * left else ""
        return f"{before} bytes -> {after} {where}{ratio}"

    @override
    def __str__(self) -> str:
        return self.text(full=False)
