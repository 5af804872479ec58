"""Factorize: two layers with few units between them, on real data and on whole models."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from typing_extensions import override

import bitwidth as bw
from bitwidth.analysis import cost_of
from bitwidth.backend import backend_for
from bitwidth.context import Context
from bitwidth.data import digits
from bitwidth.errors import ConfigError, ContractError, ModelError
from bitwidth.graph.labels import couple
from tests import nets, zoo
from tests.real import digits_net

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclass(frozen=True)
class HoldInputs(bw.Pass):
    """Hold tensors on grids, and nothing else."""

    grids: Any

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph.update(activations=self.grids)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A network for digits, and its data."""
    return digits_net(12, 128)


@pytest.fixture(scope="module")
def convolutional() -> Any:
    """A convolutional network for digits, and its data."""
    keras.utils.set_random_seed(0)
    images, y = digits().train
    x = images.reshape(len(images), 8, 8, 1)
    stack = [keras.Input((8, 8, 1)), layers.Conv2D(24, 3, padding="same", use_bias=False, name="one")]
    stack += [layers.BatchNormalization(name="norm"), layers.ReLU()]
    stack += [layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="two"), layers.Flatten()]
    model = keras.Sequential([*stack, layers.Dense(10, name="out")])
    model.compile("adam", LOSS)
    model.fit(x, y, epochs=4, batch_size=64, verbose=0)
    return model, x, y


def right(model: Any, x: Any, y: Any) -> float:
    return float((model.predict(x, verbose=0).argmax(-1) == y).mean())


def widths(model: Any) -> dict[str, int]:
    return {layer.name: layer.units for layer in model.layers if isinstance(layer, layers.Dense)}


def test_the_inputs_make_factors_better(trained: Any) -> None:
    model, x, y = trained
    item = bw.Factorize(rank=8, where=["a", "b"])
    results = {name: bw.PassManager([item]).run(model, data, x) for name, data in (("kernels", None), ("inputs", x))}
    kl = {name: result.report.passes[0].fidelity["kl"] for name, result in results.items()}
    assert kl["inputs"] < 0.7 * kl["kernels"]
    assert right(results["inputs"].model, x, y) > right(results["kernels"].model, x, y)
    assert widths(results["inputs"].model) == {"a_factor": 8, "a": 64, "b_factor": 8, "b": 32, "out": 10}
    assert any(
        "factorized without data: there are none" in line for line in results["kernels"].report.passes[0].remarks
    )


def test_the_model_is_plain_and_goes_on_training(trained: Any, tmp_path: Path) -> None:
    model, x, y = trained
    before = [np.array(value) for value in model.get_weights()]
    result = bw.PassManager([bw.Factorize(0.25)]).run(model, (x, y), (x, y))
    assert all(np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True))
    assert result.model.compiled
    result.save(tmp_path / "small.bw")
    loaded = bw.load(tmp_path / "small.bw")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), result.model.predict(x, verbose=0))
    assert {item.path for item in bw.inspect(tmp_path / "small.bw").parameters} == set(result.graph.parameters)
    assert bw.Result.from_bytes(result.to_bytes()).graph.parameters.keys() == result.graph.parameters.keys()
    result.model.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras", compile=False)
    again.compile("adam", LOSS)
    assert widths(again) == widths(result.model)
    np.testing.assert_array_equal(again.get_layer("a").bias, before[1])
    first, last = again.get_layer("a_factor"), again.get_layer("a")
    assert (first.use_bias, first.activation.__name__, last.activation.__name__) == (False, "linear", "relu")
    loss = again.evaluate(x, y, verbose=0)
    again.fit(x, y, epochs=1, verbose=0)
    assert again.evaluate(x, y, verbose=0) < loss


