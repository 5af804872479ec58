"""What a coupling says of a cut: parameters, shapes, values, and what it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.errors import ConfigError
from bitwidth.graph.labels import Coupling, couple
from tests import nets, reference, zoo
from tests.graph.labels.building import Net, stays


def two_layers() -> tuple[Net, str]:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    return net, net.dense(x, "b", 4, 2)


def test_what_is_left_of_parameters_and_tensors() -> None:
    net, output = two_layers()
    coupling = net.couple(output)
    kept = {"a": [3, 1]}
    cut = coupling.cut(kept)
    assert {path: {axis: left.tolist() for axis, left in axes.items()} for path, axes in cut.kept.items()} == {
        "a/kernel": {1: [1, 3]},
        "b/kernel": {0: [1, 3]},
    }
    assert coupling.shapes(kept) == {"a/kernel": (3, 2), "b/kernel": (2, 2)}
    assert coupling.parameters(kept) == 10
    assert coupling.parameters({}) == 20
    made = next(op.outputs[0] for op in net.ops if op.layer == "a" and op.kind == "matmul")
    assert coupling.sizes(kept)[made] == (None, 2)
    batch, units = coupling.kept(made, kept)
    assert batch is None
    assert units is not None
    assert units.tolist() == [1, 3]


def test_whole_groups_are_not_cut() -> None:
    net, output = two_layers()
    assert not net.couple(output).cut({"a": range(4)})


def test_zeros_stand_where_units_are_consumed() -> None:
    net, output = two_layers()
    graph = net.graph(output)
    zeroed = couple(graph).zeroed(graph, {"a": [0, 2]})
    assert list(zeroed) == ["b/kernel"]
    np.testing.assert_array_equal(zeroed["b/kernel"], [[1, 2], [0, 0], [5, 6], [0, 0]])
    np.testing.assert_array_equal(graph.values["b/kernel"][1], [3, 4])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"c": [0]}, "has no group 'c'; it has: a"),
        ({"a": []}, "expected the indices of units to keep, one at least, from 0 to 3; got \\[\\]"),
        ({"a": [4]}, "from 0 to 3; got \\[4\\]"),
        ({"a": [-1]}, "from 0 to 3"),
        ({"a": [0.5]}, "from 0 to 3"),
        ({"a": 2}, "from 0 to 3; got 2"),
    ],
)
def test_units_that_are_not_there(kept: dict[str, Any], message: str) -> None:
    net, output = two_layers()
    with pytest.raises(ConfigError, match=message):
        net.couple(output).cut(kept)


def test_units_on_a_tensor() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 6)
    x = net.op("reshape", (x, net.constant([-1, 2, 3])), (None, 2, 3))
    flat = net.op("reshape", (x, net.constant([-1, 6])), (None, 6))
    coupling = net.couple(net.dense(flat, "b", 6, 2))
    found = coupling.units_on(flat)
    assert found[0] == {}
    assert {name: units.tolist() for name, units in found[1].items()} == {
        "a:1": [0, 0, 0, 1, 1, 1],
        "a:2": [0, 1, 2, 0, 1, 2],
    }
    (left,) = coupling.kept(flat, {"a:1": [1], "a:2": [0, 2]})[1:]
    assert left is not None
    assert left.tolist() == [3, 5]
    assert coupling.sizes({"a:2": [0]}, batch=4)[flat] == (4, 2)


def test_a_coupling_can_be_sent() -> None:
    net, output = two_layers()
    coupling = pickle.loads(pickle.dumps(net.couple(output)))
    assert coupling.sizes({"a": [0]})[output] == (None, 2)
    assert coupling.parameters({"a": [0]}) == 5


def test_a_tensor_that_is_not_there() -> None:
    net, output = two_layers()
    with pytest.raises(ConfigError, match="no tensor 'none'"):
        net.couple(output).kept("none", {})


def test_both_directions_have_to_keep_as_many() -> None:
    coupling = couple(bw.read(nets.grus()))
    forward, backward = "both/forward_layer/cell", "both/backward_layer/cell"
    assert coupling[forward].same_size == (backward,)
    assert coupling[backward].same_size == (forward,)
    assert coupling["second/cell"].same_size == ()
    with pytest.raises(ConfigError, match="keeps 4 units and both/backward_layer/cell 8"):
        coupling.cut({forward: range(4)})
    assert coupling.shapes({forward: range(4), backward: [1, 3, 5, 7]})["second/cell/kernel"] == (8, 36)


def test_the_table_names_groups_and_reasons() -> None:
    coupling = couple(bw.read(zoo.MODELS["attention_encoder"]()))
    shown = str(coupling)
    assert "no: Mean in norm1" in shown
    assert "GatherV2 in embedding looks up by its indices" in shown
    assert repr(coupling).startswith("<Coupling: 5 groups of 28 units, 3 frozen axes>")


def test_graphs_of_other_backends_are_coupled() -> None:
    """Parameters that no operation hands on."""
    coupling = couple(reference.graph_of(reference.Network([3, 5, 4, 2])))
    assert [(group.name, group.size) for group in coupling.groups] == [("layer0", 5), ("layer1", 4)]
    assert coupling.parameters({"layer0": [0], "layer1": [0, 1]}) == 3 + 1 + 2 + 2 + 4 + 2


def test_what_nothing_reads_stays() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(inputs))
    model.unused = keras.layers.Dense(4, name="unused")
    model.unused.build((None, 3))
    found = couple(bw.read(model))
    assert stays(found)["unused/kernel:1"] == "nothing reads it"
    assert found.groups == ()


def counted(coupling: Coupling) -> dict[str, int]:
    return {group.name: group.size for group in coupling.groups}


def test_what_the_layers_of_keras_are_made_of() -> None:
    """Heads, widths of heads, widths of MLPs, units of recurrent cells, with no rule for any layer."""
    assert counted(couple(bw.read(nets.transformer()))) == {
        "words": 32,
        "attention0/query:1": 4,
        "attention0/query:2": 8,
        "attention0/value": 8,
        "up0": 64,
        "attention1/query:1": 4,
        "attention1/query:2": 8,
        "attention1/value": 8,
        "up1": 64,
    }
    assert counted(couple(bw.read(nets.lstms()))) == {"first/cell": 16, "second/cell": 12}
    assert counted(couple(bw.read(nets.lenet5()))) == {"conv1": 6, "conv2": 16, "fc1": 120, "fc2": 84}
