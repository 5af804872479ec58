"""Every form of data that `fit` takes goes through every kind of work; the others are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.errors import DataError

RNG = np.random.default_rng(0)
X, Z = (RNG.standard_normal((40, 6)).astype(np.float32) for _ in range(2))
Y, W = RNG.standard_normal((40, 1)).astype(np.float32), np.ones(40, np.float32)
SOME = np.where(X > 0.5, X, 0).astype(np.float32)
SPARSE = tf.sparse.from_dense(SOME)
RAGGED = tf.RaggedTensor.from_row_lengths(np.arange(100, dtype=np.int32) % 10, [2, 3] * 20)


class Coo:
    """A sparse matrix as scipy's are."""

    shape = SOME.shape

    def tocoo(self) -> Any:
        self.row, self.col = np.nonzero(SOME)
        self.data = SOME[self.row, self.col]
        return self


def one(sparse: bool = False) -> Any:
    inputs = keras.Input((6,), sparse=sparse)
    model = keras.Model(inputs, L.Dense(1)(L.Dense(4)(inputs)))
    model.compile("sgd", "mse")
    return model


def two_inputs() -> Any:
    one, two = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([one, two], L.Dense(1)(L.concatenate([one, two])))
    model.compile("sgd", "mse")
    return model


def two_outputs() -> Any:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [L.Dense(1)(inputs), L.Dense(1)(inputs)])
    model.compile("sgd", ["mse", "mse"])
    return model


class Nested(keras.Model):  # type: ignore[misc]
    """A model that gives a nest."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = L.Dense(1), L.Dense(1), L.Dense(1)

    def call(self, x: Any) -> Any:
        return self.one(x), (self.two(x), self.three(x))


def nested() -> Any:
    model = Nested()
    model(X)
    model.compile("sgd", ("mse", ("mse", "mse")))
    return model


TAKEN: dict[str, tuple[Callable[[], Any], Any]] = {
    "tuple of inputs": (two_inputs, ((X, Z), Y)),
    "tuple of targets": (two_outputs, (X, (Y, Y))),
    "tuple of targets and of weights": (two_outputs, (X, (Y, Y), (W, W))),
    "nested targets": (nested, (X, (Y, (Y, Y)))),
    "sparse": (lambda: one(sparse=True), (SPARSE, Y)),
    "sparse for dense": (one, (SPARSE, Y)),
    "sparse of scipy": (one, (Coo(), Y)),
    "dataset of sparse batches": (
        lambda: one(sparse=True),
        tf.data.Dataset.from_tensor_slices((SPARSE, Y)).batch(8),
    ),
    "dataset of tuples": (two_outputs, tf.data.Dataset.from_tensor_slices((X, (Y, Y))).batch(8)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_forms_that_fit_takes_go_through_every_kind_of_work(name: str) -> None:
    make, data = TAKEN[name]
    passes = [
        bw.Prune(0.3, criterion=bw.Fisher(samples=8)),
        bw.Finetune(epochs=1, batch_size=16),
        bw.Quantize(8, activations=8, rounding="error_feedback"),
    ]
    result = bw.PassManager(passes).run(make(), data=data, validation=data)
    assert all(np.isfinite(record.metrics["loss"]) for record in result.report.passes)
    assert len(result.report.passes[1].history["loss"]) == 1


@pytest.mark.parametrize("name", ["sparse", "sparse of scipy"])
@pytest.mark.parametrize("seed", [None, 3])
def test_sparse_rows_are_the_dense_ones(name: str, seed: int | None) -> None:
    sparse, whole = Source(TAKEN[name][1]), Source((SOME, Y))
    assert sparse.length == 40
    np.testing.assert_array_equal(np.concatenate([batch.inputs for batch in sparse.batches(16)]), SOME)
    for one, two in zip(sparse.for_fit(16, seed).take(3), whole.for_fit(16, seed).take(3), strict=True):
        np.testing.assert_array_equal(one[0].numpy(), two[0].numpy())
    assert [batch.size for batch in sparse.samples(20, 16)] == [16, 4]


def test_sparse_data_gives_the_result_of_dense_data() -> None:
    keras.utils.set_random_seed(0)
    model = one()
    passes = [bw.Finetune(epochs=2, batch_size=16), bw.Quantize(4, rounding="error_feedback")]
    first, second = (bw.PassManager(passes).run(model, data=(x, Y)) for x in (SPARSE, SOME))
    for path in first.graph.values:
        np.testing.assert_array_equal(first.graph.values[path], second.graph.values[path])


REFUSED: dict[str, tuple[Any, str]] = {
    "ragged for dense": ((RAGGED, Y), "ragged inputs for a model that is made for dense ones"),
    "dataset of ragged batches for dense": (
        tf.data.Dataset.from_tensor_slices((RAGGED, Y)).batch(8),
        "ragged inputs for a model that is made for dense ones",
    ),
    "ragged targets": ((X, RAGGED), "no loss of ragged targets"),
    "list of batches": ([(X[:8], Y[:8]), (X[8:16], Y[8:16])], "list of 2 tuples, which `model.fit` does not take"),
    "list of uneven batches": ([(X[:8], Y[:8]), (X[8:], Y[8:])], "list of 2 tuples"),
    "list of inputs of batches": ([X[:8], X[8:]], "different lengths: 8, 32; give a tuple"),
    "rows of different lengths": (([[1.0, 2.0], [3.0]], Y[:2]), "its rows differ in length"),
    "objects": ((np.array([{}, {}], dtype=object), Y[:2]), "an array of Python objects"),
    "four parts": ((X, Y, W, W), "got 4 parts"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("passes", [[bw.Finetune(epochs=1)], [bw.Prune(0.3, criterion="fisher")]])
def test_other_forms_are_refused_by_name(name: str, passes: Any) -> None:
    data, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        bw.PassManager(passes).run(one(), data=data)


def test_batches_that_are_lists_are_refused() -> None:
    def batches() -> Any:
        yield from ([X[start : start + 8], Y[start : start + 8]] for start in (0, 8))

    with pytest.raises(DataError, match="got a list of 2: give tuples"):
        bw.PassManager([bw.Quantize(8, activations=8)]).run(one(), data=batches())
