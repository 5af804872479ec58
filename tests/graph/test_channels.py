"""Where channels stand in kernels."""

from __future__ import annotations

import numpy as np
import pytest

from bitwidth.graph import Channels, Kind, Op, Parameter, Refused, Use
from bitwidth.graph.channels import channels_made, channels_taken, einsum_in_order

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 7), (1,)), ((3, 3, 4, 2), (2, 3)), ((3, 3, 2, 4, 5), (3, 2)), ((2, 3, 4), (0,)), ((2, 3, 4), (2, 0, 1))],
)
def test_factors_and_magnitudes_agree(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    channels = Channels("k", shape, axes)
    values = RNG.normal(size=shape)
    factors = RNG.uniform(0.5, 2, channels.count)
    scaled = channels.scaled(values, factors)
    np.testing.assert_allclose(channels.magnitudes(scaled), channels.magnitudes(values) * factors)
    order = (*axes, *(axis for axis in range(len(shape)) if axis not in axes))
    rows = values.transpose(order).reshape(channels.count, -1)
    np.testing.assert_allclose(scaled.transpose(order).reshape(rows.shape), rows * factors[:, None])


def kernel(*shape: int) -> Parameter:
    return Parameter("k", shape, "float32", "kernel", "")


def op(kind: Kind, **attributes: object) -> Op:
    return Op("op", kind, "", ("x", "k"), ("y",), ("k",), tuple(attributes.items()))


def test_a_grouped_convolution_takes_its_features_group_by_group() -> None:
    use = Use("op", "conv", "", (3,), (0, 1, 2))
    found = channels_taken(op("conv"), kernel(1, 1, 2, 6), use, 4)
    x, k = RNG.normal(size=4), RNG.normal(size=(1, 1, 2, 6))
    scaled = found.scaled(k, x)
    groups = [x[2 * g : 2 * g + 2] @ k[0, 0, :, 3 * g : 3 * g + 3] for g in range(2)]
    np.testing.assert_allclose(scaled.sum((0, 1, 2)), np.concatenate(groups))


def test_what_is_not_known_has_a_reason() -> None:
    use = Use("op", "matmul", "", (1,), (0,))
    with pytest.raises(Refused, match="which axes of its kernel become channels is not known"):
        channels_made(op("matmul", transpose_a=True), kernel(4, 2), use)
    with pytest.raises(Refused, match="channels come first there"):
        channels_made(op("conv", data_format="NCHW"), kernel(4, 2), use)
    with pytest.raises(Refused, match="channels come first there"):
        channels_taken(op("conv", data_format="NCHW"), kernel(4, 2), use, 4)
    with pytest.raises(Refused, match="which axes of its kernel meet the features is not known"):
        channels_taken(op("matmul"), kernel(4, 2), use, 5)


@pytest.mark.parametrize(
    ("equation", "made", "taken", "in_order"),
    [
        ("abc,cde->abde", (2,), (0,), True),
        ("...de,def->...f", (2,), (1,), True),
        ("abc,cde->abed", (1,), (0,), False),
        ("ab,bc,cd->ad", None, None, False),
    ],
)
def test_einsums(equation: str, made: tuple[int, ...] | None, taken: tuple[int, ...] | None, in_order: bool) -> None:
    parameter = kernel(4, 4, 4)
    use = Use("op", "einsum", "", (1, 2), (0,))
    item = op("einsum", equation=equation)
    if made is None or taken is None:
        with pytest.raises(Refused):
            channels_made(item, parameter, use)
        with pytest.raises(Refused):
            channels_taken(item, parameter, use, 4)
    else:
        assert channels_made(item, parameter, use).axes == made
        assert channels_taken(item, parameter, use, 4).axes == taken
    assert einsum_in_order(item) is in_order
