"""Paired moments: what parameters are multiplied by in two models of one architecture that run on the same data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.backends.tensorflow.internals.types import ModelVariable, TFOperation, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.measuring.interpreter import Edit, Replay
from bitwidth.backends.tensorflow.measuring.moments import Gram, check_finite, sums_of, watcher
from bitwidth.backends.tensorflow.measuring.operands import Operand
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.fitting import Arrangement
from bitwidth.probes import Paired
from bitwidth.typing import Array


def paired_moments(
    trace: FuncTrace,
    variables: Mapping[str, ModelVariable],
    uses: Mapping[str, Iterable[str]],
    batches: Iterable[TFTensor],
    values: Mapping[str, Array],
    edit: Mapping[str, Edit] | None = None,
) -> dict[str, tuple[Paired, ...]]:
    """What parameters meet in the model and in one of other values, one entry for each part that is used by itself.

    Args:
        trace: of the model.
        variables: the Keras variables by path.
        uses: by path, names of the operations that use the parameter.
        batches: inputs of both models.
        values: what the other model has in the place of some values, by path.
        edit: by name of a tensor, what is used in its place, in both; see `Replay.run`.

    Returns:
        By path; empty for a parameter that is used in no way that sums over inputs.

    Raises:
        ModelError: a parameter meets values that are not finite.
    """
    sums, watched = sums_of(trace, variables, uses, _Pair)
    pairs = {name: [item for item in items if isinstance(item, _Pair)] for name, items in watched.items()}
    pairs = {name: items for name, items in pairs.items() if items}
    other = Replay(
        trace, {id(tf_variable(variables[path]).handle): tf.Variable(value) for path, value in values.items()}
    )
    own = Replay(trace)
    noting = {name: watcher(name, [item.note for item in items]) for name, items in pairs.items()}
    adding = {name: watcher(name, [item.add for item in items]) for name, items in pairs.items()}
    for inputs in batches if pairs else ():
        other.run(inputs, noting, edit)
        own.run(inputs, adding, edit)
    found = {
        path: tuple(item.paired() for item in items if isinstance(item, _Pair) and item.rows)
        for path, items in sums.items()
    }
    check_finite({path: tuple(part.moments for part in parts) for path, parts in found.items()})
    return found


@final
class _Pair(Gram):
    """Products of features of the one model with those of the other, whose batches come first."""

    def __init__(self, operand: Operand, arrangement: Arrangement, op: str) -> None:
        super().__init__(operand, arrangement, op)
        self._waiting: deque[TFTensor] = deque()
        self._noted = 0
        self._cross: NDArray[np.float32] = np.zeros_like(self.gram)
        self._total: NDArray[np.float64] = np.zeros_like(self.total)

    def note(self, name: str, op: TFOperation, inputs: list[TFTensor]) -> None:
        """Keep what the other model met."""
        self._waiting.extend(self.features(name, op, inputs, self._noted))
        self._noted += 1

    @override
    def count(self, x: TFTensor) -> None:
        """See `Gram.count`."""
        super().count(x)
        y = self._waiting.popleft()
        self._cross += tf.matmul(tf.transpose(x, [1, 2, 0]), tf.transpose(y, [1, 0, 2])).numpy()
        self._total += tf.reduce_sum(y, axis=0).numpy()

    def paired(self) -> Paired:
        """The means."""
        cross = self._cross / np.float32(self.rows)
        return Paired(self.moments(), cross, (self._total / self.rows).astype(np.float32))
