"""The private names of TensorFlow and Keras do what the door to them says, with the versions that are installed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from bitwidth.backends.tensorflow.internals import compiled, containers, deferral, graphs, symbolic
from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.variables import autocast, optimizer_key, tf_variable


class Subclassed(keras.Model):  # type: ignore[misc]
    """Two layers, one in a list; a variable of its own; dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(3)]
        self.drop = layers.Dropout(0.5)
        self.gain = self.add_weight(shape=(), name="gain")
        self.count = self.add_weight(shape=(), name="count", trainable=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.drop(self.blocks[0](inputs), training=training) * self.gain


@pytest.fixture
def model() -> Any:
    model = Subclassed()
    model(np.zeros((2, 4), np.float32))
    return model


def functional() -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(inputs))


# ---- variables


def test_the_variable_beneath() -> None:
    variable, plain = keras.Variable([1.0, 2.0]), tf.Variable(3.0)
    assert isinstance(tf_variable(variable), tf.Variable)
    np.testing.assert_array_equal(tf_variable(variable).numpy(), [1, 2])
    assert tf_variable(plain) is plain


def test_optimizers_know_variables_by_their_keys() -> None:
    first, second = keras.Variable(1.0), keras.Variable(1.0)
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_list=[first])
    assert compiled.excluded_from_decay(optimizer) == {optimizer_key(first)} != {optimizer_key(second)}


