"""`Report`: what a run did, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from bitwidth.report.records import PassRecord
from bitwidth.report.tables import pass_lines, passes_table, result_table


@dataclass(frozen=True)
class Report:
    """What each pass of a run did, to each parameter.

    Attributes:
        model: name of the model.
        passes: one record per pass, in order.
        initial: loss and metrics of the model as it was given; empty where they were not measured.
        file_bytes: entropy-coded bytes of each parameter in the `.bw` file by path; empty until they are known.
        planned: True for a dry run: nothing was done yet.
        notes: what there is to say about the model as it was given and as it is handed over.
        stopped: why the run ended early, and before which pass was done; empty where it is complete.
    """

    model: str
    passes: tuple[PassRecord, ...]
    initial: Mapping[str, float] = field(default_factory=dict)
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    planned: bool = False
    notes: tuple[str, ...] = ()
    stopped: str = ""

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

    def to_dict(self) -> dict[str, Any]:
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

    def text(self, full: bool = True) -> str:
        """The report as tables.

        Args:
            full: a row for every parameter and all names of those left alone; False gives one row per role and width
                where there are more than 40 of them, as `print(report)` does.
        """
        head = "what would be done" if self.planned else "what was done"
        parts = [f"{self.model}: {head if self.complete else f'not complete, {self.stopped}; {head}'}"]
        parts += [passes_table(self.passes, self.initial), *(f"  {note}" for note in self.notes)]
        for position, record in enumerate(self.passes, start=1):
            parts += [f"\n{position}. {record.name}", *pass_lines(record, full)]
        if self.passes and self.passes[-1].parameters:
            parts += ["\nthe result", result_table(self.passes, self.file_bytes, full)]
        return "\n".join(parts)

    @override
    def __str__(self) -> str:
        return self.text(full=False)
