"""Rows: arrays, sparse and ragged tensors as one kind of thing, of which some rows can be taken at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import tensorflow as tf

from bitwidth.errors import DataError
from bitwidth.typing import Data, Nest

_PARTS = "a tuple is (inputs, targets) or (inputs, targets, weights)"


@final
@dataclass(frozen=True, eq=False)
class SparseRows:
    """A sparse tensor whose rows can be taken in any order; they come out dense.

    Attributes:
        splits: int64 (rows + 1,): where the elements of each row start.
        indices: int64 (elements, axes - 1): their places in the row.
        values: the elements, by rows.
        shape: of the whole tensor.
        dtype: of the elements.
    """

    splits: Nest
    indices: Nest
    values: Nest
    shape: tuple[int, ...]
    dtype: Nest

    def take(self, index: Nest) -> Nest:
        """The rows at `index`, a 1-D tensor of integers, as a dense tensor."""
        places = tf.gather(tf.RaggedTensor.from_row_splits(tf.range(tf.shape(self.values)[0]), self.splits), index)
        inner = tf.gather(self.indices, places.values)
        row = tf.cast(places.value_rowids(), tf.int64)[:, None]
        shape = tf.concat([[tf.shape(index, out_type=tf.int64)[0]], tf.constant(self.shape[1:], tf.int64)], 0)
        return tf.scatter_nd(tf.concat([row, inner], 1), tf.gather(self.values, places.values), shape)


def as_parts(data: Data, name: str) -> tuple[Nest, ...]:
    """Inputs, and targets and weights where there are any, as nests of arrays, tensors and `SparseRows`.

    Raises:
        DataError: see `Source`.
    """
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise DataError(f"{name}: {_PARTS}, got {len(parts)} parts")
    while len(parts) > 1 and parts[-1] is None:
        parts = parts[:-1]
    check_targets(parts, name)
    return tuple(_as_rows(part, name) for part in parts)


def _as_rows(part: Nest, name: str) -> Nest:
    if part is None:
        return None
    if isinstance(part, dict):
        return {key: _as_rows(value, f"{name}[{key!r}]") for key, value in part.items()}
    if isinstance(part, list | tuple) and any(_is_array(item) or isinstance(item, tuple | dict) for item in part):
        _check_no_batches(part, name)
        return type(part)(_as_rows(value, f"{name}[{index}]") for index, value in enumerate(part))
    if isinstance(part, tf.RaggedTensor):
        return _ragged(part, name)
    if hasattr(part, "tocoo"):  # scipy's
        coo = part.tocoo()
        part = tf.SparseTensor(np.stack([coo.row, coo.col], 1).astype(np.int64), coo.data, coo.shape)
    return _sparse(part, name) if isinstance(part, tf.SparseTensor) else _array(part, name)


def _is_array(item: Nest) -> bool:
    return hasattr(item, "shape") or hasattr(item, "to_numpy")


def _check_no_batches(part: Nest, name: str) -> None:
    """Refuse what is a list of batches and no nest of inputs."""
    pairs = isinstance(part, list) and len(part) > 1 and all(isinstance(item, tuple) for item in part)
    if pairs and len({len(item) for item in part}) == 1 and all(_is_array(x) for item in part for x in item):
        rows = [{int(x.shape[0]) for x in item if len(x.shape)} for item in part]
        if all(len(row) == 1 for row in rows):
            raise DataError(
                f"{name} is a list of {len(part)} tuples, which `model.fit` does not take: join batches with "
                "np.concatenate, or give a tf.data.Dataset, a keras.utils.PyDataset or a generator of them"
            )


def ragged_words() -> str:
    """What to do where ragged tensors cannot be taken."""
    return (
        "give dense ones, padded with `tensor.to_tensor()`, and let the model skip what is padded with a "
        "keras.layers.Masking or Embedding(mask_zero=True)"
    )


def check_targets(parts: tuple[Nest, ...], name: str) -> None:
    """Raise if targets or weights are ragged.

    Raises:
        DataError: they are; saying what to do.
    """
    if is_ragged(parts[1:]):
        raise DataError(f"{name}: Keras has no loss of ragged targets or weights: {ragged_words()}")


def is_ragged(nest: Nest) -> bool:
    """Whether a nest of tensors has ragged ones."""
    return any(isinstance(leaf, tf.RaggedTensor) for leaf in tf.nest.flatten(nest))


def _ragged(part: Nest, name: str) -> Nest:
    """A ragged tensor with the dtypes that models are traced with."""
    if part.dtype.is_floating:
        _check_finite(part.flat_values.numpy(), name)
    return _typed(part)


def _typed(part: Nest) -> Nest:
    part = part.with_row_splits_dtype(tf.int64)
    return tf.cast(part, tf.float32) if part.dtype == tf.float64 else part


def _sparse(part: Nest, name: str) -> SparseRows:
    _check_finite(np.asarray(part.values), name)
    part = tf.sparse.reorder(part)
    shape = tuple(int(size) for size in part.shape)
    splits = np.searchsorted(part.indices[:, 0].numpy(), np.arange(shape[0] + 1)).astype(np.int64)
    values = tf.cast(part.values, tf.float32) if part.dtype == tf.float64 else part.values
    return SparseRows(tf.constant(splits), part.indices[:, 1:], values, shape, values.dtype)


def _array(part: Nest, name: str) -> Nest:
    if hasattr(part, "to_numpy"):
        part = part.to_numpy()
    try:
        array = part if tf.is_tensor(part) else np.asarray(part)
    except ValueError as error:
        raise DataError(f"{name}: expected an array with one row per sample; its rows differ in length") from error
    if len(array.shape) == 0:
        raise DataError(f"{name}: expected arrays with one row per sample, got {part!r}")
    if array.dtype == np.float64:
        array = tf.cast(array, tf.float32) if tf.is_tensor(array) else array.astype(np.float32)
    if isinstance(array, np.ndarray):
        _check_finite(array, name)
        if array.dtype.kind == "O":
            if not all(isinstance(item, str | bytes) for item in array.reshape(-1)):
                raise DataError(f"{name}: expected numbers or strings, got an array of Python objects")
            array = array.astype(str)
    return array


def _check_finite(array: Nest, name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise DataError(f"{name}: {bad:,} of {array.size:,} values are NaN or infinite")


def length_of(parts: tuple[Nest, ...], name: str) -> int:
    """The number of rows of all arrays.

    Raises:
        DataError: they differ, or there are none.
    """
    lengths = {int(rows.shape[0]) for rows in tf.nest.flatten(parts) if rows is not None}
    if len(lengths) > 1:
        raise DataError(
            f"{name}: arrays of different lengths: {', '.join(map(str, sorted(lengths)))}; give a tuple "
            "(inputs, targets), and batches as a tf.data.Dataset or a generator"
        )
    length = lengths.pop() if lengths else 0
    if not length:
        raise DataError(f"{name} is empty: expected at least one sample")
    return length


def as_tensor(rows: Nest) -> Nest:
    """An array as a tensor; what is sparse or ragged stays so."""
    return rows if rows is None or isinstance(rows, SparseRows | tf.RaggedTensor) else tf.convert_to_tensor(rows)


def taken(rows: Nest, index: Nest) -> Nest:
    """The rows at `index`, a 1-D tensor of integers."""
    if rows is None:
        return None
    return rows.take(index) if isinstance(rows, SparseRows) else tf.gather(rows, index)


def cut(rows: Nest, start: int, stop: int) -> Nest:
    """The rows from `start` to `stop`."""
    if rows is None or not isinstance(rows, SparseRows):
        return rows if rows is None else rows[start:stop]
    return rows.take(tf.range(start, min(stop, rows.shape[0])))


def dense(part: Nest) -> Nest:
    """A part of a batch with its sparse tensors made dense. Ragged ones stay; beside them Keras takes tensors only."""
    some_ragged = part is not None and is_ragged(part)

    def one(leaf: Nest) -> Nest:
        if isinstance(leaf, tf.RaggedTensor):
            return _typed(leaf)
        if hasattr(leaf, "tocoo"):
            return leaf.toarray()
        if isinstance(leaf, tf.SparseTensor):
            return tf.sparse.to_dense(tf.sparse.reorder(leaf))
        return tf.convert_to_tensor(leaf) if some_ragged else leaf

    return None if part is None else tf.nest.map_structure(one, part)
