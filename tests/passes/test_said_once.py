"""A report says each thing once, and no more than was done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from typing_extensions import override

import bitwidth as bw
from bitwidth.report.records import PassRecord

RNG = np.random.default_rng(0)
SAMPLES = 24
DATA = (RNG.standard_normal((SAMPLES, 6)).astype(np.float32), RNG.integers(0, 3, SAMPLES))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Odd(layers.Layer):  # type: ignore[misc]
    """A kernel whose use cannot be watched, and two constants of one shape that are no variables."""

    @override
    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(6, 8), name="kernel")
        self.first, self.second = tf.constant(np.ones(8, np.float32)), tf.constant(np.ones(8, np.float32))

    @override
    def call(self, x: Any) -> Any:
        return tf.matmul(x, tf.tanh(self.kernel)) * self.first * self.second


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    shared = layers.Dense(8, "relu", name="shared")
    x = layers.BatchNormalization(name="norm")(shared(shared(Odd(name="odd")(inputs))))
    blind = layers.Activation(lambda t: tf.floor(t), name="floor")(layers.Dense(4, name="blind")(x))
    frozen = layers.Dense(4, "relu", name="frozen")
    outputs = layers.Dense(3, name="logits")(layers.Concatenate()([frozen(x), blind]))
    frozen.trainable = False
    made = keras.Model(inputs, outputs)
    made.compile("sgd", LOSS)
    return made


TUNE = bw.Finetune(epochs=2)
FISHER = bw.Prune(0.5, criterion="fisher")
CHAINS: dict[str, list[bw.Pass]] = {
    "a rate by data": [bw.Quantize(rate=2.0, rounding="error_feedback", activations=8)],
    "a rate for each": [bw.Quantize(rate=2.0, scope="local", rounding="entropy", importance="fisher")],
    "one after another": [FISHER, bw.Prune(0.95, floor=0.0), bw.ReestimateBatchNorm(), bw.Quantize(8), bw.Quantize(2)],
    "Ramp": [bw.Ramp(FISHER, TUNE), bw.Quantize(4, importance="inputs", rounding="entropy")],
    "Ramp of a chain": [bw.Ramp(bw.PassManager([bw.Where(FISHER, ["blind", "odd"]), bw.Quantize(4)]), TUNE)],
    "Nested": [bw.Nested(bw.Quantize(8), (8, 4, 2), during=TUNE)],
    "Repeat": [bw.Repeat(bw.PassManager([FISHER, bw.Where(bw.Quantize(8, importance="fisher"), ["blind", "odd"])]), 2)],
    "CorrectBias": [bw.CorrectBias(bw.Quantize(4, importance="fisher", activations=8), sequential=True)],
}


def records(outer: Iterable[PassRecord]) -> Iterator[PassRecord]:
    for record in outer:
        yield record
        yield from records(record.inner)


def check(report: bw.Report) -> None:
    assert len(set(report.notes)) == len(report.notes), report.notes
    for record in records(report.passes):
        assert len(set(record.remarks)) == len(record.remarks), (record.name, record.remarks)
        inner = {line for part in records(record.inner) for line in part.remarks}
        assert not inner & set(record.remarks), f"{record.name} repeats what a pass in it says"
        for line in record.remarks:
            for count in re.findall(r"([\d,]+) samples", line):
                assert "at most" in line or count == str(SAMPLES), line
    for section in report.text().split("\n\n"):
        lines = [line for line in section.splitlines() if line.startswith("  ")]
        assert len(set(lines)) == len(lines), section
    text = report.text()
    for record in report.passes:
        assert all(f"  {line}" in text for line in (*record.remarks, *report.notes))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", list(CHAINS))
def test_nothing_is_said_twice(name: str, model: Any) -> None:
    manager = bw.PassManager(CHAINS[name])
    check(manager.plan(model))
    result = manager.run(model, DATA)
    check(result.report)
    check(result.report)  # and it does not grow by being asked for
    assert any("constant of shape (8,)" in note for note in result.report.notes)
    again = bw.PassManager([bw.Prune(0.1)]).run(result, DATA, DATA).report
    check(again)
    assert any("constant of shape (8,)" in note for note in again.notes)
