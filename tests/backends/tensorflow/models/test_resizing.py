"""Models built again with smaller layers: what their configurations say, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from typing_extensions import override

from bitwidth.backend import backend_for
from bitwidth.errors import ModelError
from bitwidth.graph import Graph
from bitwidth.graph.labels import Removal, couple

RNG = np.random.default_rng(0)


@keras.saving.register_keras_serializable("tests.resizing")
class Scaled(layers.Layer):  # type: ignore[misc]
    """Multiplies by a vector whose length is an argument, as many layers of users do."""

    def __init__(self, width: int, rate: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.rate = width, rate

    @override
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(self.width,), initializer="ones", name="scale")

    @override
    def call(self, x: Any) -> Any:
        return x * self.scale

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "rate": self.rate}


@keras.saving.register_keras_serializable("tests.resizing")
class Block(layers.Layer):  # type: ignore[misc]
    """A layer made of layers, whose sizes are its own arguments."""

    def __init__(self, inner: int, outer: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.outer = inner, outer
        self.first, self.second = layers.Dense(inner, "relu"), layers.Dense(outer)

    @override
    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((*shape[:-1], self.inner))

    @override
    def call(self, x: Any) -> Any:
        return self.second(self.first(x))

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inner": self.inner, "outer": self.outer}


def model_of(shape: tuple[int | None, ...], body: Callable[[Any], Any], outputs: int = 3) -> Any:
    x = keras.Input(shape)
    y = body(x)
    return keras.Model(x, layers.Dense(outputs, name="out")(y) if not isinstance(y, list) else y)


def dense() -> Any:
    return model_of((8,), lambda x: layers.Dense(12, "relu")(layers.Dense(16, "relu")(x)))


def images() -> Any:
    def body(x: Any) -> Any:
        x = layers.Conv2D(8, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        y = layers.Conv2D(8, 3, padding="same")(layers.Activation("relu")(x))
        x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x + y)
        x = layers.SeparableConv2D(10, 3)(x)
        x = layers.Conv2DTranspose(6, 3)(x)
        return layers.Flatten()(layers.ZeroPadding2D(2)(layers.MaxPooling2D()(x)))

    return model_of((10, 10, 3), body)


def grouped() -> Any:
    def body(x: Any) -> Any:
        x = layers.Conv2D(12, 3)(x)
        x = layers.Conv2D(12, 3, groups=12)(x)
        return layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))

    return model_of((10, 10, 3), body)


def recurrent() -> Any:
    def body(x: Any) -> Any:
        x = layers.LSTM(8, return_sequences=True)(x)
        x = layers.Bidirectional(layers.GRU(6, return_sequences=True))(x)
        x = layers.RNN(layers.SimpleRNNCell(10), return_sequences=True)(x)
        return layers.GRU(5, reset_after=False)(layers.TimeDistributed(layers.Dense(7))(x))

    return model_of((5, 4), body)


def attention() -> Any:
    def body(x: Any) -> Any:
        y = layers.MultiHeadAttention(4, 6, value_dim=5)(x, x)
        x = layers.LayerNormalization()(x + y)
        return layers.GlobalAveragePooling1D()(layers.EinsumDense("btd,de->bte", (None, 20), bias_axes="e")(x))

    return model_of((6, 8), body)


def operations() -> Any:
    def body(x: Any) -> Any:
        first, second = ops.split(layers.Dense(16)(x), [6], axis=-1)
        third = layers.Dense(12)(first)[:, 2:9]
        second = ops.reshape(layers.Dense(12)(second), (-1, 3, 4))
        second = layers.Reshape((12,))(second)
        return layers.Concatenate()([third, second, ops.relu(first)])

    return model_of((8,), body)


def nested() -> Any:
    inner = keras.Sequential([keras.Input((10,)), layers.Dense(12, "relu"), layers.Dense(10)], name="inner")
    shared = layers.Dense(10, name="shared")

    def body(x: Any) -> Any:
        y = inner(layers.Dense(10)(x))
        return shared(y) + shared(layers.Dense(10)(x))

    return model_of((8,), body)


def tokens() -> Any:
    return model_of((7,), lambda x: layers.GlobalMaxPooling1D()(layers.Conv1D(9, 3)(layers.Embedding(20, 8)(x))))


def own_layers() -> Any:
    return model_of((8,), lambda x: Block(14, 12)(Scaled(16)(layers.Dense(16)(x))))


MODELS: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (dense, images, grouped, recurrent, attention, operations, nested, tokens, own_layers)
}


def opened(model: Any) -> Any:
    """A session of a model with random vectors, gammas of both signs among them."""
    for variable in model.variables:
        if len(variable.shape) == 1 and variable.dtype == "float32":
            drawn = RNG.uniform(0.5, 2.0, variable.shape)
            signs = 1 if "variance" in variable.name else RNG.choice([-1, 1], variable.shape)
            variable.assign(drawn * signs)
    return backend_for(model).open(model)


def halves(graph: Graph) -> Removal:
    """Half of the units of every exact group."""
    coupling = couple(graph)
    kept = {
        group.name: np.sort(np.random.default_rng(group.size).permutation(group.size)[: group.size // 2])
        for group in coupling.groups
        if group.exact and group.size > 1
    }
    assert kept
    return Removal(coupling, kept)


@pytest.mark.parametrize("name", MODELS)
def test_half_of_every_group(name: str) -> None:
    model = MODELS[name]()
    session = opened(model)
    before = session.graph
    removal = halves(before)
    after = session.rebuild(before, removal)
    assert {p.path: p.shape for p in after} == removal.coupling.shapes(removal.kept)
    given = session.finish(after).model
    again = type(given).from_config(given.get_config())
    assert [tuple(v.shape) for v in again.variables] == [tuple(v.shape) for v in given.variables]
    assert all(tuple(v.shape) == before[p.path].shape for v, p in zip(model.variables, before, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_other_units_than_those_that_are_cut(name: str) -> None:
    """The comparison finds a model that was cut elsewhere than it should have been."""
    session = opened(MODELS[name]())
    removal = halves(session.graph)
    for group, kept in removal.kept.items():
        size = removal.coupling[group].size
        shifted = {**removal.kept, group: np.sort((np.asarray(kept) + 1) % size)}
        wrong = Removal(removal.coupling, shifted)
        made = Removal(removal.coupling, removal.kept)
        made.__dict__["cut"] = wrong.cut  # what is left of the parameters is that of other units
        with pytest.raises(ModelError, match="differs from that of the model before"):
            session.check_rebuild(session.graph, made)


def test_sizes_in_the_configuration() -> None:
    session = opened(operations())
    removal = halves(session.graph)
    given = session.finish(session.rebuild(session.graph, removal)).model
    found = {layer["class_name"]: layer for layer in given.get_config()["layers"]}
    assert sum(found["Split"]["config"]["indices_or_sections"]) < 6
    assert given.get_layer("out").kernel.shape[0] < operations().get_layer("out").kernel.shape[0]


def test_attention_keeps_its_scale() -> None:
    """Products are divided by the root of a head's width, which changes: queries make up for it."""
    session = opened(attention())
    graph = session.graph
    coupling = couple(graph)
    name = next(group.name for group in coupling.groups if group.size == 6)
    after = session.rebuild(graph, Removal(coupling, {name: [0, 2, 4]}))
    query = next(p.path for p in graph if p.path.endswith("query/kernel"))
    expected = graph.values[query][..., [0, 2, 4]] * np.sqrt(3 / 6)
    np.testing.assert_allclose(after.values[query], expected, rtol=1e-6)


