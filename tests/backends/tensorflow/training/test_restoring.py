"""Callbacks that put back weights from before a ramp was at full strength."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from bitwidth.data import digits
from tests import zoo

X, Y = (part[:128] for part in digits().train)
EPOCHS, STEPS, END = 4, 4, 0.5  # of an epoch; full strength is reached after 8 of 16 steps
RAMPED: dict[str, bw.Pass] = {"prune": bw.Prune(0.8), "quantize": bw.Quantize(2)}


class Back(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights once, and puts them back at an end."""

    def __init__(self, epoch: int, at: str = "train", file: Path | None = None, step: int | None = None) -> None:
        super().__init__()
        self.epoch, self.at, self.file, self.step = epoch, at, file, step
        self.seen = 0

    @override
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.step:
            self.held = [np.array(variable._value.numpy()) for variable in self.model.variables]

    @override
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and self.step is None:
            self.held = self.model.get_weights()
            if self.file is not None:
                self.model.save_weights(self.file)
        if self.at == "epoch" and epoch == EPOCHS - 1:
            self.put_back()

    @override
    def on_train_end(self, logs: Any = None) -> None:
        if self.at == "train":
            self.put_back()

    def put_back(self) -> None:
        if self.file is not None:
            self.model.load_weights(self.file)
        elif self.step is not None:
            for variable, value in zip(self.model.variables, self.held, strict=True):
                variable.assign(value)
        else:
            self.model.set_weights(self.held)


class Halve(Back):
    """Changes the weights to what they never were."""

    @override
    def put_back(self) -> None:
        self.model.set_weights([value / 2 for value in self.model.get_weights()])


def tune(*callbacks: Any, **fields: Any) -> bw.Finetune:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return bw.Finetune(EPOCHS, loss=loss, batch_size=32, learning_rate=1e-2, callbacks=callbacks, **fields)


def run(of: bw.Pass | None, *callbacks: Any, **fields: Any) -> bw.Result:
    layers = keras.layers
    body = [layers.Flatten(), layers.Dense(16, "relu", name="body"), layers.BatchNormalization(name="norm")]
    model = zoo.filled(keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(10, name="head")]))
    item = tune(*callbacks, **fields) if of is None else bw.Ramp(of, tune(*callbacks, **fields), end=END)
    return bw.PassManager([item]).run(model, (X, Y))


@pytest.fixture(scope="module")
def plain() -> dict[str, bw.Result]:
    return {name: run(of, learn_steps=name == "quantize") for name, of in RAMPED.items()}


def same(left: bw.Result, right: bw.Result) -> bool:
    pairs = zip(left.model.get_weights(), right.model.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def told(result: bw.Result) -> list[str]:
    return [remark for remark in result.report.passes[0].remarks if "callback" in remark]


MAKERS: dict[str, Callable[[Path], Back]] = {
    "weights at the end of the training": lambda folder: Back(0),
    "weights of the epoch that reaches full strength": lambda folder: Back(1),
    "weights at the end of the last epoch": lambda folder: Back(1, "epoch"),
    "a file": lambda folder: Back(0, file=folder / "kept.weights.h5"),
    "variables, kept between two epochs": lambda folder: Back(0, step=6),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [("prune", how) for how in MAKERS]
    + [("quantize", how) for how in ("a file", "weights at the end of the last epoch")],
)
def test_weights_that_were_never_trained_under_full_strength_are_not_put_back(
    name: str, how: str, plain: dict[str, bw.Result], tmp_path: Path
) -> None:
    callback = MAKERS[how](tmp_path)
    result = run(RAMPED[name], callback, learn_steps=name == "quantize")
    step = callback.step or STEPS * (callback.epoch + 1)
    assert [line.split(",")[0] for line in told(result)] == [f"a callback put back the weights of step {step} of 16"]
    assert "begin at epoch 2 (the first is 0)" in told(result)[0]
    assert same(result, plain[name])


@pytest.mark.parametrize("file", [False, True])
def test_weights_of_full_strength_are_put_back(file: bool, plain: dict[str, bw.Result], tmp_path: Path) -> None:
    result = run(RAMPED["prune"], Back(2, file=tmp_path / "kept.weights.h5" if file else None))
    assert not told(result)
    assert not same(result, plain["prune"])


def test_weights_that_never_were_are_told_of(plain: dict[str, bw.Result]) -> None:
    result = run(RAMPED["prune"], Halve(0))
    assert told(result) == ["a callback has changed the weights when the training had ended; the result has its own"]
    assert not same(result, plain["prune"])


def test_what_only_looks_is_not_told_of(plain: dict[str, bw.Result]) -> None:
    early = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
    result = run(RAMPED["prune"], keras.callbacks.History(), Back(0, "never"), early)
    assert not told(result)
    assert not told(run(None, Back(0)))  # without a ramp the user's word is the last
