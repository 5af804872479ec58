"""What a parameter does, where it is a part of a kernel's computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw

X = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
Form = Callable[[Any, Any, Any, Any], Any]


class Computed(L.Layer):  # type: ignore[misc]
    """A layer whose kernel is computed from `v` and a parameter `g` that is repeated along it."""

    def __init__(self, form: Form, shape: tuple[int, ...], kernel: tuple[int, ...] = (8, 16)) -> None:
        super().__init__(name="computed")
        self.form = form
        self.v = self.add_weight(shape=kernel, name="v")
        self.g = self.add_weight(shape=shape, name="g", initializer="ones")

    def call(self, x: Any) -> Any:
        return self.form(x, self.v, self.g, tf.norm(self.v, axis=0))


GAINS: dict[str, tuple[Form, tuple[int, ...], str]] = {
    "weight normalisation": (lambda x, v, g, norm: x @ (v * g / norm), (16,), "scale"),
    "gain of two axes": (lambda x, v, g, norm: x @ (v / norm * g), (1, 16), "scale"),
    "gain of inputs": (lambda x, v, g, norm: x @ (v * g), (8, 1), "scale"),
    "gain first": (lambda x, v, g, norm: x @ (g * (v / norm)), (16,), "scale"),
    "gain as a logarithm": (lambda x, v, g, norm: x @ (v * tf.exp(g)), (16,), "scale"),
    "gain of groups": (
        lambda x, v, g, norm: x @ tf.reshape(tf.reshape(v, (2, 4, 16)) * g, (8, 16)),
        (2, 1, 16),
        "scale",
    ),
    "temperature": (lambda x, v, g, norm: x @ (v / g), (), "scale"),
    "temperature of one axis": (lambda x, v, g, norm: x @ (v * g), (1,), "scale"),
    "temperature of a constant": (lambda x, v, g, norm: x @ v @ (g * tf.eye(16)), (), "scale"),
    "offset": (lambda x, v, g, norm: x @ (v - g), (16,), "bias"),
    "einsum": (lambda x, v, g, norm: tf.einsum("bi,io->bo", x, v * g), (16,), "scale"),
    "convolution": (lambda x, v, g, norm: tf.nn.conv1d(x[:, None], (v * g)[None], 1, "SAME")[:, 0], (16,), "scale"),
    "table": (lambda x, v, g, norm: tf.gather(v * g, tf.argmax(x, axis=-1)), (16,), "scale"),
}


def model_of(name: str) -> Any:
    form, shape, _ = GAINS[name]
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((8,)), Computed(form, shape), L.Dense(4)])


@pytest.mark.parametrize("name", GAINS)
def test_what_is_repeated_along_a_kernel_is_no_kernel(name: str) -> None:
    graph = bw.read(model_of(name))
    assert graph["computed/g"].role == GAINS[name][2]
    assert graph["computed/v"].role == ("embedding" if name == "table" else "kernel")


@pytest.mark.parametrize("name", GAINS)
@pytest.mark.parametrize(
    "one", [bw.Prune(0.5, scope="local"), bw.Quantize(rate=3.0), bw.Quantize(4, importance="fisher"), bw.Quantize(2)]
)
def test_a_gain_is_neither_pruned_nor_put_on_a_grid(name: str, one: bw.Pass) -> None:
    result = bw.PassManager([one]).run(model_of(name), data=X)
    encoding = result.graph["computed/g"].encoding
    assert encoding.mask is None
    assert encoding.bits >= 16
    if isinstance(one, bw.Prune):
        assert "only kernels and embeddings are pruned" in result.report.passes[0].skipped["computed/g"]


KERNELS: dict[str, tuple[Form, tuple[int, ...]]] = {
    "outer product": (lambda x, v, g, norm: x @ v @ (g[:, None] * tf.ones((1, 16))), (16,)),
    "shared by heads": (
        lambda x, v, g, norm: tf.tile((x @ v)[None], (2, 1, 1)) @ tf.tile(g[None], (2, 1, 1)),
        (16, 16),
    ),
    "product of two": (lambda x, v, g, norm: x @ (v @ g), (16, 16)),
    "mask": (lambda x, v, g, norm: x @ (v * tf.nn.relu(g)), (8, 16)),
    "one input": (lambda x, v, g, norm: (x @ v)[:, :1] @ g, (1, 16)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_still_kernels(name: str) -> None:
    form, shape = KERNELS[name]
    inputs = keras.Input((8,))
    model = keras.Model(inputs, Computed(form, shape)(inputs))
    assert bw.read(model)["computed/g"].role == "kernel"
