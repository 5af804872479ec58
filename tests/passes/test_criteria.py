"""What each criterion says of weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.errors import ConfigError
from bitwidth.testing import check_ramp
from tests import reference, zoo

TUNE = bw.Finetune(epochs=2, loss="mse", learning_rate=0.01, batch_size=8)


def mask(graph: bw.Graph, path: str) -> Any:
    found = graph[path].encoding.mask
    assert found is not None
    return found


def least(scores: Any, share: float) -> Any:
    """True on the weights that are not the least."""
    kept = np.ones(scores.size, np.bool_)
    kept[np.argsort(scores, axis=None, kind="stable")[: round(share * scores.size)]] = False
    return kept.reshape(scores.shape)


def test_activation_is_the_square_of_a_weight_times_the_power_of_its_input() -> None:
    model, inputs = zoo.MODELS["mlp"](), zoo.batch("mlp", 64)
    inputs[:, 3] *= 50
    result = bw.PassManager([bw.Prune(0.5, criterion="activation", scope="local")]).run(model, inputs)
    kernel = model.get_layer("hidden").kernel.numpy()
    expected = least(np.square(kernel) * np.square(inputs).mean(axis=0)[:, None], 0.5)
    np.testing.assert_array_equal(mask(result.graph, "hidden/kernel"), expected)
    assert expected[3].mean() > 0.9


def test_activation_of_a_convolution_sees_patches() -> None:
    model = zoo.filled(keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="conv"), L.Flatten()]))
    inputs = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype(np.float32)
    inputs[..., 0] *= 30
    result = bw.PassManager([bw.Prune(0.5, criterion="activation")]).run(model, inputs)
    kept = mask(result.graph, "conv/kernel").mean(axis=(0, 1, 3))
    assert kept[0] > 0.85
    assert kept[1] < 0.15


@pytest.mark.parametrize("criterion", ["activation", "compensation"])
def test_weights_of_inputs_that_are_always_zero_go_first(criterion: Any) -> None:
    model, inputs = zoo.MODELS["mlp"](), zoo.batch("mlp", 64)
    inputs[:, :2] = 0
    result = bw.PassManager([bw.Prune(1 / 3, criterion=criterion, where="hidden")]).run(model, inputs)
    assert not mask(result.graph, "hidden/kernel")[:2].any()
    assert mask(result.graph, "hidden/kernel")[2:].all()


def test_what_no_operation_sums_with_is_pruned_by_magnitude_with_a_remark() -> None:
    class Scaled(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=(4, shape[-1]), name="table")

        def call(self, x: Any) -> Any:
            return x * keras.ops.max(keras.ops.sin(self.table), axis=0)

    x = keras.Input((6,))
    model = zoo.filled(keras.Model(x, Scaled(name="scaled")(L.Dense(6, name="dense")(x))))
    for criterion in ("activation", "compensation"):
        one = bw.Prune(0.5, criterion=criterion)
        result = bw.PassManager([one]).run(model, zoo.batch("mlp", 32))
        remarks = "\n".join(result.report.passes[0].remarks)
        assert "scaled/table: no operation that can be watched sums over its inputs; pruned by magnitude" in remarks
        assert 0.2 < mask(result.graph, "scaled/table").mean() < 0.8
        assert sum(int(mask(result.graph, path).sum()) for path in ("scaled/table", "dense/kernel")) == 30


def test_a_table_that_is_looked_up_counts_how_often() -> None:
    x = keras.Input((5,), dtype="int32")
    model = zoo.filled(keras.Model(x, L.Dense(2, name="head")(L.Flatten()(L.Embedding(8, 4, name="table")(x)))))
    words = np.random.default_rng(0).integers(0, 3, (64, 5)).astype(np.int32)  # words 3 to 7 do not occur
    one = bw.Prune(0.5, pattern="rows", criterion="activation", where="table")
    kept = mask(bw.PassManager([one]).run(model, words).graph, "table/embeddings")
    assert kept[:3].all()
    assert kept.any(axis=1).sum() == 4


def test_data_is_asked_for_before_work_starts() -> None:
    for criterion in ("activation", "compensation"):
        with pytest.raises(ConfigError, match=f'Prune\\(criterion="{criterion}"\\) needs data'):
            bw.PassManager([bw.Prune(0.5, criterion=criterion)]).run(zoo.MODELS["mlp"]())


def test_samples_are_those_that_are_asked_for() -> None:
    model, inputs = zoo.MODELS["mlp"](), zoo.batch("mlp", 64)
    inputs[16:, 3] *= 1000
    few, all_ = (
        bw.PassManager([bw.Prune(0.5, criterion="activation", samples=samples, scope="local")]).run(model, inputs)
        for samples in (16, 64)
    )
    assert mask(few.graph, "hidden/kernel")[3].sum() < mask(all_.graph, "hidden/kernel")[3].sum() == 8


def last_half(parameter: bw.Parameter, graph: bw.Graph, context: bw.Context) -> Any:
    """Weights are the more important the later they stand; below zero, too."""
    return np.arange(parameter.size, dtype=np.int64).reshape(parameter.shape) - parameter.size


@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_function_of_the_user(scope: Any) -> None:
    result = bw.PassManager([bw.Prune(0.5, criterion=last_half, scope=scope, floor=0)]).run(zoo.MODELS["mlp"]())
    if scope == "local":
        np.testing.assert_array_equal(mask(result.graph, "hidden/kernel").ravel(), np.arange(48) >= 24)
    assert sum(int(mask(result.graph, path).sum()) for path in ("hidden/kernel", "logits/kernel")) == 36


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda parameter, graph, context: 1.0, r"must return numbers of shape \(6, 8\) for hidden/kernel"),
        (lambda parameter, graph, context: np.full(parameter.shape, "a"), "must return numbers"),
        (lambda parameter, graph, context: np.full(parameter.shape, np.nan), "not finite for hidden/kernel"),
    ],
)
def test_a_function_that_returns_no_scores_is_refused(function: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bw.PassManager([bw.Prune(0.5, criterion=function)]).run(zoo.MODELS["mlp"]())


def test_a_function_without_a_name_has_no_recipe() -> None:
    manager = bw.PassManager([bw.Prune(0.5, criterion=lambda parameter, graph, context: graph.values[parameter.path])])
    with pytest.raises(ConfigError, match=r"passes\[0\]\.criterion: .* cannot be written to a recipe"):
        manager.to_recipe()


@pytest.mark.parametrize("criterion", ["random", None, 3, bw.Fisher, ["magnitude"]])
def test_what_is_no_criterion_is_refused(criterion: Any) -> None:
    with pytest.raises(ConfigError, match="criterion must be"):
        bw.Prune(0.5, criterion=criterion)


def test_movement_is_refused_outside_of_a_ramp() -> None:
    item = bw.Prune(0.5, criterion="movement")
    network, data = reference.Network([6, 8, 2]), reference.regression()
    for made in (item, bw.PassManager([item]), bw.Repeat(item, 2), bw.Where(item, "layer0")):
        with pytest.raises(ConfigError, match="put it into a ramp"):
            bw.PassManager([made]).run(network, data)
        with pytest.raises(ConfigError, match="put it into a ramp"):
            bw.PassManager([made]).plan(network)
    bw.PassManager([bw.Ramp(bw.Where(item, "layer0"), during=TUNE)]).plan(network)


def test_movement_masks_what_training_moves_towards_zero() -> None:
    """Of two weights the greater is moved to zero by the data: magnitude keeps it, movement the other."""
    network = reference.Network([2, 1])
    network.weights[0][:] = [[0.6], [0.5]]
    inputs = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
    data = inputs, (0.3 * inputs[:, :1] + 1.0 * inputs[:, 1:]).astype(np.float32)
    tune = bw.Finetune(epochs=1, loss="mse", learning_rate=0.001, batch_size=8)
    kept = {}
    for criterion in ("magnitude", "movement"):
        one = bw.Prune(0.5, criterion=criterion, floor=0)
        ramp = bw.Ramp(one, during=tune, steps=1, end=0.5)
        kept[criterion] = mask(bw.PassManager([ramp]).run(network, data).graph, "layer0/kernel").ravel().tolist()
    assert kept == {"magnitude": [True, False], "movement": [False, True]}


def test_what_training_does_not_move_is_pruned_by_magnitude_with_a_remark() -> None:
    model = zoo.MODELS["frozen_layers"]()
    data = zoo.batch("frozen_layers", 32), np.zeros((32, 2), np.float32)
    ramp = bw.Ramp(bw.Prune(0.5, criterion="movement"), during=TUNE)
    result = bw.PassManager([ramp]).run(model, data)
    assert "frozen/kernel: training has not moved it; pruned by magnitude, to the same share as others" in (
        result.report.passes[0].remarks
    )
    assert mask(result.graph, "frozen/kernel").mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "fisher", "movement", last_half])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block", "rows", "columns"])
def test_every_pattern_grows_in_a_ramp(criterion: Any, pattern: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 8)).astype(np.float32), rng.normal(size=(64, 4)).astype(np.float32)
    chosen = bw.Fisher(samples=16, likelihood="gaussian") if criterion == "fisher" else criterion
    one = bw.Prune(None if pattern == "2:4" else 0.5, pattern=pattern, criterion=chosen, samples=16)
    ramp = bw.Ramp(one, during=TUNE, steps=3)
    result = bw.PassManager([ramp, TUNE]).run(reference.Network([8, 12, 4]), data)
    kernels = [p for p in result.graph if p.encoding.mask is not None]
    asked = one.share * sum(p.size for p in kernels)
    zeros = sum(int((~mask(result.graph, p.path)).sum()) for p in kernels)
    assert zeros == asked if pattern in ("unstructured", "2:4") else asked - 12 <= zeros <= asked
    for p in kernels:
        assert not result.graph.values[p.path][~mask(result.graph, p.path)].any()


def test_training_with_momentum_and_decay_brings_no_masked_weight_back() -> None:
    rng = np.random.default_rng(0)
    data = zoo.batch("mlp", 64), rng.normal(size=(64, 3)).astype(np.float32)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    tune = bw.Finetune(epochs=1, loss="mse", optimizer=optimizer, batch_size=8)
    ramp = bw.Ramp(bw.Prune(0.5, criterion="movement"), during=tune, steps=2, end=0.5)
    first = bw.PassManager([ramp]).run(zoo.MODELS["mlp"](), data)
    later = bw.PassManager([bw.Quantize(8), tune]).run(first, data)
    for path in ("hidden/kernel", "logits/kernel"):
        keep = mask(first.graph, path)
        assert not first.graph.values[path][~keep].any()
        assert not later.graph.values[path][~keep].any()
        assert not later.model.get_layer(path.split("/")[0]).kernel.numpy()[~keep].any()


def test_compensation_is_refused_in_a_ramp_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="fits the weights that stay, which training does in a ramp"):
        bw.Ramp(bw.Prune(0.5, criterion="compensation"), during=TUNE)


@pytest.mark.parametrize("pattern", ["2:4", "1:3", "rows", bw.Block(2, 2)])
def test_strengths_of_patterns(pattern: Any) -> None:
    one = bw.Prune(None if isinstance(pattern, str) and ":" in pattern else 0.7, pattern=pattern)
    check_ramp(one)
