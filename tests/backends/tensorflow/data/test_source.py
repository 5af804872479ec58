"""Data in every form that `model.fit` takes, and the errors for data that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bitwidth.backends.tensorflow.data.source import Source
from bitwidth.errors import DataError

X, Y = np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        return X[index * 5 : index * 5 + 5], Y[index * 5 : index * 5 + 5]


FORMS: dict[str, Any] = {
    "arrays": (X, Y),
    "with weights": (X, Y, np.ones(10)),
    "tensors": (tf.constant(X), tf.constant(Y)),
    "dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(5),
    "py dataset": Batches(),
    "dicts": ({"a": X, "b": X}, {"out": Y}),
    "lists": ([X, X], Y),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_with_targets(name: str) -> None:
    source = Source(FORMS[name])
    assert source.has_targets
    batches = list(source.batches(5))
    assert [batch.size for batch in batches] == [5, 5]
    first = np.concatenate([np.asarray(tf.nest.flatten(batch.inputs)[0]) for batch in batches])
    np.testing.assert_array_equal(first, X)
    assert source.steps(5) == 2
    assert [batch.size for batch in source.samples(7, 5)] == [5, 2]


@pytest.mark.parametrize("data", [X, [X, X], {"a": X}, tf.data.Dataset.from_tensor_slices(X).batch(5), (X,), (X, None)])
def test_inputs_alone(data: Any) -> None:
    source = Source(data)
    assert not source.has_targets
    assert sum(batch.size for batch in source.batches(5)) == 10


def order(seed: int | None, epochs: int = 1) -> list[int]:
    """The labels in the order in which training sees them: batches of 3 of 10 samples, 4 to an epoch."""
    batches = Source((X, Y)).for_fit(3, seed).take(4 * epochs)
    return [int(y) for _, labels in batches for y in labels]


def test_order_is_given_by_the_seed_alone() -> None:
    assert order(None) == list(range(10))
    tf.random.set_seed(1)
    first = order(1)
    tf.random.set_seed(2)
    assert order(1) == first != order(2)
    assert sorted(first) == list(range(10))


def test_each_epoch_has_its_own_order() -> None:
    both = order(0, epochs=2)
    assert sorted(both[:10]) == sorted(both[10:]) == list(range(10))
    assert both[:10] != both[10:]


def empty() -> Iterator[Any]:
    yield from ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), "train is empty"),
        ([], "train"),
        ((X, Y[:3]), "different lengths: 3, 10"),
        ((np.full((4, 2), np.nan, np.float32), np.arange(4)), "8 of 8 values are NaN or infinite"),
        ({"a": np.array([[np.inf]], np.float32)}, r"train\['a'\]"),
        ((X, Y, Y, Y), "got 4 parts"),
        (3.0, "one row per sample"),
    ],
)
def test_data_that_cannot_be_used(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Source(data, "train")


def test_a_dataset_without_batches() -> None:
    dataset = tf.data.Dataset.from_generator(empty, output_signature=tf.TensorSpec((None, 2)))
    with pytest.raises(DataError, match="empty"):
        list(Source(dataset, "train").batches(4))


def test_what_was_looked_at_of_an_iterator_is_still_given() -> None:
    source = Source(((X[start : start + 4], Y[start : start + 4]) for start in (0, 4, 8)), "train")
    for _ in range(2):
        assert [batch.size for batch in source.samples(6, 4)] == [4, 2]
    assert np.concatenate([targets for _, targets in source.for_fit(4, None)]).tolist() == Y.tolist()
    for read in (lambda: source.for_fit(4, None), lambda: list(source.samples(6, 4)), lambda: list(source.batches(4))):
        with pytest.raises(DataError, match=r"train is empty.* once only"):
            read()
