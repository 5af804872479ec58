"""The vocabulary of operations."""

from __future__ import annotations

from typing import Any, get_args

import keras
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.errors import ModelError
from bitwidth.graph import Kind, Op, Use, spec
from bitwidth.graph.ops import SPECS, attribute, channels_first, last_axis_stays
from tests import reference, zoo


def op(kind: Kind, **attributes: Any) -> Op:
    return Op("op", kind, "", ("x",), ("y",), attributes=tuple(attributes.items()))


def test_every_kind_has_an_entry() -> None:
    assert list(SPECS) == list(get_args(Kind))
    assert all(kind == item.kind for kind, item in SPECS.items())


def test_what_one_property_says_of_another() -> None:
    for item in SPECS.values():
        assert not item.keeps_last_axis or item.passes_scale, item.kind
        assert not item.is_transparent or item.moves, item.kind
        assert not item.is_convolution or item.is_contraction, item.kind
        assert not (item.moves and item.arithmetic), item.kind
        assert not (item.shape_only and item.moves), item.kind


def test_of_what_is_unknown_nothing_is_assumed() -> None:
    other = SPECS["other"]
    assert other == type(other)("other")


def test_an_operation_and_a_use_of_it_have_the_same_entry() -> None:
    graph = bw.read(zoo.MODELS["convnet_bn"]())
    ops = {op.name: op for op in graph.ops}
    for parameter in graph:
        for use in parameter.uses:
            assert spec(use) is spec(ops[use.op])


@pytest.mark.parametrize("item", [Op("a", "MatMul", "", (), ()), Use("a", "MatMul", "")])  # type: ignore[arg-type]
def test_a_word_that_is_not_in_the_vocabulary(item: Op | Use) -> None:
    with pytest.raises(ModelError, match="'MatMul' is not a kind of operation"):
        spec(item)


def test_messages_show_the_name_that_the_framework_has() -> None:
    assert Op("a", "add", "sum", (), (), label="AddV2").shown == "AddV2 in sum"
    assert Use("a", "add", "").shown == "add"
    graph = bw.read(zoo.MODELS["mlp"]())
    assert {op.shown for op in graph.ops if op.layer == "hidden" and op.kind == "matmul"} == {"MatMul in hidden"}
    assert "layer0/kernel" in str(bw.read(reference.Network([2, 3])))


def test_attributes_are_named_alike_for_every_type() -> None:
    """A matrix product, a batched one and axes, whatever TensorFlow calls them and wherever it has them."""
    inputs = keras.Input((4, 6, 3), batch_size=2)
    x = keras.ops.transpose(inputs, (0, 2, 1, 3))
    x = keras.ops.matmul(x, keras.ops.swapaxes(x, 2, 3))
    first, second = keras.ops.split(x, 2, axis=3)
    x = keras.ops.concatenate([second, first], axis=2)
    x = keras.ops.pad(keras.ops.mean(x, axis=(1, 3)), ((0, 0), (1, 2)))
    graph = bw.read(keras.Model(inputs, layers.Dense(2)(x)))
    found: dict[str, list[Op]] = {}
    for item in graph.ops:
        found.setdefault(item.kind, []).append(item)
    assert attribute(found["transpose"][0], "order") == (0, 2, 1, 3)
    assert [attribute(item, "transpose_b") for item in found["matmul"]] == [False, False]
    assert not any(attribute(item, "adj_y") for item in found["matmul"])
    assert attribute(found["split"][0], "axis") == 3
    makers = {name: item for item in graph.ops for name in item.outputs}
    assert makers[found["split"][0].inputs[0]].kind == "matmul"
    assert attribute(found["concat"][0], "axis") == 2
    assert attribute(found["reduce_mean"][0], "axes") == (1, 3)
    assert attribute(found["pad"][0], "pads") == [[0, 0], [1, 2]]
    assert attribute(found["pad"][0], "fill") == 0


def test_channels_come_first_where_the_format_says_so() -> None:
    assert channels_first(op("conv", data_format="NCHW"))
    assert not channels_first(op("conv", data_format="NHWC"))
    assert not channels_first(op("relu"))


@pytest.mark.parametrize(
    ("item", "stays"),
    [
        (op("reduce_mean", axes=(1, 2)), True),
        (op("reduce_mean", axes=(-2,)), True),
        (op("reduce_mean", axes=(1, -1)), False),
        (op("reduce_max", axes=(3,)), False),
        (op("reduce_sum"), False),
        (op("reduce_sum", axes=()), False),
        (op("pad", pads=[[1, 1], [0, 0]], fill=0.0), True),
        (op("pad", pads=[[1, 1], [0, 0]], fill=1.0), False),
        (op("pad", pads=[[1, 1], [0, 0]]), False),
        (op("pad", pads=[[0, 0], [0, 1]], fill=0.0), False),
        (op("pad", fill=0.0), False),
        (op("mirror_pad", pads=[[1, 1], [0, 0]]), True),
        (op("mirror_pad", pads=[[1, 1], [1, 0]]), False),
        (op("relu"), True),
    ],
)
def test_what_a_reduction_or_a_padding_does_to_the_last_axis(item: Op, stays: bool) -> None:
    assert last_axis_stays(item, 4) is stays


def test_nothing_is_known_of_an_axis_without_a_rank() -> None:
    assert not last_axis_stays(op("reduce_mean", axes=(1,)), 0)
