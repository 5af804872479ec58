"""Ragged inputs: what Keras trains with is taken, in arrays and datasets; the rest is refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.errors import BitwidthError, DataError

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 6, 40)
TOKENS = tf.RaggedTensor.from_row_lengths(RNG.integers(1, 20, LENGTHS.sum()).astype(np.int32), LENGTHS)
POINTS = tf.RaggedTensor.from_row_lengths(RNG.normal(size=(LENGTHS.sum(), 3)), LENGTHS)  # float64
X, Y = (RNG.normal(size=(40, width)).astype(np.float32) for width in (6, 1))


@keras.saving.register_keras_serializable("test_ragged")
class Mean(L.Layer):  # type: ignore[misc]
    """The mean over a ragged axis, by TensorFlow."""

    def call(self, x: Any) -> Any:
        return tf.reduce_mean(x, axis=1)


@keras.saving.register_keras_serializable("test_ragged")
class Padded(L.Layer):  # type: ignore[misc]
    """What Keras's recurrent layers need."""

    def call(self, x: Any) -> Any:
        return x.to_tensor() if isinstance(x, tf.RaggedTensor) else x


@keras.saving.register_keras_serializable("test_ragged")
class Points(keras.Model):  # type: ignore[misc]
    """A layer at each point, and the mean of what it gives."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.head = L.Dense(4, name="inner"), L.Dense(1, name="head")

    def call(self, x: Any) -> Any:
        return self.head(tf.reduce_mean(tf.ragged.map_flat_values(self.inner, x), axis=1))


def compiled(model: Any) -> Any:
    model.compile("sgd", "mse")
    return model


def chain(*layers: Any, shape: Any = (None,), dtype: str = "int32", ragged: bool = True) -> Any:
    inputs = x = keras.Input(shape, dtype=dtype, ragged=ragged)
    for layer in layers:
        x = layer(x)
    return compiled(keras.Model(inputs, x))


def points() -> Any:
    model = Points()
    model(tf.cast(POINTS[:2], tf.float32))
    return compiled(model)


def two_inputs() -> Any:
    tokens, dense = keras.Input((None,), dtype="int32", ragged=True), keras.Input((6,))
    pooled = L.GlobalAveragePooling1D()(L.Embedding(20, 4)(tokens))
    return compiled(keras.Model([tokens, dense], L.Dense(1)(L.concatenate([pooled, dense]))))


TAKEN: dict[str, tuple[Callable[[], Any], Any]] = {
    "table and pooling": (lambda: chain(L.Embedding(20, 4), L.GlobalAveragePooling1D(), L.Dense(1)), TOKENS),
    "table and mean": (lambda: chain(L.Embedding(20, 4), Mean(), L.Dense(1)), TOKENS),
    "vectors": (lambda: chain(Mean(), L.Dense(4), L.Dense(1), shape=(None, 3), dtype="float32"), POINTS),
    "recurrent": (lambda: chain(Padded(), L.Embedding(20, 4, mask_zero=True), L.LSTM(3), L.Dense(1)), TOKENS),
    "subclassed": (points, POINTS),
    "with a dense input": (two_inputs, (TOKENS, X)),
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "arrays": lambda inputs: (inputs, Y),
    "dataset": lambda inputs: tf.data.Dataset.from_tensor_slices((inputs, Y)).batch(8),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TAKEN)
def test_ragged_inputs_go_through_every_kind_of_work(name: str, form: str) -> None:
    make, inputs = TAKEN[name]
    data = FORMS[form](inputs)
    if name in ("vectors", "subclassed") and form == "dataset":
        data = data.map(lambda x, y: (tf.cast(x, tf.float32), y))
    passes = [
        bw.Prune(0.3, criterion=bw.Fisher(samples=8)),
        bw.Finetune(epochs=2, batch_size=16),
        bw.Quantize(8, activations=8, rounding="error_feedback"),
    ]
    result = bw.PassManager(passes).run(make(), data=data, validation=data)
    losses = [record.metrics["loss"] for record in result.report.passes]
    assert losses[1] < losses[0]
    assert losses[2] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.parametrize("name", [name for name in TAKEN if name != "subclassed"])
def test_a_model_with_ragged_inputs_is_loaded_as_it_was_saved(name: str, tmp_path: Path) -> None:
    make, inputs = TAKEN[name]
    inputs = list(inputs) if isinstance(inputs, tuple) else inputs  # a tuple is inputs and targets
    result = bw.PassManager([bw.Quantize(4)]).run(make(), data=inputs)
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw")
    called = tf.nest.map_structure(lambda x: tf.cast(x, tf.int32 if x.dtype == tf.int32 else tf.float32), inputs)
    np.testing.assert_array_equal(loaded(called).numpy(), result.model(called).numpy())


@pytest.mark.parametrize("seed", [None, 3])
def test_ragged_rows_keep_their_elements(seed: int | None) -> None:
    source, numbered = Source((TOKENS, Y)), Source((X, Y))
    assert source.length == 40
    assert [batch.size for batch in source.samples(20, 16)] == [16, 4]
    rows = {y: row for row, y in zip(TOKENS.to_list(), Y[:, 0].tolist(), strict=True)}
    for one, two in zip(source.for_fit(16, seed).take(3), numbered.for_fit(16, seed).take(3), strict=True):
        np.testing.assert_array_equal(one[1], two[1])
        assert one[0].to_list() == [rows[y] for y in one[1].numpy()[:, 0].tolist()]


def test_training_is_that_of_keras_itself() -> None:
    make, inputs = TAKEN["table and pooling"]
    model, alone = make(), make()
    alone.set_weights(model.get_weights())
    data = tf.data.Dataset.from_tensor_slices((inputs, Y)).batch(8)
    tune = bw.Finetune(epochs=2, learning_rate="own", decay="constant")
    result = bw.PassManager([tune]).run(model, data=data)
    alone.fit(data, epochs=2, verbose=0, shuffle=False)
    for ours, theirs in zip(result.model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


PADDED = r"(?s)padded with `tensor.to_tensor\(\)`, and let the model skip .* keras.layers.Masking"
REFUSED: dict[str, tuple[Callable[[], Any], Any]] = {
    "a recurrent layer": (lambda: chain(L.Embedding(20, 4), L.LSTM(3), L.Dense(1)), (TOKENS, Y)),
    "a dense layer": (lambda: chain(L.Dense(3), Mean(), shape=(None, 3), dtype="float32"), (POINTS, Y)),
    "an input declared dense": (
        lambda: chain(L.Embedding(20, 4), L.GlobalAveragePooling1D(), L.Dense(1), ragged=False),
        (TOKENS, Y),
    ),
    "targets": (lambda: chain(L.Embedding(20, 4), Mean(), L.Dense(1)), (TOKENS, POINTS)),
    "a dataset with ragged targets": (
        lambda: chain(L.Embedding(20, 4), Mean(), L.Dense(1)),
        tf.data.Dataset.from_tensor_slices((TOKENS, TOKENS)).batch(8),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_keras_does_not_train_is_refused_with_what_to_do(name: str) -> None:
    make, data = REFUSED[name]
    with pytest.raises(BitwidthError, match=PADDED):
        bw.PassManager([bw.Finetune(epochs=1)]).run(make(), data=data)


def test_values_that_are_not_finite_are_refused() -> None:
    bad = tf.RaggedTensor.from_row_lengths(np.array([1.0, np.nan, 2.0], np.float32), [2, 1])
    with pytest.raises(DataError, match="1 of 3 values are NaN"):
        Source((bad, Y[:2]))
