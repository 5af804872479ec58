from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.encodings import Dense, Encoding, Escaped, Masked, Quantized
from bitwidth.errors import ConfigError, EncodingError
from bitwidth.fitting import Escape, escape, fit

X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
X[::25] *= 20


def fitter(keep: NDArray[np.bool_]) -> Quantized:
    return fit("uniform", 4, X, (100, 1), keep=keep)


def plane_of(encoding: Encoding) -> NDArray[np.bool_]:
    assert isinstance(encoding, Escaped)
    return encoding.plane


def test_by_quantile() -> None:
    held = escape(Escape(quantile=0.99), fitter, X)
    assert plane_of(held).sum() == 4
    assert np.abs(X)[plane_of(held)].min() > np.abs(X)[~plane_of(held)].max()


def test_by_error() -> None:
    """What the grid of the body clips by more than a scale; the grid of the rest is fitted again."""
    held = escape(Escape(error=1.0), fitter, X)
    first = fitter(np.abs(X) <= 4 * np.abs(X).mean(axis=0))
    assert np.array_equal(plane_of(held), np.abs(first.project(X) - X) > first.scale)
    assert 5 <= plane_of(held).sum() <= 20
    assert np.abs(X)[plane_of(held)].min() > 3
    assert isinstance(held, Escaped)
    assert isinstance(held.base, Quantized)
    assert (held.base.scale < fitter(np.ones(X.shape, bool)).scale).all()


def test_by_plane() -> None:
    plane = np.abs(X) > 10
    for given in ({"a/kernel": plane}, lambda path, values: np.abs(values) > 10 if path == "a/kernel" else None):
        held = escape(Escape(plane=given, format="float16"), fitter, X, path="a/kernel")
        assert np.array_equal(plane_of(held), plane)
        assert isinstance(escape(Escape(plane=given), fitter, X, path="b/kernel"), Quantized)
    with pytest.raises(EncodingError, match="a/kernel: a plane of escapes holds booleans"):
        escape(Escape(plane={"a/kernel": plane[:2]}), fitter, X, path="a/kernel")
    with pytest.raises(EncodingError, match="holds booleans"):
        escape(Escape(plane={"a/kernel": X}), fitter, X, path="a/kernel")


@pytest.mark.parametrize("config", [Escape(quantile=0.9), Escape(error=0.4), Escape(plane=lambda path, values: X > 0)])
def test_what_a_mask_drops_is_not_escaped(config: Escape) -> None:
    keep = np.abs(X) < 5
    held = escape(config, fitter, X, keep)
    assert not (plane_of(held) & ~keep).any()
    whole = Masked(keep, held)
    assert whole.base is held
    assert isinstance(escape(config, fitter, X, np.zeros(X.shape, bool)), Quantized)


def test_error_needs_scales() -> None:
    with pytest.raises(EncodingError, match="needs a grid with scales"):
        escape(Escape(error=1.0), lambda keep: Dense("float16"), X)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"error": 1.0, "quantile": 0.9},
        {"error": 0.0},
        {"error": float("inf")},
        {"error": "1"},
        {"quantile": 1.0},
        {"quantile": 0.0},
        {"quantile": True},
        {"plane": 3},
        {"quantile": 0.9, "format": "float8"},
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Escape: "):
        Escape(**given)


def test_a_choice_is_plain_data() -> None:
    assert Escape(quantile=0.9) == Escape(quantile=0.9)
    assert hash(Escape(error=1.0)) == hash(Escape(error=1.0))
    planes = Escape(plane={"a": X > 1})
    assert planes == Escape(plane=planes.plane)
    assert repr(planes.plane) == "planes of a"
