"""Input moments against what they stand for: how much a layer's output changes when its kernel does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.probes import MomentsProbe

RNG = np.random.default_rng(0)


def single(make: Callable[[], Any], *shape: int) -> tuple[Any, Any]:
    """A model of one linear layer, and inputs."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    return model, RNG.standard_normal((24, *shape)).astype(np.float32)


class Heads(L.Layer):  # type: ignore[misc]
    """A kernel per head, in one batched product."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, shape[-1], 4), name="kernel")

    def call(self, x: Any) -> Any:
        return tf.matmul(x[:, None], self.kernel)


LAYERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "dense": lambda: single(lambda: L.Dense(5), 7),
    "dense over a sequence": lambda: single(lambda: L.Dense(5), 6, 7),
    "conv1d causal dilated": lambda: single(lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2), 12, 3),
    "conv2d strided": lambda: single(lambda: L.Conv2D(4, 3, strides=2, padding="same"), 9, 8, 3),
    "conv2d dilated": lambda: single(lambda: L.Conv2D(4, 3, dilation_rate=2), 9, 8, 3),
    "conv2d grouped": lambda: single(lambda: L.Conv2D(6, 3, groups=2), 7, 7, 4),
    "conv3d": lambda: single(lambda: L.Conv3D(4, 2), 5, 5, 5, 2),
    "depthwise": lambda: single(lambda: L.DepthwiseConv2D(3, depth_multiplier=2), 7, 7, 3),
    "depthwise1d": lambda: single(lambda: L.DepthwiseConv1D(3), 9, 4),
    "conv2d transposed": lambda: single(lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same"), 5, 6, 3),
    "conv1d transposed": lambda: single(lambda: L.Conv1DTranspose(4, 3, strides=2), 5, 3),
    "conv3d transposed": lambda: single(lambda: L.Conv3DTranspose(2, 2, strides=2), 3, 3, 3, 2),
    "a kernel per head": lambda: single(lambda: Heads(), 6, 7),
    "einsum": lambda: single(lambda: L.EinsumDense("abc,cde->abde", (None, 2, 5)), 6, 7),
    "einsum of heads": lambda: single(lambda: L.EinsumDense("abhc,hcd->abhd", (None, 3, 5)), 6, 3, 7),
    "einsum of two sums": lambda: single(lambda: L.EinsumDense("abcd,cde->abe", (None, 5)), 6, 3, 7),
    "einsum with an ellipsis": lambda: single(lambda: L.EinsumDense("...c,cd->...d", (6, 5)), 6, 7),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_gram_tells_how_much_the_output_changes(name: str) -> None:
    model, x = LAYERS[name]()
    session = KerasSession(model)
    path = next(p.path for p in session.graph if p.role == "kernel")
    (moments,) = session.probe(session.graph, MomentsProbe(24, (path,)), x)[path]
    kernel = session.graph.values[path]
    change = RNG.standard_normal(kernel.shape).astype(np.float32)
    before = model(x).numpy()
    model.variables[session.graph[path].index].assign(kernel + change)
    outputs = model(x).numpy() - before
    matrix = moments.arrangement.take(change)
    expected = np.einsum("gkm,gkl,glm->", matrix, moments.gram, matrix, optimize=True)
    channels = moments.arrangement.matrix[0] * moments.arrangement.matrix[2]
    np.testing.assert_allclose(np.square(outputs).sum() / (outputs.size / channels), expected, rtol=2e-3)
    shift = np.einsum("gkm,gk->gm", matrix, moments.mean).sum()
    np.testing.assert_allclose(outputs.sum() / (outputs.size / channels), shift, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("make", [L.SimpleRNN, L.LSTM, L.GRU, lambda n: L.GRU(n, reset_after=False)])
def test_recurrent_cells_are_seen_at_every_step(make: Any) -> None:
    model, x = single(lambda: make(4), 6, 3)
    session = KerasSession(model)
    paths = [p.path for p in session.graph if p.role in ("kernel", "recurrent_kernel")]
    found = session.probe(session.graph, MomentsProbe(24, tuple(paths)), x)
    flat = x.reshape(-1, 3)
    for part in found[paths[0]]:
        np.testing.assert_allclose(part.gram[0], flat.T @ flat / len(flat), rtol=1e-4, atol=1e-4)
    covered = np.zeros(session.graph[paths[1]].shape, np.float32)
    for part in found[paths[1]]:
        part.arrangement.put(covered, part.arrangement.take(covered) + 1)
        assert part.rows == 24 * 6
    assert (covered == 1).all()


class Cut(L.Layer):  # type: ignore[misc]
    """One kernel, cut into parts that are used by themselves."""

    def __init__(self, cut: Callable[[Any], list[Any]], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.cut, self.shape = cut, shape
        self.kernel = self.add_weight(shape=shape, name="kernel")

    def call(self, x: Any) -> Any:
        return sum(keras.ops.mean(x @ part, axis=-1, keepdims=True) for part in self.cut(self.kernel))


CUT: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "split": (lambda: Cut(lambda kernel: list(tf.split(kernel, 3, axis=1)), (6, 12)), (6,)),
    "split from the end": (lambda: Cut(lambda kernel: list(tf.split(kernel, 3, axis=-1)), (6, 12)), (6,)),
    "split unevenly": (lambda: Cut(lambda kernel: list(tf.split(kernel, [3, 9], axis=1)), (6, 12)), (6,)),
    "unstack": (lambda: Cut(lambda kernel: list(tf.unstack(kernel)), (3, 6, 4)), (6,)),
    "unstack in the middle": (lambda: Cut(lambda kernel: list(tf.unstack(kernel, axis=1)), (6, 3, 4)), (6,)),
    "LSTM by gates": (lambda: L.LSTM(4, implementation=1), (5, 6)),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(3, 2), (3, 6, 2)),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(3, 2, padding="same"), (3, 5, 4, 2)),
    "ConvLSTM3D": (lambda: L.ConvLSTM3D(2, 2), (2, 3, 3, 3, 2)),
}


@pytest.mark.parametrize("name", CUT)
def test_each_part_of_a_kernel_that_is_cut_up_has_moments(name: str) -> None:
    make, shape = CUT[name]
    model, x = single(make, *shape)
    session = KerasSession(model)
    paths = [p.path for p in session.graph if p.role in ("kernel", "recurrent_kernel")]
    found = session.probe(session.graph, MomentsProbe(24, tuple(paths)), x)
    for path in paths:
        covered = np.zeros(session.graph[path].shape, np.float32)
        for part in found[path]:
            part.arrangement.put(covered, part.arrangement.take(covered) + 1)
            assert part.rows
            if len(shape) == 1:
                np.testing.assert_allclose(part.gram[0], x.T @ x / 24, rtol=1e-4, atol=1e-4)
        assert (covered == 1).all()


@pytest.mark.parametrize("name", CUT)
def test_passes_that_ask_for_moments_take_a_kernel_that_is_cut_up(name: str) -> None:
    make, shape = CUT[name]
    model, x = single(make, *shape)
    for one in (
        bw.Quantize(3, rounding="error_feedback"),
        bw.Quantize(4, importance="inputs"),
        bw.CorrectBias(bw.Quantize(3)),
    ):
        result = bw.PassManager([one]).run(model, data=x)
        assert not any("rounded to nearest" in remark for remark in result.report.passes[0].remarks)
        assert np.isfinite(result.model(x).numpy()).all()


class Tied(keras.Model):  # type: ignore[misc]
    """Attention between a table and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention = L.Embedding(11, 8), L.MultiHeadAttention(2, 4)

    def call(self, tokens: Any) -> Any:
        y = self.table(tokens)
        y = self.attention(y, y) + y
        return keras.ops.matmul(y, keras.ops.transpose(self.table.embeddings))