@pytest.mark.slow
def test_the_model_loads_without_this_library(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = nets.randomised(nets.transformer())
    small = bw.PassManager([bw.Factorize(0.25)]).run(model).model
    x = nets.batch(small)
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.modules['bitwidth'] = None; import keras, numpy as np; "
        f"model = keras.models.load_model(r'{tmp_path / 'small.keras'}'); x = np.load(r'{tmp_path / 'x.npy'}'); "
        f"np.save(r'{tmp_path / 'y.npy'}', model.predict(x, verbose=0)); "
        "model.compile('adam', 'mse'); model.fit(x, model.predict(x, verbose=0) * 0, verbose=0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), small.predict(x, verbose=0), atol=1e-5)


def test_the_report_tells_what_was_saved_and_what_stays(trained: Any) -> None:
    model, x, _ = trained
    result = bw.PassManager([bw.Factorize(rank=12)]).run(model, x)
    (record,) = result.report
    given, left = bw.cost(model), bw.cost(result.model)
    assert f"parameters: {given.parameters:,} to {left.parameters:,} ({left.parameters / given.parameters:.1%})" in (
        record.remarks
    )
    assert any(line.startswith("a: to 12, then to 64; rank 12 of 64, error 0.") for line in record.remarks)
    assert "out/kernel" in record.skipped
    assert record.skipped["out/kernel"] == "its full rank is 10, and 12 were to stay"
    assert record.skipped["a/bias"] == "bias: only kernels are factorized"
    assert {item.path for item in record.touched} == {"a_factor/kernel", "a/kernel", "b_factor/kernel", "b/kernel"}
    assert (record.bytes_before, record.bytes_after) == (given.bytes, left.bytes)
    assert left.macs < given.macs
    assert "a_factor/kernel" in str(result.report)


def test_layers_that_would_not_be_smaller_stay(trained: Any) -> None:
    model, x, _ = trained
    result = bw.PassManager([bw.Factorize(0.4)]).run(model, x)
    assert widths(result.model) == {"a_factor": 25, "a": 64, "b": 32, "out_factor": 4, "out": 10} | {"b_factor": 12}
    result = bw.PassManager([bw.Factorize(0.5)]).run(model, x)
    reason = result.report.passes[0].skipped["a/kernel"]
    assert reason.startswith("it would save nothing: rank 32 takes 4,096 parameters in place of 4,096 and 4,096 MACs")
    assert "a_factor" not in widths(result.model)
    with pytest.raises(ConfigError, match=r"nothing to do .*; it would save nothing: rank 48"):
        bw.PassManager([bw.Factorize(0.75, where="a")]).plan(model)


def test_an_error_is_kept_to(trained: Any) -> None:
    model, x, _ = trained
    result = bw.PassManager([bw.Factorize(error=0.2, samples=len(x))]).run(model, x)
    made = result.model.get_layer("a_factor").kernel.numpy() @ result.model.get_layer("a").kernel.numpy()
    kernel = model.get_layer("a").kernel.numpy()
    error = np.linalg.norm(x @ made - x @ kernel) / np.linalg.norm(x @ kernel)
    assert 0.1 < error <= 0.2
    strict = bw.PassManager([bw.Factorize(error=0.001, samples=len(x))]).run(model, x)
    assert widths(strict.model) == widths(model)
    record = strict.report.passes[0]
    assert "nothing factorized" in record.remarks
    assert record.skipped["a/kernel"].startswith("it would save nothing: an error of 0.001 needs it, and rank")


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_budgets(trained: Any, convolutional: Any, share: float) -> None:
    (model, x, _), (net, images, _) = trained, convolutional
    left = bw.cost(bw.PassManager([bw.Factorize(parameters=share)]).run(model, x).model).parameters
    assert (share - 0.05) * bw.cost(model).parameters < left <= share * bw.cost(model).parameters
    left = bw.cost(bw.PassManager([bw.Factorize(macs=share)]).run(net, images).model).macs
    assert (share - 0.05) * bw.cost(net).macs < left <= share * bw.cost(net).macs


@pytest.mark.parametrize("item", [bw.Factorize(macs=1e-4), bw.Factorize(parameters=1e-4)])
def test_budgets_that_cannot_be_kept(trained: Any, item: bw.Factorize) -> None:
    for act in (bw.PassManager([item]).plan, bw.PassManager([item]).run):
        with pytest.raises(ConfigError, match=r"0.0001 of the model was to stay, and 0\.\d+ of it stays with"):
            act(trained[0])


def test_convolutions_and_normalisations(convolutional: Any) -> None:
    model, x, y = convolutional
    tune = bw.Finetune(epochs=1, loss=LOSS)
    result = bw.PassManager([bw.Factorize(rank=6), tune]).run(model, (x, y), (x, y))
    assert [layer.name for layer in result.model.layers][:3] == ["one_factor", "one", "norm"]
    assert right(result.model, x, y) > 0.8
    first, second = (result.model.get_layer(name) for name in ("two_factor", "two"))
    assert (first.kernel_size, second.kernel_size) in (((3, 3), (1, 1)), ((3, 1), (1, 3)))
    assert np.prod([first.strides, second.strides], axis=0).tolist() == [2, 2]
    plain = bw.PassManager([bw.Factorize(rank=6, separate=False)]).run(model, x)
    assert plain.model.get_layer("two").kernel_size == (1, 1)
    assert plain.model.get_layer("two_factor").strides == (2, 2)


def test_windows_of_one_axis_each_where_they_err_less() -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    conv = layers.Conv2D(16, 5, padding="same", name="conv")
    model = keras.Sequential([keras.Input((12, 12, 8)), conv])
    first, second = rng.normal(size=(5, 1, 8, 4)), rng.normal(size=(1, 5, 4, 16))
    conv.kernel.assign(np.einsum("haio,wboc->hwic", first, second.transpose(1, 0, 2, 3)))
    result = bw.PassManager([bw.Factorize(error=0.01)]).run(model, rng.normal(size=(32, 12, 12, 8)).astype(np.float32))
    made = result.model
    assert [layer.kernel_size for layer in made.layers] == [(5, 1), (1, 5)]
    assert made.layers[0].filters == 4
    assert any("5x1 to 4 channels, then 1x5 to 16; rank 4 of 40" in line for line in result.report.passes[0].remarks)


def test_in_front_of_masks_and_grids(trained: Any, tmp_path: Path) -> None:
    model, x, y = trained
    chain = [bw.Factorize(rank=12), bw.Prune(0.3), bw.Finetune(epochs=1, loss=LOSS), bw.Quantize(6, activations=8)]
    result = bw.PassManager(chain).run(model, (x, y), (x, y))
    for path in ("a_factor/kernel", "a/kernel", "b_factor/kernel", "b/kernel"):
        encoding = result.graph[path].encoding
        assert encoding.mask is not None
        assert encoding.bits == 6
    assert right(result.model, x, y) > 0.85
    result.save(tmp_path / "all.bw")
    loaded = bw.load(tmp_path / "all.bw")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), result.model.predict(x, verbose=0))
    for given in (result, loaded):
        for act in (bw.PassManager([bw.Factorize(0.25)]).plan, bw.PassManager([bw.Factorize(0.25)]).run):
            with pytest.raises(ConfigError, match=r"pruned or quantized already: factorize before that"):
                act(given)
    late = bw.PassManager([bw.Quantize(4), bw.Factorize(0.25)])
    for act in (late.plan, late.run):
        with pytest.raises((ConfigError, ContractError), match="pruned or quantized already"):
            act(model)


