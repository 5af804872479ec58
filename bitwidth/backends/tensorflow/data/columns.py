"""The columns of data that a model takes after features of one of its inputs were removed: chosen by width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.data.beside import Beside, joined
from bitwidth.backends.tensorflow.internals.layers import flat_inputs
from bitwidth.errors import DataError, Refused
from bitwidth.graph import KeptInputs
from bitwidth.typing import Model, Nest


@final
@dataclass(frozen=True)
class Columns:
    """The features that a model takes of one of its inputs.

    Attributes:
        kept: which they are.
        name: of the input, for inputs that are given by name.
    """

    kept: KeptInputs
    name: str

    def of(self, inputs: Nest, owner: str) -> Nest:
        """Inputs of the width that the model takes, from such or from those that have all columns.

        Args:
            inputs: a nest of arrays or tensors, (rows, columns) that which was cut.
            owner: what the data is called, for messages.

        Raises:
            DataError: they have another number of columns.
        """
        if isinstance(inputs, dict) and self.name in inputs:
            return {**inputs, self.name: self._taken(inputs[self.name], owner)}
        flat = keras.tree.flatten(inputs)
        if self.kept.place >= len(flat):
            return inputs
        flat[self.kept.place] = self._taken(flat[self.kept.place], owner)
        return keras.tree.pack_sequence_as(inputs, flat)

    def of_batch(self, item: Nest, owner: str, beside: Beside | None = None) -> Nest:
        """A batch as `model.fit` takes it, (inputs, targets, weights) or inputs alone, with such inputs.

        Args:
            item: the batch.
            owner: what the data is called, for messages.
            beside: says that the inputs come with the targets as they were.
        """
        parts = item if isinstance(item, tuple) else (item,)
        inputs, *rest = parts
        if beside is not None:
            rest = [joined(rest[0] if rest else None, inputs), *rest[1:]]
        return (self.of(inputs, owner), *rest) if rest or isinstance(item, tuple) else self.of(inputs, owner)

    def _taken(self, rows: Any, owner: str) -> Any:
        width = None if len(rows.shape) != 2 else rows.shape[1]
        if width is None:
            return rows
        try:
            columns = self.kept.of(int(width))
        except Refused as refusal:
            raise DataError(f"{owner}: {refusal.reason}") from refusal
        if columns is None:
            return rows
        return tf.gather(rows, columns, axis=1) if tf.is_tensor(rows) else np.asarray(rows)[:, list(columns)]

    def of_batches(self, data: Any, owner: str, beside: Beside | None = None) -> Any:
        """Batched data of any kind that `model.fit` takes, with such inputs in every batch.

        Raises:
            DataError: it is spread over devices, where its batches cannot be changed.
        """
        if isinstance(data, tf.data.Dataset):
            return data.map(lambda *parts: self.of_batch(parts if len(parts) > 1 else parts[0], owner, beside))
        if isinstance(data, keras.utils.PyDataset):
            return _Chosen(data, self, owner, beside)
        if isinstance(data, tf.distribute.DistributedDataset):
            columns = ", ".join(map(str, self.kept.columns))
            raise DataError(f"{owner}: a dataset spread over devices: choose its columns before ({columns})")
        return self._generated(data, owner, beside)

    def _generated(self, data: Any, owner: str, beside: Beside | None) -> Iterator[Nest]:
        for item in data:
            yield self.of_batch(item, owner, beside)


def columns_of(model: Model, kept: KeptInputs | None) -> Columns | None:
    """What a model takes of data; None for all."""
    if kept is None:
        return None
    inputs = flat_inputs(model)
    return Columns(kept, inputs[kept.place].name if kept.place < len(inputs) else "")


@final
class _Chosen(keras.utils.PyDataset):  # type: ignore[misc]
    """Another PyDataset, with the columns of its batches chosen."""

    def __init__(self, data: Any, columns: Columns, owner: str, beside: Beside | None) -> None:
        super().__init__(
            workers=data.workers, use_multiprocessing=data.use_multiprocessing, max_queue_size=data.max_queue_size
        )
        self._data, self._columns, self._owner, self._beside = data, columns, owner, beside

    def __len__(self) -> int:
        return len(self._data)

    @property
    def num_batches(self) -> int | None:
        """As of the data."""
        return self._data.num_batches  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> Nest:
        return self._columns.of_batch(self._data[index], self._owner, self._beside)

    def on_epoch_begin(self) -> None:
        """As of the data."""
        self._data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """As of the data."""
        self._data.on_epoch_end()
