"""A copy shares no variable with its model, computes the same, and works on its own."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bitwidth.backends.tensorflow.models.copying import copy_model
from tests import zoo


def flat(model: Any, name: str) -> list[Any]:
    return [np.asarray(out) for out in tf.nest.flatten(model(zoo.batch(name, 4), training=False))]


@pytest.mark.parametrize("name", zoo.MODELS)
def test_copy_is_apart_and_computes_the_same(name: str) -> None:
    model = zoo.MODELS[name]()
    expected = flat(model, name)
    copy = copy_model(model)
    assert type(copy) is type(model)
    assert [v.path for v in copy.variables] == [v.path for v in model.variables]
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert not {id(v._value) for v in copy.variables} & {id(v._value) for v in model.variables}
    for before, after in zip(expected, flat(copy, name), strict=True):
        np.testing.assert_array_equal(before, after)
    for variable in copy.variables:
        if "float" in variable.dtype:
            variable.assign(variable * 0 + 0.5)
    for before, after in zip(expected, flat(model, name), strict=True):
        np.testing.assert_array_equal(before, after)


def test_unserialisable_objects_are_shared_and_closures_are_not() -> None:
    class Holder(keras.Model):  # type: ignore[misc]
        def __init__(self, lock: Any) -> None:
            super().__init__()
            self.lock = lock
            self.dense = keras.layers.Dense(3)
            self.table = {"layers": [self.dense], "fixed": (1, 2)}
            self.apply_it: Any = lambda x: self.dense(x) * 2.0

        def call(self, x: Any) -> Any:
            return self.apply_it(x)

    lock = threading.Lock()
    model = Holder(lock)
    inputs = np.ones((2, 4), np.float32)
    expected = model(inputs).numpy()
    copy = copy_model(model)
    assert copy.lock is lock
    assert copy.table["layers"][0] is copy.dense
    copy.dense.kernel.assign(copy.dense.kernel * 0)
    np.testing.assert_array_equal(model(inputs).numpy(), expected)
    assert not np.any(copy(inputs).numpy())


def test_compiled_state_stays_behind() -> None:
    model = zoo.MODELS["mlp"]()
    model.compile("adam", "mse")
    inputs = zoo.batch("mlp", 8)
    targets = np.zeros(model(inputs).shape)
    model.fit(inputs, targets, verbose=0)
    copy = copy_model(model)
    assert not copy.compiled
    assert model.compiled
    copy.compile("sgd", "mse")
    copy.fit(inputs, targets, verbose=0)
    model.fit(inputs, targets, verbose=0)


def test_copy_of_a_functional_model_saves_and_exports(tmp_path: Any) -> None:
    model = zoo.MODELS["convnet_bn"]()
    copy = copy_model(model)
    assert copy.get_config() == model.get_config()
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    inputs = zoo.batch("convnet_bn", 4)
    np.testing.assert_array_equal(loaded(inputs).numpy(), model(inputs).numpy())


def test_deep_chains_need_no_recursion() -> None:
    inputs = x = keras.Input((4,))
    for _ in range(400):
        x = keras.layers.Activation("relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    values = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(copy_model(model)(values).numpy(), model(values).numpy())


def test_a_copy_of_a_copy_has_its_tuples() -> None:
    class Pair(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pair = keras.layers.Dense(3), keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            first, second = self.pair
            return second(first(x))

    model = Pair()
    inputs = np.ones((2, 4), np.float32)
    expected = model(inputs).numpy()
    copy = copy_model(copy_model(model))
    assert isinstance(copy.pair, tuple)
    np.testing.assert_array_equal(copy(inputs).numpy(), expected)
