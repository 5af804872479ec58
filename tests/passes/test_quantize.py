"""What `Quantize` does to which parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitwidth as bw
from bitwidth.encodings import Dense, Quantized, TableLevels
from tests import reference

NETWORK = reference.Network([6, 8, 2])


def quantized(**fields: Any) -> bw.Result:
    return bw.PassManager([bw.Quantize(**fields)]).run(NETWORK)


@pytest.mark.parametrize("bits", range(1, 17))
def test_every_width(bits: int) -> None:
    result = quantized(bits=bits)
    encoding = result.graph["layer0/kernel"].encoding
    assert encoding.bits == bits
    for column in result.graph.values["layer0/kernel"].T:
        assert len(np.unique(column)) <= 2**bits
    error = result.report.passes[0].touched[0].distortion
    assert error < 4.0 ** (1 - bits)


@pytest.mark.parametrize(
    ("granularity", "scales"), [("channel", (1, 8)), ("tensor", (1, 1)), (2, (3, 8)), (4, (2, 8)), (99, (1, 8))]
)
def test_granularity(granularity: Any, scales: tuple[int, int]) -> None:
    encoding = quantized(bits=4, granularity=granularity).graph["layer0/kernel"].encoding
    assert isinstance(encoding, Quantized)
    assert encoding.scale.shape == scales


def test_one_bit_is_plus_and_minus_the_scale() -> None:
    encoding = quantized(bits=1).graph["layer0/kernel"].encoding
    assert isinstance(encoding, Quantized)
    assert isinstance(encoding.levels, TableLevels)
    np.testing.assert_allclose(encoding.scale[0], np.abs(NETWORK.weights[0]).mean(0), rtol=2e-3)


def test_vectors_are_held_in_16_bits_unless_told_otherwise() -> None:
    encoding = quantized(bits=4).graph["layer0/bias"].encoding
    assert isinstance(encoding, Dense)
    assert encoding.format == "float16"
    left = quantized(bits=4, vectors=None)
    assert left.report.passes[0].skipped["layer0/bias"].endswith("vectors=None")
    np.testing.assert_array_equal(left.graph.values["layer0/bias"], NETWORK.weights[1])


def test_mse_is_no_worse_than_max() -> None:
    best, widest = (quantized(bits=3, scale=scale).report.passes[0].touched[0] for scale in ("mse", "max"))
    assert best.distortion < widest.distortion


def test_masks_override_the_grid() -> None:
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(1)]).run(NETWORK)
    encoding = result.graph["layer0/kernel"].encoding
    assert encoding.mask is not None
    values = result.graph.values["layer0/kernel"]
    assert not np.count_nonzero(values[~encoding.mask])
    assert np.count_nonzero(values[encoding.mask]) == encoding.mask.sum()


def test_narrowing_is_allowed_and_widening_refused() -> None:
    eight = quantized(bits=8)
    assert bw.PassManager([bw.Quantize(4)]).run(eight).graph["layer0/kernel"].encoding.bits == 4
    with pytest.raises(bw.errors.PromiseError, match="layer0/kernel: it was promised to be 8-bit"):
        bw.PassManager([bw.Quantize(12)]).run(eight)


def test_where() -> None:
    result = quantized(bits=4, where="layer1")
    assert {record.path for record in result.report.passes[0].touched} == {"layer1/kernel", "layer1/bias"}
    assert result.report.passes[0].skipped["layer0/kernel"] == "not selected by `where`"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 0}, "bits must be an integer from 1 to 16, got 0"),
        ({"bits": 33}, "got 33"),
        ({"bits": 4.0}, "got 4.0"),
        ({"bits": True}, "got True"),
        ({"bits": 4, "granularity": 0}, "granularity"),
        ({"bits": 4, "granularity": "row"}, "granularity"),
        ({"bits": 4, "scale": "best"}, "scale"),
        ({"bits": 4, "rounding": "up"}, "rounding"),
        ({"bits": 4, "vectors": "8-bit"}, "vectors"),
        ({"bits": 4, "where": 7}, "where"),
        ({"bits": 4, "where": []}, "where"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(bw.errors.BitwidthError, match=message):
        bw.Quantize(**fields)
