"""Shrink: smaller layers that compute what was asked for, on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from typing_extensions import override

import bitwidth as bw
from bitwidth.encodings import Quantized
from bitwidth.errors import ConfigError, ModelError, SelectionError
from bitwidth.graph.labels import couple
from tests.real import digits_net

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A network for digits, and its data."""
    return digits_net(15, 64)


def right(model: Any, x: Any, y: Any) -> float:
    return float((model.predict(x, verbose=0).argmax(-1) == y).mean())


def widths(model: Any) -> list[int]:
    return [layer.units for layer in model.layers if isinstance(layer, layers.Dense)]


def test_refitting_and_reconstruction_each_help(trained: Any) -> None:
    model, x, y = trained
    found = {}
    for name, item in {
        "magnitude": bw.Shrink(keep=0.375, criterion="magnitude", refit=False),
        "refitted": bw.Shrink(keep=0.375, criterion="magnitude"),
        "reconstruction": bw.Shrink(keep=0.375),
    }.items():
        result = bw.PassManager([item]).run(model, x)
        assert widths(result.model) == [24, 12, 10]
        found[name] = right(result.model, x, y)
    assert right(model, x, y) > 0.95
    assert found["magnitude"] + 0.1 < found["refitted"] < found["reconstruction"]


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "fisher", "reconstruction"])
def test_what_is_kept_is_in_the_lineage_and_the_model_is_plain(trained: Any, criterion: Any, tmp_path: Path) -> None:
    model, x, y = trained
    before = [np.array(value) for value in model.get_weights()]
    result = bw.PassManager([bw.Shrink(units=20, criterion=criterion, samples=256)]).run(model, (x, y), (x, y))
    assert widths(result.model) == [20, 20, 10]
    kept = result.graph.structure.cut.kept["a/kernel"][1]
    np.testing.assert_array_equal(result.model.get_layer("a").kernel, before[0][:, kept])
    assert all(np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True))
    assert result.model.compiled
    result.model.fit(x, y, epochs=1, verbose=0)
    result.model.save(tmp_path / "small.keras")
    assert widths(keras.models.load_model(tmp_path / "small.keras")) == [20, 20, 10]
    result = bw.PassManager([]).run(result.model)
    result.save(tmp_path / "small.bw")
    loaded = bw.load(tmp_path / "small.bw")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), result.model.predict(x, verbose=0))


def test_masks_and_grids_go_through_a_cut(trained: Any) -> None:
    model, x, y = trained
    first = bw.PassManager([bw.Prune(0.5), bw.Quantize(6, activations=8)]).run(model, x)
    second = bw.PassManager([bw.Shrink(keep=0.5), bw.Finetune(epochs=1, loss=LOSS)]).run(first, (x, y))
    cut = second.graph.structure.cut
    for path in ("a/kernel", "b/kernel", "out/kernel"):
        old, new = first.graph[path].encoding, second.graph[path].encoding
        assert isinstance(new.unmasked, Quantized)
        assert new.unmasked.bits == 6
        assert old.mask is not None
        assert new.mask is not None
        np.testing.assert_array_equal(new.mask, cut.take(path, old.mask))
        assert not second.graph.values[path][~new.mask].any()
    assert len(second.graph.activations) == len(first.graph.activations) > 0
    assert right(second.model, x, y) > 0.8


def test_a_chain_on_a_loaded_file(trained: Any, tmp_path: Path) -> None:
    model, x, _ = trained
    bw.PassManager([bw.Shrink(keep=0.5), bw.Prune(0.3), bw.Quantize(8)]).run(model, x).save(tmp_path / "one.bw")
    again = bw.PassManager([bw.Shrink(keep=0.5)]).run(bw.load(tmp_path / "one.bw"), x)
    assert widths(again.model) == [16, 8, 10]


def test_budgets(trained: Any) -> None:
    model, x, _ = trained
    given = bw.cost(model)
    for item in (bw.Shrink(macs=0.5), bw.Shrink(parameters=0.4, multiple_of=4)):
        result = bw.PassManager([item]).run(model, x)
        found = bw.cost(result.model)
        if item.macs is not None:
            assert 0.45 * given.macs < found.macs <= 0.5 * given.macs
        else:
            assert found.parameters <= 0.4 * given.parameters
            assert all(width % 4 == 0 for width in widths(result.model)[:2])
        assert any("MACs" in remark for remark in result.report.passes[0].remarks)