def test_values_are_cast_as_the_layer_around_computes() -> None:
    read: list[Any] = []

    class Reads(layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.gain = self.add_weight(shape=())

        def call(self, inputs: Any) -> Any:
            read.append(autocast(self.gain, tf.constant(1.0)))
            return inputs

    Reads(dtype="mixed_bfloat16")(np.zeros((1, 2), np.float32))
    assert read[-1].dtype == tf.bfloat16
    assert autocast(keras.Variable(0.0), tf.constant(1.0)).dtype == tf.float32


# ---- deferral


def test_values_are_deferred_in_this_thread_and_given_later() -> None:
    pending: list[Any] = []
    with deferral.values_deferred_to(pending):
        variable = keras.Variable("ones", shape=(2,), dtype="float32")
        thread = threading.Thread(target=lambda: others.append(keras.Variable("ones", shape=(2,))))
        others: list[Any] = []
        thread.start()
        thread.join()
    assert pending == [variable]
    assert tf_variable(variable) is None
    assert tf_variable(others[0]) is not None
    assert deferral.declared_dtype(variable) == "float32"
    assert isinstance(deferral.initializer_of(variable), keras.initializers.Ones)
    deferral.set_initializer(variable, keras.initializers.Zeros())
    assert isinstance(deferral.initializer_of(variable), keras.initializers.Zeros)
    deferral.initialize(variable, tf.constant([5.0, 6.0]))
    np.testing.assert_array_equal(variable.numpy(), [5, 6])
    assert deferral.initializer_of(variable) is None


def test_the_creation_of_variables_is_replaced_and_put_back() -> None:
    made = []

    def replace(original: Callable[..., None]) -> Callable[..., None]:
        def create(self: Any, *args: Any, **kwargs: Any) -> None:
            made.append(self)
            original(self, *args, **kwargs)

        return create

    with deferral.creation_replaced(replace):
        inside = keras.Variable(1.0)
    keras.Variable(2.0)
    assert [id(item) for item in made] == [id(inside)]


# ---- layers


def test_layers_and_what_each_tracks(model: Any) -> None:
    dense, drop = model.blocks[0], model.drop
    assert {id(layer) for layer in tracked.layers_of(model)} == {id(model), id(dense), id(drop)}
    assert {id(layer) for layer in tracked.layers_of(model, include_self=False)} == {id(dense), id(drop)}
    assert {id(layer) for layer in tracked.children(model)} == {id(dense), id(drop)}
    assert [v.name for v in tracked.own_variables(model)] == ["gain", "count"]
    assert [v.name for v in tracked.own_variables(dense)] == ["kernel", "bias"]
    assert tracked.seed_generators(drop) == [drop.seed_generator]
    assert tracked.seed_generators(dense) == []


def test_what_is_put_into_the_list_of_trainable_variables_is_trained(model: Any) -> None:
    extra = keras.Variable(1.0)
    tracked.tracked_trainable(model).append(extra)
    assert any(variable is extra for variable in model.trainable_variables)
    tracked.tracked_trainable(model).remove(extra)
    assert not any(variable is extra for variable in model.trainable_variables)


def test_variables_are_exchanged_in_the_lists_that_track_them(model: Any) -> None:
    lists = [held for layer in tracked.layers_of(model) for _, held in tracked.variable_lists(layer)]
    state = model.drop.seed_generator.state  # which its generator hands out itself
    assert {id(v) for held in lists for v in held} | {id(state)} == {id(v) for v in model.variables}
    (ids, held), *_ = tracked.variable_lists(model.blocks[0])
    assert ids == {id(variable) for variable in held}
    held[0] = other = keras.Variable(np.zeros((4, 3), np.float32))
    assert model.blocks[0].trainable_variables[0] is other


def test_bookkeeping_is_told_from_attributes_of_the_user(model: Any) -> None:
    kept = {name for name in vars(model) if not tracked.is_bookkeeping(name)}
    assert kept >= {"blocks", "drop", "gain", "count"}
    holding = {
        name
        for name, value in vars(model).items()
        if isinstance(value, list) and any(value is held for _, held in tracked.variable_lists(model))
    }
    assert holding
    assert all(tracked.is_bookkeeping(name) for name in holding)


def test_what_a_model_says_of_its_inputs(model: Any) -> None:
    declared = functional()
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert tracked.is_functional(declared)
    assert not tracked.is_functional(model)
    assert keras.tree.flatten(tracked.declared_inputs(declared))[0].shape == (None, 4)
    assert keras.tree.flatten(tracked.declared_inputs(sequential))[0].shape == (None, 4)
    assert tracked.declared_inputs(model) is None
    assert [tuple(shape) for shape in tracked.build_shapes(model).values()] == [(2, 4)]
    assert tracked.takes_training(model)
    assert not tracked.takes_training(layers.Flatten())


def test_what_keras_has_quantized() -> None:
    layer = layers.Dense(3)
    layer.build((None, 4))
    assert not tracked.is_quantized(layer)
    layer.quantize("int8")
    assert tracked.is_quantized(layer)


# ---- what was compiled


def test_what_a_model_was_compiled_with_and_that_it_is_forgotten() -> None:
    model = functional()
    empty = vars(model).copy()
    model.compile("sgd", "mse", loss_weights=[2.0], metrics=["mae"], weighted_metrics=["mse"])
    model.fit(np.zeros((4, 4), np.float32), np.zeros((4, 3), np.float32), verbose=0)
    found = compiled.compiled_with(model)
    assert (found.loss_weights, found.metrics, found.weighted_metrics) == ([2.0], ["mae"], ["mse"])
    compiled.forget_compiled(model)
    assert not model.compiled
    assert compiled.compiled_with(model) == (None, None, None)
    for name in ("optimizer", "loss", "train_function"):
        assert getattr(model, name) is None is empty.get(name)


def test_exclusions_from_weight_decay_work() -> None:
    kept, spared, named = (keras.Variable(1.0, name=name) for name in ("kept", "spared", "of_a_norm"))
    given, optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5), keras.optimizers.SGD(0.1, weight_decay=0.5)
    given.exclude_from_weight_decay(var_names=["norm"])
    compiled.exclude_from_decay(optimizer, [optimizer_key(spared)])
    compiled.exclude_names_alike(given, optimizer)
    variables = [kept, spared, named]
    optimizer.build(variables)
    optimizer.apply([tf.zeros(()) for _ in variables], variables)
    assert [float(v.numpy()) < 1 for v in variables] == [True, False, False]
    assert compiled.excluded_from_decay(None) == frozenset()


