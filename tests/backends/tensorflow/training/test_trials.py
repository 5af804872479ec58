"""What a run will use is tried before work starts, and what Keras trains is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from typing_extensions import override

import bitwidth as bw
from bitwidth.errors import BitwidthError, ConfigError, DataError, ModelError, SelectionError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> Any:
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="hidden"), layers.Dense(2, name="out")], name="net"
    )


def two_outputs() -> Any:
    x = keras.Input((6,))
    return keras.Model(x, [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x)])


# ---- models that bring their own loss


class Sparse(layers.Layer):  # type: ignore[misc]
    """Adds a loss of what it passes on."""

    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(keras.ops.abs(x)))
        return x


class Autoencoder(keras.Model):  # type: ignore[misc]
    """Trained by `add_loss` alone, subclassed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.down, self.up = layers.Dense(3, name="down"), layers.Dense(6, name="up")

    def call(self, x: Any) -> Any:
        y = self.up(self.down(x))
        self.add_loss(keras.ops.mean(keras.ops.square(y - x)))
        return y


def functional_with_added_loss() -> Any:
    x = keras.Input((6,))
    return keras.Model(x, Sparse(name="sparse")(layers.Dense(2, name="out")(layers.Dense(8, name="hidden")(x))))


def autoencoder() -> Any:
    model = Autoencoder()
    model(X[:2])
    return model


def with_activity_regularizer() -> Any:
    out = layers.Dense(2, activity_regularizer="l2", name="out")
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, name="hidden"), out])


ADDING: dict[str, Callable[[], Any]] = {
    "functional": functional_with_added_loss,
    "subclassed": autoencoder,
    "an activity regularizer": with_activity_regularizer,
}


@pytest.mark.parametrize("name", list(ADDING))
@pytest.mark.parametrize("data", [X, (X, X[:, :2])], ids=["inputs alone", "targets"])
def test_models_that_add_their_loss_are_trained(name: str, data: Any) -> None:
    model = ADDING[name]()
    result = bw.PassManager([bw.Prune(0.3), bw.Finetune(epochs=2)]).run(model, data, validation=data)
    history = result.report.passes[1].history["loss"]
    assert history[1] < history[0]
    assert "loss" in result.report.passes[0].metrics
    assert any((a != b).any() for a, b in zip(model.get_weights(), result.model.get_weights(), strict=True))


def test_a_model_that_adds_none_still_needs_one() -> None:
    with pytest.raises(ConfigError, match="no loss"):
        bw.PassManager([bw.Finetune(epochs=1)]).run(network(), (X, Y))


class Pairs(keras.Model):  # type: ignore[misc]
    """Its training step takes two views in a dict; its call takes one array."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encode = layers.Dense(4, name="encode")

    def call(self, x: Any) -> Any:
        return self.encode(x)

    def train_step(self, data: Any) -> Any:
        data = data[0] if isinstance(data, tuple) else data
        with tf.GradientTape() as tape:
            left, right = self(data["left"]), self(data["right"])
            loss = tf.reduce_mean(tf.square(left - right))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"distance": loss}


VIEWS = {"left": X, "right": X + 0.1}
FORMS: dict[str, Any] = {
    "a dict": VIEWS,
    "a tuple with a dict": (VIEWS,),
    "a dataset": tf.data.Dataset.from_tensor_slices(VIEWS).batch(16),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_a_training_step_may_take_what_the_call_does_not(form: str) -> None:
    keras.utils.set_random_seed(2)
    model = Pairs()
    model(X[:2])
    model.compile("adam")
    result = bw.PassManager([bw.Quantize(4), bw.Finetune(epochs=4, learning_rate=0.03)]).run(model, FORMS[form])
    history = result.report.passes[1].history["distance"]
    assert history[-1] < history[0]
    with pytest.raises(DataError, match="needs data for its call"):
        bw.PassManager([bw.Quantize(4, rounding="error_feedback")]).run(model, FORMS[form])


def test_without_a_step_of_its_own_such_data_is_refused() -> None:
    with pytest.raises((DataError, ModelError)):
        bw.PassManager([bw.Quantize(4)]).run(autoencoder(), VIEWS)


# ---- what Keras would refuse in the middle of a run

BAD: dict[str, tuple[Callable[[], Any], dict[str, Any], Any, str]] = {
    "a class that is a name": (network, {"class_weight": {"a": 1.0}}, (X, Y), "'a': 1.0"),
    "a weight that is none": (network, {"class_weight": {0: None}}, (X, Y), "0: None"),
    "class weights and sample weights": (
        network,
        {"class_weight": {0: 1.0, 1: 2.0}},
        (X, Y, np.ones(64, np.float32)),
        "class_weight cannot be used",
    ),
    "class weights of two outputs": (
        two_outputs,
        {"class_weight": {0: 1.0, 1: 2.0}},
        (X, [Y, Y]),
        "class_weight cannot be used",
    ),
    "a callback of another library": (
        network,
        {"callbacks": [keras.callbacks.History(), SimpleNamespace(set_model=print)]},
        (X, Y),
        r"callbacks\[1\].*set_model=<built-in function print>",
    ),
    "sample weights of another shape": (network, {}, (X, Y, np.ones((64, 3), np.float32)), "loss or metrics"),
}


@dataclass(frozen=True)
class Witness(bw.Pass):
    """Fails when it is run: work has started."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        raise AssertionError("work has started")