def test_a_layer_that_hides_its_size_is_refused_and_nothing_is_lost() -> None:
    @keras.saving.register_keras_serializable("tests.resizing")
    class Hidden(layers.Layer):  # type: ignore[misc]
        @override
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(16,), initializer="ones", name="scale")

        @override
        def call(self, x: Any) -> Any:
            return x * self.scale

    session = opened(model_of((8,), lambda x: Hidden()(layers.Dense(16)(x))))
    before = session.graph
    with pytest.raises(ModelError, match=r"cannot be built|is left of it"):
        session.rebuild(before, halves(before))
    assert session.graph is before
    assert session.finish(before).model.get_layer("out").kernel.shape == (16, 3)


def test_a_size_that_may_mean_two_axes_is_refused() -> None:
    session = opened(model_of((8,), lambda x: Block(12, 12)(x)))
    coupling = couple(session.graph)
    kept = {group.name: range(6 + place) for place, group in enumerate(coupling.groups)}
    with pytest.raises(ModelError, match="two of its axes of length 12 are to have"):
        session.rebuild(session.graph, Removal(coupling, kept))


def test_a_model_without_a_configuration() -> None:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layers.Dense(8), layers.Dense(2)

        @override
        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    model = Net()
    model(np.zeros((1, 4), np.float32))
    session = backend_for(model).open(model)
    with pytest.raises(ModelError):
        session.rebuild(session.graph, halves(session.graph))
