"""Tensors followed forward and backward."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.graph import Norm, Op, Refused, Wiring, spec
from bitwidth.graph.paths import backward, forward
from tests import reference, zoo


def wiring(model: Any) -> Wiring:
    return Wiring(bw.read(model))


def chain(*between: Any) -> Wiring:
    """A convolution, other layers, and a dense layer."""
    start = [keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="first")]
    return wiring(keras.Sequential([*start, *between, layers.Flatten(), layers.Dense(2, name="last")]))


def product(found: Wiring, layer: str) -> Op:
    return next(op for op in found.graph.ops if op.layer == layer and spec(op).is_contraction)


def way(found: Wiring, tensor: str, **options: Any) -> tuple[list[str], str]:
    """The kinds of operations on the way forward from a tensor, and why it ends."""
    kinds: list[str] = []
    try:
        for before, taker in forward(found, tensor, **options):
            assert isinstance(taker, Norm) or before in taker.inputs
            kinds.append("norm" if isinstance(taker, Norm) else taker.kind)
    except Refused as refusal:
        return kinds, refusal.reason
    raise AssertionError("a way forward has an end")


def test_forward_goes_to_the_output_of_the_model() -> None:
    found = chain(layers.ReLU(), layers.MaxPooling2D(2))
    kinds, reason = way(found, product(found, "first").outputs[0], lead="no way: ")
    assert reason == "no way: its output is a model output"
    assert [kind for kind in kinds if kind != "identity"] == [
        *("bias_add", "relu", "max_pool", "reshape"),
        *("matmul", "bias_add"),
    ]


def test_forward_is_lazy() -> None:
    found = wiring(zoo.MODELS["mlp"]())
    steps = forward(found, product(found, "hidden").outputs[0])
    assert next(steps)[1] is found.only_reader(product(found, "hidden").outputs[0])


def test_a_normalisation_can_be_one_step() -> None:
    found = chain(layers.BatchNormalization(name="norm"), layers.ReLU())
    start = product(found, "first").outputs[0]
    whole = {norm.source: norm for norm in found.norms if norm.source is not None}
    kinds, _ = way(found, start, whole=whole)
    assert kinds[:5] == ["bias_add", "norm", "relu", "reshape", "matmul"]
    assert way(found, start)[0][1] != "norm"


def test_a_fork_ends_the_way_forward() -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    found = wiring(keras.Model(inputs, layers.Add()([layers.ReLU()(x), x])))
    with pytest.raises(Refused, match=r"^2 operations read its output$"):
        list(forward(found, product(found, "a").outputs[0]))


def test_backward_goes_to_the_input_of_the_model() -> None:
    found = chain(layers.ReLU(), layers.AveragePooling2D(2))
    steps = list(backward(found, found.graph.structure.outputs[0]))
    kinds = [op.kind for _, op in steps if not spec(op).keeps_last_axis]
    assert kinds[:8] == ["bias_add", "matmul", "reshape", "average_pool", "relu", "bias_add", "conv", "input"]
    assert all(tensor in op.outputs for tensor, op in steps)


def test_backward_goes_to_the_variable_that_a_kernel_is() -> None:
    found = wiring(zoo.MODELS["mixed_float16"]())
    kernel = product(found, "hidden").inputs[1]
    assert [op.kind for _, op in backward(found, kernel)] == ["cast", "read", "input"]


def test_backward_goes_through_a_split_along_its_data() -> None:
    inputs = keras.Input((4, 6), batch_size=2)
    _, second = keras.ops.split(keras.ops.relu(inputs), 2, axis=2)
    found = wiring(keras.Model(inputs, layers.Dense(2, name="last")(second)))
    kinds = [op.kind for _, op in backward(found, product(found, "last").inputs[0]) if not spec(op).is_transparent]
    assert kinds == ["split", "relu", "input"]


def test_backward_may_ask_for_a_way_that_is_used_by_nothing_else() -> None:
    inputs = keras.Input((4,))
    x = layers.ReLU(name="r")(layers.Dense(4, name="a")(inputs))
    model = keras.Model(inputs, [layers.Dense(2, name="b")(x), layers.Dense(2, name="c")(x)])
    found = wiring(model)
    start = product(found, "b").outputs[0]
    assert [op.kind for _, op in backward(found, start) if op.kind != "identity"][:3] == ["matmul", "relu", "bias_add"]
    with pytest.raises(Refused, match=r"^Relu in r: 2 operations read its output$"):
        list(backward(found, start, alone=True))


def test_a_graph_of_another_backend_is_followed_alike() -> None:
    found = wiring(reference.Network([4, 5, 2]))
    (output,) = found.graph.structure.outputs
    assert [op.kind for _, op in backward(found, output)] == ["bias_add", "matmul", "bias_add", "matmul"]
    assert way(found, "input") == (["matmul", "bias_add", "matmul", "bias_add"], "its output is a model output")
