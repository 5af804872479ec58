"""What each kind of operation says about labels, on graphs of a few operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwidth.graph import Kind
from bitwidth.graph.labels.rules import RULES
from bitwidth.graph.ops import SPECS
from tests.graph.labels.building import Net, roles, shown, stays


def test_every_kind_has_a_rule() -> None:
    assert set(SPECS) - set(RULES) == {"input", "constant", "in_top_k", "other"}


def test_products_make_units_and_take_them() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "first", 3, 4)
    x = net.op("bias_add", (x, net.parameter("first/bias", 4)), (None, 4))
    coupling = net.couple(net.dense(net.op("relu", (x,), (None, 4)), "second", 4, 2))
    assert shown(coupling) == {
        "first": {"first/kernel:1": [0, 1, 2, 3], "first/bias:0": [0, 1, 2, 3], "second/kernel:0": [0, 1, 2, 3]}
    }
    assert roles(coupling) == {"first/kernel:1": "produces", "first/bias:0": "", "second/kernel:0": "consumes"}
    assert stays(coupling) == {"first/kernel:0": "model input", "second/kernel:1": "model output"}


def test_features_of_a_flat_input_are_units_on_request() -> None:
    net = Net()
    coupling = net.couple(net.dense(net.input(None, 3), "only", 3, 2), inputs=True)
    assert shown(coupling) == {"input0": {"only/kernel:0": [0, 1, 2]}}
    (group,) = coupling.groups
    assert group.input == group.name


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_transposed_products(transposed: tuple[bool, bool]) -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "first", 3, 4)
    x = net.op("reshape", (x, net.constant([-1, 1, 4])), (None, 1, 4))
    x = net.op("transpose", (x,), (None, 4, 1), order=(0, 2, 1)) if transposed[0] else x
    kernel = net.parameter("second/kernel", *((2, 4) if transposed[1] else (4, 2)))
    first, second = transposed
    coupling = net.couple(net.op("matmul", (x, kernel), (None, 1, 2), transpose_a=first, transpose_b=second))
    assert shown(coupling)["first"][f"second/kernel:{int(transposed[1])}"] == [0, 1, 2, 3]


def test_einsum_with_an_ellipsis() -> None:
    net = Net()
    x = net.op(
        "einsum", (net.input(None, 5, 3), net.parameter("a/k", 3, 2, 4)), (None, 5, 2, 4), equation="...c,cde->...de"
    )
    coupling = net.couple(
        net.op("einsum", (x, net.parameter("b/k", 2, 4, 6)), (None, 5, 6), equation="...de,def->...f")
    )
    assert shown(coupling) == {
        "a:1": {"a/k:1": [0, 1], "b/k:0": [0, 1]},
        "a:2": {"a/k:2": [0, 1, 2, 3], "b/k:1": [0, 1, 2, 3]},
    }


def test_a_diagonal_is_not_known() -> None:
    net = Net()
    x = net.op("einsum", (net.dense(net.input(None, 3), "a", 3, 3),), (None, 3), equation="bb->b")
    assert "Einsum" in stays(net.couple(x))["a/kernel:1"]


def conv(net: Net, x: str, path: str, kernel: tuple[int, ...], size: int, kind: Kind = "conv", **attrs: Any) -> str:
    shape = (None, 8, 8, size)
    return str(net.op(kind, (x, net.parameter(f"{path}/kernel", *kernel)), shape, path, data_format="NHWC", **attrs))


def test_convolutions() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (3, 3, 3, 4), 4)
    x = conv(net, x, "b", (3, 3, 4, 1), 4, "depthwise_conv")
    x = conv(net, x, "c", (3, 3, 5, 4), 5, "transposed_conv")
    coupling = net.couple(conv(net, x, "d", (1, 1, 5, 2), 2))
    units = [0, 1, 2, 3]
    assert shown(coupling) == {
        "a": {"a/kernel:3": units, "b/kernel:2": units, "c/kernel:3": units},
        "c": {"c/kernel:2": [*units, 4], "d/kernel:2": [*units, 4]},
    }
    assert roles(coupling)["b/kernel:2"] == ""
    assert stays(coupling) == {"a/kernel:2": "model input", "d/kernel:3": "model output"}


def test_a_grouped_convolution_keeps_as_many_of_each_group() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 6), 6)
    x = conv(net, x, "grouped", (3, 3, 3, 4), 4)
    coupling = net.couple(conv(net, x, "b", (1, 1, 4, 2), 2))
    assert shown(coupling) == {
        "a:1": {"a/kernel:3": [0, 0, 0, 1, 1, 1], "grouped/kernel:3": [0, 0, 1, 1], "b/kernel:2": [0, 0, 1, 1]},
        "a:2": {"a/kernel:3": [0, 1, 2, 0, 1, 2], "grouped/kernel:2": [0, 1, 2]},
        "grouped": {"grouped/kernel:3": [0, 1, 0, 1], "b/kernel:2": [0, 1, 0, 1]},
    }
    cut = coupling.cut({"a:1": [1], "a:2": [0, 2]})
    assert cut.kept["a/kernel"][3].tolist() == [3, 5]


def test_a_depthwise_convolution_written_as_a_grouped_one() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 4), 4)
    x = conv(net, x, "each", (3, 3, 1, 4), 4)
    assert list(shown(net.couple(conv(net, x, "b", (1, 1, 4, 2), 2)))) == ["a"]


def test_several_outputs_of_each_channel() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 2), 2)
    x = conv(net, x, "several", (3, 3, 2, 3), 6, "depthwise_conv")
    coupling = net.couple(conv(net, x, "b", (1, 1, 6, 2), 2))
    assert shown(coupling)["a"]["b/kernel:2"] == [0, 0, 0, 1, 1, 1]
    assert shown(coupling)["several"]["b/kernel:2"] == [0, 1, 2, 0, 1, 2]


def test_channels_that_come_first() -> None:
    net = Net()
    x = net.op(
        "conv",
        (net.input(None, 3, 8, 8), net.parameter("a/kernel", 1, 1, 3, 4)),
        (None, 4, 8, 8),
        data_format="NCHW",
    )
    x = net.op("bias_add", (x, net.parameter("a/bias", 4)), (None, 4, 8, 8), data_format="NCHW")
    x = net.op("max_pool", (x,), (None, 4, 4, 4), data_format="NCHW", ksize=(1, 1, 2, 2))
    x = net.op("reshape", (x, net.constant([-1, 64])), (None, 64))
    coupling = net.couple(net.dense(x, "b", 64, 2))
    assert shown(coupling)["a"]["b/kernel:0"] == np.repeat(range(4), 16).tolist()


def test_flatten_and_back() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 4), 4)
    x = net.op("reshape", (x, net.constant([-1, 256])), (None, 256))
    x = net.dense(x, "b", 256, 6)
    x = net.op("reshape", (x, net.constant([-1, 2, 3])), (None, 2, 3))
    coupling = net.couple(net.dense(x, "c", 3, 2, (None, 2)))
    found = shown(coupling)
    assert found["a"]["b/kernel:0"] == [0, 1, 2, 3] * 64
    assert found["b"] == {"b/kernel:1": [0, 1, 2] * 2, "c/kernel:0": [0, 1, 2]}


def test_heads_of_one_kernel() -> None:
    """Queries, keys and values of one product, as (3, heads, features)."""
    net = Net()
    x = net.dense(net.input(None, 5, 8), "qkv", 8, 24, (None, 5))
    x = net.op("reshape", (x, net.constant([-1, 5, 3, 2, 4])), (None, 5, 3, 2, 4))
    x = net.op("transpose", (x,), (3, None, 2, 5, 4), order=(2, 0, 3, 1, 4))
    q, k, v = net.op("unstack", (x,), [(None, 2, 5, 4)] * 3, axis=0)
    scores = net.op("matmul", (q, k), (None, 2, 5, 5), transpose_b=True)
    x = net.op("matmul", (net.op("softmax", (scores,), (None, 2, 5, 5)), v), (None, 2, 5, 4))
    x = net.op("transpose", (x,), (None, 5, 2, 4), order=(0, 2, 1, 3))
    x = net.op("reshape", (x, net.constant([-1, 5, 8])), (None, 5, 8))
    coupling = net.couple(net.dense(x, "out", 8, 3, (None, 5)))
    heads, features = ([0] * 4 + [1] * 4), [0, 1, 2, 3] * 2
    assert shown(coupling) == {
        "qkv:1": {"qkv/kernel:1": heads * 3, "out/kernel:0": heads},
        "qkv:2": {"qkv/kernel:1": features * 3, "out/kernel:0": features},
    }
    assert [group.joint for group in coupling.groups] == [False, True]
    assert all(group.exact for group in coupling.groups)


def test_features_merged_with_the_batch_are_found_again() -> None:
    net = Net()
    x = net.op("reshape", (net.dense(net.input(None, 3), "a", 3, 8), net.constant([-1, 2, 4])), (None, 2, 4))
    x = net.op("reshape", (x, net.constant([-1, 4])), (None, 4))
    x = net.dense(x, "b", 4, 4)
    x = net.op("reshape", (x, net.constant([-1, 2, 4])), (None, 2, 4))
    x = net.op("reshape", (x, net.constant([-1, 8])), (None, 8))
    coupling = net.couple(net.dense(x, "c", 8, 2))
    assert shown(coupling)["a:1"] == {"a/kernel:1": [0] * 4 + [1] * 4, "c/kernel:0": [0] * 4 + [1] * 4}
    assert shown(coupling)["b"] == {"b/kernel:1": [0, 1, 2, 3], "c/kernel:0": [0, 1, 2, 3] * 2}


def test_an_uneven_reshape_lets_units_stay() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 12)
    x = net.op("reshape", (x, net.constant([-1, 3, 4])), (None, 3, 4))
    x = net.op("reshape", (x, net.constant([-1, 2, 6])), (None, 2, 6), "odd")
    coupling = net.couple(net.dense(x, "b", 6, 2, (None, 2)))
    assert coupling.groups == ()
    assert "in odd" in stays(coupling)["a/kernel:1"]
    assert "in odd" in stays(coupling)["b/kernel:0"]


def test_sums_of_branches_and_what_is_broadcast() -> None:
    net = Net()
    given = net.input(None, 3)
    x, y = net.dense(given, "a", 3, 4), net.dense(given, "b", 3, 4)
    x = net.op("multiply", (net.op("add", (x, y), (None, 4)), net.parameter("s/scale", 1, 4)), (None, 4))
    x = net.op("multiply", (x, net.dense(given, "gate", 3, 1)), (None, 4))
    coupling = net.couple(net.dense(x, "c", 4, 2))
    assert sorted(shown(coupling)["a"]) == ["a/kernel:1", "b/kernel:1", "c/kernel:0", "s/scale:1"]


@pytest.mark.parametrize(("fill", "is_free"), [([1.0, 1.0, 1.0], False), ([1.0, 2.0, 3.0], False), (1.0, True)])
def test_constants_hold_units_where_they_are(fill: Any, is_free: bool) -> None:
    net = Net()
    x = net.op("add", (net.dense(net.input(None, 3), "a", 3, 3), net.constant(fill)), (None, 3))
    coupling = net.couple(net.dense(x, "b", 3, 2))
    assert bool(coupling.groups) is is_free
    if not is_free:
        assert stays(coupling)["a/kernel:1"] == "a constant of shape 3 in the model"


def test_a_constant_with_one_number_in_all_places_holds_nothing() -> None:
    net = Net()
    ones = net.op("constant", (), (3,), fill=1.0)
    x = net.op("add", (net.dense(net.input(None, 3), "a", 3, 3), ones), (None, 3))
    assert list(shown(net.couple(net.dense(x, "b", 3, 2)))) == ["a"]


def test_concatenation_and_what_normalises_it() -> None:
    net = Net()
    given = net.input(None, 3)
    x = net.op("concat", (net.dense(given, "a", 3, 2), net.dense(given, "b", 3, 3)), (None, 5), axis=-1)
    x = net.op("multiply", (x, net.parameter("norm/gamma", 5)), (None, 5))
    coupling = net.couple(net.dense(x, "c", 5, 2))
    assert shown(coupling) == {
        "a": {"a/kernel:1": [0, 1], "norm/gamma:0": [0, 1, -1, -1, -1], "c/kernel:0": [0, 1, -1, -1, -1]},
        "b": {"b/kernel:1": [0, 1, 2], "norm/gamma:0": [-1, -1, 0, 1, 2], "c/kernel:0": [-1, -1, 0, 1, 2]},
    }


def test_equal_parts_are_coupled() -> None:
    """The gates of a recurrent cell, by a split or by slices."""
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 6)
    first, second = net.op("split", (x,), [(None, 3)] * 2, axis=1)
    x = net.op("multiply", (first, second), (None, 3))
    y = net.dense(x, "b", 3, 6)
    masks: Any = {"ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0, "end_mask": 1}
    steps = net.constant([1, 1])
    low = net.op(
        "strided_slice", (y, net.constant([0, 0]), net.constant([0, 2]), steps), (None, 2), begin_mask=3, **masks
    )
    high = net.op("slice", (y, net.constant([0, 4]), net.constant([-1, 2])), (None, 2))
    coupling = net.couple(net.dense(net.op("add", (low, high), (None, 2)), "c", 2, 2))
    found = shown(coupling)
    assert found["a"] == {"a/kernel:1": [0, 1, 2] * 2, "b/kernel:0": [0, 1, 2]}
    assert found["b"] == {"b/kernel:1": [0, 1] * 3, "c/kernel:0": [0, 1]}


def test_unequal_parts_are_units_of_their_own() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 5)
    few, many = net.op("split", (x,), [(None, 2), (None, 3)], axis=1)
    coupling = net.couple(net.dense(few, "b", 2, 2), net.dense(many, "c", 3, 2))
    assert shown(coupling) == {
        "a:1": {"a/kernel:1": [0, 1, -1, -1, -1], "b/kernel:0": [0, 1]},
        "a:2": {"a/kernel:1": [-1, -1, 0, 1, 2], "c/kernel:0": [0, 1, 2]},
    }
    assert coupling.kept(few, {"a:2": [0]})[1] is None
    assert coupling.sizes({"a:2": [0]})[many] == (None, 1)


def test_one_index_is_taken_for_what_it_is() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 5)
    masks: Any = {"ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 2, "begin_mask": 1, "end_mask": 1}
    ends = net.constant([0, 2]), net.constant([0, 3]), net.constant([1, 1])
    x = net.op("strided_slice", (x, *ends), (None,), "pick", **masks)
    assert stays(net.couple(x))["a/kernel:1"] == "Strided_Slice in pick takes one index of it"


def test_shuffled_channels() -> None:
    """(2, 3) of one concatenation, transposed, and merged again."""
    net = Net()
    given = net.input(None, 3)
    x = net.op("concat", (net.dense(given, "a", 3, 3), net.dense(given, "b", 3, 3)), (None, 6), axis=1)
    x = net.op("reshape", (x, net.constant([-1, 2, 3])), (None, 2, 3))
    x = net.op("transpose", (x,), (None, 3, 2), order=(0, 2, 1))
    x = net.op("reshape", (x, net.constant([-1, 6])), (None, 6))
    coupling = net.couple(net.dense(x, "c", 6, 2))
    assert shown(coupling) == {
        "a": {"a/kernel:1": [0, 1, 2], "b/kernel:1": [0, 1, 2], "c/kernel:0": [0, 0, 1, 1, 2, 2]}
    }


@pytest.mark.parametrize("kind", ["reduce_mean", "reduce_max", "reduce_min", "reduce_product", "softmax"])
def test_what_computes_with_all_units_is_not_exact(kind: Kind) -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    attrs: dict[str, Any] = {} if kind == "softmax" else {"axes": (-1,), "keep_dims": True}
    other = net.op(kind, (x,), (None, 4 if kind == "softmax" else 1), "norm", **attrs)
    (group,) = net.couple(net.dense(net.op("subtract", (x, other), (None, 4)), "b", 4, 2)).groups
    assert not group.exact
    assert group.reasons == (f"{kind.title()} in norm",)


def test_a_sum_of_what_is_zero_is_exact() -> None:
    net = Net()
    x = net.op("relu", (net.dense(net.input(None, 3), "a", 3, 4),), (None, 4))
    total = net.op("reduce_sum", (net.op("multiply", (x, x), (None, 4)),), (None,), axes=(1,))
    (group,) = net.couple(total).groups
    assert group.exact
    assert group.joint


def test_a_sum_of_what_is_not_zero_is_not_exact() -> None:
    net = Net()
    x = net.op("sigmoid", (net.dense(net.input(None, 3), "a", 3, 4),), (None, 4))
    (group,) = net.couple(net.op("reduce_sum", (x,), (None,), axes=(1,))).groups
    assert not group.exact


def test_a_kernel_that_is_computed_is_consumed_where_zero_stays_zero() -> None:
    for kind, exact in (("abs", True), ("sigmoid", False)):
        net = Net()
        x = net.dense(net.input(None, 3), "a", 3, 4)
        kernel = net.op(kind, (net.parameter("b/kernel", 4, 2),), (4, 2))  # type: ignore[arg-type]
        (group,) = net.couple(net.op("matmul", (x, kernel), (None, 2), "b")).groups
        assert group.exact is exact


def test_a_table_is_looked_up_by_rows_and_makes_columns() -> None:
    net = Net()
    table = net.parameter("table/embeddings", 7, 4)
    x = net.op("gather", (table, net.input(None, 5)), (None, 5, 4), "table", axis=0, batch_dims=0)
    tied = net.op("transpose", (table,), (4, 7), order=(1, 0))
    coupling = net.couple(net.op("matmul", (x, tied), (None, 5, 7), "logits"))
    (group,) = coupling.groups
    assert roles(coupling) == {"table/embeddings:1": "producesconsumes"}
    assert group.size == 4
    assert stays(coupling) == {"table/embeddings:0": "Gather in table looks up by its indices"}


def test_several_indices_at_once() -> None:
    net = Net()
    table = net.parameter("table/embeddings", 7, 3, 4)
    x = net.op("gather_nd", (table, net.input(None, 2)), (None, 4), "table")
    coupling = net.couple(net.dense(x, "b", 4, 2))
    assert shown(coupling)["table"] == {"table/embeddings:2": [0, 1, 2, 3], "b/kernel:0": [0, 1, 2, 3]}
    assert set(stays(coupling)) >= {"table/embeddings:0", "table/embeddings:1"}


def test_numbers_around_units_stay() -> None:
    net = Net()
    given = net.input(None, 3)
    x = net.op(
        "pad", (net.dense(given, "a", 3, 2), net.constant([[0, 0], [1, 1]])), (None, 4), pads=[[0, 0], [1, 1]], fill=0
    )
    x = net.op("add", (x, net.dense(given, "b", 3, 4)), (None, 4))
    coupling = net.couple(net.dense(x, "c", 4, 2))
    assert shown(coupling) == {
        "a": {"a/kernel:1": [0, 1], "b/kernel:1": [-1, 0, 1, -1], "c/kernel:0": [-1, 0, 1, -1]},
    }


def test_tiles_broadcasts_and_reversals() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 3)
    x = net.op("tile", (x, net.constant([1, 2])), (None, 6))
    x = net.op("reverse", (x, net.constant([1])), (None, 6))
    ones = net.op("broadcast", (net.parameter("s/scale", 1), net.constant([6])), (6,))
    coupling = net.couple(net.dense(net.op("multiply", (x, ones), (None, 6)), "b", 6, 2))
    assert shown(coupling) == {"a": {"a/kernel:1": [0, 1, 2], "b/kernel:0": [2, 1, 0] * 2}}


def test_an_unknown_operation_holds_what_it_takes_and_makes() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    x = net.op("other", (x,), (None, 4), "odd")
    coupling = net.couple(net.dense(x, "b", 4, 2))
    reason = "what Other in odd does is not known"
    assert stays(coupling) == {
        "a/kernel:0": "model input",
        "a/kernel:1": reason,
        "b/kernel:0": reason,
        "b/kernel:1": "model output",
    }


def test_units_that_meet_positions_stay() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 4), 4)
    x = net.op("add", (x, net.parameter("places/embedding", 8, 1)), (None, 8, 8, 4), "places")
    assert stays(net.couple(x))["places/embedding:0"] == "Add in places meets it with positions"


def test_tied_parameters_and_shared_layers_have_one_set_of_labels() -> None:
    net = Net()
    kernel = net.parameter("shared/kernel", 4, 4)
    x = net.dense(net.input(None, 3), "a", 3, 4)
    for _ in range(2):
        x = net.op("relu", (net.op("matmul", (x, kernel), (None, 4), "shared"),), (None, 4))
    coupling = net.couple(net.dense(x, "b", 4, 2))
    assert sorted(shown(coupling)["shared"]) == ["a/kernel:1", "b/kernel:0", "shared/kernel:0", "shared/kernel:1"]


def test_a_normalisation_in_one_operation() -> None:
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 4), 4)
    vectors = tuple(net.parameter(f"norm/{name}", 4) for name in ("gamma", "beta", "mean", "variance"))
    x, *_ = net.op("batch_norm", (x, *vectors), [(None, 8, 8, 4), (4,), (4,), ()], data_format="NHWC")
    (group,) = net.couple(conv(net, x, "b", (1, 1, 4, 2), 2)).groups
    assert [member.path for member in group.members if member.is_vector] == [
        *("norm/gamma", "norm/beta", "norm/mean", "norm/variance"),
    ]
    assert group.exact


def test_stacked_tensors_have_the_same_units() -> None:
    net = Net()
    given = net.input(None, 3)
    x = net.op("stack", (net.dense(given, "a", 3, 4), net.dense(given, "b", 3, 4)), (None, 2, 4), axis=1)
    coupling = net.couple(net.dense(x, "c", 4, 2, (None, 2)))
    assert sorted(shown(coupling)["a"]) == ["a/kernel:1", "b/kernel:1", "c/kernel:0"]


def test_new_axes_and_the_rest_of_them() -> None:
    """Of `x[..., None, 1:3]` only the last axis is cut."""
    net = Net()
    x = net.dense(net.input(None, 7, 3), "a", 3, 5, (None, 7))
    masks: Any = {"ellipsis_mask": 1, "new_axis_mask": 2, "shrink_axis_mask": 0, "begin_mask": 0, "end_mask": 0}
    ends = net.constant([0, 0, 1]), net.constant([0, 0, 3]), net.constant([1, 1, 1])
    x = net.op("strided_slice", (x, *ends), (None, 7, 1, 2), **masks)
    coupling = net.couple(net.dense(x, "b", 2, 2, (None, 7, 1)))
    assert shown(coupling) == {
        "a:1": {"a/kernel:1": [0, -1, -1, 1, 2]},
        "a:2": {"a/kernel:1": [-1, 0, 1, -1, -1], "b/kernel:0": [0, 1]},
    }


def test_every_other_unit_cannot_be_taken() -> None:
    net = Net()
    masks: Any = {"ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0, "begin_mask": 3, "end_mask": 3}
    ends = net.constant([0, 0]), net.constant([0, 0]), net.constant([1, 2])
    x = net.op("strided_slice", (net.dense(net.input(None, 3), "a", 3, 4), *ends), (None, 2), "odd", **masks)
    assert stays(net.couple(net.dense(x, "b", 2, 2)))["a/kernel:1"] == "Strided_Slice in odd takes a part of it"


@pytest.mark.parametrize(
    ("kind", "shape", "attrs"),
    [
        ("mirror_pad", (None, 6), {"pads": [[0, 0], [1, 1]]}),
        ("unstack", (None,), {"axis": 1}),
        ("reduce_sum", (None,), {}),
        ("transpose", (4, None), {}),
        ("split", (None, 4), {}),
        ("concat", (None, 4), {}),
        ("pad", (None, 6), {}),
        ("gather", (None, 2), {}),
        ("max_pool", (None, 4), {"ksize": (1, 2)}),
    ],
)
def test_what_is_not_known_or_not_possible_holds_units(kind: Kind, shape: Any, attrs: dict[str, Any]) -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    operands = (x, net.input(1)) if kind in ("gather", "transpose", "reduce_sum", "pad") else (x,)
    x = net.op(kind, operands, shape, "odd", **attrs)
    coupling = net.couple(x)
    assert kind.title() in stays(coupling)["a/kernel:1"]


def test_a_diagonal_of_wrong_shapes_is_not_believed() -> None:
    """A result of another shape than its rule expects."""
    net = Net()
    x = net.op("relu", (net.dense(net.input(None, 3), "a", 3, 4),), (None, 5), "odd")
    assert stays(net.couple(net.dense(x, "b", 5, 2)))["a/kernel:1"] == "what Relu in odd does is not known"


def test_axes_that_do_not_fit_stay() -> None:
    """(2, 3) and (3, 2) of six units, added."""
    net = Net()
    given = net.input(None, 3)
    parts = [
        net.op("reshape", (net.dense(given, name, 3, 6), net.constant([-1, *shape])), (None, *shape))
        for name, shape in (("a", (2, 3)), ("b", (3, 2)))
    ]
    flat = [net.op("reshape", (part, net.constant([-1, 6])), (None, 6)) for part in parts]
    x = net.op("add", tuple(flat), (None, 6), "odd")
    coupling = net.couple(net.dense(x, "c", 6, 2))
    assert not any(group.size == 6 for group in coupling.groups)
    graph = net.graph(x)
    assert coupling.zeroed(graph, {group.name: [0] for group in coupling.groups}).keys() <= set(graph.parameters)


def test_functions_with_numbers() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    x = net.op("clip", (x, net.constant(-1.0), net.constant(1.0)), (None, 4))
    x = net.op("select", (net.op("compare", (x, net.constant(0.0)), (None, 4)), x, net.constant(0.0)), (None, 4))
    x = net.op("maximum", (net.op("elementwise", (x,), (None, 4), keeps_zero=True), net.constant(0.0)), (None, 4))
    x = net.op("add", (x, net.op("fill_like", (x,), (None, 4))), (None, 4))
    assert list(shown(net.couple(net.dense(x, "b", 4, 2)))) == ["a"]


def test_positions_in_the_batch() -> None:
    """As for a dilated convolution."""
    net = Net()
    x = conv(net, net.input(None, 8, 8, 3), "a", (1, 1, 3, 4), 4)
    x = net.op("space_to_batch", (x, net.constant([2, 2]), net.constant([[0, 0], [0, 0]])), (None, 4, 4, 4))
    x = net.op("conv", (x, net.parameter("b/kernel", 1, 1, 4, 5)), (None, 4, 4, 5), data_format="NHWC")
    x = net.op("batch_to_space", (x, net.constant([2, 2]), net.constant([[0, 0], [0, 0]])), (None, 8, 8, 5))
    coupling = net.couple(conv(net, x, "c", (1, 1, 5, 2), 2))
    assert {name: len(members) for name, members in shown(coupling).items()} == {"a": 2, "b": 2}
    assert coupling.sizes({}, batch=1)[x] == (1, 8, 8, 5)


def test_a_kernel_of_a_sum_is_consumed_in_all_that_it_is_made_of() -> None:
    """A kernel and a product of two of low rank."""
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    low, high = net.parameter("low/kernel", 4, 2), net.parameter("high/kernel", 2, 5)
    update = net.op("matmul", (low, high), (4, 5))
    x = net.op("matmul", (x, net.op("add", (net.parameter("b/kernel", 4, 5), update), (4, 5))), (None, 5), "b")
    output = net.dense(x, "c", 5, 2)
    coupling = net.couple(output)
    assert roles(coupling) == {
        "a/kernel:1": "produces",
        "low/kernel:0": "consumes",
        "b/kernel:0": "consumes",
        "low/kernel:1": "consumes",
        "high/kernel:0": "consumes",
        "high/kernel:1": "produces",
        "b/kernel:1": "produces",
        "c/kernel:0": "consumes",
    }
    graph = net.graph(output)
    assert sorted(coupling.zeroed(graph, {"a": [0]})) == ["b/kernel", "low/kernel"]
    assert all(group.exact for group in coupling.groups)


def test_a_gain_of_a_kernel_goes_with_it() -> None:
    net = Net()
    gain, direction = net.parameter("b/gain", 5), net.parameter("b/direction", 3, 5)
    x = net.op("matmul", (net.input(None, 3), net.op("multiply", (gain, direction), (3, 5))), (None, 5), "b")
    assert roles(net.couple(net.dense(x, "c", 5, 2))) == {
        "b/gain:0": "produces",
        "b/direction:1": "produces",
        "c/kernel:0": "consumes",
    }
