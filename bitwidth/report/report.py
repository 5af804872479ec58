"""`Report`: what a run did, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from bitwidth.report.records import ParameterRecord, PassRecord
from bitwidth.text import bytes_text, table


@dataclass(frozen=True)
class Report:
    """What each pass of a run did, to each parameter.

    Attributes:
        model: name of the model.
        passes: one record per pass, in order.
        initial: loss and metrics of the model as it was given; empty where they were not measured.
        file_bytes: entropy-coded bytes of each parameter in the `.bw` file by path; empty until they are known.
        planned: True for a dry run: nothing was done yet.
    """

    model: str
    passes: tuple[PassRecord, ...]
    initial: Mapping[str, float] = field(default_factory=dict)
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    planned: bool = False

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
            "initial": dict(self.initial),
            "file_bytes": dict(self.file_bytes),
            "passes": [record.to_dict() for record in self.passes],
        }

    @override
    def __str__(self) -> str:
        parts = [f"{self.model}: {'what would be done' if self.planned else 'what was done'}", self._passes()]
        for position, record in enumerate(self.passes, start=1):
            parts += [f"\n{position}. {record.name}", *_pass_parts(record)]
        if self.passes and self.passes[-1].parameters:
            parts += ["\nthe result", self._result(self.passes[-1].parameters)]
        return "\n".join(parts)

    def _passes(self) -> str:
        names = list(dict.fromkeys(name for metrics in self._all_metrics() for name in metrics))
        given = _size(self.passes[0], "bytes_before") if self.passes else "-"
        rows = [["as given", "", *_metric_cells(self.initial, names), "", given]]
        for position, record in enumerate(self.passes, start=1):
            cells = _metric_cells(record.metrics, names)
            touched = f"{len(record.touched)} of {len(record.parameters)}"
            name = f"{position}. {record.name}"
            rows.append([name, touched, *cells, f"{record.seconds:.1f}", _size(record, "bytes_after")])
        return table(["pass", "touched", *names, "seconds", "packed bytes"], rows)

    def _all_metrics(self) -> list[Mapping[str, float]]:
        return [self.initial, *(record.metrics for record in self.passes)]

    def _result(self, parameters: tuple[ParameterRecord, ...]) -> str:
        rows = []
        first = {record.path: record for record in self.passes[0].parameters}
        for record in parameters:
            before = first[record.path].bytes_before
            coded = [bytes_text(self.file_bytes[record.path])] if self.file_bytes else []
            held = [_bits(record), f"{record.sparsity:.1%}"]
            rows.append([record.path, record.after, *held, _bytes(before), _bytes(record.bytes_after), *coded])
        columns = ["parameter", "encoding", "bits", "zeros", "bytes given", "packed"]
        return table([*columns, "in file"] if self.file_bytes else columns, rows)


def _pass_parts(record: PassRecord) -> list[str]:
    parts = [f"  {remark}" for remark in record.remarks]
    if record.touched:
        rows = [
            [r.path, r.before, r.after, _bits(r), f"{r.sparsity:.1%}", *_sizes(r), f"{r.distortion:.2e}"]
            for r in record.touched
        ]
        columns = ["parameter", "was", "is", "bits", "zeros", "bytes before", "bytes after", "distortion"]
        parts.append(table(columns, rows))
    by_reason: dict[str, list[str]] = {}
    for path, reason in record.skipped.items():
        by_reason.setdefault(reason, []).append(path)
    parts += [f"  left alone ({reason}): {', '.join(found)}" for reason, found in by_reason.items()]
    return parts


def _metric_cells(metrics: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]


def _bits(record: ParameterRecord) -> str:
    return "-" if record.bits is None else f"{record.bits:g}"


def _bytes(count: int | None) -> str:
    return "-" if count is None else bytes_text(count)


def _sizes(record: ParameterRecord) -> list[str]:
    return [_bytes(record.bytes_before), _bytes(record.bytes_after)]


def _size(record: PassRecord, side: str) -> str:
    sizes = [getattr(parameter, side) for parameter in record.parameters]
    return "-" if None in sizes else bytes_text(sum(sizes))
