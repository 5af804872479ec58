"""What a context keeps of the answers to its questions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitwidth as bw
from bitwidth.analysis import Fisher, InputMoments
from bitwidth.answers import distance
from bitwidth.context import Context
from tests import reference

DATA = reference.regression()
FISHER = bw.Fisher(samples=16, likelihood="gaussian")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs on which a Fisher was measured."""
    seen: list[Any] = []
    measure = reference.ReferenceSession._squared_gradients

    def counted(session: Any, graph: Any, *rest: Any) -> Any:
        seen.append(graph)
        return measure(session, graph, *rest)

    monkeypatch.setattr(reference.ReferenceSession, "_squared_gradients", counted)
    return seen


def ramp(rate: float, epochs: int = 8) -> bw.Pass:
    during = bw.Finetune(epochs=epochs, loss="mse", learning_rate=rate, batch_size=16)
    return bw.Ramp(bw.Prune(0.5, criterion=FISHER), during=during, steps=12)


@pytest.mark.parametrize(("rate", "least", "most"), [(1e-6, 1, 1), (1e-2, 2, 8), (1.0, 8, 13)])
def test_a_ramp_measures_a_fisher_as_often_as_the_weights_have_moved(
    rate: float, least: int, most: int, measured: list[Any]
) -> None:
    result = bw.PassManager([ramp(rate)]).run(reference.Network([6, 16, 2]), DATA)
    assert least <= len(measured) <= most
    masks = [p.encoding.mask for p in result.graph if p.role == "kernel"]
    assert sum(int(mask.sum()) for mask in masks if mask is not None) == 64


@pytest.mark.parametrize(
    ("change", "drift", "count"), [(0.01, 0.02, 1), (0.03, 0.02, 2), (0.01, 0.0, 2), (0.5, 1.0, 1)]
)
def test_an_answer_holds_while_the_weights_are_near(
    change: float, drift: float, count: int, measured: list[Any]
) -> None:
    session = reference.ReferenceSession(reference.Network([6, 16, 2]))
    context, graph = Context(session, DATA, drift=drift), session.graph
    moved = graph.update({p.path: graph.values[p.path] * (1 + change) for p in graph if p.role == "kernel"})
    for one in (graph, moved):
        context.ask(FISHER, one)
    assert len(measured) == count


def test_other_questions_are_asked_again() -> None:
    session = reference.ReferenceSession(reference.Network([6, 16, 2]))
    context, graph = Context(session, DATA, drift=1.0), session.graph
    moved = graph.update({"layer0/kernel": graph.values["layer0/kernel"] * np.float32(1.001)})
    question = InputMoments(16, ("layer1/kernel",))
    assert context.ask(question, graph) is not context.ask(question, moved)


def test_outside_of_a_ramp_every_change_counts(measured: list[Any]) -> None:
    passes = [bw.Prune(0.3, criterion=FISHER), bw.Prune(0.31, criterion=FISHER)]
    bw.PassManager(passes).run(reference.Network([6, 16, 2]), DATA)
    assert len(measured) == 2


def test_pruning_nothing_measures_nothing(measured: list[Any]) -> None:
    bw.PassManager([bw.Prune(0.0, criterion=FISHER)]).run(reference.Network([6, 16, 2]), DATA)
    assert not measured


def test_weights_of_another_model_are_not_near() -> None:
    one = {"kernel": np.ones((2, 2), np.float32)}
    assert distance(one, one) == 0.0
    assert distance(one, {"other": np.ones((2, 2), np.float32)}) == np.inf
    assert distance(one, {"kernel": np.ones((2, 3), np.float32)}) == np.inf
    assert distance({"kernel": np.zeros(2)}, {"kernel": np.zeros(2)}) == np.inf
    assert Fisher.holds_while_near
