"""`open`, `read` and `cost`: a model taken in, to be compressed many times or looked at."""

from __future__ import annotations

from threading import RLock

from typing_extensions import override

from bitwidth.analysis import Cost, cost_of
from bitwidth.answers import Answers
from bitwidth.backend import Session, backend_for
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.result import Result
from bitwidth.typing import Data, Model


class Opened:
    """A model as it was at one moment, copied and traced once, to be compressed many times; `open` makes one.

    What was measured about it (input moments, a Fisher, activation ranges) is measured once for all runs on the same
    data with the same seed. Runs from several threads wait for each other; their results are independent.

    Attributes:
        graph: the model as it was opened.
        data: the default data of runs on it, or None.
        session: what runs use, one at a time.
        turn: what a run holds while it uses the session.
    """

    def __init__(self, session: Session, graph: Graph, data: Data) -> None:
        self.graph, self.data, self.session = graph, data, session
        self.turn = RLock()
        self._answers: dict[int, Answers] = {}

    def answers(self, data: Data, seed: int) -> Answers:
        """What is known about the model on some data with some seed."""
        if data is not self.data:
            return Answers()
        return self._answers.setdefault(seed, Answers(self.graph))

    def apart(self) -> tuple[Session, Graph]:
        """A session of its own for one run, and the graph to start from."""
        return _resumed(self.session.finish(self.graph).model, self.graph, self.data, own=True)

    @override
    def __repr__(self) -> str:
        return f"<Opened {self.graph.name!r}: {len(self.graph)} parameters>"


def open(model: Model, data: Data = None) -> Opened:
    """Take a model in, to compress it many times: it is copied and traced once, and its data is analysed once.

    It is a copy of this moment: what becomes of the model later does not matter. The copy's values are held twice, for
    as long as the opened model is. Up to 1 GiB of what was measured about it is kept for later runs.

    Args:
        model: a built Keras 3 model, a `Result` of an earlier run, or a model from `bitwidth.load`.
        data: the default of `PassManager.run(opened)`, as it takes data; None for none.

    Raises:
        ModelError: the model is not built, holds values that are not finite, or is of a kind that cannot be compressed.
        DataError: the data is empty or not finite.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> opened = bw.open(model, np.random.default_rng(0).random((64, 8), np.float32))
        >>> results = [bw.PassManager([bw.Quantize(bits, rounding="error_feedback")]).run(opened) for bits in (8, 4)]
        >>> results[0].size > results[1].size
        True
    """
    session, graph = opened_session(model, data)
    if data is not None:
        session.check_data(data, "data")
    session.share()
    return Opened(session, graph, data)


def opened_session(model: Model, data: Data) -> tuple[Session, Graph]:
    """A session of a model, and the graph to start from: that of a result goes on from its float weights.

    Raises:
        ConfigError: it is not a model.
        ModelError: the model cannot be read or compressed, or that of a result was changed.
    """
    if isinstance(model, Result):
        model.check_unchanged()
        return _resumed(model.model, model.graph, data)
    if isinstance(model, type) or model is None:
        raise ConfigError(f"expected a model, got {model!r}")
    session = backend_for(model).open(model, data)
    return session, session.graph


def _resumed(model: Model, graph: Graph, data: Data, own: bool = False) -> tuple[Session, Graph]:
    """A session of a model that a session has handed over as `graph`, and its graph, with the masters of that."""
    session = backend_for(model).open(model, data, own)
    return session, session.graph.resumed(graph)


def read(model: Model, data: Data = None) -> Graph:
    """The graph of a model: operations, layers, and parameters with their values. The model is not touched.

    Args:
        model: a built Keras 3 model, a `Result`, or what `open` returned.
        data: data or inputs, only for a model that does not know its inputs.

    Raises:
        ModelError: the model cannot be read; the message says what to do.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> bw.read(model)["hidden/kernel"].role
        'kernel'
    """
    if isinstance(model, Result | Opened):
        return model.graph
    return backend_for(model).open(model, data).graph


def cost(model: Model, data: Data = None) -> Cost:
    """Count what a model costs for one input: multiply-accumulates, parameters, bytes, and memory of activations.

    Nothing is run: the counts come from the model's operations and their shapes. `print` shows them by layer.

    Args:
        model: a built Keras 3 model, a `Result`, or what `open` returned.
        data: data or inputs, only for a model that does not know its inputs.

    Raises:
        ModelError: the model cannot be read; the message says what to do.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> stack = [keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4, name="out")]
        >>> found = bw.cost(keras.Sequential(stack))
        >>> found.macs, found.parameters, found.bytes, found.peak
        (192, 212, 848, 128)
        >>> [(layer.path, layer.macs) for layer in found.layers]
        [('hidden', 128), ('out', 64)]
    """
    return cost_of(read(model, data))
