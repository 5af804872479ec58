from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.encodings import Dense, Masked, Quantized, uniform_levels
from bitwidth.errors import EncodingError, ModelError
from bitwidth.graph import Graph, Layer, Op, Parameter, Structure, Use, Values


def graph() -> Graph:
    """Two layers: a kernel, a bias, a float16 scale and a counter."""
    layers = (Layer("a", "Dense"), Layer("b", "Norm", trainable=False))
    ops = (Op("matmul", "matmul", "a", ("x",), ("y",), ("a/kernel",)),)
    parameters = [
        Parameter("a/kernel", (2, 3), "float32", "kernel", "a"),
        Parameter("a/bias", (3,), "float32", "bias", "a"),
        Parameter("b/gamma", (3,), "float16", "scale", "b", trainable=False),
        Parameter("b/steps", (), "int32", "state", "b"),
    ]
    values: dict[str, NDArray[Any]] = {
        "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 4,
        "a/bias": np.ones(3, np.float32),
        "b/gamma": np.full(3, 2, np.float16),
        "b/steps": np.array(7, np.int32),
    }
    return Graph(Structure("net", ops, (), layers, ("x",), ("y",)), parameters, values)


def test_a_graph_is_its_parameters() -> None:
    net = graph()
    assert len(net) == 4
    assert [parameter.path for parameter in net] == ["a/kernel", "a/bias", "b/gamma", "b/steps"]
    assert net["b/gamma"].role == "scale"
    assert net.name == "net"
    assert [op.kind for op in net.ops] == ["matmul"]
    assert {path: layer.kind for path, layer in net.layers.items()} == {"a": "Dense", "b": "Norm"}
    assert repr(net) == "<Graph 'net': 2 layers, 1 ops, 4 parameters>"


def test_update_makes_a_new_graph_that_shares_the_rest() -> None:
    net = graph()
    after = net.update({"a/bias": np.zeros(3, np.float32)})
    assert after is not net
    assert after.structure is net.structure
    assert net.values["a/bias"].tolist() == [1, 1, 1]
    assert after.values["a/bias"].tolist() == [0, 0, 0]
    assert after.values.value("a/bias") is not net.values.value("a/bias")
    for path in ("a/kernel", "b/gamma", "b/steps"):
        assert after.values.value(path) is net.values.value(path)
        assert after[path] is net[path]


def test_update_of_nothing_shares_everything() -> None:
    net = graph()
    after = net.update()
    assert all(after.values.value(path) is net.values.value(path) for path in net.values)
    assert list(after) == list(net)


def test_values_that_stay_are_read_at_most_once() -> None:
    reads: list[str] = []

    def reader(path: str) -> Any:
        def read() -> NDArray[np.float32]:
            reads.append(path)
            return np.zeros(2, np.float32)

        return read

    paths = ["p", "q"]
    parameters = [Parameter(path, (2,), "float32", "bias", "") for path in paths]
    net = Graph(Structure("net", (), (), (), (), ()), parameters, Values({path: reader(path) for path in paths}))
    after = net.update({"p": np.ones(2, np.float32)})
    assert reads == []
    assert after.values["q"] is net.values["q"]
    assert reads == ["q"]


