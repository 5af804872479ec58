"""Models built without values: no memory, no initializer, and the list that waits for values behind one door."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bitwidth
from bitwidth.backends.tensorflow.models import deferred as door
from bitwidth.backends.tensorflow.models.architecture import finalize, rebuild
from bitwidth.backends.tensorflow.models.deferred import deferred, finish, give_value, has_value
from bitwidth.errors import ModelError
from tests.zoo import MODELS, batch


def config_of(model: Any) -> Any:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(model)))


def peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_large_layer_takes_no_memory_and_shows_its_shapes() -> None:
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "wide", "units": 30_000}}
    start = config_of(layers.InputLayer((20_000,), name="x"))
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [start, dense]}}
    before = peak()
    model = rebuild(config, {"shape": [None, 20_000], "dtype": "float32"})
    assert peak() - before < 200 << 20  # its kernel has 2.4 GB
    assert [tuple(v.shape) for v in model.variables] == [(20_000, 30_000), (30_000,)]
    assert not any(has_value(v) for v in model.variables)


@pytest.mark.parametrize(("limit", "most"), [("MAX_ELEMENTS", 50), ("MAX_VARIABLES", 3)])
def test_too_many_or_too_large_variables_are_refused_while_the_model_is_built(
    limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(3)])
    config = config_of(model)
    monkeypatch.setattr(door, limit, most)
    with pytest.raises(ModelError, match=r"more than [\d,]+ variables or [\d,]+ values"):
        rebuild(config, {"shape": [None, 4], "dtype": "float32"})


def initializers() -> list[type[Any]]:
    found = [keras.initializers.Initializer]
    for cls in found:
        found += cls.__subclasses__()
    return found


@pytest.mark.parametrize("name", [name for name in MODELS if name != "subclassed_unserialisable"])
def test_no_initializer_runs_and_values_make_the_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]()
    config, inputs = config_of(model), batch(name, 3)
    skeleton = _described(inputs)

    def ran(self: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{type(self).__name__} ran")

    for cls in initializers():
        monkeypatch.setattr(cls, "__call__", ran)
    made = rebuild(config, skeleton)
    assert not any(has_value(variable) for variable in made.variables)
    for variable, value in zip(made.variables, model.variables, strict=True):
        give_value(variable, value.numpy())
    finalize(made)
    if name == "text_model":  # its vocabulary is an asset
        return
    for found, wanted in zip(keras.tree.flatten(made(inputs)), keras.tree.flatten(model(inputs)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def _described(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {"dict": {key: _described(value) for key, value in inputs.items()}}
    if isinstance(inputs, list):
        return {"list": [_described(value) for value in inputs]}
    dtype = "string" if inputs.dtype == object else str(inputs.dtype)
    return {"shape": [None, *inputs.shape[1:]], "dtype": dtype}


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_states_of_recurrent_layers_start_as_keras_starts_them(cell: str) -> None:
    model = keras.Sequential([keras.Input((5, 3), batch_size=2), getattr(layers, cell)(4, stateful=True)])
    made = rebuild(config_of(model), {"shape": [2, 5, 3], "dtype": "float32"})
    assert [(v.name, v.shape) for v in made.variables] == [(v.name, v.shape) for v in model.variables]
    for variable, value in zip(made.variables, model.variables, strict=True):
        give_value(variable, value.numpy())
    x = np.ones((2, 5, 3), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(made(x), model(x))
    made.layers[0].reset_states()
    model.layers[0].reset_states()
    np.testing.assert_array_equal(made(x), model(x))


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
def test_the_model_trains_saves_and_exports_like_any_other(tmp_path: Path) -> None:
    model = MODELS["convnet_bn"]()
    made = rebuild(config_of(model), {"shape": [None, 8, 8, 3], "dtype": "float32"})
    for variable, value in zip(made.variables, model.variables, strict=True):
        give_value(variable, value.numpy())
    x, y = batch("convnet_bn", 16), np.arange(16) % 3
    made.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    before = made.get_weights()
    made.fit(x, y, epochs=1, verbose=0)
    assert any((a != b).any() for a, b in zip(before, made.get_weights(), strict=True))
    made.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again(x), made(x), atol=1e-6)
    tf.saved_model.save(made, str(tmp_path / "saved"))
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.signatures["serving_default"](tf.constant(x))["output_0"], made(x), atol=1e-5)


def test_seeds_of_initializers_are_no_variables_of_the_model_and_keep_their_state() -> None:
    seed = keras.random.SeedGenerator(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(seed))])
    made = rebuild(config_of(model), {"shape": [None, 4], "dtype": "float32"})
    assert len(made.variables) == 2
    state = made.layers[0].kernel_initializer.seed.state
    np.testing.assert_array_equal(state.numpy(), [3, 0])


def test_what_waited_before_waits_after() -> None:
    with keras.StatelessScope(initialize_variables=False):
        earlier = keras.Variable("zeros", shape=(2,))
    with deferred() as pending:
        later = keras.Variable("zeros", shape=(3,))
    assert list(pending) == [later]
    with keras.StatelessScope():
        pass  # leaving it gives values to what waits
    assert has_value(earlier)
    assert not has_value(later)
    give_value(later, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(later.numpy(), [1, 2, 3])


def test_an_error_leaves_keras_as_it_was() -> None:
    with pytest.raises(ValueError, match="fully-defined"), deferred():
        keras.Variable("zeros", shape=(None,))
    assert has_value(keras.Variable("zeros", shape=(2,)))
    assert has_value(keras.Variable(np.ones(2)))


def test_a_large_variable_that_is_no_part_of_the_model_is_refused() -> None:
    with deferred() as pending:
        keras.Variable("zeros", shape=(1 << 25,), name="stray")
    with pytest.raises(ModelError, match="stray"):
        finish(pending, keras.Sequential([keras.Input((1,)), layers.Dense(1)]))


def test_one_module_knows_the_list() -> None:
    folder = Path(bitwidth.__file__).parent
    names = (
        "uninitialized_variables",
        "global_seed_generator",
        "_deferred_initialize",
        "initialize_variables=False",
        "._initializer",
    )
    knowing = {p.name for p in folder.rglob("*.py") if any(name in p.read_text("utf-8") for name in names)}
    assert knowing == {"deferral.py"}
