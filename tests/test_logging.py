"""What modules log, under which names, and that nothing is said to those who did not ask."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from tests import reference, zoo
from tests.test_architecture import MODULES, every, tree

DEPRECATES = {"bitwidth.moved", "bitwidth.passes.keywords", "bitwidth.tensors"}
SPEAKS = ("bitwidth.__main__", "bitwidth.progress")  # the command line, and what draws on a terminal


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@every
def test_modules_log_under_their_own_names(name: str) -> None:
    for function, node in calls(name):
        assert function != "print" or name in SPEAKS, f"{name} prints"
        if function.endswith("getLogger"):
            assert [ast.unparse(argument) for argument in node.args] == ["__name__"], name
        assert function != "logging.basicConfig", name
        assert function != "warnings.warn" or name in DEPRECATES, f"{name} warns"
        assert name == "bitwidth" or not function.endswith((".addHandler", ".setLevel")), name
        if function.startswith("_LOG."):
            assert isinstance(node.args[0], ast.Constant), f"{name}: {ast.unparse(node)} is formatted at once"


def test_the_library_is_silent_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger("bitwidth")
    assert [type(handler) for handler in root.handlers] == [logging.NullHandler]
    assert root.level == logging.NOTSET, "levels are for programs to set"
    assert root.propagate
    model, data = reference.Network([6, 8, 2]), reference.regression()
    bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(model, data, on_event=lambda event: event.cancel())
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def model() -> Any:
    layers = [
        keras.layers.Dense(8, "relu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(3, name="logits"),
    ]
    return zoo.filled(keras.Sequential([keras.Input((6,)), *layers]))


def test_modules_tell_what_they_do(model: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((24, 6)).astype(np.float32), rng.integers(0, 3, 24))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    chain = [
        bw.Quantize(rate=3.0, rounding="error_feedback", activations=8),
        bw.ReestimateBatchNorm(),
        bw.Finetune(epochs=1, loss=loss),
    ]
    with caplog.at_level(logging.DEBUG, "bitwidth"):
        result = bw.PassManager(chain).run(model, data, data)
        result.save(tmp_path / "model.bw")
        bw.load(tmp_path / "model.bw")
    own = [record for record in caplog.records if record.name.startswith("bitwidth")]
    for record in own:
        assert Path(record.pathname).resolve() == MODULES[record.name].resolve()
    said: dict[str, list[str]] = {}
    for record in own:
        said.setdefault(record.name.removeprefix("bitwidth."), []).append(record.getMessage())
    for module, words in {
        "backends.tensorflow.session": "8 parameters of 115 values",
        "backends.tensorflow.reading.tracing": "traced in",
        "backends.tensorflow.training.trials": "are tried",
        "backends.tensorflow.measuring.gradients": "squared gradients of 24 samples in",
        "backends.tensorflow.data.source": "24 samples looked at, of at most 512",
        "backends.tensorflow.measuring.moments": "input moments of 2 parameters in",
        "backends.tensorflow.measuring.observing": "ranges of 2 tensors in",
        "backends.tensorflow.measuring.norms": "statistics of 1 normalisations over 24 samples",
        "passes.base": "passes[0] Quantize: done in",
        "passes.steps": "bits per weight, 3 asked for",
        "answers": "InputMoments: known from before",
        "artifact.writer": f"packed into {result.size} bytes",
        "artifact.replacing": f"{result.size} bytes written",
        "loading": f"8 parameters loaded from {result.size} bytes",
    }.items():
        assert any(words in line for line in said.get(module, [])), (module, said.get(module))
    training = [line for line in said["backends.tensorflow.training.fit"] if "train" in line]
    assert [line.partition(": ")[2].split()[0] for line in training] == ["training", "trained"]
    assert sum("measured in" in line for line in said["backends.tensorflow.session"]) == 4
