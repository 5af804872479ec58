from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitwidth.artifact import StoredModel, StoredParameter, open_checkpoint, pack, pack_checkpoint
from bitwidth.encodings import Dense, IntegerLevels, Masked, Quantized
from bitwidth.errors import BitwidthError, CorruptFileError, EncodingError, VersionError
from tests.stored import stored_model

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(6, 4)).astype(np.float32)
GRID = Quantized(IntegerLevels(-7, 7), np.full((1, 1), 0.25, np.float32), (6, 4))
REPORT = {"model": "small", "passes": [], "initial": {"loss": 0.5}}


def model() -> StoredModel:
    masked = Masked(KERNEL > 0, Dense())
    held = {
        "a/kernel": (GRID, GRID.project(KERNEL)),
        "b/kernel": (masked, masked.project(KERNEL)),
        "c/bias": (Dense(), KERNEL[0]),
    }
    parameters = tuple(
        StoredParameter(path, "kernel", "float32", True, encoding, values) for path, (encoding, values) in held.items()
    )
    variables = [[path, list(values.shape), "float32"] for path, (_, values) in held.items()]
    return stored_model("small", "keras", {"class_name": "Sequential"}, "", [], variables, parameters)


MASTERS = {"a/kernel": KERNEL, "b/kernel": KERNEL * 2}


def packed(masters: Mapping[str, NDArray[Any]] = MASTERS, report: Any = None) -> bytes:
    return pack_checkpoint(model(), pack(model()).data, masters, REPORT if report is None else report)


DATA = packed()


@pytest.mark.parametrize("masters", [MASTERS, {}, {"c/bias": KERNEL[1]}])
def test_round_trip(masters: dict[str, NDArray[Any]]) -> None:
    with open_checkpoint(packed(masters)) as found:
        assert found.report == REPORT
        assert list(found.masters) == list(masters)
        assert all(found.masters[path].tobytes() == masters[path].tobytes() for path in masters)
        back, expected = found.file.stored(), model()
    assert back.architecture == expected.architecture
    for left, right in zip(back.parameters, expected.parameters, strict=True):
        assert left.path == right.path
        assert left.encoding.describe() == right.encoding.describe()
        assert left.values.tobytes() == right.values.tobytes()


def read(data: bytes) -> None:
    with open_checkpoint(data) as found:
        found.file.stored()


@pytest.mark.parametrize("length", range(0, len(DATA), 7))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(BitwidthError):
        read(DATA[:length])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_every_altered_byte_is_refused(place: int, change: int) -> None:
    altered = bytearray(DATA)
    altered[place] ^= change
    with pytest.raises((CorruptFileError, VersionError)):
        read(bytes(altered))


@pytest.mark.parametrize("tail", [b"\0", DATA])
def test_what_follows_is_refused(tail: bytes) -> None:
    with pytest.raises(CorruptFileError, match="expected"):
        read(DATA + tail)


def forged(masters: StoredModel) -> bytes:
    """A checkpoint whose masters are those of another model."""
    whole = model()
    return pack_checkpoint(
        stored_model("m", "none", None, "", None, masters.architecture.variables, masters.parameters),
        pack(whole).data,
        {p.path: p.values for p in masters.parameters},
        REPORT,
    )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("a/kernel", KERNEL[:5]),
        ("a/kernel", KERNEL.T),
        ("nowhere", KERNEL),
        ("a/kernel", np.zeros((6, 4), np.int32)),
    ],
)
def test_masters_of_another_model_are_refused(path: str, values: NDArray[Any]) -> None:
    stored = StoredParameter(path, "kernel", str(values.dtype), True, Dense(), values)
    other = stored_model("m", "none", None, "", None, [[path, list(values.shape), str(values.dtype)]], (stored,))
    with pytest.raises(CorruptFileError, match="fits no parameter"):
        read(forged(other))


def test_masters_that_are_not_finite_are_refused_when_they_are_written() -> None:
    with pytest.raises(EncodingError, match="not finite"):
        packed({"a/kernel": np.full((6, 4), np.nan, np.float32)})


@pytest.mark.parametrize("data", [b"", b"\x89BWC", b"PK" * 40, pack(model()).data])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptFileError):
        read(data)
