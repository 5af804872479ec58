"""Codes in layers: the base layer is the narrow grid, and both layers together are the codes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.artifact import StoredParameter, pack
from bitwidth.artifact.reader import open_bytes
from bitwidth.artifact.version3.layers import (
    can_be_layered,
    encoding_of_base,
    layered,
    of_stored,
    whole,
)
from bitwidth.encodings import (
    Dense,
    Encoding,
    IntegerLevels,
    Masked,
    Quantized,
    narrow,
    ordered,
    signed,
    uniform_levels,
)
from bitwidth.errors import EncodingError
from tests.stored import stored_model

SHAPE, BLOCK = (60, 12), (60, 1)
FORMS = ["symmetric", "asymmetric", "unbounded", "biased", "masked", "masked asymmetric"]


def made(form: str, bits: int) -> tuple[Encoding, NDArray[np.int32]]:
    """A grid and codes of it, 0 where a mask drops them."""
    rng, top = np.random.default_rng(bits), (1 << bits - 1) - 1
    scale = (0.5 + rng.random((1, 12))).astype(np.float32)
    codes = np.clip(np.rint(rng.standard_normal(SHAPE) * top / 3), -top, top).astype(np.int32)
    codes[0], codes[1] = top, -top
    levels, zero, bias = uniform_levels(bits), None, None
    if "asymmetric" in form:
        levels, zero = IntegerLevels(0, (1 << bits) - 1), rng.integers(0, 1 << bits, (1, 12)).astype(np.int32)
        codes = np.clip(codes + zero, 0, (1 << bits) - 1).astype(np.int32)
    if form == "unbounded":
        levels = IntegerLevels()
    if form == "biased":
        bias = rng.standard_normal((1, 12)).astype(np.float32)
    grid = Quantized(levels, scale, BLOCK, zero, bias)
    if "masked" not in form:
        return grid, codes
    keep = rng.random(SHAPE) < 0.6
    return Masked(keep, grid), np.where(keep, codes, np.int32(0))


@pytest.mark.parametrize("bits", range(5, 17))
@pytest.mark.parametrize("form", FORMS)
def test_layers_are_the_codes(form: str, bits: int) -> None:
    encoding, codes = made(form, bits)
    layers = layered(encoding, codes, True)
    assert layers is not None
    held, base = narrow(encoding, codes, 4)
    np.testing.assert_array_equal(layers.base, base)
    of_base = encoding_of_base(encoding, layers.step)
    np.testing.assert_array_equal(of_base.decode(layers.base), held.decode(base))
    grid = ordered(encoding)
    assert grid is not None
    kept = np.ones(SHAPE, np.bool_) if encoding.mask is None else encoding.mask
    np.testing.assert_array_equal(layers.rest[0].reshape(-1), signed(codes, grid, encoding.mask)[kept])
    for one, other in zip(layers.rest[1:], of_stored([layers.base], layers.step, encoding), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole(layers.rest[0], encoding, SHAPE), codes)


@pytest.mark.parametrize("bits", [5, 8, 12, 16])
@pytest.mark.parametrize("form", FORMS)
def test_layers_in_a_file(form: str, bits: int) -> None:
    encoding, codes = made(form, bits)
    values = encoding.decode(codes)
    parameter = StoredParameter("a/kernel", "kernel", "float32", True, encoding, values)
    stored = stored_model("m", "keras", None, "", [], [["kernel", list(SHAPE), "float32"]], (parameter,))
    with open_bytes(pack(stored, layers=True).data, "m.bw") as file:
        (found,) = file.parameters()
        (short,) = file.parameters(4)
    assert found.values.tobytes() == values.tobytes()
    np.testing.assert_array_equal(found.encoding.encode(found.values), encoding.encode(values))
    held, base = narrow(encoding, encoding.encode(values), 4)
    assert short.values.tobytes() == held.decode(base).tobytes()


def test_what_is_not_layered() -> None:
    encoding, codes = made("symmetric", 8)
    assert layered(encoding, codes, False) is None
    assert layered(encoding, codes, None) is None  # few
    many = Quantized(uniform_levels(8), np.ones((1, 1), np.float32), (100, 100))
    assert layered(many, np.full((100, 100), 90, np.int32), None) is not None
    for other in (Dense(), Quantized(uniform_levels(4), np.ones((1, 1), np.float32), SHAPE)):
        assert not can_be_layered(other)
        assert layered(other, np.ones(SHAPE, np.int32), True) is None
    with pytest.raises(EncodingError):
        encoding_of_base(Dense(), np.ones((1, 12), np.int32))
    small = made("unbounded", 8)[0]
    assert layered(small, np.full(SHAPE, 7, np.int32), True) is None  # no code needs more bits


def test_steps_that_are_none_are_refused() -> None:
    encoding, _ = made("symmetric", 8)
    encoding_of_base(encoding, np.ones((1, 12), np.int32))
    below = np.ones((1, 12), np.int32)
    below[0, 3] = 0
    for step in (below, -below, np.ones((12, 1), np.int32), np.ones(12, np.int32), np.ones((1, 11), np.int32)):
        with pytest.raises(EncodingError):
            encoding_of_base(encoding, step)
