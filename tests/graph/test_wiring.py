"""Following tensors from operation to operation."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.graph import Refused, Wiring
from tests import reference, zoo


def wiring(model: Any) -> Wiring:
    return Wiring(bw.read(model))


def test_contractions_of_the_numpy_backend() -> None:
    found = wiring(reference.Network([6, 8, 2]))
    paths = [found.contraction(op).kernel.path for op, _ in found.contractions()]
    assert paths == ["layer0/kernel", "layer1/kernel"]


def test_a_kernel_that_is_computed_is_no_plain_one() -> None:
    @keras.saving.register_keras_serializable(package="tests.wiring")
    class Standardised(layers.Dense):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return keras.ops.matmul(inputs, self.kernel - keras.ops.mean(self.kernel, axis=0)) + self.bias

    model = keras.Sequential([keras.Input((4,)), Standardised(3, name="s"), layers.BatchNormalization(name="bn")])
    found = wiring(model)
    ((op, read),) = found.contractions()
    assert [parameter.path for parameter in read] == ["s/kernel"]
    with pytest.raises(Refused, match=r"^s/kernel is not used directly: the kernel is computed from it$"):
        found.contraction(op)


def test_normalisations() -> None:
    (norm,) = wiring(zoo.MODELS["convnet_bn"]()).norms
    assert norm.layer.path == "bn1"
    assert norm.epsilon == pytest.approx(1e-3)
    assert [p.path for p in norm.parameters] == ["bn1/gamma", "bn1/beta", "bn1/moving_mean", "bn1/moving_variance"]


def test_readers() -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    model = keras.Model(inputs, [layers.Add(name="sum")([layers.Dense(4, name="b")(x), x]), layers.ReLU()(x)])
    found = wiring(model)
    bias_add = next(op for op in found.graph.ops if op.kind == "bias_add" and op.layer == "a")
    with pytest.raises(Refused, match=r"^3 operations read its output$"):
        found.only_reader(bias_add.outputs[0])
    product = next(op for op in found.graph.ops if op.kind == "matmul" and op.layer == "a")
    assert found.only_reader(product.outputs[0]) is found.makers[bias_add.outputs[0]]
    assert found.features(product) == (found.graph.structure.inputs[0],)
    assert found.is_only_reader(found.makers[bias_add.outputs[0]], product.outputs[0])
    with pytest.raises(Refused, match=r"^nothing reads its output$"):
        found.only_reader("none")
