"""The tables that `print(report)` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bitwidth.report.records import ParameterRecord, PassRecord
from bitwidth.text import bytes_text, table

MANY = 40  # parameters, beyond which a table has one row per role and width instead


def passes_table(passes: Sequence[PassRecord], initial: Mapping[str, float]) -> str:
    """One row per pass: what it touched, how the model measures after it, and its packed size."""
    names = list(dict.fromkeys(name for metrics in (initial, *(p.metrics for p in passes)) for name in metrics))
    distances = list(dict.fromkeys(name for record in passes for name in record.fidelity))
    given = total(passes[0].parameters, lambda record: record.bytes_before) if passes else "-"
    rows = [["as given", "", *_metrics(initial, names), *("" for _ in distances), "", given]]
    for position, record in enumerate(passes, start=1):
        touched = f"{len(record.touched)} of {len(record.parameters)}"
        after = total(record.parameters, lambda parameter: parameter.bytes_after)
        name = f"{position}. {record.name}"
        measures = [*_metrics(record.metrics, names), *_metrics(record.fidelity, distances)]
        rows.append([name, touched, *measures, f"{record.seconds:.1f}", after])
    heads = [name.replace("_", " ") for name in distances]
    return table(["pass", "touched", *names, *heads, "seconds", "packed bytes"], rows)


def pass_lines(record: PassRecord, full: bool) -> list[str]:
    """What one pass did: its remarks, the parameters that it touched, and those that it left alone with the reason."""
    lines = [f"  {remark}" for remark in _remarks(record)]
    if record.touched:
        columns = ["parameter", "was", "is", "bits", "zeros", "bytes before", "bytes after", "distortion"]
        lines.append(table(columns, [_touched(group) for group in groups(record.touched, full)]))
    by_reason: dict[str, list[str]] = {}
    for path, reason in record.skipped.items():
        by_reason.setdefault(reason, []).append(path)
    lines += [f"  left alone ({reason}): {_listed(found, full)}" for reason, found in by_reason.items()]
    return lines


def _remarks(record: PassRecord) -> list[str]:
    """What a pass said, and what the passes inside it said, under their names; each line once."""
    inside = [f"{inner.name}: {remark}" for inner in record.inner for remark in _remarks(inner)]
    return list(dict.fromkeys([*record.remarks, *inside]))


def result_table(passes: Sequence[PassRecord], file_bytes: Mapping[str, int], full: bool) -> str:
    """How each parameter is held in the end, and the bytes it takes."""
    given = {record.path: record.bytes_before for record in passes[0].parameters}
    rows = []
    for group in groups(passes[-1].parameters, full):
        sizes = [total(group, lambda r: given.get(r.path, 0)), total(group, lambda record: record.bytes_after)]
        if file_bytes:
            sizes.append(total(group, lambda record: file_bytes[record.path]))
        rows.append([_name(group), _shared([r.after for r in group]), _bits(group), _zeros(group), *sizes])
    columns = ["parameter", "encoding", "bits", "zeros", "bytes given", "packed"]
    return table([*columns, "in file"] if file_bytes else columns, rows)


def metric_changes(passes: Sequence[PassRecord], initial: Mapping[str, float]) -> list[str]:
    """Each metric before the first pass and after the last one that was measured."""
    last = next((record.metrics for record in reversed(passes) if record.metrics), {})
    found = [f"{name} {initial[name]:.4f} -> {value:.4f}" for name, value in last.items() if name in initial]
    fidelity = passes[-1].fidelity if passes else {}
    return [*found, *(f"{name.replace('_', ' ')} {value:.4f}" for name, value in fidelity.items())]


def groups(records: Sequence[ParameterRecord], full: bool) -> list[list[ParameterRecord]]:
    """One group per parameter; where there are too many for a table, one per role and width."""
    if full or len(records) <= MANY:
        return [[record] for record in records]
    found: dict[tuple[str, float | None, float | None], list[ParameterRecord]] = {}
    for record in records:
        found.setdefault((record.role, record.bits_before, record.bits), []).append(record)
    return list(found.values())


def total(records: Sequence[ParameterRecord], size: Callable[[ParameterRecord], int | None]) -> str:
    """The sum of a size over records; a dash where one of them has no bound."""
    sizes = [size(record) for record in records]
    return "-" if any(count is None for count in sizes) else bytes_text(sum(count or 0 for count in sizes))


def _touched(group: list[ParameterRecord]) -> list[str]:
    sizes = [total(group, lambda record: record.bytes_before), total(group, lambda record: record.bytes_after)]
    was, held = _shared([record.before for record in group]), _shared([record.after for record in group])
    most = "" if len(group) == 1 else "<="
    distortion = f"{most}{max(record.distortion for record in group):.2e}"
    return [_name(group), was, held, _bits(group), _zeros(group), *sizes, distortion]


def _name(group: list[ParameterRecord]) -> str:
    return group[0].path if len(group) == 1 else f"{len(group)} x {group[0].role}"


def _shared(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else "(several)"


def _bits(group: list[ParameterRecord]) -> str:
    return "-" if group[0].bits is None else f"{group[0].bits:g}"


def _zeros(group: list[ParameterRecord]) -> str:
    size = sum(record.size for record in group)
    return f"{sum(record.sparsity * record.size for record in group) / max(1, size):.1%}"


def _metrics(metrics: Mapping[str, float], names: list[str]) -> list[str]:
    return [f"{metrics[name]:.4f}" if name in metrics else "" for name in names]


def _listed(paths: list[str], full: bool) -> str:
    if full or len(paths) <= MANY:
        return ", ".join(paths)
    return f"{', '.join(paths[:3])} and {len(paths) - 3} more"
