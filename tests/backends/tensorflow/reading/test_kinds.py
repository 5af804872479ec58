"""TensorFlow's types of operations, and the kinds that they are mapped onto: each is seen in a model, and tried."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from bitwidth.backends.tensorflow.reading.attributes import plain_attributes
from bitwidth.backends.tensorflow.reading.graphs import read_graph
from bitwidth.backends.tensorflow.reading.kinds import KINDS, given_attributes, operands
from bitwidth.graph import Kind
from bitwidth.graph.ops import SPECS

SHAPE = (2, 4, 4, 6)
Function = Callable[[Any], Any]


@tf.function(autograph=False)  # type: ignore[untyped-decorator]
def called(x: Any) -> Any:
    return x * 1.0


def listed(x: Any) -> Any:
    handle = tf.raw_ops.TensorListFromTensor(tensor=x, element_shape=list(SHAPE[1:]))
    return tf.raw_ops.TensorListGetItem(
        input_handle=handle, index=1, element_shape=list(SHAPE[1:]), element_dtype=tf.float32
    )


def stacked(x: Any) -> Any:
    handle = tf.raw_ops.TensorListReserve(element_shape=list(SHAPE[1:]), num_elements=2, element_dtype=tf.float32)
    for index in range(2):
        handle = tf.raw_ops.TensorListSetItem(input_handle=handle, index=index, item=x[index])
    return tf.raw_ops.TensorListStack(
        input_handle=handle, element_shape=list(SHAPE[1:]), element_dtype=tf.float32, num_elements=2
    )


def integers(x: Any) -> Any:
    return tf.cast(x, tf.int32)


# One function of a tensor of SHAPE for each kind, in which an operation of that kind takes the tensor.
FUNCTIONS: dict[Kind, Function] = {
    "call": called,
    "loop": lambda x: tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(y)), (tf.constant(0), x))[1],
    "branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(x), lambda: tf.exp(x)),
    "matmul": lambda x: ops.matmul(x, tf.ones((6, 2))),
    "einsum": lambda x: ops.einsum("abcd,de->abce", x, tf.ones((6, 2))),
    "conv": lambda x: ops.conv(x, tf.ones((2, 2, 6, 3))),
    "transposed_conv": lambda x: ops.conv_transpose(x, tf.ones((2, 2, 3, 6))),
    "depthwise_conv": lambda x: ops.depthwise_conv(x, tf.ones((2, 2, 6, 1))),
    "gather": lambda x: ops.take(x, [2, 0], axis=3),
    "gather_nd": lambda x: tf.gather_nd(x, [[1, 2, 3]]),
    "add": lambda x: x + 1.5,
    "bias_add": lambda x: tf.nn.bias_add(x, tf.ones(6)),
    "subtract": lambda x: x - 1.5,
    "multiply": lambda x: x * 1.5,
    "divide": lambda x: x / 1.5,
    "integer_divide": lambda x: x // 0.25,
    "remainder": lambda x: x % 0.75,
    "power": lambda x: ops.abs(x) ** 1.5,
    "squared_difference": lambda x: tf.math.squared_difference(x, 0.5),
    "maximum": lambda x: ops.maximum(x, 0.1),
    "minimum": lambda x: ops.minimum(x, 0.1),
    "clip": lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=-0.5, clip_value_max=0.5),
    "abs": ops.abs,
    "negative": ops.negative,
    "sign": ops.sign,
    "round": lambda x: ops.round(10 * x),
    "compare": lambda x: x > 0,
    "logical": lambda x: ops.logical_and(x > 0, x < 1),
    "select": lambda x: ops.where(x > 0, x, -1.5),
    "bucketize": lambda x: tf.raw_ops.Bucketize(input=x, boundaries=[0.0]),
    "in_top_k": lambda x: tf.math.in_top_k([1, 2], x[:, 0, 0], 2),
    "relu": ops.relu,
    "leaky_relu": ops.leaky_relu,
    "sigmoid": ops.sigmoid,
    "softmax": ops.softmax,
    "elementwise": ops.tanh,
    "batch_norm": lambda x: tf.raw_ops.FusedBatchNormV3(
        x=x, scale=tf.ones(6), offset=tf.ones(6), mean=tf.ones(6), variance=tf.ones(6), is_training=False
    )[0],
    "reduce_mean": lambda x: ops.mean(x, axis=(1, 2)),
    "reduce_max": lambda x: ops.max(x, axis=(1, 2)),
    "reduce_min": lambda x: ops.min(x, axis=(1, 2)),
    "reduce_product": lambda x: ops.prod(x, axis=(1, 2)),
    "reduce_logical": lambda x: ops.any(x > 0, axis=(1, 2)),
    "reduce_sum": lambda x: ops.sum(x, axis=(1, 2)),
    "average_pool": lambda x: ops.average_pool(x, 2),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "resize": lambda x: ops.image.resize(x, (8, 8)),
    "identity": tf.identity,
    "identity_n": lambda x: tf.identity_n([x, x])[1],
    "stop_gradient": ops.stop_gradient,
    "cast": lambda x: ops.cast(x, "float64"),
    "reshape": lambda x: ops.reshape(x, (2, 16, 6)),
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "expand_dims": lambda x: ops.expand_dims(x, 1),
    "transpose": lambda x: ops.transpose(x, (0, 3, 1, 2)),
    "concat": lambda x: ops.concatenate([x, x], axis=1),
    "split": lambda x: ops.split(x, 2, axis=3)[1],
    "stack": lambda x: ops.stack([x, x]),
    "unstack": lambda x: ops.unstack(x, axis=1)[2],
    "slice": lambda x: ops.slice(x, (0, 1, 1, 2), (2, 2, 2, 2)),
    "strided_slice": lambda x: x[:, ::2],
    "reverse": lambda x: ops.flip(x, axis=3),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 1)),
    "broadcast": lambda x: ops.broadcast_to(x, (3, *SHAPE)),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "mirror_pad": lambda x: tf.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), "REFLECT"),
    "space_to_batch": lambda x: tf.space_to_batch(x, (2, 2), ((0, 0), (0, 0))),
    "batch_to_space": lambda x: tf.batch_to_space(x, (2, 1), ((0, 0), (0, 0))),
    "list_from_tensor": listed,
    "list_get": listed,
    "list_new": stacked,
    "list_set": stacked,
    "list_stack": stacked,
    "fill": lambda x: x + tf.raw_ops.Fill(dims=tf.shape(x), value=1.5),
    "fill_like": lambda x: x + tf.raw_ops.OnesLike(x=x),
    "range": lambda x: x + tf.range(tf.cast(x[0, 0, 0, 0], tf.float32), 6.0)[:1],
    "shape": lambda x: tf.raw_ops.Shape(input=x),
    "size": lambda x: tf.raw_ops.Size(input=x),
    "rank": lambda x: tf.raw_ops.Rank(input=x),
}
IN_EVERY_MODEL: set[Kind] = {"input", "constant", "read"}
RNG = np.random.default_rng(0)
X = tf.constant(RNG.normal(size=SHAPE), tf.float32)


def flagged(name: str) -> list[Kind]:
    return [kind for kind in FUNCTIONS if getattr(SPECS[kind], name)]


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_every_kind_is_seen_in_a_model(kind: Kind) -> None:
    inputs = keras.Input(SHAPE[1:], batch_size=SHAPE[0])
    x = layers.Dense(SHAPE[-1], name="before")(inputs)
    graph = read_graph(keras.Model(inputs, layers.Lambda(FUNCTIONS[kind], name="tried")(x)))
    kinds = {op.kind for op in graph.ops}
    assert kind in kinds
    assert kinds >= IN_EVERY_MODEL - {"constant"}
    found = next(op for op in graph.ops if op.kind == kind and (op.layer == "tried" or kind == "matmul"))
    assert KINDS[found.label] == kind


def test_every_kind_is_mapped_from_something() -> None:
    kinds = set(get_args(Kind)) - {"other"}
    assert set(KINDS.values()) == kinds
    assert set(FUNCTIONS) | IN_EVERY_MODEL == kinds


@pytest.mark.parametrize("name", KINDS)
def test_every_type_is_one_that_tensorflow_has(name: str) -> None:
    assert hasattr(tf.raw_ops, name)


@pytest.mark.parametrize(
    ("build", "attributes"),
    [
        (lambda x: tf.raw_ops.Gather(params=x, indices=[1]), {"axis": 0}),
        (lambda x: tf.gather(x, [1], axis=2), {"axis": 2}),
        (lambda x: tf.split(x, [2, 4], axis=3)[0], {"axis": 3}),
        (lambda x: tf.split(x, 2, axis=3)[0], {"axis": 3}),
        (lambda x: tf.concat([x, x, x], 1), {"axis": 1}),
        (lambda x: tf.reduce_max(x, 2), {"axes": (2,)}),
        (lambda x: tf.transpose(x, (3, 2, 1, 0)), {"order": (3, 2, 1, 0)}),
        (lambda x: tf.pad(x, [[0, 0]] * 3 + [[1, 0]]), {"pads": [[0, 0]] * 3 + [[1, 0]], "fill": 0}),
        (
            lambda x: tf.pad(x, [[0, 0]] * 3 + [[1, 0]], constant_values=2.0),
            {"pads": [[0, 0]] * 3 + [[1, 0]], "fill": 2},
        ),
        (lambda x: tf.linalg.matmul(x, x, adjoint_b=True), {"transpose_a": False, "transpose_b": True}),
        (lambda x: tf.linalg.matmul(x[0, 0], x[0, 0], transpose_a=True), {"transpose_a": True, "transpose_b": False}),
        (lambda x: tf.nn.relu(x), {}),
        (lambda x: tf.reduce_prod(x, 1), {"axes": (1,)}),
        (lambda x: tf.reduce_any(x > 0, (0, 2)), {"axes": (0, 2)}),
        (lambda x: tf.tanh(x), {"keeps_zero": True}),
        (lambda x: tf.exp(x), {"keeps_zero": False}),
    ],
)
def test_operands_and_other_names_become_attributes(build: Function, attributes: dict[str, Any]) -> None:
    with tf.Graph().as_default():
        assert given_attributes(build(tf.zeros(SHAPE)).op) == attributes


@pytest.mark.parametrize(
    ("build", "place"),
    [
        (lambda x: tf.split(x, 2, axis=3)[0], 1),
        (lambda x: tf.split(x, [2, 4], axis=3)[0], 0),
        (lambda x: tf.nn.conv2d_transpose(x, tf.ones((2, 2, 3, 6)), (2, 4, 4, 3), 1), 2),
        (lambda x: tf.nn.conv2d(x, tf.ones((2, 2, 6, 3)), 1, "SAME"), 0),
    ],
)
def test_the_tensor_that_an_operation_is_about_comes_first(build: Function, place: int) -> None:
    with tf.Graph().as_default():
        x = tf.zeros(SHAPE)
        op = build(x).op
        assert op.inputs[place] is x
        assert operands(op)[0] is x
        assert {id(tensor) for tensor in operands(op)} == {id(tensor) for tensor in op.inputs}


@pytest.mark.parametrize("kind", flagged("moves"))
def test_moves_hand_values_on(kind: Kind) -> None:
    if kind != "call":  # what it runs is in the graph too
        assert set(np.unique(FUNCTIONS[kind](X))) <= {*np.unique(X), 0.0}


@pytest.mark.parametrize("kind", flagged("passes_scale"))
def test_scales_go_through(kind: Kind) -> None:
    scale = RNG.uniform(0.5, 2, SHAPE[-1]).astype(np.float32)
    apart = FUNCTIONS[kind](X)
    assert apart.shape[-1] == SHAPE[-1]
    np.testing.assert_allclose(FUNCTIONS[kind](X * scale), apart * scale.astype(apart.dtype.name), rtol=1e-5)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "elementwise", "add", "transpose", "round"])
def test_scales_do_not_go_through(kind: Kind) -> None:
    scale = RNG.uniform(0.5, 2, (1, 1, 1, SHAPE[-1])).astype(np.float32)
    apart = FUNCTIONS[kind](X)
    assert not np.allclose(FUNCTIONS[kind](X * scale), apart * scale[..., : apart.shape[-1]])


@pytest.mark.parametrize("kind", [*flagged("stops_gradient"), "remainder", "cast", "relu", "abs", "transpose", "pad"])
def test_gradients_come_back_or_not(kind: Kind) -> None:
    with tf.GradientTape() as tape:
        tape.watch(X)
        y = FUNCTIONS[kind](X)
    gradient = tape.gradient(y, X)
    blocked = gradient is None or not np.any(gradient)
    assert blocked == SPECS[kind].stops_gradient


@pytest.mark.parametrize("kind", flagged("shape_only"))
def test_only_shapes_are_read(kind: Kind) -> None:
    np.testing.assert_array_equal(FUNCTIONS[kind](X), FUNCTIONS[kind](2 * X))


@pytest.mark.parametrize("kind", flagged("is_transparent"))
def test_elements_keep_their_order(kind: Kind) -> None:
    if kind != "batch_to_space":
        np.testing.assert_array_equal(np.ravel(FUNCTIONS[kind](X)), np.ravel(X))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind == "elementwise"])
def test_what_is_zero_at_zero_is_said_to_be(name: str) -> None:
    function = getattr(tf.raw_ops, name)
    with tf.Graph().as_default():
        (argument,) = (item for item in ("features", "x") if item in inspect.signature(function).parameters)
        keeps = given_attributes(function(**{argument: tf.zeros(3)}).op)["keeps_zero"]
    assert keeps == (not np.any(function(**{argument: tf.zeros(3)})))


def test_constants_that_are_the_same_everywhere_say_so() -> None:
    with tf.Graph().as_default():
        found = [dict(plain_attributes(tf.constant(value).op)) for value in (np.ones(99, np.float32), np.arange(99), 2)]
    assert [item.get("fill") for item in found] == [1.0, None, 2]
    assert [item.get("value") for item in found] == [None, None, 2]
