"""Input moments: what each parameter is multiplied by, as a covariance over samples."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFOperation, TFTensor
from bitwidth.backends.tensorflow.measuring.interpreter import Edit, Replay, Watcher
from bitwidth.backends.tensorflow.measuring.operands import (
    CONTRACTIONS,
    Operand,
    arrangement_of,
    features_of,
    operand_of,
    regathered,
)
from bitwidth.backends.tensorflow.measuring.patches import positions_of, thinned, with_features
from bitwidth.backends.tensorflow.reading.frames import Frame
from bitwidth.backends.tensorflow.reading.kinds import kind_of, spec_of
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import ModelError
from bitwidth.fitting import Arrangement, Moments

_LOG = logging.getLogger(__name__)
_LEAST_ROWS = 4096  # rows of a batch that are looked at, at least; four for each input above that
_PATCH_BYTES = 1 << 26


def input_moments(
    trace: FuncTrace,
    variables: Mapping[str, ModelVariable],
    uses: Mapping[str, Iterable[str]],
    batches: Iterable[TFTensor],
    edit: Mapping[str, Edit] | None = None,
) -> dict[str, tuple[Moments, ...]]:
    """The moments of what each parameter meets, one for each part of it that is used by itself.

    Args:
        trace: of the model.
        variables: the Keras variables by path.
        uses: by path, names of the operations that use the parameter.
        batches: inputs of the model.
        edit: by name of a tensor, what is used in its place; see `Replay.run`.

    Returns:
        By path. A parameter that is used in no way that sums over inputs has an empty tuple. A table that is looked up
        has a group of one input for each row, with the share of the look-ups that go to it.

    Raises:
        ModelError: a parameter meets values that are not finite.
    """
    sums, watched = sums_of(trace, variables, uses, Gram)
    replay, started = Replay(trace), time.perf_counter()
    watchers = {name: watcher(name, [item.add for item in items]) for name, items in watched.items()}
    if watchers:
        for inputs in batches:
            replay.run(inputs, watchers, edit)
    moments = {path: tuple(item.moments() for item in found if item.rows) for path, found in sums.items()}
    _LOG.debug("input moments of %d parameters in %.2f seconds", len(moments), time.perf_counter() - started)
    check_finite(moments)
    return moments


def watcher(name: str, takers: Sequence[Callable[[str, TFOperation, list[TFTensor]], None]]) -> Watcher:
    """A watcher of the operation `name` that hands what it met to each of the takers."""

    def seen(op: TFOperation, inputs: list[TFTensor], outputs: list[TFTensor]) -> None:
        for take in takers:
            take(name, op, inputs)

    return seen


def check_finite(moments: Mapping[str, tuple[Moments, ...]]) -> None:
    """Raise ModelError where a parameter meets values that are not finite."""
    for path, parts in moments.items():
        if not all(np.isfinite(part.mean).all() for part in parts):
            raise ModelError(f"{path}: the data makes the model multiply it with values that are not finite")


def sums_of(
    trace: FuncTrace,
    variables: Mapping[str, ModelVariable],
    uses: Mapping[str, Iterable[str]],
    products: type[Gram],
) -> tuple[dict[str, list[Sum]], dict[str, list[Sum]]]:
    """The sums of each parameter, and those that each operation adds to.

    Args:
        trace: of the model.
        variables: the Keras variables by path.
        uses: by path, names of the operations that use the parameter.
        products: the kind of sum for operations that sum over inputs.
    """
    places = {frame.name(op): (frame, op) for frame in trace.frame.walk() for op in frame.graph.get_operations()}
    sums: dict[str, list[Sum]] = {}
    watched: dict[str, list[Sum]] = {}
    for path, names in uses.items():
        sums[path] = []
        for name in names:
            frame, op = places[name]
            made = _sum_for(trace, frame, op, name, variables[path], sums[path], products)
            if made is not None:
                watched.setdefault(name, []).append(made)
    return sums, watched


def _sum_for(
    trace: FuncTrace,
    frame: Frame,
    op: TFOperation,
    name: str,
    variable: ModelVariable,
    made: list[Sum],
    products: type[Gram],
) -> Sum | None:
    """The sum that a use adds to: that of an earlier use which multiplies the same elements alike, or a new one."""
    kind = kind_of(op)
    if kind not in CONTRACTIONS and kind != "gather":
        return None
    operand = operand_of(trace, frame, op, variable)
    if operand is None:
        return None
    if kind == "gather":
        if operand.position != 0 or operand.index is not None:
            return None
        rows, rest = operand.shape[0], int(np.prod(operand.shape[1:]))
        return _added(made, _Frequency(operand, Arrangement((rows, rest), (0, 1), (rows, 1, rest)), name))
    arrangement = arrangement_of(op, operand, int(np.prod(variable.shape)))
    return _added(made, products(operand, arrangement, name))


def _added(made: list[Sum], new: Sum) -> Sum:
    for old in made:
        if type(old) is type(new) and _alike(old.arrangement, new.arrangement):
            old.operands.update(new.operands)
            return old
    made.append(new)
    return new


def _alike(left: Arrangement, right: Arrangement) -> bool:
    if left.index is not None or right.index is not None:
        return left.index is not None and right.index is not None and np.array_equal(left.index, right.index)
    return (left.shape, left.order, left.matrix) == (right.shape, right.order, right.matrix)


class Sum(ABC):
    """Sums over rows of features."""

    def __init__(self, operand: Operand, arrangement: Arrangement, op: str) -> None:
        self.operands, self.arrangement, self.op = {op: operand}, arrangement, op
        self.rows = 0

    @abstractmethod
    def add(self, name: str, op: TFOperation, inputs: list[TFTensor]) -> None:
        """Add what one run of the operation `name` met."""

    @abstractmethod
    def moments(self) -> Moments:
        """The means."""


class Gram(Sum):
    """Products of all pairs of inputs."""

    def __init__(self, operand: Operand, arrangement: Arrangement, op: str) -> None:
        super().__init__(operand, arrangement, op)
        groups, count, _ = arrangement.matrix
        self.gram: NDArray[np.float32] = np.zeros((groups, count, count), np.float32)
        self.total: NDArray[np.float64] = np.zeros((groups, count))
        self.turn = 0

    @override
    def add(self, name: str, op: TFOperation, inputs: list[TFTensor]) -> None:
        """See `Sum.add`. Of many rows an even selection is taken."""
        for x in self.features(name, op, inputs, self.turn):
            self.count(x)
        self.turn += 1

    def count(self, x: TFTensor) -> None:
        """Add features of shape (rows, groups, inputs)."""
        by_group = tf.transpose(x, [1, 0, 2])
        self.gram += tf.matmul(by_group, by_group, transpose_a=True).numpy()
        self.total += tf.reduce_sum(x, axis=0).numpy()
        self.rows += int(x.shape[0])

    def features(self, name: str, op: TFOperation, inputs: list[TFTensor], turn: int) -> Iterator[TFTensor]:
        """What the operation met, (rows, groups, inputs), in parts: the same selection for the same turn."""
        operand = self.operands[name]
        groups, count, _ = self.arrangement.matrix
        least = max(_LEAST_ROWS, 4 * count)
        op, inputs = thinned(op, inputs, max(least, _PATCH_BYTES // (4 * groups * count)), turn)
        for part in _slices(op, inputs, operand, groups * count):
            x = features_of(op, part, operand)
            yield x[:: max(1, x.shape[0] // least)]

    @override
    def moments(self) -> Moments:
        """See `Sum.moments`."""
        self.gram /= np.float32(self.rows)
        return Moments(self.arrangement, self.gram, (self.total / self.rows).astype(np.float32), self.rows, self.op)


@final
class _Frequency(Sum):
    """How often each row of a table is looked up: a group of one input for each row."""

    def __init__(self, operand: Operand, arrangement: Arrangement, op: str) -> None:
        super().__init__(operand, arrangement, op)
        self.counts: NDArray[np.int64] = np.zeros(arrangement.matrix[0], np.int64)

    @override
    def add(self, name: str, op: TFOperation, inputs: list[TFTensor]) -> None:
        """See `Sum.add`."""
        rows = np.asarray(inputs[1]).reshape(-1)
        self.counts += np.bincount(rows, minlength=len(self.counts))[: len(self.counts)]
        self.rows += rows.size

    @override
    def moments(self) -> Moments:
        """See `Sum.moments`."""
        share = (self.counts / self.rows).astype(np.float32)
        return Moments(self.arrangement, share[:, None, None], share[:, None], self.rows, self.op)


def _slices(op: TFOperation, inputs: list[TFTensor], operand: Operand, width: int) -> Iterable[list[TFTensor]]:
    """The inputs of a convolution in parts of few samples, so that its patches fit in memory."""
    place = next(place for place in range(len(inputs) - 1, -1, -1) if place != operand.position)
    x = inputs[place]
    if not spec_of(op).is_convolution or not x.shape.rank or regathered(op) is not None:
        return [inputs]
    positions = prod(positions_of(op, inputs))
    size = max(1, _PATCH_BYTES // (4 * positions * width))
    return (with_features(op, inputs, x[start : start + size]) for start in range(0, x.shape[0], size))
