"""Chains in the place of layers of Keras models: what is built, what is refused, and that it computes the product."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray

import bitwidth as bw
from bitwidth.backend import backend_for
from bitwidth.backends.tensorflow.models.agreement import tried
from bitwidth.backends.tensorflow.reading.specs import input_specs
from bitwidth.errors import ModelError
from bitwidth.graph import Chain, Chains, Stage, cut_between
from tests import nets

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> NDArray[np.float32]:
    return (RNG.normal(size=shape) / 2).astype(np.float32)


def halves(kernel: Any, axes: Any, path: str, rank: int = 2, windows: int = 0) -> Chain:
    """A chain of random factors in the place of the layer of a kernel."""
    layer = path.rpartition("/")[0]
    one, other = ([kernel.shape[axis] for axis in part] for part in axes)
    stages = Stage(f"{layer}_factor", axes[0], drawn(*one, rank)), Stage(layer, axes[1], drawn(rank, *other))
    return Chain(path, stages, windows)


def outputs(model: Any, x: Any) -> Any:
    return keras.ops.convert_to_numpy(model(x, training=False))


def replaced(model: Any, chain: Chain) -> Any:
    """The model with a chain; a copy of the one before with the product for a kernel is what it is compared with."""
    session = backend_for(model).open(model)
    before = session.graph
    after = session.rebuild(before, Chains((chain,)))
    assert set(after.parameters) == set(before.parameters) | set(chain.kernels)
    made = session.finish(after).model
    wanted = backend_for(model).open(model)
    x, _ = tried(model, input_specs(model), [2])
    product = wanted.finish(before.update({chain.kernel: chain.product})).model
    expected = outputs(product, x)
    np.testing.assert_allclose(outputs(made, x), expected, atol=1e-5 * np.abs(expected).max())
    assert np.abs(outputs(model, x) - expected).max() > 1e-3 * np.abs(expected).max()
    return made


CONVOLUTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "strides": ({"strides": 2, "padding": "same"}, 2),
    "valid": ({"strides": (2, 1)}, 2),
    "dilation": ({"dilation_rate": (2, 1), "padding": "same"}, 2),
    "one axis": ({"strides": 2}, 1),
    "causal": ({"padding": "causal", "dilation_rate": 2}, 1),
    "three axes": ({"strides": (1, 2, 1), "padding": "same"}, 3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    keras.utils.set_random_seed(0)
    given, rank = CONVOLUTIONS[name]
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    conv = kind(6, 3, activation="relu", name="conv", **given)
    model = keras.Sequential([keras.Input((*(9, 8, 7)[:rank], 4)), conv, layers.Flatten(), layers.Dense(3, name="out")])
    forms: list[Any] = [((*range(rank + 1),), (rank + 1,)), ((0, 2), (1, 3))][: 2 if rank == 2 else 1]
    for axes in forms:
        made = replaced(model, halves(conv.kernel, axes, "conv/kernel", windows=rank))
        first, last = made.get_layer("conv_factor"), made.get_layer("conv")
        assert not first.use_bias
        assert (first.activation.__name__, last.activation.__name__) == ("linear", "relu")
        assert (first.filters, last.filters) == (2, 6)
        np.testing.assert_array_equal(last.bias, conv.bias)
        if axes[0] == (0, 2):
            assert (first.kernel_size, last.kernel_size) == ((3, 1), (1, 3))
            assert (first.strides[1], last.strides[0]) == (1, 1)
        else:
            assert set(last.kernel_size) == set(last.strides) == {1}


EQUATIONS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "abc,cd->abd": ((5, 6), {"output_shape": (5, 4), "bias_axes": "d"}, ((0,), (1,))),
    "abc,cde->abde": ((5, 6), {"output_shape": (None, 3, 4), "bias_axes": "de"}, ((0,), (1, 2))),
    "abcd,cde->abe": ((5, 3, 4), {"output_shape": (5, 6)}, ((0, 1), (2,))),
    "abcd,edc->abe": ((5, 3, 4), {"output_shape": (None, 6)}, ((1, 2), (0,))),
    "...x,xy->...y": ((5, 6), {"output_shape": 4, "bias_axes": "y"}, ((0,), (1,))),
    "...x,yx->...y": ((6,), {"output_shape": 4}, ((1,), (0,))),
    "ab...,bc->ac...": ((6, 5), {"output_shape": 4, "bias_axes": "c"}, ((0,), (1,))),
    "abc,bd->adc": ((5, 6), {"output_shape": (4, 6)}, ((0,), (1,))),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsums(equation: str) -> None:
    keras.utils.set_random_seed(0)
    shape, given, axes = EQUATIONS[equation]
    layer = layers.EinsumDense(equation, name="dense", activation="tanh", **given)
    x = keras.Input(shape)
    made = replaced(keras.Model(x, layer(x)), halves(layer.kernel, axes, "dense/kernel"))
    first, last = made.get_layer("dense_factor"), made.get_layer("dense")
    assert (first.bias, first.activation.__name__) == (None, "linear")
    assert last.activation.__name__ == "tanh"
    assert (last.bias is None) == (layer.bias is None)


def test_a_shared_layer_stays_shared_within_a_nested_model() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    shared = layers.Dense(8, "relu", name="shared", kernel_regularizer="l2", activity_regularizer="l1")
    inner = keras.Model(x, shared(layers.Dropout(0.1)(shared(x))), name="inner")
    one, other = keras.Input((8,), name="one"), keras.Input((8,), name="other")
    model = keras.Model([one, other], layers.Dense(3, name="out")(layers.Add()([inner(one), inner(inner(other))])))
    made = replaced(model, halves(shared.kernel, ((0,), (1,)), "inner/shared/kernel"))
    part = made.get_layer("inner")
    assert len(made.trainable_variables) == len(model.trainable_variables) + 1
    assert len(part.get_layer("shared_factor")._inbound_nodes) >= 2
    assert part.get_layer("shared_factor").activity_regularizer is None
    assert part.get_layer("shared_factor").kernel_regularizer is not None
    assert part.get_layer("shared").activity_regularizer is not None


def test_flags_policies_and_states_go_along() -> None:
    keras.utils.set_random_seed(0)
    text = layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b", "c"], name="words")
    dense = layers.Dense(6, name="dense", trainable=False, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((1,), dtype="string"), text, dense, layers.Dense(2, name="out")])
    model(np.array([["a b"]], dtype=object))
    session = backend_for(model).open(model)
    after = session.rebuild(session.graph, Chains((halves(dense.kernel, ((0,), (1,)), "dense/kernel"),)))
    made = session.finish(after).model
    assert made.get_layer("words").get_vocabulary() == text.get_vocabulary()
    assert made.get_layer("dense_factor").dtype_policy.name == "mixed_bfloat16"
    assert not made.get_layer("dense_factor").trainable
    assert not after["dense_factor/kernel"].trainable


class Block(layers.Layer):  # type: ignore[misc]
    """A user's layer that holds a layer."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.inner = layers.Dense(8, name="inner")

    def build(self, shape: Any) -> None:
        """Build the layer inside."""
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        """Run the layer inside."""
        return self.inner(x)


