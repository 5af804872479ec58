import sys
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from bitwidth.backends.tensorflow.models.check import check_model
from bitwidth.errors import ModelError, UnsupportedModelError
from tests import zoo


@pytest.mark.parametrize("name", zoo.MODELS)
def test_accepts_every_model_of_the_zoo(name: str) -> None:
    check_model(zoo.MODELS[name]())


class Spare(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="spare")
        self.used, self.spare = layers.Dense(3), layers.Dense(3)

    def build(self, shape: Any) -> None:
        self.used.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.used(inputs)


def test_accepts_a_model_with_an_unbuilt_layer_it_never_calls() -> None:
    model = Spare()
    model(np.zeros((2, 4), np.float32))
    check_model(model)


class Unbuilt(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="net")
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def test_refuses_an_unbuilt_model() -> None:
    with pytest.raises(ModelError, match=r"'net' is not built.*call it on a batch of data once"):
        check_model(Unbuilt())
    with pytest.raises(ModelError, match="not built"):
        check_model(keras.Sequential([layers.Dense(3)]))


def test_refuses_a_model_without_variables() -> None:
    with pytest.raises(ModelError, match=r"'empty' has no variables"):
        check_model(keras.Sequential([keras.Input((3,)), layers.ReLU()], name="empty"))


def test_names_the_unbuilt_layers_of_a_model_without_variables() -> None:
    model = Unbuilt()
    model.built = True
    with pytest.raises(ModelError, match=r"no variables.*not built: dense; call the model on a batch"):
        check_model(model)


def _class(module: str, *bases: type) -> type:
    return type("Model", bases or (object,), {"__module__": module})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_class("tf_keras.src.engine.training")(), r"Keras 2 \(tf_keras\).*TF_USE_LEGACY_KERAS"),
        (_class("user", _class("tf_keras.src.engine.training"))(), r"got user\.Model, a model of Keras 2"),
        (_class("user", _class("torch.nn.modules.module"))(), r"PyTorch module user\.Model"),
        (layers.Dense(3), r"got the layer .*Dense; put it in a keras.Sequential"),
        ("model.keras", r"expected a built Keras 3 model \(keras.Model\), got builtins.str"),
        (None, "got builtins.NoneType"),
    ],
)
def test_refuses_what_is_no_keras_3_model(model: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        check_model(model)


def test_looks_at_other_frameworks_without_importing_them() -> None:
    with pytest.raises(UnsupportedModelError):
        check_model(types.SimpleNamespace())
    assert "tf_keras" not in sys.modules
    assert "torch" not in sys.modules


def test_refuses_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnsupportedModelError, match=r"'jax' backend.*KERAS_BACKEND=tensorflow before importing keras"):
        check_model(zoo.mlp())


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have:UserWarning")
def test_refuses_a_layer_quantized_by_keras() -> None:
    model = zoo.mlp()
    model.quantize("int8")
    with pytest.raises(UnsupportedModelError, match=r"hidden: Keras has already quantized this layer \(int8\)"):
        check_model(model)


def test_refuses_lora() -> None:
    model = zoo.nested_shared()
    model.get_layer("inner").get_layer("inner_dense").enable_lora(2)
    with pytest.raises(UnsupportedModelError, match=r"inner/inner_dense: LoRA is enabled.*merge it"):
        check_model(model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("build", [zoo.mlp, zoo.mixed_float16])
def test_refuses_values_that_are_not_finite(build: Callable[[], Any], value: float) -> None:
    model = build()
    kernel = model.get_layer("logits").kernel
    values = kernel.numpy()
    values[0, :2] = value
    kernel.assign(values)
    with pytest.raises(ModelError, match=rf"logits/kernel \(2 of {values.size} values\)"):
        check_model(model)