def test_where_names_the_kernels_that_make_units(trained: Any) -> None:
    model, x, _ = trained
    result = bw.PassManager([bw.Where(bw.Shrink(keep=0.5), "a")]).run(model, x)
    assert widths(result.model) == [32, 32, 10]
    (record,) = result.report.passes
    assert record.refitted == ("b/bias", "b/kernel")
    assert {"b/bias", "b/kernel"}.isdisjoint(record.skipped)
    assert record.skipped["out/kernel"] == "axis 1 stays: model output"
    np.testing.assert_array_equal(result.graph.values["out/kernel"], model.get_layer("out").kernel)
    with pytest.raises(SelectionError):
        bw.PassManager([bw.Shrink(keep=0.5, where="nowhere")]).run(model, x)


def test_a_plan_without_data_shows_every_repeat(trained: Any) -> None:
    model, _, _ = trained
    plan = bw.PassManager([bw.Repeat(bw.Shrink(keep=0.5), 3), bw.Quantize(4)]).plan(model)
    text = str(plan)
    assert "a: 32 of 64 units stay" in text
    assert "a: 8 of 16 units stay" in text
    assert widths(model) == [64, 32, 10]


def test_a_ramp_is_refused_and_told_of_repeats() -> None:
    with pytest.raises(ConfigError, match="Repeat"):
        bw.Ramp(bw.Shrink(keep=0.5), during=bw.Finetune(epochs=1, loss=LOSS))


def test_dense_layers_only() -> None:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((8, 8, 1)), layers.Conv2D(6, 3, name="conv"), layers.Flatten(), layers.Dense(9, name="dense")]
    model = keras.Sequential([*stack, layers.Dense(2, name="out")])
    result = bw.PassManager([bw.ShrinkDense(units=4)]).run(model)
    assert result.model.get_layer("conv").filters == 6
    assert result.model.get_layer("dense").units == 4
    assert result.report.passes[0].skipped["conv/kernel"] == "its units are made by Conv2D"


def test_what_cannot_be_removed_is_said_before_work_starts(trained: Any) -> None:
    model = trained[0]
    lone = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    for item, given, message in (
        (bw.Shrink(keep=0.5), lone, "nothing to remove: .*model output"),
        (bw.Shrink(units=100), model, "it has 64 units, and 100 were to stay"),
        (bw.Shrink(macs=1e-4), model, "0.0001 of the model were to stay"),
        (bw.Shrink(keep=0.5, criterion="reconstruction"), model, "needs data"),
    ):
        for act in (bw.PassManager([item]).plan, bw.PassManager([item]).run):
            if act.__name__ == "plan" and message == "needs data":
                continue
            with pytest.raises(ConfigError, match=message):
                act(given)
    with pytest.raises(ConfigError, match="criterion"):
        bw.Shrink(keep=0.5, criterion="size")  # type: ignore[arg-type]


def test_groups_that_hide_their_sizes_are_left_alone_and_the_others_are_cut() -> None:
    @keras.saving.register_keras_serializable("tests.shrink")
    class Halved(layers.Layer):  # type: ignore[misc]
        """Computes with a size that no layer shows."""

        @override
        def call(self, x: Any) -> Any:
            return x * (1.0 if x.shape[-1] == 12 else 2.0)

    keras.utils.set_random_seed(0)
    stack = [layers.Dense(12, name="a"), Halved(), layers.Dense(8, name="b"), layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    result = bw.PassManager([bw.Shrink(keep=0.5)]).run(model)
    assert widths(result.model) == [12, 4, 2]
    remarks = result.report.passes[0].remarks
    assert any(line.startswith("a: left alone, ") for line in remarks)
    assert "b: 4 of 8 units stay" in remarks
    assert not any(line.startswith("a: 6 of 12") for line in remarks)
    with pytest.raises(ModelError, match="nothing could be removed"):
        bw.PassManager([bw.Shrink(keep=0.5, where="a")]).run(model)


def test_inexact_groups_on_request() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    y = layers.Dense(10, name="wide")(x)
    y = layers.LayerNormalization()(y)
    model = keras.Model(x, layers.Dense(2)(y))
    (group,) = couple(bw.read(model)).groups
    assert not group.exact
    with pytest.raises(ConfigError, match="not the same as zeros"):
        bw.PassManager([bw.Shrink(keep=0.5)]).run(model)
    result = bw.PassManager([bw.Shrink(keep=0.5, inexact=True)]).run(model)
    assert result.model.get_layer("wide").units == 5


def test_a_shared_session_is_not_moved(trained: Any) -> None:
    model, x, _ = trained
    opened = bw.open(model, x)
    small = bw.PassManager([bw.Shrink(keep=0.5)]).run(opened)
    whole = bw.PassManager([bw.Quantize(8)]).run(opened)
    assert widths(small.model) == [32, 16, 10]
    assert widths(whole.model) == [64, 32, 10]