def test_an_encoding_projects_the_present_values() -> None:
    net = graph()
    grid = Quantized(uniform_levels(4), np.array([[1.0]], np.float32), (2, 3))
    after = net.update(encodings={"a/kernel": grid})
    assert after["a/kernel"].encoding is grid
    assert after.values["a/kernel"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert isinstance(net["a/kernel"].encoding, Dense)
    assert net.values["a/kernel"][0, 1] == 0.25
    assert after["a/bias"] is net["a/bias"]


def test_an_encoding_with_values_takes_these() -> None:
    mask = Masked(np.array([True, False, True]))
    after = graph().update({"a/bias": np.array([5, 0, 6], np.float32)}, {"a/bias": mask})
    assert after.values["a/bias"].tolist() == [5, 0, 6]
    assert after["a/bias"].encoding is mask


@pytest.mark.parametrize(
    ("path", "values", "dtype"),
    [
        ("a/bias", np.zeros(3, np.float64), "float32"),
        ("a/bias", np.zeros(3, np.int64), "float32"),
        ("b/gamma", np.zeros(3, np.float32), "float16"),
        ("b/steps", np.array(3, np.int64), "int32"),
    ],
)
def test_update_casts_to_the_dtype_of_the_parameter(path: str, values: NDArray[Any], dtype: str) -> None:
    assert graph().update({path: values}).values[path].dtype == dtype


def test_an_encoding_of_a_half_precision_parameter_keeps_its_dtype() -> None:
    after = graph().update(encodings={"b/gamma": Dense("float16")})
    assert after.values["b/gamma"].dtype == np.float16


def test_arrays_are_read_only() -> None:
    net = graph()
    after = net.update({"a/bias": np.zeros(3, np.float32)}, {"a/kernel": Dense("float16")})
    for path in net.values:
        for array in (net.values[path], after.values[path]):
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_a_path_that_the_model_does_not_have() -> None:
    net = graph()
    with pytest.raises(ModelError, match="no parameter 'c/kernel'; it has: a/kernel, a/bias"):
        net["c/kernel"]
    with pytest.raises(ModelError, match="c/kernel"):
        net.update({"c/kernel": np.zeros(3)})
    with pytest.raises(ModelError, match="c/kernel"):
        net.update(encodings={"c/kernel": Dense()})


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(EncodingError, match=r"a/kernel: expected values of shape \(2, 3\), got \(3, 2\)"):
        graph().update({"a/kernel": np.zeros((3, 2), np.float32)})


def test_an_encoding_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EncodingError, match="a/kernel"):
        graph().update(encodings={"a/kernel": Masked(np.ones(3, bool))})


def test_parameters_and_values_have_to_match() -> None:
    structure = Structure("net", (), (), (), (), ())
    parameter = Parameter("p", (1,), "float32", "bias", "")
    with pytest.raises(ModelError, match="without a partner: p, q"):
        Graph(structure, [parameter], {"q": np.zeros(1)})
    with pytest.raises(ModelError, match="without a partner: p"):
        Graph(structure, [parameter], {})


def test_axes_come_from_the_first_use_that_knows_them() -> None:
    unknown = Use("read", "read", "a")
    known = Use("matmul", "matmul", "a", channel_axes=(0,), input_axes=(1,))
    other = Use("lookup", "gather", "b", channel_axes=(1,), input_axes=(0,))
    tied = Parameter("p", (5, 4), "float32", "embedding", "a", uses=(unknown, known, other))
    assert (tied.channel_axes, tied.input_axes) == ((0,), (1,))


@pytest.mark.parametrize(
    ("shape", "role", "channels", "inputs"),
    [
        ((5, 4), "kernel", (1,), (0,)),
        ((5, 4), "embedding", (0,), (1,)),
        ((3, 3, 5, 4), "kernel", (3,), (0, 1, 2)),
        ((4,), "bias", (0,), ()),
        ((), "state", (), ()),
    ],
)
def test_axes_by_role_where_no_use_knows_them(shape: Any, role: Any, channels: Any, inputs: Any) -> None:
    parameter = Parameter("p", shape, "float32", role, "")
    assert (parameter.channel_axes, parameter.input_axes) == (channels, inputs)
    assert parameter.size == int(np.prod(shape))


@pytest.mark.parametrize(
    ("dtype", "is_float"),
    [("float32", True), ("bfloat16", True), ("float16", True), ("int32", False), ("string", False)],
)
def test_what_is_a_float(dtype: str, is_float: bool) -> None:
    assert Parameter("p", (1,), dtype, "other", "").is_float is is_float


def test_freezing_a_layer_freezes_what_is_in_it() -> None:
    net = graph()
    frozen = net.freeze(["a"])
    assert not frozen.layers["a"].trainable
    assert [parameter.path for parameter in frozen if parameter.trainable] == ["b/steps"]
    assert net.layers["a"].trainable
    assert net["a/kernel"].trainable
    assert all(frozen.values.value(path) is net.values.value(path) for path in net.values)
    with pytest.raises(ModelError, match="no layer 'c'"):
        net.freeze(["c"])


@pytest.mark.parametrize("name", ["structure", "parameters", "values"])
def test_what_a_graph_says_cannot_be_exchanged(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(graph(), name, None)


def test_parameters_of_a_graph_cannot_be_exchanged() -> None:
    with pytest.raises(TypeError):
        graph().parameters["a/kernel"] = None  # type: ignore[index]
