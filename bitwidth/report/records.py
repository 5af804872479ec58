"""Records of what happened: plain values, made by comparing the graph before a pass with the graph after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isinf
from typing import Any

import numpy as np

from bitwidth.encodings import Encoding, EncodingSummary
from bitwidth.graph import Cut, Graph, Parameter, cut_between
from bitwidth.typing import Array, JsonDict, JsonMapping

UNTOUCHED = "left as it was"


@dataclass(frozen=True)
class ParameterRecord:
    """What one pass did to one parameter.

    Attributes:
        path: the parameter.
        role: what it does in the model.
        size: how many values it has.
        before: its encoding before, in words; of one that was made of another, that of the other.
        after: its encoding after, in words.
        bits_before: width of a code before, in bits; None where it has no bound.
        bits: width of a code after.
        sparsity: share of the values after that are zero, 0 to 1.
        bytes_before: packed size before, without entropy coding; None where codes have no bound; 0 for a new one.
        bytes_after: packed size after.
        distortion: squared error over squared norm, of the values after against those before; 0 where nothing changed,
            and for one that was made of another.
        reason: why it was left alone; empty where it was touched.
        encoding_before: its encoding before, as values; None in reports of version 0.1.0.
        encoding_after: its encoding after, as values.
    """

    path: str
    role: str
    size: int
    before: str
    after: str
    bits_before: float | None
    bits: float | None
    sparsity: float
    bytes_before: int | None
    bytes_after: int | None
    distortion: float
    reason: str = ""
    encoding_before: EncodingSummary | None = None
    encoding_after: EncodingSummary | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParameterRecord:
        """The record of plain data that `asdict` returned.

        Raises:
            TypeError: the data does not describe a record.
        """
        held = {name: data.get(name) for name in ("encoding_before", "encoding_after")}
        summaries = {name: None if d is None else EncodingSummary.from_dict(d) for name, d in held.items()}
        return cls(**{**data, **summaries})


@dataclass(frozen=True)
class PassRecord:
    """What one pass did.

    Attributes:
        name: the pass.
        config: its fields, as plain data where they have a plain form.
        seconds: how long it ran.
        parameters: one record per parameter of the model.
        metrics: loss and metrics on the validation data after it; empty where they were not measured.
        fidelity: how far the outputs are from those of the model as it was given: `"kl"` in nats, or `"output_error"`
            over the outputs' variance, on up to 256 samples of the validation data, else of the data; see
            `bitwidth.analysis.fidelity`. Empty where there is no data.
        history: per epoch, loss and metrics of training.
        remarks: what the pass had to say.
        inner: records of the passes inside this one.
        refitted: paths of the parameters that were solved again because of what was removed elsewhere, selected or not;
            those of the passes inside too.
    """

    name: str
    config: JsonMapping
    seconds: float
    parameters: tuple[ParameterRecord, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    fidelity: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, list[float]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    inner: tuple[PassRecord, ...] = ()
    refitted: tuple[str, ...] = ()

    @property
    def touched(self) -> tuple[ParameterRecord, ...]:
        """Records of the parameters that the pass changed."""
        return tuple(record for record in self.parameters if not record.reason)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Reason by path, for the parameters that the pass left alone."""
        return {record.path: record.reason for record in self.parameters if record.reason}

    @property
    def sparsity(self) -> float | None:
        """Share of all values that are zero afterwards; None where there are none."""
        size = sum(record.size for record in self.parameters)
        return sum(record.sparsity * record.size for record in self.parameters) / size if size else None

    @property
    def bytes_before(self) -> int | None:
        """Packed size of all parameters before; None where codes have no bound."""
        return _sum([record.bytes_before for record in self.parameters])

    @property
    def bytes_after(self) -> int | None:
        """Packed size of all parameters afterwards; None where codes have no bound."""
        return _sum([record.bytes_after for record in self.parameters])

    def to_dict(self) -> JsonDict:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PassRecord:
        """The record of plain data that `to_dict` returned.

        Raises:
            KeyError, TypeError: the data does not describe a record.
        """
        parts = {
            "parameters": tuple(ParameterRecord.from_dict(record) for record in data["parameters"]),
            "inner": tuple(cls.from_dict(record) for record in data["inner"]),
            "remarks": tuple(data["remarks"]),
            "refitted": tuple(data.get("refitted", ())),
        }
        return cls(**{**data, **parts})


def _sum(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else sum(size or 0 for size in sizes)


def compare(
    before: Graph, after: Graph, skipped: Mapping[str, str], foreseen: Collection[str] = ()
) -> tuple[ParameterRecord, ...]:
    """One record per parameter: what changed, and the reason where nothing did.

    Args:
        before: the graph that a pass was given.
        after: the graph that it gave.
        skipped: reasons that the pass gave, by path.
        foreseen: paths of what a run of the pass would touch, though nothing shows it yet.
    """
    cut = cut_between(before, after)
    reasons = {p.path: "" if p.path in foreseen else skipped.get(p.path, UNTOUCHED) for p in after}
    return tuple(_compare(before, after, cut, parameter, reasons[parameter.path]) for parameter in after)


def _compare(before: Graph, after: Graph, cut: Cut, parameter: Parameter, reason: str) -> ParameterRecord:
    path = parameter.path
    is_made = path in cut.made
    old = before[cut.made[path][0] if is_made else path].encoding
    was, held = old.summary(), parameter.encoding.summary()
    changed = is_made or not before.same(after, path)
    values = after.values[path]
    moved = changed and not is_made and parameter.is_float
    return ParameterRecord(
        path=path,
        role=parameter.role,
        size=parameter.size,
        before=was.words(),
        after=held.words(),
        bits_before=_bounded(old.bits),
        bits=_bounded(parameter.encoding.bits),
        sparsity=float(1 - np.count_nonzero(values) / values.size) if parameter.is_float and values.size else 0.0,
        bytes_before=packed_bytes(old, before[path]) if path in before.parameters else 0,
        bytes_after=packed_bytes(parameter.encoding, parameter),
        distortion=distortion(cut.take(path, before.values[path]), values) if moved else 0.0,
        reason="" if changed else reason,
        encoding_before=was,
        encoding_after=held,
    )


def _bounded(bits: float) -> float | None:
    return None if isinf(bits) else bits


def packed_bytes(encoding: Encoding, parameter: Parameter) -> int | None:
    """Bytes of a parameter when packed without entropy coding; None where its codes have no bound."""
    if isinf(encoding.bits):
        return None
    return -(-encoding.packed_bits(parameter.shape) // 8)


def distortion(before: Array, after: Array) -> float:
    """Squared error over squared norm; 1 where values that were all zero have changed.

    Example:
        >>> round(distortion(np.array([3.0, 4.0]), np.array([3.0, 3.5])), 6)
        0.01
    """
    old, new = before.astype(np.float64), after.astype(np.float64)
    norm = float((old**2).sum())
    error = float(((new - old) ** 2).sum())
    return error / norm if norm else float(error > 0)
