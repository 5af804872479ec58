"""Every array and every master of every graph that any pass ever saw is the same at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from bitwidth.backends.tensorflow.session import KerasSession
from tests import reference, zoo
from tests.snapshots import watched

X = np.random.default_rng(0).random((48, 6), np.float32)
Y = X[:, :2] - X[:, 2:4]
TUNE = bw.Finetune(epochs=2, loss="mse", learning_rate=0.02, batch_size=8)
TINY = bw.Finetune(epochs=1, loss="mse", learning_rate=1e-7, batch_size=24)  # moves masters and no code
RAMP = bw.Ramp(bw.Prune(0.6), during=TUNE)
PIPELINES: dict[str, list[bw.Pass]] = {
    "codes that training leaves as they are": [bw.Quantize(2), TINY, TINY, TINY],
    "a chain": [bw.Prune(0.5), TUNE, bw.Quantize(4), TUNE, TINY],
    "ramps": [RAMP, bw.Ramp(bw.Quantize(3), during=TUNE), TINY],
    "nested": [bw.Nested(bw.Quantize(8), (8, 4, 2), during=TUNE), TINY],
    "repeated": [bw.Repeat(bw.PassManager([bw.Prune(0.3), TINY, bw.Quantize(4)]), 2), TUNE],
    "one layer": [bw.Where(bw.PassManager([bw.Quantize(3), TINY]), "layer0"), bw.Where(RAMP, "layer1"), TINY],
    "corrected": [bw.CorrectBias(bw.Quantize(3), samples=32), TINY, bw.EqualizeLayers()],
}


def network() -> Any:
    layers = [keras.layers.Dense(8, "relu", name="layer0"), keras.layers.Dense(2, name="layer1")]
    return zoo.filled(keras.Sequential([keras.Input((6,)), *layers]))


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("backend", ["keras", "reference"])
def test_no_snapshot_changes(name: str, backend: str) -> None:
    model = network() if backend == "keras" else reference.Network([6, 8, 2])
    with watched() as seen:
        bw.PassManager(PIPELINES[name]).run(model, (X, Y))
    assert len(seen.graphs) > len(PIPELINES[name])
    assert not seen.changed()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_an_older_snapshot_goes_on_from_its_own_master(bits: int) -> None:
    """Training that moves no code moves the master of the newer snapshot only."""
    session = KerasSession(network())
    context = bw.Context(session, (X, Y))
    held, _ = bw.Quantize(bits)(session.graph, context)
    before = {path: held.values.value(path).master for path in held.values}
    trained, _ = TINY(held, context)
    path = "layer0/kernel"
    assert trained.same(held, path)
    assert held.values.value(path).master is before[path]
    assert not np.array_equal(trained.values.value(path).start, held.values.value(path).start)
    kernel = session.graph.values[path]
    np.testing.assert_array_equal(held.update(encodings={path: session.graph[path].encoding}).values[path], kernel)


@dataclass(frozen=True)
class Reuses(bw.Pass):
    """Goes on writing to an array that it has given away."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        path = "layer0/bias"
        bias = np.array(graph.values[path])
        first = graph.update({path: bias})
        bias += 1
        second = graph.update({path: bias})
        assert first.values[path].sum() < second.values[path].sum()
        return first


def test_an_array_that_was_given_away_may_be_written_to() -> None:
    with watched() as seen:
        bw.PassManager([Reuses(), bw.Quantize(4)]).run(reference.Network([6, 8, 2]))
    assert not seen.changed()
