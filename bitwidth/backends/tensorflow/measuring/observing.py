"""Observing: what values tensors of the traced model take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.backends.tensorflow.internals.types import TFOperation, TFTensor
from bitwidth.backends.tensorflow.measuring.interpreter import Edit, Replay
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.probes import Observed
from bitwidth.typing import Array

_LOG = logging.getLogger(__name__)
_SELECTED = 1 << 18  # values of a tensor that are kept
_PER_RUN = 1 << 13  # of one run of the operation that makes it


def observed(
    trace: FuncTrace, tensors: Iterable[str], batches: Iterable[TFTensor], edit: Mapping[str, Edit] | None = None
) -> dict[str, Observed]:
    """Ranges, means and an even selection of values of tensors, over all batches and all steps of loops.

    Args:
        trace: of the model.
        tensors: their names in the graph.
        batches: inputs of the model.
        edit: by name of a tensor, what is used in its place; see `Replay.run`.
    """
    places: dict[str, tuple[str, int]] = {}
    for frame in trace.frame.walk():
        for op in frame.graph.get_operations():
            for index, tensor in enumerate(op.outputs):
                places[frame.name(tensor)] = (frame.name(op), index)
    seen = {name: _Seen() for name in tensors}
    by_op: dict[str, list[tuple[int, _Seen]]] = {}
    for name, item in seen.items():
        op_name, index = places[name]
        by_op.setdefault(op_name, []).append((index, item))

    def watcher(items: list[tuple[int, _Seen]]) -> TFTensor:
        def watch(op: TFOperation, inputs: list[TFTensor], outputs: list[TFTensor]) -> None:
            for index, item in items:
                item.add(np.asarray(outputs[index]))

        return watch

    replay, started = Replay(trace), time.perf_counter()
    watchers = {name: watcher(items) for name, items in by_op.items()}
    for inputs in batches:
        replay.run(inputs, watchers, edit)
    _LOG.debug("ranges of %d tensors in %.2f seconds", len(seen), time.perf_counter() - started)
    return {name: item.observed() for name, item in seen.items()}


@final
class _Seen:
    """What was seen of one tensor so far."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.parts: list[NDArray[np.float32]] = []
        self.count = 0

    def add(self, values: Array) -> None:
        """Look at one value of the tensor."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        self.low = float(np.minimum(self.low, flat.min()))  # unlike `min` these keep what is no number
        self.high = float(np.maximum(self.high, flat.max()))
        part = flat[:: max(1, flat.size // _PER_RUN)].astype(np.float32)
        self.parts.append(part)
        self.count += part.size
        if self.count > 2 * _SELECTED:
            self.parts = [np.concatenate(self.parts)[::2]]
            self.count = self.parts[0].size

    def observed(self) -> Observed:
        """All of it."""
        values = np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)
        return Observed(self.low, self.high, values)
