"""Windows of a convolution that are chosen before patches are made are windows that it has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

from bitwidth.backends.tensorflow.measuring import moments
from bitwidth.backends.tensorflow.measuring.interpreter import Replay
from bitwidth.backends.tensorflow.measuring.operands import CONTRACTIONS, features_of, operand_of
from bitwidth.backends.tensorflow.measuring.patches import thinned
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.backends.tensorflow.reading.kinds import kind_of
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.probes import MomentsProbe

RNG = np.random.default_rng(0)
LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (lambda: L.Conv1D(4, 3), (40, 2)),
    "conv1d same": (lambda: L.Conv1D(4, 5, padding="same"), (40, 2)),
    "conv1d same strided": (lambda: L.Conv1D(4, 4, strides=3, padding="same"), (41, 2)),
    "conv1d causal": (lambda: L.Conv1D(4, 3, padding="causal"), (40, 2)),
    "conv1d dilated": (lambda: L.Conv1D(4, 3, padding="same", dilation_rate=3), (40, 2)),
    "conv2d": (lambda: L.Conv2D(4, (3, 2), strides=2, padding="same"), (13, 30, 2)),
    "conv2d grouped": (lambda: L.Conv2D(4, 3, groups=2), (13, 20, 4)),
    "conv3d": (lambda: L.Conv3D(4, 2, padding="same"), (5, 9, 4, 2)),
    "depthwise": (lambda: L.DepthwiseConv2D(3, padding="same"), (13, 20, 3)),
    "transposed": (lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same"), (7, 8, 2)),
}


def seen(name: str, rows: int, turns: range) -> tuple[Any, list[Any]]:
    """All rows of features, and those of thinned windows at each of the turns."""
    make, shape = LAYERS[name]
    model = keras.Sequential([keras.Input(shape), make()])
    x = RNG.standard_normal((6, *shape)).astype(np.float32)
    trace = traced(model)
    kernel = next(v for v in model.variables if len(v.shape) > 2)
    places = [(frame, op) for frame in trace.frame.walk() for op in frame.graph.get_operations()]
    frame, op = next(place for place in places if kind_of(place[1]) in CONTRACTIONS)
    operand = operand_of(trace, frame, op, kernel)
    assert operand is not None
    found: list[Any] = []

    def watch(op: Any, inputs: list[Any], outputs: list[Any]) -> None:
        found.append(features_of(op, inputs, operand).numpy())
        for turn in turns:
            few, given = thinned(op, inputs, rows, turn)
            found.append(features_of(few, given, operand).numpy())

    Replay(trace).run(x, {frame.name(op): watch})
    return found[0], found[1:]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rows", [1, 30, 10**6])
def test_thinned_windows_are_windows_of_the_convolution(name: str, rows: int) -> None:
    whole, parts = seen(name, rows, range(12))
    known = {row.tobytes() for row in whole}
    reached = {row.tobytes() for part in parts for row in part}
    assert reached <= known
    if rows == 10**6:
        assert all(len(part) == len(whole) for part in parts)
    elif rows == 30 and "dilated" not in name and name != "transposed":
        assert all(len(part) <= 75 for part in parts)
        assert len(reached) > min(0.3 * len(known), 100)  # other windows at each turn


def test_the_windows_at_the_edges_are_seen_too() -> None:
    whole, parts = seen("conv1d same", 30, range(8))
    assert {row.tobytes() for part in parts for row in part} == {row.tobytes() for row in whole}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: L.Conv1D(8, 9, padding="same"), (4000, 32)),
        (lambda: L.Conv1D(8, 9, padding="causal", dilation_rate=4), (2000, 32)),
        (lambda: L.Conv2D(8, 5), (120, 120, 8)),
        (lambda: L.Conv2DTranspose(8, 3, strides=2), (50, 50, 16)),
    ],
)
def test_moments_of_long_sequences_look_at_few_windows(make: Any, shape: Any) -> None:
    model = keras.Sequential([keras.Input(shape), make()])
    x = RNG.standard_normal((64, *shape)).astype(np.float32)
    session = KerasSession(model)
    path = next(p.path for p in session.graph if p.role == "kernel")
    (found,) = session.probe(session.graph, MomentsProbe(64, (path,)), x)[path]
    assert moments._LEAST_ROWS <= found.rows <= 4 * moments._LEAST_ROWS
    diagonal = np.einsum("gkk->gk", found.gram)
    assert 0.2 < diagonal.min() <= diagonal.max() < 1.3