def test_the_schedule_of_an_optimizer() -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert compiled.learning_rate_of(keras.optimizers.SGD(schedule)) is schedule
    assert not isinstance(compiled.learning_rate_of(keras.optimizers.SGD(0.1)), type(schedule))


# ---- graphs


def test_graphs_of_loops_branches_and_calls() -> None:
    inside: list[Any] = []

    @tf.function  # type: ignore[untyped-decorator]
    def called(x: Any) -> Any:
        return x + 1.0

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def outer(x: Any) -> Any:
        def body(i: Any, y: Any) -> tuple[Any, Any]:
            inside.append(tf.compat.v1.get_default_graph())
            return i + 1, tf.cond(y > 0.0, lambda: branch(y), lambda: y)

        def branch(y: Any) -> Any:
            inside.append(tf.compat.v1.get_default_graph())
            return called(y)

        return tf.while_loop(lambda i, y: i < 3, body, [tf.constant(0), x])[1]

    graph = outer.get_concrete_function(tf.constant(1.0)).graph
    assert len({id(item) for item in inside}) == 2
    assert all(graphs.outside_loops(item) is graph for item in inside)
    assert graphs.outside_loops(graph) is graph
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    body = graphs.graph_named(graph, loop.get_attr("body").name)
    assert body is not None
    assert len(body.inputs) == len(loop.inputs)
    assert graphs.graph_named(body, loop.get_attr("body").name) is not None  # found in the graph around it
    assert graphs.graph_named(graph, "nowhere") is None
    assert graphs.graph_named(graph, "") is None


def test_operations_run_eagerly() -> None:
    (found,) = graphs.execute_operation(
        "MatMul",
        1,
        [tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])],
        ("transpose_a", False, "transpose_b", True, "T", tf.float32.as_datatype_enum),
    )
    np.testing.assert_array_equal(found.numpy(), [[11]])


def test_custom_gradients_are_found_in_their_registry() -> None:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def same(x: Any) -> Any:
        return tf.identity(x), lambda upstream: upstream

    before = set(graphs.gradient_registry())
    tf.function(same, autograph=False).get_concrete_function(tf.constant(1.0))
    (made,) = set(graphs.gradient_registry()) - before
    assert made.startswith("CustomGradient-")
    assert callable(graphs.gradient_registry().pop(made)["type"])


def test_functions_are_traced_again_cloned_and_forgotten() -> None:
    traces: list[str] = []

    class Traced(layers.Layer):  # type: ignore[misc]
        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def step(self, x: Any) -> Any:
            traces.append("step")
            return x

    layer, one = Traced(), tf.constant(1.0)
    method = vars(Traced)["step"]
    assert isinstance(method, graphs.FUNCTION)
    layer.step(one)
    layer.step(one)
    assert len(traces) == 1
    graphs.forget_trace(method, layer)
    layer.step(one)
    assert len(traces) == 2

    @tf.function(input_signature=[tf.TensorSpec((), tf.float32)], jit_compile=False)  # type: ignore[untyped-decorator]
    def alone(x: Any) -> Any:
        traces.append("alone")
        return x * 2.0

    alone(one)
    again = graphs.untraced(alone)
    assert again(one) == 2.0
    assert traces[2:] == ["alone", "alone"]
    assert again.input_signature == alone.input_signature
    assert again._jit_compile is False
    other = graphs.clone_of(alone, lambda x: x * 3.0)
    assert other(one) == 3.0
    assert other.input_signature == alone.input_signature


# ---- containers


def test_lists_and_dicts_are_wrapped() -> None:
    module = tf.Module()
    module.listed, module.named = [tf.Variable(1.0)], {"a": tf.Variable(2.0)}
    assert isinstance(module.listed, containers.ListWrapper)
    assert isinstance(module.named, containers.DictWrapper)


