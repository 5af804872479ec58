import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bitwidth.backends.tensorflow.reading.graphs import read_graph, traced
from bitwidth.errors import ModelError
from bitwidth.graph import Graph, Parameter
from tests import real, zoo


@pytest.fixture(scope="module", params=zoo.MODELS)
def read(request: pytest.FixtureRequest) -> tuple[str, Any, Graph]:
    model = zoo.MODELS[request.param]()
    return request.param, model, read_graph(model)


def test_every_variable_is_one_parameter_with_its_value(read: tuple[str, Any, Graph]) -> None:
    _, model, graph = read
    variables = model.variables
    assert [parameter.index for parameter in graph] == list(range(len(variables)))
    assert len({parameter.path for parameter in graph}) == len(variables)
    trainable = {id(variable) for variable in model.trainable_variables}
    for parameter, variable in zip(graph, variables, strict=True):
        assert parameter.shape == tuple(variable.shape)
        assert parameter.dtype == variable._value.dtype.name
        assert parameter.trainable == (id(variable) in trainable)
        np.testing.assert_array_equal(graph.values[parameter.path], variable._value.numpy())


def test_every_parameter_that_matters_has_uses_and_a_role(read: tuple[str, Any, Graph]) -> None:
    name, _, graph = read
    for parameter in graph:
        if not parameter.is_float:
            assert parameter.role == "state"
        elif not (name == "normalization" and parameter.layer == "normalize"):
            assert parameter.uses
            assert all(use.channel_axes for use in parameter.uses)
            assert parameter.role != "other"


def test_records_refer_to_each_other(read: tuple[str, Any, Graph]) -> None:
    _, _, graph = read
    made: set[str] = set()
    paths = {"", *graph.layers}
    for op in graph.ops:
        assert made.issuperset(op.inputs), op
        assert made.isdisjoint(op.outputs)
        made.update(op.outputs)
        assert op.layer in paths
        assert set(op.parameters) <= set(graph.parameters)
    assert made == {tensor.name for tensor in graph.structure.tensors}
    assert made.issuperset((*graph.structure.inputs, *graph.structure.outputs))
    ops = {op.name: op for op in graph.ops}
    for parameter in graph:
        assert parameter.layer in paths
        for use in parameter.uses:
            assert ops[use.op].kind == use.kind
            assert parameter.path in ops[use.op].parameters
    for layer in graph.layers.values():
        assert layer.parent in paths
        for call in layer.calls:
            assert made.issuperset((*call.inputs, *call.outputs))