@pytest.mark.parametrize("name", list(BAD))
def test_refused_before_work_starts(name: str) -> None:
    make, settings, data, words = BAD[name]
    chain = [bw.Prune(0.5), bw.Finetune(epochs=1, loss=LOSS, **settings)]
    model = make()
    before = model.get_weights()
    with pytest.raises(BitwidthError, match=words):
        bw.PassManager([Witness(), *chain]).run(model, data)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("class_weight", [{0: 1.0, 1: 3.0}, {0: 2, 1: 1}, {1: 0.5, 0: 0.1}])
def test_good_class_weights_are_used(class_weight: Any) -> None:
    chain = bw.PassManager([bw.Finetune(epochs=1, loss=LOSS, class_weight=class_weight)])
    model = network()
    weighted = chain.run(model, (X, Y)).model.get_weights()
    plain = bw.PassManager([bw.Finetune(epochs=1, loss=LOSS)]).run(model, (X, Y)).model.get_weights()
    assert any((a != b).any() for a, b in zip(weighted, plain, strict=True))


@pytest.mark.parametrize("validation", [5, "x", (X, Y[:-1]), (X, None, None, None), [], (X.astype(object), Y)])
def test_validation_that_is_none_is_refused_before_work_starts(validation: Any) -> None:
    with pytest.raises(BitwidthError):
        bw.PassManager([Witness(), bw.Finetune(epochs=1, loss=LOSS)]).run(network(), (X, Y), validation=validation)


# ---- errors of one kind

ODD: list[Any] = ["layer", ["layer"], 3, object(), "kernel", lambda parameter: parameter.nothing, [3], b"hidden"]


@pytest.mark.parametrize("place", range(len(ODD)))
@pytest.mark.parametrize("around", [False, True])
def test_what_is_no_selector_is_refused_by_name(place: int, around: bool) -> None:
    model, odd = network(), ODD[place]
    where = {"layer": model.layers[0], "kernel": model.layers[0].kernel}.get(odd, odd) if isinstance(odd, str) else odd
    where = [model.layers[0]] if odd == ["layer"] else where
    with pytest.raises(SelectionError, match="where"):
        bw.PassManager([bw.Where(bw.Quantize(4), where) if around else bw.Quantize(4, where=where)]).run(model)


@pytest.mark.parametrize("odd", [5, ["a"], "a", object()])
def test_custom_objects_that_are_no_dict(odd: Any, tmp_path: Any) -> None:
    bw.PassManager([]).run(network()).save(tmp_path / "m.bw")
    with pytest.raises(ConfigError, match="custom_objects"):
        bw.load(tmp_path / "m.bw", custom_objects=odd)


@pytest.mark.parametrize("odd", [5, "m.keras", object(), layers.Dense(2)])
def test_a_model_to_fill_that_is_none(odd: Any, tmp_path: Any) -> None:
    bw.PassManager([]).run(network()).save(tmp_path / "m.bw")
    with pytest.raises(ModelError, match=r"expected a built keras\.Model"):
        bw.load(tmp_path / "m.bw", model=odd)


class Stranger(layers.Layer):  # type: ignore[misc]
    """A class that a reader does not know."""

    def call(self, x: Any) -> Any:
        return x


class Named(layers.Layer):  # type: ignore[misc]
    """Its constructor does not take what its configuration gives."""

    def __init__(self, size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.size = size

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}

    def call(self, x: Any) -> Any:
        return x


def test_an_unknown_class_is_named_with_what_to_do(tmp_path: Any) -> None:
    stack = [keras.Input((6,)), *(layers.Dense(4, name=f"long_name_of_layer_{i}") for i in range(40))]
    model = keras.Sequential([*stack, Stranger(name="odd")])
    bw.PassManager([]).run(model).save(tmp_path / "m.bw")
    with pytest.raises(BitwidthError, match=r"Stranger' is not a layer.*custom_objects="):
        bw.load(tmp_path / "m.bw")
    assert bw.load(tmp_path / "m.bw", custom_objects={"Stranger": Stranger}).layers[-1].name == "odd"


def test_why_a_model_cannot_be_built_again_is_said_whole(tmp_path: Any) -> None:
    stack = [keras.Input((6,)), *(layers.Dense(4, name=f"long_name_of_layer_{i}") for i in range(40))]
    result = bw.PassManager([]).run(keras.Sequential([*stack, Named(3, name="odd")]))
    with pytest.raises(BitwidthError, match=r"unexpected keyword argument 'trainable'"):
        result.save(tmp_path / "m.bw")