def test_what_cannot_be_replaced_is_told_with_the_reason() -> None:
    x = keras.Input((6, 8))
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    y = layers.TimeDistributed(layers.Dense(8, name="each"), name="steps")(y)
    y = Block(name="block")(y)
    y = layers.LSTM(8, return_sequences=True, name="lstm")(y)
    y = layers.SeparableConv1D(8, 3, name="separable")(y)
    y = layers.Dense(8, name="bounded", kernel_constraint="non_neg")(y)
    y = layers.Dense(8, name="plain")(y)
    found = {path: layer.fixed for path, layer in bw.read(keras.Model(x, y)).layers.items() if layer.fixed}
    assert "plain" not in found
    for layer, words in {
        "attention/query": "part of attention (MultiHeadAttention)",
        "steps/each": "part of steps (TimeDistributed)",
        "block/inner": "part of block (Block)",
        "lstm/cell": "part of lstm (LSTM)",
        "separable": "kind SeparableConv1D",
        "bounded": "its kernel has a constraint",
    }.items():
        assert words in found[layer]
    subclassed = nets.residual_cnn()
    found = {path: layer.fixed for path, layer in bw.read(subclassed).layers.items()}
    assert all("the model is of the class ResidualCNN" in why and "functionalize" in why for why in found.values())


def test_a_replacement_that_fails_changes_nothing() -> None:
    keras.utils.set_random_seed(0)
    dense = layers.Dense(5, name="dense")
    model = keras.Sequential([keras.Input((8,)), dense, layers.Dense(6, name="out", kernel_constraint="non_neg")])
    session = backend_for(model).open(model)
    graph = session.graph
    good = halves(dense.kernel, ((0,), (1,)), "dense/kernel")
    x = drawn(3, 8)
    given = outputs(model, x)
    for chain, words in (
        (halves(model.layers[1].kernel, ((0,), (1,)), "out/kernel"), "out: its kernel has a constraint"),
        (halves(dense.kernel, ((1,), (0,)), "dense/kernel"), "the first stage of its chain has the inputs"),
        (halves(drawn(7, 5), ((0,), (1,)), "dense/kernel"), r"dense/kernel|dense_factor/kernel"),
        (Chain("dense/kernel", (Stage("out", (0,), drawn(8, 2)), Stage("dense", (1,), drawn(2, 5)))), "of that name"),
        (Chain("none/kernel", (Stage("f", (0,), drawn(8, 2)), Stage("none", (1,), drawn(2, 5)))), "no such layer"),
    ):
        for act in (session.check_rebuild, session.rebuild):
            with pytest.raises(ModelError, match=words):
                act(graph, Chains((chain,)))
    assert cut_between(graph, session.rebuild(graph, Chains((good,)))).made.keys() == good.kernels.keys()
    np.testing.assert_array_equal(outputs(model, x), given)
    opened = bw.open(model)
    with pytest.raises(ModelError, match="share"):
        opened.session.rebuild(opened.graph, Chains((good,)))


def test_a_model_that_computes_something_else_is_not_gone_on_with() -> None:
    keras.utils.set_random_seed(0)
    dense = layers.Dense(5, name="dense")
    session = backend_for(model := keras.Sequential([keras.Input((8,)), dense])).open(model)
    odd = halves(dense.kernel, ((0,), (1,)), "dense/kernel")
    odd.__dict__["product"] = odd.product + 0.1  # what it is compared with
    with pytest.raises(ModelError, match=r"output 0 of the model with chains differs from that of the model before"):
        session.rebuild(session.graph, Chains((odd,)))
    assert [layer.name for layer in session.finish(session.graph).model.layers] == ["dense"]
