"""`Finetune`: which rates and decays it takes, and what a pass is told of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import bitwidth as bw
from bitwidth.backend import Steer, Trained, Training
from bitwidth.graph import Graph
from bitwidth.passes.recipe_defaults import DEFAULTS_1
from tests import reference

RATES = [None, "own", 1e-3, 1]
DECAYS = [None, "constant", "cosine"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("decay", DECAYS)
def test_rates_and_decays(rate: Any, decay: Any) -> None:
    tune = bw.Finetune(epochs=5, learning_rate=rate, decay=decay)
    assert (tune.learning_rate, tune.decay) == (rate, decay)
    manager = bw.PassManager([tune])
    assert bw.PassManager.from_recipe(manager.to_recipe()) == manager


@pytest.mark.parametrize("rate", [0, -1.0, True, "fast", float("nan"), float("inf"), (1e-3,)])
def test_other_rates_are_refused(rate: Any) -> None:
    with pytest.raises(bw.errors.ConfigError, match='learning_rate must be a finite number above 0, or "own"'):
        bw.Finetune(learning_rate=rate)


@pytest.mark.parametrize("decay", ["linear", "", 1, True])
def test_other_decays_are_refused(decay: Any) -> None:
    with pytest.raises(bw.errors.ConfigError, match='decay must be "constant" or "cosine"'):
        bw.Finetune(decay=decay)


def test_what_recipes_had_left_out_can_be_said() -> None:
    tune = replace(
        bw.Finetune(epochs=2, loss="mse"), **{n: DEFAULTS_1["finetune"][n] for n in ("learning_rate", "decay")}
    )
    assert (tune.learning_rate, tune.decay) == ("own", "constant")
    assert tune != bw.Finetune(epochs=2, loss="mse")


@pytest.mark.parametrize(
    ("around", "settles"),
    [
        (lambda tune: tune, 0.0),
        (lambda tune: bw.Ramp(bw.Prune(0.5), during=tune), 0.75),
        (lambda tune: bw.Where(bw.Ramp(bw.Prune(0.5), during=tune, end=0.5), "layer0"), 0.5),
        (lambda tune: bw.PassManager([bw.Ramp(bw.Quantize(4), during=tune, end=0.25), bw.Prune(0.5)]), 0.25),
        (lambda tune: bw.Repeat(tune, times=2), 0.0),
    ],
)
def test_training_is_told_when_constraints_settle(around: Any, settles: float, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    train = reference.ReferenceSession.train

    def watched(session: Any, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        told.append(training.settled)
        return train(session, graph, training, steer)

    monkeypatch.setattr(reference.ReferenceSession, "train", watched)
    tune = bw.Finetune(epochs=4, loss="mse", batch_size=8)
    bw.PassManager([around(tune)]).run(reference.Network([6, 8, 2]), reference.regression())
    assert set(told) == {settles}