def test_layers_that_are_held_stay_and_their_grids_too(trained: Any, tmp_path: Path) -> None:
    model, x, _ = trained
    first = bw.PassManager([bw.Quantize(8, activations=8, where="out"), bw.Prune(0.5, where="b")]).run(model, x)
    first.save(tmp_path / "held.bw")
    for given in (first, bw.load(tmp_path / "held.bw")):
        second = bw.PassManager([bw.Factorize(rank=6)]).run(given, x)
        skipped = second.report.passes[0].skipped
        assert skipped["out/kernel"] == skipped["b/kernel"]
        assert skipped["b/kernel"] == "it is pruned or quantized already: factorize before that"
        assert widths(second.model) == {"a_factor": 6, "a": 64, "b": 32, "out": 10}
        assert second.graph["b/kernel"].encoding.mask is not None
        assert len(second.graph.activations) == len(first.graph.activations) == 1
    grids = bw.PassManager([bw.Quantize(8, activations=8)]).run(model, x).graph.activations
    whole = bw.PassManager([HoldInputs(dict(grids))]).run(model, x)
    third = bw.PassManager([bw.Factorize(rank=6)]).run(whole, x)
    held = {layer.path: layer.calls[0].inputs[0] for layer in third.graph.structure.layers if layer.calls}
    assert set(third.graph.activations) == {held[path] for path in ("a_factor", "b_factor", "out_factor")}


