"""Data as users have it, turned into batches that can be read again in a known order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import final

import keras
import tensorflow as tf

from bitwidth.backends.tensorflow.data.beside import Beside, joined
from bitwidth.backends.tensorflow.data.columns import Columns
from bitwidth.backends.tensorflow.data.rows import as_parts, as_tensor, check_targets, cut, dense, length_of, taken
from bitwidth.errors import DataError
from bitwidth.typing import Data, Nest

_LOG = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Batch:
    """One batch: inputs, and targets and sample weights where the data has them."""

    inputs: Nest
    targets: Nest = None
    weights: Nest = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(tf.nest.flatten(self.inputs)[0].shape[0])


@final
class Source:
    """Data of any form that `model.fit` takes, or inputs alone.

    A tuple is `(inputs, targets)` or `(inputs, targets, weights)`, each an array, a sparse tensor, or a list, tuple or
    dict of these, nested as the model takes and returns them; anything but a tuple is inputs alone. Models are given
    the rows of sparse tensors as dense batches. Inputs may be ragged tensors.

    Args:
        data: the data.
        name: what it is called, for messages.
        columns: returns, whenever the data is read, which columns of an input the model takes; None for all.

    Raises:
        DataError: the data is empty, its arrays differ in length, a floating point array holds values that are not
            finite, or the data has a form that is not taken: ragged targets, lists of batches.
    """

    def __init__(self, data: Data, name: str = "data", columns: Callable[[], Columns | None] = lambda: None) -> None:
        self.name, self._columns = name, columns
        self.batched = _is_batched(data)
        self.data = data
        self.parts = () if self.batched else as_parts(data, name)  # inputs, targets, weights
        self._first: list[Nest] = []  # of an iterator: the batches that were looked at and not yet given
        if not self.batched:
            self.length = length_of(self.parts, name)

    @property
    def has_targets(self) -> bool:
        """Whether the data has targets."""
        return self.peek(1).targets is not None

    @property
    def is_endless(self) -> bool:
        """Whether the data is known to have no last batch."""
        return isinstance(self.data, tf.data.Dataset) and bool(self.data.cardinality() == tf.data.INFINITE_CARDINALITY)

    @property
    def is_read_once(self) -> bool:
        """Whether there is one pass over the data only."""
        return isinstance(self.data, Iterator)

    @property
    def columns(self) -> Columns | None:
        """Which columns of an input the model takes; None for all."""
        return self._columns()

    def peek(self, size: int, whole: bool = False) -> Batch:
        """The first batch; of an iterator the next one, which `batches` and `for_fit` will still return.

        Args:
            size: samples of the batch, for data that is not batched yet.
            whole: whether inputs have all columns, those too that the model does not take.

        Raises:
            DataError: there is none.
        """
        return self._looked_at(1, whole)[0] if self.is_read_once else next(self.batches(size, whole))

    def _looked_at(self, count: int, whole: bool = False) -> list[Batch]:
        """The batches of an iterator that hold its next `count` samples; `batches` and `for_fit` will return them too.

        Raises:
            DataError: there are none.
        """
        held = [self._batch(item, whole) for item in self._first]
        missing = count - sum(batch.size for batch in held)
        while missing > 0 and (more := list(islice(self.data, 1))):
            self._first += more
            held += [self._batch(item, whole) for item in more]
            missing -= held[-1].size
        if not held:
            raise DataError(
                f"{self.name} is empty: expected at least one batch; an iterator can be trained on and measured on "
                "once only: give arrays or a dataset"
            )
        return held

    def batches(self, size: int, whole: bool = False) -> Iterator[Batch]:
        """The batches in the data's own order; see `peek` for the arguments.

        Raises:
            DataError: there are none.
        """
        found = False
        for item in self._whole() if self.batched else self._slices(size):
            found = True
            yield self._batch(item, whole)
        if not found:
            raise DataError(f"{self.name} is empty: expected at least one batch")

    def _whole(self) -> Nest:
        """The batched data, with the batches that were looked at in front."""
        if not self.is_read_once:
            return self.data
        self._looked_at(1)
        first, self._first = self._first, []
        return (item for item in chain(first, self.data))  # Keras takes a generator, and no other iterator

    def samples(self, count: int, size: int, whole: bool = False) -> Iterator[Batch]:
        """Batches of the first `count` samples; of an iterator the next ones, which it will still return."""
        asked = count
        for batch in self._looked_at(count, whole) if self.is_read_once else self.batches(size, whole):
            cut = min(count, batch.size)
            parts = [batch.inputs, batch.targets, batch.weights]
            yield Batch(*(None if p is None else tf.nest.map_structure(lambda a, cut=cut: a[:cut], p) for p in parts))
            count -= cut
            if count <= 0:
                break
        _LOG.debug("%s: %d samples looked at, of at most %d", self.name, asked - count, asked)

    def for_fit(self, size: int, seed: int | None, beside: Beside | None = None) -> Nest:
        """What `model.fit` and `model.evaluate` are given.

        Arrays become a dataset: with a seed an endless one, each epoch (of `steps` batches) in another order that the
        seed gives; with None one pass in their own order.

        Args:
            size: samples of a batch, for data that is not batched yet.
            seed: see above.
            beside: what comes with the targets (see `joined`); None for nothing.
        """
        columns = self._columns()
        if self.batched:
            return self._whole() if columns is None else columns.of_batches(self._whole(), self.name, beside)
        tensors = [tf.nest.map_structure(as_tensor, part) for part in self.parts]
        rows = None if beside is None else tf.nest.map_structure(as_tensor, beside.rows)

        def gather(index: Nest) -> Nest:
            parts = tuple(tf.nest.map_structure(lambda rows: taken(rows, index), p) for p in tensors)
            chosen = parts if columns is None else columns.of_batch(parts, self.name)
            if beside is not None:
                with_it = parts[0] if rows is None else tf.nest.map_structure(lambda found: taken(found, index), rows)
                chosen = (chosen[0], joined(chosen[1] if len(chosen) > 1 else None, with_it), *chosen[2:])
            return tuple(without_lists(part) for part in chosen)

        def epoch(number: Nest) -> Nest:
            # stateless: the order depends on nothing but `seed`, not on TensorFlow's global one
            order = tf.random.experimental.stateless_shuffle(
                tf.range(self.length), seed=[tf.cast(seed, tf.int64), number]
            )
            return tf.data.Dataset.from_tensor_slices(order).batch(size)

        batches = (
            tf.data.Dataset.range(self.length).batch(size)
            if seed is None
            else tf.data.Dataset.counter().flat_map(epoch)
        )
        return batches.map(gather, num_parallel_calls=1, deterministic=True).prefetch(2)

    def steps(self, size: int) -> int | None:
        """Steps in one pass over the data, or None where the data does not say."""
        if not self.batched:
            return -(-self.length // size)
        try:
            return len(self.data)
        except TypeError:
            return None

    def _batch(self, item: Nest, whole: bool) -> Batch:
        found, columns = _batch(item, self.name), None if whole else self._columns()
        return found if columns is None else replace(found, inputs=columns.of(found.inputs, self.name))

    def _slices(self, size: int) -> Iterator[Nest]:
        for start in range(0, self.length, size):
            yield tuple(
                tf.nest.map_structure(lambda rows, start=start: cut(rows, start, start + size), part)
                for part in self.parts
            )


def _batch(item: Nest, name: str) -> Batch:
    """A batch of a dataset, a generator or an iterator.

    Raises:
        DataError: it is a list, which Keras does not take, or has ragged targets.
    """
    if isinstance(item, list):
        raise DataError(
            f"{name}: a batch is a tuple (inputs, targets) or inputs alone, got a list of {len(item)}: give tuples"
        )
    parts = item if isinstance(item, tuple) else (item,)
    if not 1 <= len(parts) <= 3:
        raise DataError(f"{name}: a batch is (inputs, targets) or (inputs, targets, weights), got {len(parts)} parts")
    check_targets(parts, name)
    return Batch(*(dense(part) for part in parts))


def without_lists(nest: Nest) -> Nest:
    """`nest` with tuples for lists: a dataset takes a list for one tensor."""
    if isinstance(nest, dict):
        return {key: without_lists(value) for key, value in nest.items()}
    return tuple(without_lists(value) for value in nest) if isinstance(nest, list | tuple) else nest


def _is_batched(data: Data) -> bool:
    if isinstance(data, str | bytes):
        return False
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset | tf.distribute.DistributedDataset):
        return True
    iterable = hasattr(data, "__iter__") and not hasattr(data, "__array__") and not tf.is_tensor(data)
    return iterable and not isinstance(data, list | tuple | dict)
