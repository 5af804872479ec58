"""Events of a run, cancelling it, deadlines, progress and logging."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.events import Event
from bitwidth.progress import Bar
from tests import reference, zoo

DATA = reference.regression()
TUNE = bw.Finetune(epochs=4, loss="mse", learning_rate=0.05, batch_size=8)
RAMP = bw.Ramp(bw.Prune(0.8), during=TUNE)


def model(backend: str) -> Any:
    if backend == "reference":
        return reference.Network([6, 8, 2])
    layers = [keras.layers.Dense(8, "relu", name="layer0"), keras.layers.Dense(2, name="layer1")]
    return zoo.filled(keras.Sequential([keras.Input((6,)), *layers]))


def follow(passes: list[bw.Pass], backend: str = "reference", **options: Any) -> tuple[bw.Result, list[Event]]:
    seen: list[Event] = []
    result = bw.PassManager(passes).run(model(backend), DATA, on_event=seen.append, **options)
    return result, seen


@pytest.mark.parametrize("backend", ["reference", "keras"])
def test_the_events_of_a_run(backend: str) -> None:
    result, seen = follow([bw.Prune(0.25), RAMP, bw.Repeat(bw.Quantize(4), 2)], backend)
    assert result.complete
    kinds = [event.kind for event in seen]
    assert kinds[:2] == ["pass_started", "pass_done"]
    assert kinds.count("step") == 4 * 8
    assert kinds.count("pass_started") == kinds.count("pass_done") == 5
    done = [event for event in seen if event.kind == "pass_done"]
    assert done[0].pass_path == ("passes[0] Prune",)
    assert done[0].sparsity == pytest.approx(0.22, abs=0.03)
    assert done[-1].bytes == sum(r.bytes_after or 0 for r in result.report.passes[-1].parameters)
    assert ("passes[2] Repeat", "Quantize") in {event.pass_path for event in done}
    steps = [event for event in seen if event.kind == "step"]
    assert steps[0].pass_path == ("passes[1] Ramp", "Finetune")
    strengths = [event.strength for event in steps if event.strength is not None]
    assert strengths == sorted(strengths)
    assert (strengths[0], strengths[-1]) == (0.0, 1.0)
    assert all(event.strength is None for event in seen[:2])
    assert steps[0].seconds_left is None
    assert steps[-1].seconds_left == 0.0
    assert "strength" in kinds


def test_an_event_cannot_be_changed() -> None:
    event = Event("step", ("passes[0] Finetune",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.kind = "other"  # type: ignore[misc]
    event.cancel()  # of no run: nothing to cancel


@pytest.mark.parametrize("backend", ["reference", "keras"])
@pytest.mark.parametrize("last", [TUNE, RAMP, bw.Nested(bw.Quantize(8), (8, 4), during=TUNE), bw.Where(TUNE, "layer0")])
def test_a_training_is_cancelled_between_steps(last: bw.Pass, backend: str) -> None:
    steps: list[Event] = []

    def stop(event: Event) -> None:
        if event.kind == "step":
            steps.append(event)
        if len(steps) == 5:
            event.cancel()

    manager = bw.PassManager([bw.Prune(0.5), last, bw.Quantize(2)])
    result = manager.run(model(backend), DATA, DATA, loss="mse", on_event=stop)
    assert len(steps) == 5
    assert not result.complete
    first = str(result.report).splitlines()[0]
    assert f"not complete, it was cancelled before passes[1] {type(last).__name__} was done" in first
    assert not result.report.to_dict()["complete"]
    verified = bw.PassManager([bw.Prune(0.5)]).run(model(backend), DATA)
    for path in verified.graph.parameters:
        np.testing.assert_array_equal(result.graph.values[path], verified.graph.values[path])
        assert result.graph[path].encoding.describe() == verified.graph[path].encoding.describe()
    shown = result.model.weights if backend == "reference" else [v.numpy() for v in result.model.variables]
    for array, path in zip(shown, verified.graph.values, strict=True):
        np.testing.assert_array_equal(array, verified.graph.values[path])
    assert len(result.report.passes) == 1
    assert result.size


@pytest.mark.parametrize(
    ("passes", "path"),
    [
        ([bw.Prune(0.3), bw.Quantize(8), bw.Quantize(4)], "passes[1] Quantize"),
        ([bw.PassManager([bw.Prune(0.3), bw.Quantize(4)])], "passes[0] PassManager > passes[1] Quantize"),
        ([bw.Repeat(bw.Prune(0.3), 3), bw.Quantize(4)], "passes[0] Repeat > Prune"),
    ],
)
def test_a_run_is_cancelled_between_passes(passes: list[bw.Pass], path: str) -> None:
    def stop(event: Event) -> None:
        if event.kind == "pass_done":
            event.cancel()

    result = bw.PassManager(passes).run(model("reference"), DATA, on_event=stop)
    assert not result.complete
    assert f"before {path} was done" in str(result.report).splitlines()[0]
    expected = bw.PassManager([bw.Prune(0.3)]).run(model("reference")).graph
    for p in expected:
        np.testing.assert_array_equal(result.graph.values[p.path], expected.values[p.path])


def test_cancelled_when_all_is_done_is_complete() -> None:
    done: list[str] = []

    def stop(event: Event) -> None:
        if event.kind == "pass_done":
            done.append(event.kind)
            event.cancel()

    assert bw.PassManager([TUNE]).run(model("reference"), DATA, on_event=stop).complete
    assert done


@pytest.mark.parametrize("backend", ["reference", "keras"])
def test_a_deadline(backend: str) -> None:
    long = bw.Finetune(epochs=100_000, loss="mse", batch_size=8)
    started = time.monotonic()
    result, seen = follow([bw.Prune(0.5), long], backend, deadline=0.5)
    assert time.monotonic() - started < 60
    assert not result.complete
    assert "its deadline of 0.5 seconds passed" in str(result.report).splitlines()[0]
    assert seen[-1].kind == "cancelled"


def test_nothing_follows_a_run_that_nobody_asked_to_follow() -> None:
    plain = bw.PassManager([RAMP]).run(model("keras"), DATA)
    followed, _ = follow([RAMP], "keras")
    for path in plain.graph.parameters:
        np.testing.assert_array_equal(plain.graph.values[path], followed.graph.values[path])


@pytest.mark.parametrize(
    "options", [{"on_event": 3}, {"progress": "yes"}, {"deadline": 0}, {"deadline": -1.0}, {"deadline": "1"}]
)
def test_what_is_no_option_is_refused(options: Any) -> None:
    with pytest.raises(bw.errors.ConfigError, match=next(iter(options))):
        bw.PassManager([bw.Prune(0.5)]).run(model("reference"), **options)


def test_progress_is_drawn_on_a_terminal_only(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwidth.progress._PATIENCE", 0.0)
    bw.PassManager([TUNE]).run(model("reference"), DATA)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("patience", "drawn"), [(0.0, True), (60.0, False)])
def test_a_bar_is_drawn_for_what_takes_long(patience: float, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("bitwidth.passes.manager.Bar", lambda: Bar(out, patience))
    bw.PassManager([bw.Prune(0.1), RAMP]).run(model("reference"), DATA, progress=True)
    text = out.getvalue()
    assert ("passes[1] Ramp > Finetune" in text and "━" in text and "ms/step" in text) == drawn
    assert text.endswith("\n") or not drawn


def test_what_happens_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "bitwidth"):
        bw.PassManager([RAMP, bw.Quantize(4)]).run(model("reference"), DATA)
    names = {record.name for record in caplog.records}
    assert {"bitwidth.passes.base", "bitwidth.passes.ramp"} <= names
    assert any("passes[1] Quantize: done in" in record.getMessage() for record in caplog.records)
