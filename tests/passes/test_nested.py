"""One model for several widths."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.backends.tensorflow.constraints.lowering import LearnedVariable
from bitwidth.data import digits
from bitwidth.encodings import Quantized, prefix
from tests import reference, zoo

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = (part[:512] for part in digits().train)
WIDTHS = (8, 4, 2)


def tune(**fields: Any) -> bw.Finetune:
    return bw.Finetune(
        **{
            "epochs": 1,
            "loss": LOSS,
            "batch_size": 64,
            "learning_rate": 1e-2,
            "learn_steps": True,
            "decay": "constant",
            **fields,
        }
    )


def network() -> Any:
    layers = [keras.layers.Flatten(), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(10, name="out")]
    return zoo.filled(keras.Sequential([keras.Input((8, 8, 1)), *layers]))


def accuracy(model: Any) -> float:
    return float((model.predict(X, verbose=0).argmax(axis=1) == Y).mean())


def test_every_width_of_one_file_is_a_good_model(tmp_path: Any) -> None:
    found = {}
    for name, item in (
        ("nested", bw.Nested(bw.Quantize(8), WIDTHS, during=tune(epochs=12))),
        ("plain", tune(epochs=12)),
    ):
        passes = [item] if name == "nested" else [bw.Quantize(8), item]
        result = bw.PassManager(passes).run(network(), (X, Y))
        result.save(tmp_path / f"{name}.bw")
        found[name] = [accuracy(bw.load(tmp_path / f"{name}.bw", bits=bits)) for bits in WIDTHS]
    assert min(found["nested"]) > 0.9
    assert found["nested"][2] > found["plain"][2] + 0.02


def test_what_is_loaded_is_the_prefix_and_what_it_read_in_training(tmp_path: Any) -> None:
    result = bw.PassManager([bw.Nested(bw.Quantize(8), WIDTHS, during=tune())]).run(network(), (X, Y))
    parameter = result.graph["hidden/kernel"]
    assert parameter.encoding.bits == 8
    result.save(tmp_path / "model.bw")
    for bits in WIDTHS:
        short = prefix(parameter.encoding, bits)
        expected = short.project(result.graph.values["hidden/kernel"])
        loaded = bw.load(tmp_path / "model.bw", bits=bits).get_layer("hidden").kernel.numpy()
        np.testing.assert_array_equal(loaded, expected)


def test_each_step_runs_at_the_next_width_without_forgetting_steps() -> None:
    levels: list[int] = []
    learned: list[Any] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            levels.append(len(np.unique(self.model.get_layer("hidden").kernel.numpy()[:, 0])))
            own = [v for v in self.model.trainable_variables if isinstance(v, LearnedVariable)]
            learned.append(own[0].numpy().copy())

    nested = bw.Nested(bw.Quantize(8), WIDTHS, during=tune(epochs=2, callbacks=[Watch()]))
    bw.PassManager([nested]).run(network(), (X, Y))
    # A user's callback runs after the pass was asked, so it sees the width of the step to come.
    assert [count <= 3 for count in levels[:9]] == [False, True, False] * 3
    assert max(levels[i] for i in (0, 3, 6)) <= 15
    assert all(now.any() for now in learned)
    assert all(np.abs(now - before).max() < 0.05 for before, now in pairwise(learned))


def test_a_mask_stays_and_the_report_names_the_widths() -> None:
    start = bw.PassManager([bw.Prune(0.5)]).run(network())
    result = bw.PassManager([bw.Nested(bw.Quantize(8), WIDTHS, during=tune())]).run(start, (X, Y))
    mask = result.graph["hidden/kernel"].encoding.mask
    assert mask is not None
    assert not np.count_nonzero(result.graph.values["hidden/kernel"][~mask])
    assert "nested widths: 8, 4, 2 bits" in result.report.passes[0].remarks
    assert isinstance(result.graph["hidden/kernel"].encoding.unmasked, Quantized)


def test_a_model_with_batch_normalization() -> None:
    model = zoo.MODELS["convnet_bn"]()
    inputs = zoo.batch("convnet_bn", 16)
    targets = np.zeros(model(inputs).shape, np.float32)
    nested = bw.Nested(bw.Quantize(6), (6, 3), during=tune(loss="mse", batch_size=4))
    result = bw.PassManager([nested]).run(model, (inputs, targets), (inputs, targets))
    assert result.report.passes[0].touched


def test_plan_and_recipe() -> None:
    manager = bw.PassManager([bw.Nested(bw.Quantize(8), (8, 4, 2), during=bw.Finetune(1, loss="mse"))])
    assert bw.PassManager.from_recipe(manager.to_recipe()) == manager
    assert "8, 4, 2" in str(manager.plan(network()))


def test_the_reference_backend_trains_nested_widths() -> None:
    item = bw.Nested(bw.Quantize(8), WIDTHS, during=bw.Finetune(4, loss="mse", learning_rate=0.05, batch_size=8))
    result = bw.PassManager([item]).run(reference.Network([6, 8, 2]), reference.regression())
    assert result.graph["layer0/kernel"].encoding.bits == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": bw.Prune(0.5)}, "must be a Quantize"),
        ({"of": bw.Quantize(8, rule="power_of_two")}, "symmetric uniform rule"),
        ({"of": bw.Quantize(8, symmetric=False)}, "symmetric uniform rule"),
        ({"of": bw.Quantize(rate=2.0)}, "with bits"),
        ({"during": bw.Quantize(8)}, "must be a training pass"),
        ({"during": bw.Ramp(bw.Prune(0.5), during=tune())}, "must be a training pass"),
        ({"widths": 8}, "two or more"),
        ({"widths": (8,)}, "two or more"),
        ({"widths": (8, 1)}, "at least 2"),
        ({"widths": (8, 4.0)}, "at least 2"),
        ({"widths": (8, 8, 4)}, "must fall"),
        ({"widths": (8, 2, 4)}, "must fall"),
        ({"widths": (6, 4)}, "the first width"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(bw.errors.ConfigError, match=message):
        bw.Nested(**{"of": bw.Quantize(8), "widths": WIDTHS, "during": tune(), **fields})
