"""No analysis and no measurement leaves a trace: neither in the user's model nor in the session's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.analysis import ActivationRanges, Fisher, InputMoments
from bitwidth.backend import Objective, Training
from bitwidth.backends.tensorflow.measuring.undisturbed import state_of
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.context import Context
from bitwidth.graph import Graph
from bitwidth.probes import StatisticsProbe

RNG = np.random.default_rng(0)


class Counts(L.Layer):  # type: ignore[misc]
    """Keeps counters in every way in which a layer can."""

    def __init__(self) -> None:
        super().__init__()
        self.tracked = self.add_weight(shape=(), trainable=False, name="tracked")
        self.moved = self.add_weight(shape=(), trainable=True, name="moved")
        self.plain = tf.Variable(0.0, trainable=False)
        self.listed = {"inner": [tf.Variable(0, trainable=False)]}

    def call(self, x: Any) -> Any:
        self.tracked.assign(self.tracked + 1.0)
        self.moved.assign(self.moved + 1.0)
        self.plain.assign_add(1.0)
        self.listed["inner"][0].assign_add(1)
        return x + 0.0 * self.plain


def recurrent(make: Callable[[], Any], *shape: int) -> Any:
    return keras.Sequential([keras.Input(batch_shape=(8, *shape)), make(), L.Flatten(), L.Dense(3, name="head")])


MODELS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "LSTM": (lambda: recurrent(lambda: L.LSTM(4, stateful=True), 5, 6), (5, 6)),
    "bidirectional": (lambda: recurrent(lambda: L.Bidirectional(L.GRU(4, stateful=True)), 5, 6), (5, 6)),
    "ConvLSTM2D": (lambda: recurrent(lambda: L.ConvLSTM2D(2, 2, stateful=True), 3, 4, 4, 2), (3, 4, 4, 2)),
    "normalisation": (lambda: recurrent(L.BatchNormalization, 5, 6), (5, 6)),
    "counters": (lambda: recurrent(Counts, 5, 6), (5, 6)),
}

Looks = dict[str, Callable[[KerasSession, Graph, Context], Any]]
LOOKS: Looks = {
    "fisher": lambda session, graph, context: context.ask(Fisher(samples=10), graph),
    "moments": lambda session, graph, context: context.ask(InputMoments(16), graph),
    "ranges": lambda session, graph, context: context.ask(
        ActivationRanges(tuple(graph.layers["head"].calls[0].inputs), 16), graph
    ),
    "batch statistics": lambda session, graph, context: session.probe(graph, StatisticsProbe(16, 8), context.data),
    "measure": lambda session, graph, context: session.measure(graph, Objective(), context.data),
    "check data": lambda session, graph, context: session.check_data(context.data, "data"),
    "check measuring": lambda session, graph, context: session.check_measuring(Objective(), context.data),
    "check training": lambda session, graph, context: session.check_training(
        Training(Objective(), context.data, batch_size=8)
    ),
}


def opened(name: str) -> tuple[Any, Any, Any]:
    """A model that has been used, and data."""
    make, shape = MODELS[name]
    keras.utils.set_random_seed(1)
    model = make()
    model.compile("sgd", "mse", metrics=["mae"])
    x = RNG.standard_normal((24, *shape)).astype(np.float32)
    model.predict(x[:8], verbose=0)
    return model, (x, np.zeros((24, 3), np.float32)), x


def states(model: Any) -> list[bytes]:
    return [variable.numpy().tobytes() for variable in state_of(model, traced(model))]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_that_looks_at_a_model_moves_its_state(name: str) -> None:
    model, data, _ = opened(name)
    own = states(model)
    session = KerasSession(model, data)
    context = Context(session, data)
    held = states(session.model)
    loss = session.measure(session.graph, Objective(), data)
    for look in LOOKS.values():
        look(session, session.graph, context)
        assert states(session.model) == held, look
        assert states(model) == own, look
    assert session.measure(session.graph, Objective(), data) == loss


@pytest.mark.parametrize("name", ["LSTM", "ConvLSTM2D"])
def test_the_result_predicts_first_what_the_loaded_file_does(name: str, tmp_path: Any) -> None:
    make, shape = MODELS[name]
    keras.utils.set_random_seed(1)
    model = make()
    x = RNG.standard_normal((24, *shape)).astype(np.float32)
    data = (x, np.zeros((24, 3), np.float32))
    passes = [bw.Prune(0.3, criterion="fisher"), bw.Finetune(epochs=1, loss="mse", batch_size=8), bw.Quantize(8)]
    result = bw.PassManager(passes).run(model, data=data, validation=data)
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw")
    np.testing.assert_array_equal(result.model.predict_on_batch(x[:8]), loaded.predict_on_batch(x[:8]))