def test_where_and_repeats(trained: Any) -> None:
    model, x, _ = trained
    result = bw.PassManager([bw.Where(bw.Factorize(rank=6), "b")]).run(model, x)
    assert widths(result.model) == {"a": 64, "b_factor": 6, "b": 32, "out": 10}
    assert result.report.passes[0].skipped["a/kernel"] == "not selected by `where`"
    manager = bw.PassManager([bw.Repeat(bw.Factorize(0.25), 2), bw.Quantize(4)])
    plan = manager.plan(model)
    ran = manager.run(model, x)
    for report in (plan, ran.report):
        assert "a: to 16, then to 64; rank 16 of 64" in str(report)
        assert "a: 16 to 4 between a_factor/kernel and it; rank 4 of 16" in str(report)
        paths = {item.path for item in report.passes[-1].parameters}
        assert {"a_factor/kernel", "a/kernel"} <= paths
    assert widths(ran.model) == {"a_factor": 4, "a": 64, "b_factor": 2, "b": 32, "out_factor": 1, "out": 10}
    with pytest.raises(ConfigError, match="Repeat"):
        bw.Ramp(bw.Factorize(0.5), during=bw.Finetune(epochs=1, loss=LOSS))
    with pytest.raises(ConfigError, match="CorrectBias: Factorize goes on with other layers"):
        bw.CorrectBias(bw.Factorize(0.5))


def test_a_lower_rank_of_factors_is_as_good_as_that_rank_at_once(trained: Any) -> None:
    model, x, _ = trained
    at_once = bw.PassManager([bw.Factorize(rank=4, where="a", samples=256)]).run(model, x)
    first = bw.PassManager([bw.Factorize(rank=16, where="a", samples=256)]).run(model, x)
    stepwise = bw.PassManager([bw.Factorize(rank=4, where="a*", samples=256)]).run(first, x)
    products = [
        result.model.get_layer("a_factor").kernel.numpy() @ result.model.get_layer("a").kernel.numpy()
        for result in (at_once, stepwise)
    ]
    errors = [np.linalg.norm(x @ made - x @ model.get_layer("a").kernel.numpy()) for made in products]
    assert errors[1] <= 1.02 * errors[0]
    record = {item.path: item for item in stepwise.report.passes[0].touched}
    assert (record["a/kernel"].bytes_before, record["a/kernel"].bytes_after) == (4096, 1024)
    with pytest.raises(ConfigError, match=r"its other factor, a_factor/kernel, is not selected"):
        bw.PassManager([bw.Factorize(rank=4, where="a")]).run(first, x)
    with pytest.raises(ConfigError, match=r"it is a factor of a/kernel, with which its rank falls"):
        bw.PassManager([bw.Factorize(rank=4, where="a_factor")]).run(first, x)


MODELS = ("nested_shared", "einsum_dense", "two_inputs_two_outputs", "none_dims", "mixed_float16", "frozen_layers")
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("attention_encoder", "all_convs", "medley")]