def test_a_copy_has_the_ids_of_its_own_objects() -> None:
    model = functional()
    tracker = object.__new__(type(model._tracker))
    tracker.__dict__.update(model._tracker.__dict__)
    tracker.config = {name: (kind, list(store)) for name, (kind, store) in model._tracker.config.items()}
    extra = keras.Variable(1.0)
    tracker.config["trainable_variables"][1].append(extra)
    containers.renumber(tracker)
    assert id(extra) in tracker.stored_ids["trainable_variables"]
    nodes = set(model._nodes)
    model._nodes = set()
    containers.renumber(model)
    assert model._nodes == nodes


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        (keras.optimizers.SGD(momentum=0.9), 1),
        (keras.optimizers.SGD(), 0),
        (keras.optimizers.Adam(), 1),
        (keras.optimizers.Adamax(), 1),
        (keras.optimizers.RMSprop(momentum=0.5), 1),
        (keras.optimizers.Lion(), 1),
        (keras.optimizers.Nadam(), 1),
        (keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam()), 1),
    ],
)
def test_momentums_are_what_moves_a_variable_without_a_gradient(optimizer: Any, count: int) -> None:
    variable = keras.Variable(np.ones(3, np.float32))
    optimizer.build([variable])
    optimizer.apply([tf.constant([1.0, 2.0, 3.0])])
    found = list(compiled.momentums(optimizer))
    assert len(found) == count
    for owner, momentum in found:
        assert owner is variable
        assert momentum.shape == (3,)
        momentum.assign(np.zeros(3, np.float32))
    before = variable.numpy()
    optimizer.apply([tf.constant([0.0, 0.0, 0.0])])
    np.testing.assert_array_equal(variable.numpy(), before)


# ---- calls on symbolic tensors


def test_a_layer_is_seen_through() -> None:
    class Outer(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def build(self, shape: Any) -> None:
            self.dense.build(shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return keras.ops.relu(self.dense(x))

    layer, x = Outer(), keras.Input((4,), name="x")
    with symbolic.seen_through(layer, layer.call):
        y = layer(x)
    assert [operation.name.rstrip("_0123456789") for operation, _ in symbolic.operations_behind(y)] == [
        "x",
        "dense",
        "relu",
    ]
    assert [operation.name for operation, _ in symbolic.operations_behind(layer(x))] == ["x", layer.name]
    assert keras.Model(x, y).layers[1] is layer.dense


def test_inputs_of_a_graph_are_cast_and_not_converted() -> None:
    inner = keras.Input((4,), dtype="float32")
    model, x = keras.Model(inner, layers.Dense(3)(inner)), keras.Input((4,), dtype="int32")
    with symbolic.seen_through(model, model.call):
        y = model(x)
    kinds = [type(operation).__name__ for operation, _ in symbolic.operations_behind(y)]
    assert kinds == ["InputLayer", "Cast", "Dense"]


def test_what_layers_are_told_of_training() -> None:
    told: list[Any] = []

    class Tells(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, training: Any = None) -> Any:
            told.append(symbolic.training_told())
            with symbolic.training_untold(then=False):
                told.append(symbolic.training_told())
            told.append(symbolic.training_told())
            return x

    Tells()(np.zeros((1, 2), np.float32), training=True)
    assert told == [True, None, False]
    assert symbolic.training_told() is None


def test_functions_are_replaced_for_all_who_look_them_up() -> None:
    before = keras.ops.shape
    with symbolic.functions_replaced({"shape": lambda original: lambda x: (*original(x), "more")}):
        assert keras.ops.shape(np.zeros((2, 3))) == (2, 3, "more")
    assert keras.ops.shape is before


def test_masks_of_tensors() -> None:
    tokens = keras.Input((4,), dtype="int32")
    x = layers.Embedding(3, 2, mask_zero=True)(tokens)
    assert symbolic.mask_of(x).shape == (None, 4)
    symbolic.set_mask(x, None)
    assert symbolic.mask_of(x) is None
    assert symbolic.mask_of(tokens) is None
    symbolic.rename(layer := layers.Dense(2), "other")
    assert layer.get_config()["name"] == "other"
