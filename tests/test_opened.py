"""A model that is opened once and compressed many times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.answers import Answers, size_of
from bitwidth.backends.tensorflow import session as sessions
from bitwidth.backends.tensorflow.measuring import probes
from bitwidth.backends.tensorflow.measuring.gradients import SquaredGradients
from bitwidth.errors import ConfigError, DataError
from bitwidth.graph import Graph, Structure

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6, 6, 2)).astype(np.float32)
Y = RNG.integers(0, 3, 96)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(3, name="out"),
        ]
    )


RECIPES: dict[str, list[bw.Pass]] = {
    "eight bits": [bw.Quantize(8)],
    "four bits": [bw.Quantize(4)],
    "fed back": [bw.Quantize(3, rounding="error_feedback")],
    "fed back, finer": [bw.Quantize(5, rounding="error_feedback")],
    "at a rate": [bw.Quantize(rate=2.5)],
    "by Fisher": [bw.Prune(0.5, criterion="fisher"), bw.Quantize(4)],
    "activations": [bw.Quantize(8, activations=8)],
    "folded": [bw.FoldBatchNorm(), bw.Quantize(4)],
    "trained": [bw.Quantize(2), bw.Finetune(epochs=1, loss=LOSS, learning_rate=1e-3)],
    "ramped by Fisher": [
        bw.Ramp(bw.Prune(0.5, criterion="fisher"), during=bw.Finetune(epochs=1, loss=LOSS), steps=3),
    ],
    "ramped": [bw.Ramp(bw.Prune(0.5), during=bw.Finetune(epochs=1, loss=LOSS), steps=3)],
}


def saved(result: bw.Result, folder: Path) -> bytes:
    result.save(folder / "m.bw")
    return (folder / "m.bw").read_bytes()


@pytest.mark.parametrize("compiled", [False, True])
def test_many_recipes_on_one_opened_model_give_what_they_give_apart(compiled: bool, tmp_path: Path) -> None:
    model = network()
    if compiled:
        model.compile("adam", LOSS)
    opened = bw.open(model, (X, Y))
    results = {name: bw.PassManager(chain).run(opened) for name, chain in RECIPES.items()}
    for name, chain in RECIPES.items():
        apart = bw.PassManager(chain).run(model, (X, Y))
        assert saved(results[name], tmp_path) == saved(apart, tmp_path), name
        np.testing.assert_array_equal(
            results[name].model.predict(X, verbose=0), apart.model.predict(X, verbose=0), err_msg=name
        )
        assert results[name].model.compiled == compiled


def test_an_opened_model_is_a_copy_of_that_moment(tmp_path: Path) -> None:
    model = network()
    opened, before = bw.open(model), saved(bw.PassManager([bw.Quantize(4)]).run(model), tmp_path)
    model.layers[0].kernel.assign(model.layers[0].kernel * 2)
    first = bw.PassManager([bw.Quantize(4)]).run(opened)
    first.model.layers[0].kernel.assign(first.model.layers[0].kernel * 3)
    assert saved(bw.PassManager([bw.Quantize(4)]).run(opened), tmp_path) == before
    assert bw.read(opened) is opened.graph
    np.testing.assert_array_equal(opened.graph["conv/kernel"].shape, (3, 3, 2, 8))


def test_what_is_measured_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def counted(place: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(place, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **kwargs)

        monkeypatch.setattr(place, name, call)

    for place, name in [(probes, "input_moments"), (probes, "observed"), (sessions, "traced_for_training")]:
        counted(place, name)
    counted(sessions, "copy_model")
    counted(SquaredGradients, "over")
    opened = bw.open(network(), X)
    for bits in (3, 4, 5):
        bw.PassManager([bw.Quantize(bits, rounding="error_feedback")]).run(opened)
        bw.PassManager([bw.Quantize(bits, activations=8)]).run(opened)
        bw.PassManager([bw.Prune(0.1 * bits, criterion="fisher")]).run(opened)
    assert calls == {"input_moments": 1, "observed": 1, "traced_for_training": 1, "copy_model": 1, "over": 1}
    bw.PassManager([bw.Prune(0.5, criterion="fisher")]).run(opened, seed=1)
    bw.PassManager([bw.Prune(0.5, criterion="fisher")]).run(opened, X[:64])
    assert calls["over"] == 3


def test_results_of_one_opened_model_are_run_further_and_changed_apart() -> None:
    opened = bw.open(network(), (X, Y))
    first = bw.PassManager([bw.Quantize(4)]).run(opened)
    second = bw.PassManager([bw.Quantize(2)]).run(opened)
    assert first.model is first.model
    kernels = [result.model.layers[0].kernel.numpy() for result in (first, second)]
    first.model.compile("sgd", LOSS)
    first.model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(second.model.layers[0].kernel.numpy(), kernels[1])
    assert bw.PassManager([bw.Prune(0.5)]).run(second).graph["conv/kernel"].encoding.bits == 2
    with pytest.raises(bw.errors.ModelError, match="changed since the run"):
        first.check_unchanged()


def test_runs_from_several_threads_wait_for_each_other(tmp_path: Path) -> None:
    model = network()
    opened, found = bw.open(model, (X, Y)), {}

    def run(name: str) -> None:
        found[name] = bw.PassManager(RECIPES[name]).run(opened)

    names = ["four bits", "trained", "fed back", "by Fisher", "activations"]
    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        apart = bw.PassManager(RECIPES[name]).run(model, (X, Y))
        assert saved(found[name], tmp_path) == saved(apart, tmp_path), name


def test_plans_and_results_are_taken_too() -> None:
    opened = bw.open(network())
    planned = bw.PassManager([bw.Quantize(4)]).plan(opened)
    assert planned.planned
    assert planned.passes[0].touched
    again = bw.open(bw.PassManager([bw.Prune(0.5, scope="local")]).run(opened))
    both = bw.PassManager([bw.Quantize(4)]).run(again)
    assert both.graph["out/kernel"].encoding.mask is not None


@pytest.mark.parametrize(
    ("model", "data", "error"),
    [(None, None, ConfigError), (network(), (X[:0], Y[:0]), DataError), (network(), X * np.nan, DataError)],
)
def test_bad_input_is_refused_when_it_is_opened(model: Any, data: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        bw.open(model, data)


def test_answers_beyond_the_limit_are_not_kept() -> None:
    graph = Graph(Structure("net", (), (), (), (), ()), [], {})
    answers, asked = Answers(graph, limit=100), list[str]()

    def find(question: str, size: int) -> Callable[[], Any]:
        def found() -> Any:
            asked.append(question)
            return {"kernel": np.zeros(size, np.uint8)}

        return found

    for question, size in [("a", 60), ("b", 40), ("a", 60), ("c", 40), ("a", 60), ("b", 40), ("whole", 101)]:
        answers.get(question, graph, find(question, size))
    assert asked == ["a", "b", "c", "b", "whole"]
    answers.get("b", graph, find("b", 40))
    assert asked[-1] == "b"


def test_the_size_of_an_answer_is_that_of_its_arrays() -> None:
    moments = {"a": (np.zeros((2, 2)),), "b": [np.zeros(3, np.int8), None, "words"]}
    assert size_of(moments) == 35