@pytest.mark.parametrize("name", [*MODELS, *LONG])
def test_a_plan_is_what_a_run_makes(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = zoo.MODELS[name]() if name in zoo.MODELS else nets.randomised(nets.NETS[name]())
    session = backend_for(model).open(model)
    item = bw.Factorize(0.25)
    planned, record = item(session.graph, Context(session), dry=True)
    result = bw.PassManager([item]).run(model)
    assert set(planned.parameters) == set(result.graph.parameters) > set(session.graph.parameters)
    for parameter in result.graph:
        other = planned[parameter.path]
        assert (other.shape, other.role, other.trainable) == (parameter.shape, parameter.role, parameter.trainable)
        assert [(use.kind, use.layer, use.channel_axes) for use in other.uses] == [
            (use.kind, use.layer, use.channel_axes) for use in parameter.uses
        ]
        np.testing.assert_array_equal(planned.values[parameter.path], result.graph.values[parameter.path])
    assert record.skipped == result.report.passes[0].skipped
    one, other_ = cost_of(planned), bw.cost(result)
    assert (one.macs, one.parameters, one.bytes) == (other_.macs, other_.parameters, other_.bytes)
    assert one.macs < bw.cost(model).macs
    groups = [[(group.size, len(group.members)) for group in couple(g).groups] for g in (planned, result.graph)]
    assert sorted(groups[0]) == sorted(groups[1])


def test_reasons_of_layers_that_stay() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    y = layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = layers.Conv2DTranspose(8, 3, name="transposed")(y)
    y = layers.Reshape((36, 8))(y)
    y = layers.MultiHeadAttention(2, 8, name="attention")(y, y)
    model = keras.Model(x, layers.Dense(16, name="dense")(layers.Flatten()(y)))
    record = bw.PassManager([bw.Factorize(rank=2)]).run(model).report.passes[0]
    for path, words in {
        "grouped/kernel": "it is 2 matrices, one for each group of inputs",
        "depthwise/kernel": "a depthwise convolution has one input for each channel",
        "transposed/kernel": "transposed convolutions are not factorized",
        "attention/query/kernel": "it is a part of attention (MultiHeadAttention), which makes it by itself",
    }.items():
        assert record.skipped[path] == words
    assert {item.path for item in record.touched} == {"dense_factor/kernel", "dense/kernel"}


def test_tied_kernels_stay_and_a_configuration_that_loses_the_tie_is_found_out() -> None:
    keras.utils.set_random_seed(0)
    one, other = layers.Dense(16, name="one"), layers.Dense(16, "relu", name="other")
    model = keras.Sequential([keras.Input((16,)), one, other, layers.Dense(9, name="out")])
    other._tracker.unlock()
    other._kernel = one._kernel
    other._trainable_variables.pop(0)
    other._tracker.lock()
    found = bw.PassManager([bw.Factorize(rank=2)]).plan(model).passes[0]
    assert found.skipped["one/kernel"] == "it is tied: other reads it too"
    with pytest.raises(ModelError, match=r"nothing could be factorized: other/kernel: is in the model that is built"):
        bw.PassManager([bw.Factorize(rank=2)]).run(model)


def test_what_cannot_be_factorized_is_said_before_work_starts(trained: Any) -> None:
    model, x, _ = trained
    lone = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    for item, given, message in (
        (bw.Factorize(0.25), nets.residual_cnn(), "the model is of the class ResidualCNN, .*bw.functionalize"),
        (bw.Factorize(rank=1), keras.Sequential([keras.Input((2,)), layers.Dense(2)]), "no rank saves both"),
        (bw.Factorize(rank=64), model, "its full rank is 64, and 64 were to stay"),
        (bw.Factorize(0.9), lone, "it would save nothing: rank 2 takes 14 parameters in place of 12"),
    ):
        for act in (bw.PassManager([item]).plan, bw.PassManager([item]).run):
            with pytest.raises(ConfigError, match=message):
                act(given)
    for wrong, message in (
        ({}, "give exactly one of keep, rank, error, macs and parameters, got none"),
        ({"keep": 0.5, "rank": 4}, "got keep and rank"),
        ({"keep": 8}, r"keep is a share, a float in \(0, 1\], got the integer 8; did you mean rank=8"),
        ({"error": 0.0}, "error must be a float"),
        ({"rank": 2.0}, "rank must be an integer"),
    ):
        with pytest.raises(ConfigError, match=f"Factorize: {message}|{message}"):
            bw.Factorize(**wrong)
    with pytest.raises(bw.errors.SelectionError):
        bw.PassManager([bw.Factorize(rank=4, where="nowhere")]).run(model, x)


def test_a_shared_session_is_not_moved(trained: Any) -> None:
    model, x, _ = trained
    opened = bw.open(model, x)
    small = bw.PassManager([bw.Factorize(rank=8)]).run(opened)
    whole = bw.PassManager([bw.Quantize(8)]).run(opened)
    assert "a_factor" in widths(small.model)
    assert "a_factor" not in widths(whole.model)
    assert "a: to 8, then to 64" in str(bw.PassManager([bw.Factorize(rank=8)]).plan(opened))


def test_shrink_and_factorize_follow_each_other(trained: Any) -> None:
    model, x, y = trained
    for chain in ([bw.Shrink(0.5), bw.Factorize(0.4)], [bw.Factorize(0.4), bw.Shrink(0.5)]):
        plan, result = bw.PassManager(chain).plan(model), bw.PassManager(chain).run(model, x)
        sizes = {item.path: item.size for item in plan.passes[-1].parameters}
        assert sizes == {item.path: item.size for item in result.report.passes[-1].parameters}
        assert widths(result.model)["a"] == 32
        assert right(result.model, x, y) > 0.5


def test_a_name_that_is_taken_gets_a_number() -> None:
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(16, "relu", name="a"), layers.Dense(16, "relu", name="a_factor"), layers.Dense(2, name="out")]
    result = bw.PassManager([bw.Factorize(rank=2)]).run(keras.Sequential([keras.Input((16,)), *stack]))
    assert [layer.name for layer in result.model.layers][:4] == ["a_factor_1", "a", "a_factor_factor", "a_factor"]