def test_reading_leaves_the_model_as_it_was(read: tuple[str, Any, Graph]) -> None:
    name, model, _ = read
    x = keras.tree.map_structure(tf.constant, zoo.batch(name))
    before = [variable.numpy() for variable in model.variables]
    expected = keras.tree.flatten(model(x))
    built = [layer.built for layer in model._flatten_layers()]
    call = keras.Layer.__call__
    read_graph(model)
    assert keras.Layer.__call__ is call
    assert model.losses == []
    assert [layer.built for layer in model._flatten_layers()] == built
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    for left, right in zip(keras.tree.flatten(model(x)), expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_paths_are_the_same_each_time_a_model_is_built(read: tuple[str, Any, Graph]) -> None:
    name, _, graph = read
    keras.layers.Dense(1), keras.layers.Embedding(2, 1), keras.layers.GRU(1)  # names from Keras's counters move on
    again = read_graph(zoo.MODELS[name]())
    assert list(again.parameters) == list(graph.parameters)


def test_no_name_of_a_layer_is_used_up() -> None:
    model = zoo.masked_birnn()
    first = layers.Dense(1).name
    read_graph(model)
    number = int(first.rpartition("_")[2]) if "_" in first else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"


# What is read, layer by layer: role, channel axes, input axes.
EXPECTED: dict[str, dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]]] = {
    "mlp": {"hidden/kernel": ("kernel", (1,), (0,)), "hidden/bias": ("bias", (0,), ())},
    "convnet_bn": {
        "conv1/kernel": ("kernel", (3,), (0, 1, 2)),
        "bn1/gamma": ("scale", (0,), ()),
        "bn1/beta": ("offset", (0,), ()),
        "bn1/moving_mean": ("mean", (0,), ()),
        "bn1/moving_variance": ("variance", (0,), ()),
        "gn/gamma": ("scale", (0,), ()),
        "gn/beta": ("offset", (0,), ()),
    },
    "subclassed_residual": {"blocks_1/up/kernel": ("kernel", (1,), (0,)), "norm/gamma": ("scale", (0,), ())},
    "lists_and_dicts": {
        "mixture/expert": ("kernel", (1,), (0,)),
        "mixture/expert_1": ("kernel", (1,), (0,)),
        "mixture/parts_gain": ("scale", (0,), ()),
        "mixture/shift": ("bias", (0,), ()),
    },
    "lstm_gru_bidirectional": {
        "lstm/cell/kernel": ("kernel", (1,), (0,)),
        "lstm/cell/recurrent_kernel": ("recurrent_kernel", (1,), (0,)),
        "lstm/cell/bias": ("bias", (0,), ()),
        "both/backward_inner/cell/recurrent_kernel": ("recurrent_kernel", (1,), (0,)),
        "gru/cell/recurrent_kernel": ("recurrent_kernel", (1,), (0,)),
        "gru/cell/bias": ("bias", (1,), (0,)),
        "steps/per_step/kernel": ("kernel", (1,), (0,)),
    },
    "attention_encoder": {
        "embedding/embeddings": ("embedding", (0,), (1,)),
        "attention/query/kernel": ("kernel", (1, 2), (0,)),
        "attention/key/kernel": ("kernel", (1, 2), (0,)),
        "attention/value/kernel": ("kernel", (1, 2), (0,)),
        "attention/value/bias": ("bias", (0, 1), ()),
        "attention/attention_output/kernel": ("kernel", (2,), (0, 1)),
        "norm1/gamma": ("scale", (0,), ()),
        "norm1/beta": ("offset", (0,), ()),
    },
    "tied_language_model": {"table/embeddings": ("embedding", (0,), (1,))},
    "einsum_dense": {
        "heads/kernel": ("kernel", (1, 2), (0,)),
        "heads/bias": ("bias", (0, 1), ()),
        "join/kernel": ("kernel", (2,), (0, 1)),
    },
    "all_convs": {
        "grouped/kernel": ("kernel", (3,), (0, 1, 2)),
        "depthwise/kernel": ("kernel", (2, 3), (0, 1)),
        "separable/depthwise_kernel": ("kernel", (2, 3), (0, 1)),
        "separable/pointwise_kernel": ("kernel", (3,), (0, 1, 2)),
        "transpose/kernel": ("kernel", (2,), (0, 1, 3)),
        "dilated/kernel": ("kernel", (3,), (0, 1, 2)),
        "conv1d/kernel": ("kernel", (2,), (0, 1)),
        "depthwise1d/kernel": ("kernel", (1, 2), (0,)),
        "transpose1d/kernel": ("kernel", (1,), (0, 2)),
        "conv3d/kernel": ("kernel", (4,), (0, 1, 2, 3)),
        "transpose3d/kernel": ("kernel", (3,), (0, 1, 2, 4)),
    },
    "normalization": {"normalize/mean": ("mean", (0,), ()), "normalize/variance": ("variance", (0,), ())},
    "mixed_float16": {"conv/kernel": ("kernel", (3,), (0, 1, 2)), "hidden/kernel": ("kernel", (1,), (0,))},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_roles_and_axes(name: str) -> None:
    graph = read_graph(zoo.MODELS[name]())
    found = {path: (graph[path].role, graph[path].channel_axes, graph[path].input_axes) for path in EXPECTED[name]}
    assert found == EXPECTED[name]


def uses(parameter: Parameter) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    return [(use.kind, use.layer, use.channel_axes, use.input_axes) for use in parameter.uses]


def test_a_tied_table_is_one_parameter_with_a_use_for_each_end() -> None:
    graph = read_graph(zoo.tied_language_model())
    assert uses(graph["table/embeddings"]) == [("gather", "table", (0,), ()), ("matmul", "", (0,), (1,))]


def test_shared_layers_have_their_calls() -> None:
    graph = read_graph(zoo.nested_shared())
    assert len(graph.layers["inner"].calls) == len(graph.layers["inner/inner_dense"].calls) == 2
    assert [use.layer for use in graph["shared/kernel"].uses] == ["shared", "shared"]
    first, second = graph.layers["shared"].calls
    assert first.inputs == graph.structure.inputs
    assert second.inputs == graph.layers["inner"].calls[0].outputs


def test_a_layer_in_two_places_has_two_paths() -> None:
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential([keras.Input((3,)), shared], name="inner")
    inputs = keras.Input((3,))
    graph = read_graph(keras.Model(inputs, inner(shared(inputs))))
    assert graph["shared/kernel"].aliases == ("inner/shared/kernel",)
    assert [use.layer for use in graph["shared/kernel"].uses] == ["shared", "shared"]
    assert set(graph.parameters) == {"shared/kernel", "shared/bias"}


def test_frozen_layers() -> None:
    graph = read_graph(zoo.frozen_layers())
    assert {parameter.path for parameter in graph if not parameter.trainable} == {
        "frozen/kernel",
        "frozen/bias",
        "bn/moving_mean",
        "bn/moving_variance",
    }
    assert not graph.layers["frozen"].trainable


def test_loops_are_entered() -> None:
    graph = read_graph(zoo.lstm_gru_bidirectional())
    (use,) = graph["lstm/cell/recurrent_kernel"].uses
    assert "/while/body/" in use.op
    assert use.layer == "lstm/cell"
    loop = next(op for op in graph.ops if op.kind == "loop" and op.layer == "lstm")
    assert "lstm/cell/kernel" in loop.parameters
    assert dict(loop.attributes)["body_outputs"]


def test_unknown_sizes_stay_unknown() -> None:
    graph = read_graph(zoo.none_dims())
    shapes = {tensor.name: tensor.shape for tensor in graph.structure.tensors}
    assert [shapes[name] for name in graph.structure.inputs] == [(None, None, None, 3), (None, None, 3)]


def test_attributes_are_plain_data() -> None:
    graph = read_graph(zoo.convnet_bn())
    conv = next(op for op in graph.ops if op.kind == "conv" and op.layer == "conv2")
    attributes = dict(conv.attributes)
    assert attributes["strides"] == (1, 2, 2, 1)
    assert attributes["padding"] == "SAME"
    assert attributes["data_format"] == "NHWC"
    equation = next(op for op in read_graph(zoo.einsum_dense()).ops if op.kind == "einsum")
    assert dict(equation.attributes)["equation"] == "...ab,abc->...c"  # as Keras rewrites it


def test_normalization_is_noted() -> None:
    notes = "\n".join(read_graph(zoo.normalization()).structure.notes)
    assert "normalize/mean is read by nothing when the model is called for inference" in notes
    assert "a constant of shape (1, 5), computed outside the call, is read in normalize" in notes


class Odd(keras.Model):  # type: ignore[misc]
    """Holds what a trace has trouble with."""

    def __init__(self) -> None:
        super().__init__(name="odd")
        self.raw = [tf.Variable(np.ones(3, np.float32), name="raw")]
        self.used, self.unused = layers.Dense(3), layers.Dense(2)
        self.token = self.add_weight(shape=(1, 3), name="token")
        self.scale = self.add_weight(shape=(4,), name="scale", initializer="ones")

    def build(self, shape: Any) -> None:
        self.used.build(shape)
        self.unused.build(shape)

    def call(self, inputs: Any) -> Any:
        self.add_loss(ops.sum(inputs))
        kernel = self.used.kernel / ops.norm(self.used.kernel, axis=0)  # normalised weights
        x = ops.matmul(inputs * self.scale, kernel) + self.used.bias
        tokens = ops.broadcast_to(self.token, ops.shape(x))
        return ops.concatenate([x * self.raw[0], tokens * ops.ones_like(tokens)], axis=-1)


def test_what_cannot_be_seen_is_noted() -> None:
    model = Odd()
    model.build((None, 4))
    graph = read_graph(model)
    notes = "\n".join(graph.structure.notes)
    assert "the layer unused is not reached when the model is called for inference" in notes
    assert "the variable 'raw:0', read in the model itself, is not among the model's variables" in notes
    assert "token: nothing shows what it does" in notes
    assert graph["token"].role == "other"
    assert graph["scale"].role == "scale"
    assert ("matmul", "", (1,), (0,)) in uses(graph["used/kernel"])
    assert graph["used/kernel"].role == "kernel"
    assert not graph["unused/kernel"].uses
    assert model.losses == []


class Tokens(keras.Model):  # type: ignore[misc]
    """Needs integers, in a dict beside features."""

    def __init__(self) -> None:
        super().__init__(name="tokens")
        self.embed, self.dense = layers.Embedding(9, 4), layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        return ops.sum(self.embed(inputs["ids"]), axis=1) + self.dense(inputs["x"])


def dtypes(graph: Graph) -> list[str]:
    kinds = {tensor.name: tensor.dtype for tensor in graph.structure.tensors}
    return [kinds[name] for name in graph.structure.inputs]


def test_dtypes_of_a_subclassed_model_are_found() -> None:
    model = Tokens()
    model({"ids": np.zeros((2, 3), np.int32), "x": np.zeros((2, 5), np.float32)})
    assert dtypes(read_graph(model)) == ["int32", "float32"]
    assert dtypes(read_graph(zoo.tied_language_model())) == ["int32"]
    example = {"ids": np.zeros((4, 3), np.int64), "x": np.zeros((4, 5))}
    assert dtypes(read_graph(model, example)) == ["int64", "float32"]


class OneHot(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="one_hot")
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        if "int" not in keras.backend.standardize_dtype(inputs.dtype):
            raise TypeError("integers only")
        return self.dense(ops.one_hot(inputs, 5))


def test_integers_are_tried_where_floats_fail() -> None:
    model = OneHot()
    model(np.zeros((2,), np.int32))
    graph = read_graph(model)
    assert dtypes(graph) == ["int32"]
    assert graph["dense/kernel"].role == "kernel"


def test_asks_for_data_where_nothing_is_known() -> None:
    class Two(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="two")
            self.dense = layers.Dense(2)

        def call(self, a: Any, b: Any) -> Any:
            return self.dense(a) + self.dense(b)

    model = Two()
    model(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match=r"inputs of the subclassed model 'two' are not known: pass data="):
        read_graph(model)


class Late(keras.Model):  # type: ignore[misc]
    """Claims to be built while a layer that it calls is not."""

    def __init__(self) -> None:
        super().__init__(name="late")
        self.first, self.late = layers.Dense(4), layers.Dense(4)

    def build(self, shape: Any) -> None:
        self.first.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.late(self.first(inputs))


def test_says_which_layer_is_not_built() -> None:
    model = Late()
    model.build((None, 4))
    with pytest.raises(ModelError, match=r"the layer 'late' is not built.*call the model on a batch of data once"):
        read_graph(model)
    assert not model.late.built


class Branching(keras.Model):  # type: ignore[misc]
    """Calls layers in a branch and in a `tf.function`."""

    def __init__(self) -> None:
        super().__init__(name="branching")
        self.left, self.right, self.last = layers.Dense(4), layers.Dense(4), layers.Dense(2)
        self.finish = tf.function(lambda x: self.last(x) * 2.0, autograph=False)

    def build(self, shape: Any) -> None:
        for layer, width in ((self.left, 3), (self.right, 3), (self.last, 4)):
            layer.build((None, width))

    def call(self, inputs: Any) -> Any:
        x = ops.cond(ops.sum(inputs) > 0, lambda: self.left(inputs), lambda: self.right(inputs))
        return self.finish(x)


def test_branches_and_functions_are_entered() -> None:
    model = Branching()
    model.build((None, 3))
    graph = read_graph(model)
    for name in ("left", "right", "last"):
        assert uses(graph[f"{name}/kernel"]) == [("matmul", name, (1,), (0,))]
        assert len(graph.layers[name].calls) == 1
    (use,) = graph["right/kernel"].uses
    assert "/else_branch/" in use.op


def test_recurrent_layers_stay_loops_on_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    model = zoo.lstm_gru_bidirectional()
    assert not any("Cudnn" in op.label for op in read_graph(model).ops)
    assert model.get_layer("lstm").use_cudnn == "auto"


def test_says_what_failed() -> None:
    with pytest.raises(ModelError, match=r"'subclassed_residual' cannot be traced on inputs float32\[None, 7\]"):
        read_graph(zoo.subclassed_residual(), np.zeros((2, 7), np.float32))


def test_readers_of_a_variable_are_found_in_loops_and_before_views() -> None:
    model = zoo.lstm_gru_bidirectional()
    trace = traced(model)
    cell = model.get_layer("lstm").cell
    readers = trace.readers(cell.recurrent_kernel)
    assert {reader.kind for reader in readers} == {"ReadVariableOp"}
    inside = [reader for reader in readers if "/while/body/" in reader.op]
    assert len(inside) == 1
    assert inside[0].layer == "lstm/cell"
    assert inside[0].live
    assert "while_body" in inside[0].graph
    assert trace.readers(tf.Variable(1.0)) == []


def test_scopes_of_readers_are_told() -> None:
    class Scoped(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="scoped")
            self.gain = self.add_weight(shape=(3,), name="gain")

        def call(self, inputs: Any) -> Any:
            with tf.name_scope("somewhere"):
                return inputs * self.gain

    model = Scoped()
    model(np.zeros((2, 3), np.float32))
    (reader,) = traced(model).readers(model.gain)
    assert "somewhere" in reader.scope


def test_mobilenet() -> None:
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=0.35)
    graph = read_graph(model)
    assert graph["Conv1/kernel"].channel_axes == (3,)
    assert graph["block_3_depthwise/kernel"].channel_axes == (2, 3)
    assert {parameter.role for parameter in graph} == {"kernel", "bias", "scale", "offset", "mean", "variance"}
    assert all(parameter.uses for parameter in graph)


def test_sleepecg(tmp_path: Path) -> None:
    graph = read_graph(real.sleepecg_classifier(tmp_path))
    for side in ("forward_layer", "backward_layer"):
        assert graph[f"bidirectional/{side}/cell/recurrent_kernel"].role == "recurrent_kernel"
        assert graph[f"bidirectional/{side}/cell/kernel"].role == "kernel"
    assert len(graph) == 24
    assert graph.structure.notes == ()