def test_attention_and_a_tied_table() -> None:
    keras.utils.set_random_seed(0)
    model = Tied()
    x = RNG.integers(0, 11, (24, 5)).astype(np.int32)
    model(x)
    session = KerasSession(model, x)
    paths = [p.path for p in session.graph if len(p.shape) >= 2 and p.trainable and p.role != "bias"]
    found = session.probe(session.graph, MomentsProbe(24, tuple(paths)), x)
    shapes = {path: [part.arrangement.matrix for part in parts] for path, parts in found.items()}
    assert {matrix for parts in shapes.values() for matrix in parts} >= {(11, 1, 8), (1, 8, 8)}
    table_path = next(p.path for p in session.graph if p.role == "embedding")
    frequency = next(part for part in found[table_path] if part.arrangement.matrix == (11, 1, 8))
    np.testing.assert_allclose(frequency.gram[:, 0, 0], np.bincount(x.ravel(), minlength=11) / x.size, rtol=1e-5)
    assert any(part.arrangement.matrix[1] == 8 and part.arrangement.matrix[2] == 11 for part in found[table_path])


def test_a_shared_layer_adds_up() -> None:
    keras.utils.set_random_seed(0)
    one, two = keras.Input((4,)), keras.Input((4,))
    shared = L.Dense(4)
    model = keras.Model([one, two], shared(one) + shared(two))
    x = [RNG.standard_normal((24, 4)).astype(np.float32) for _ in range(2)]
    session = KerasSession(model)
    path = next(p.path for p in session.graph if p.role == "kernel")
    (moments,) = session.probe(session.graph, MomentsProbe(24, (path,)), x)[path]
    rows = np.concatenate(x)
    np.testing.assert_allclose(moments.gram[0], rows.T @ rows / 48, rtol=1e-4, atol=1e-5)


def test_a_parameter_that_nothing_sums_with_has_no_moments() -> None:
    model, x = single(lambda: L.Dense(5), 7)
    session = KerasSession(model)
    path = next(p.path for p in session.graph if p.role == "bias")
    assert session.probe(session.graph, MomentsProbe(24, (path,)), x) == {path: ()}


def test_counters_and_random_states_stay() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(4), L.BatchNormalization(), L.Dropout(0.5), L.Dense(2)])
    session = KerasSession(model)
    before = [variable.numpy() for variable in session.model.variables]
    session.probe(
        session.graph,
        MomentsProbe(8, tuple([p.path for p in session.graph if p.is_float])),
        np.ones((8, 6), np.float32),
    )
    for old, variable in zip(before, session.model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
