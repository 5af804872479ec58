"""`Quantize` with data: rounding, rates, steps, importance, activations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.encodings import Escaped, IntegerLevels, Quantized
from bitwidth.errors import ConfigError, PromiseError
from bitwidth.passes.steps import coded_rate, settle
from tests import reference, zoo

NETWORK = reference.Network([6, 32, 16, 2], seed=1)
MIXING = np.random.default_rng(5).standard_normal((6, 6)).astype(np.float32)
INPUTS = (reference.regression(400)[0] @ MIXING).astype(np.float32)


def run(*passes: bw.Pass, data: Any = INPUTS, model: Any = NETWORK) -> bw.Result:
    return bw.PassManager(list(passes)).run(model, data=data)


def output_error(result: bw.Result) -> float:
    given = NETWORK.forward(INPUTS, NETWORK.weights)[-1]
    return float(np.square(result.model.forward(INPUTS, result.model.weights, result.model.grids)[-1] - given).mean())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_error_feedback_changes_the_output_less(bits: int) -> None:
    nearest = run(bw.Quantize(bits, where="*kernel"))
    fed = run(bw.Quantize(bits, where="*kernel", rounding="error_feedback"))
    assert output_error(fed) < 0.7 * output_error(nearest)
    assert all(p.encoding.bits <= bits for p in fed.graph if p.role == "kernel")


@pytest.mark.parametrize("rate", [0.8, 2.5, 5.0])
@pytest.mark.parametrize("rounding", ["nearest", "error_feedback", "entropy"])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_rate_is_what_the_file_pays(rate: float, rounding: Any, scope: Any) -> None:
    network = reference.Network([64, 128, 64], seed=2)
    inputs = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    result = run(bw.Quantize(rate=rate, rounding=rounding, scope=scope), data=inputs, model=network)
    kernels = tuple(p for p in result.graph if p.role == "kernel")
    assert coded_rate(result.graph, kernels) == pytest.approx(rate, rel=0.02)
    assert any(f"of {rate:g} asked for" in remark for remark in result.report.passes[0].remarks)
    if scope == "local":
        for kernel in kernels:
            assert coded_rate(result.graph, (kernel,)) == pytest.approx(rate, rel=0.02)


def mostly_nothing(share: float, factor: float) -> reference.Network:
    """A network whose first kernel is, but for some weights, nearly zero."""
    network = reference.Network([64, 256, 10], seed=1)
    kernel = network.weights[0]
    kernel *= np.where(np.random.default_rng(0).random(kernel.shape) < share, np.float32(factor), np.float32(1))
    return network


@pytest.mark.parametrize("nothing", [(0.8, 1e-30), (0.8, 1e-32), (0.95, 0.0), (0.8, 1e-6), (0.999, 1e-20)])
@pytest.mark.parametrize("rate", [4.0, 8.0])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_a_rate_never_destroys_a_kernel_of_which_most_is_nothing(nothing: Any, rate: float, scope: Any) -> None:
    network = mostly_nothing(*nothing)
    inputs = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    result = run(bw.Quantize(rate=rate, scope=scope, vectors=None), data=None, model=network)
    expected, found = (net.forward(inputs, net.weights)[-1] for net in (network, result.model))
    assert np.square(found - expected).mean() < 0.02 * np.square(expected).mean()
    for kernel in (p for p in result.graph if p.role == "kernel"):
        assert np.abs(kernel.encoding.encode(result.graph.values[kernel.path])).max() < 1.01 * 2**18
        reached = coded_rate(result.graph, (kernel,))
        if scope == "local" and reached < 0.9 * rate:
            remarks = [r for r in result.report.passes[0].remarks if r.startswith(kernel.path)]
            assert any("cannot be reached: that is all there is to code" in remark for remark in remarks)


@pytest.mark.parametrize("step", [1e-4, 1e-5, 1e-9])
def test_a_step_so_fine_that_codes_would_clip_is_refused_before_work_starts(step: float) -> None:
    network = mostly_nothing(0.99999, 1e-30)
    network.weights[0][3, 5] = 1.0
    manager = bw.PassManager([bw.Prune(0.1, scope="local", where="layer1"), bw.Quantize(step=step, where="layer0")])
    for work in (manager.run, manager.plan):
        with pytest.raises(ConfigError, match=r"too fine for layer0/kernel.* give step=0.\d+ or more"):
            work(network)


@pytest.mark.parametrize("rate", [2, 8, 12])
def test_a_rate_of_more_bits_than_few_weights_have_different_values(rate: float) -> None:
    network = reference.Network([8, 8, 2], seed=2)
    result = run(bw.Quantize(rate=rate, scope="local"), data=None, model=network)
    for kernel in (p for p in result.graph if p.role == "kernel"):
        assert coded_rate(result.graph, (kernel,)) == pytest.approx(rate, abs=0.6)
        assert any(remark.startswith(f"{kernel.path}: ") for remark in result.report.passes[0].remarks)


def test_the_nearest_rate_counts_where_none_is_near_enough() -> None:
    rates: list[float] = []

    def rate_at(factor: float) -> float:
        rates.append(3.0 if factor < 1 else 1.0)
        return rates[-1]

    assert settle(rate_at, 0.3, 2.5) == rates[-1] == 3.0


def test_kernels_that_become_zero_are_named() -> None:
    result = run(bw.Quantize(step=1e3, where="layer1"), data=None)
    assert result.report.passes[0].remarks == ("layer1/kernel: every weight became zero",)


def test_equal_weights_have_a_step_of_their_own_size() -> None:
    network = reference.Network([4, 4, 1], seed=2)
    network.weights[0][:] = 0.01
    held = run(bw.Quantize(step=0.25), data=None, model=network).graph.values["layer0/kernel"]
    np.testing.assert_allclose(held, 0.01, rtol=0.13)


def test_a_rate_counts_what_a_mask_keeps() -> None:
    network = reference.Network([64, 128, 64], seed=2)
    result = run(bw.Prune(0.8), bw.Quantize(rate=3), data=None, model=network)
    assert coded_rate(result.graph, tuple(p for p in result.graph if p.role == "kernel")) == pytest.approx(3, rel=0.02)


def test_data_moves_bits_to_where_the_output_depends_on_them() -> None:
    network = reference.Network([16, 64, 32], seed=2)
    network.weights[0] *= np.float32(20)
    network.weights[2] /= np.float32(20)
    inputs = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)

    def steps(data: Any) -> list[float]:
        graph = run(bw.Quantize(rate=3), data=data, model=network).graph
        grids = [graph[path].encoding for path in ("layer0/kernel", "layer1/kernel")]
        return [grid.scale.item() for grid in grids if isinstance(grid, Quantized)]

    by_spread, by_loss = steps(None), steps(inputs)
    assert by_spread[0] / by_spread[1] == pytest.approx(800, rel=0.2)
    assert by_loss[0] != by_spread[0]


def test_a_step_is_in_units_of_the_spread() -> None:
    result = run(bw.Quantize(step=0.25), data=None)
    encoding = result.graph["layer1/kernel"].encoding
    assert isinstance(encoding, Quantized)
    assert encoding.levels == IntegerLevels(None, None)
    assert encoding.scale.item() == pytest.approx(0.25 * NETWORK.weights[2].std(), rel=1e-3)


def test_one_step_rules_them_all_after_a_fixed_width() -> None:
    with pytest.raises(PromiseError):
        run(bw.Quantize(4), bw.Quantize(rate=3))


@pytest.mark.parametrize("importance", ["fisher", "inputs"])
def test_importance_weighs_the_errors_of_a_codebook(importance: Any) -> None:
    network = reference.Network([6, 64, 2], seed=3)
    inputs = INPUTS * np.array([30, 1, 1, 1, 1, 0.01], np.float32)
    plain, weighted = (
        run(bw.Quantize(2, rule="codebook", granularity="tensor", importance=item), data=inputs, model=network)
        for item in (None, importance)
    )

    def error(result: bw.Result) -> Any:
        return np.square(result.graph.values["layer0/kernel"] - network.weights[0]).sum(axis=1)

    assert error(weighted)[0] < error(plain)[0]


def test_escaped_weights_keep_their_value() -> None:
    network = reference.Network([6, 32, 2], seed=1)
    network.weights[0][2, 5] = 40.0
    for rounding in ("nearest", "error_feedback"):
        result = run(bw.Quantize(3, escape=bw.Escape(error=1.0), rounding=rounding), model=network)
        encoding = result.graph["layer0/kernel"].encoding
        assert isinstance(encoding, Escaped)
        assert encoding.plane[2, 5]
        np.testing.assert_array_equal(
            result.graph.values["layer0/kernel"][encoding.plane], network.weights[0][encoding.plane]
        )


def test_an_escape_by_a_plane_of_ones_own() -> None:
    plane = np.zeros(NETWORK.weights[0].shape, np.bool_)
    plane[0] = True
    result = run(bw.Quantize(2, escape=bw.Escape(plane={"layer0/kernel": plane})), data=None)
    np.testing.assert_array_equal(result.graph.values["layer0/kernel"][0], NETWORK.weights[0][0])
    assert not isinstance(result.graph["layer1/kernel"].encoding, Escaped)


@pytest.mark.parametrize("fields", [{"rounding": "error_feedback"}, {"importance": "inputs"}, {"activations": 8}])
def test_what_needs_data_says_so_before_work_starts(fields: Any) -> None:
    with pytest.raises(ConfigError, match="Quantize needs data"):
        run(bw.Quantize(4, **fields), data=None)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "one of bits, rate and step, got none"),
    "two widths": ({"bits": 4, "rate": 2.0}, "one of bits, rate and step, got bits, rate"),
    "bits of ternary": ({"bits": 2, "rule": "ternary"}, "has its own width"),
    "bits of a table": ({"bits": 2, "rule": bw.BitRule([1, 2])}, "has its own width"),
    "rate of zero": ({"rate": 0}, "rate must be a number above 0"),
    "rate of a text": ({"rate": "2"}, "rate must be a number"),
    "step below zero": ({"step": -1.0}, "step must be a number above 0"),
    "step with a codebook": ({"step": 0.5, "rule": "codebook"}, "rate and step go with"),
    "rate per channel": ({"rate": 2, "granularity": "channel"}, "one step per tensor"),
    "rate with escapes": ({"rate": 2, "escape": bw.Escape(quantile=0.5)}, "escape goes with"),
    "an unknown rule": ({"bits": 4, "rule": "log"}, 'rule must be "uniform", "power_of_two"'),
    "an unknown rounding": ({"bits": 4, "rounding": "up"}, "rounding must be"),
    "lopsided powers": ({"bits": 4, "rule": "power_of_two", "symmetric": False}, "symmetric=False goes with"),
    "one bit of powers": ({"bits": 1, "rule": "power_of_two"}, "at least 2"),
    "activations of one bit": ({"bits": 4, "activations": 1}, "activations must be"),
    "no samples": ({"bits": 4, "samples": 0}, "samples must be"),
    "negative damping": ({"bits": 4, "damping": -1}, "damping must be"),
    "an escape that is none": ({"bits": 4, "escape": 0.99}, "escape must be a bw.Escape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_fields_are_refused(name: str) -> None:
    fields, message = WRONG[name]
    with pytest.raises(ConfigError, match=message):
        bw.Quantize(**fields)


def test_what_cannot_be_ramped_says_why() -> None:
    for item in (bw.Quantize(rate=2), bw.Quantize(3, rule="codebook"), bw.Quantize(3, rounding="error_feedback")):
        with pytest.raises(ConfigError, match="ramp"):
            item.at(1.0)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("ranges", ["mse", "percentile", "max"])
def test_activations_take_few_values(bits: int, ranges: Any) -> None:
    inputs = zoo.batch("mlp", 64)
    model = zoo.MODELS["mlp"]()
    result = run(bw.Quantize(8, activations=bits, ranges=ranges), data=inputs, model=model)
    errors = np.abs(result.model(inputs).numpy() - model(inputs).numpy())
    assert 0 < errors.mean() < np.abs(model(inputs).numpy()).mean() * (0.3 if bits == 4 else 0.05)
    grids = [encoding for encoding in result.graph.activations.values() if isinstance(encoding, Quantized)]
    assert len(grids) >= 2
    assert all(grid.bits == bits and not grid.scale.ndim for grid in grids)
    assert all(not grid.project(np.zeros(3, np.float32)).any() for grid in grids)


def activation_model() -> tuple[Any, Any]:
    keras.utils.set_random_seed(4)
    inputs = keras.Input((12, 6))
    x = keras.layers.Conv1D(8, 3, activation="relu")(inputs)
    x = keras.layers.LSTM(5, return_sequences=True)(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    shared = keras.layers.Dense(5, activation="tanh")
    x = shared(shared(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.compile("adam", "mse")
    return model, np.random.default_rng(0).standard_normal((40, 12, 6)).astype(np.float32)


def test_activations_survive_training_files_and_another_run(tmp_path: Any) -> None:
    model, x = activation_model()
    y = np.zeros((40, 2), np.float32)
    before = model(x).numpy()
    result = bw.PassManager([bw.Quantize(8, activations=4), bw.Finetune(epochs=1)]).run(model, data=(x, y))
    np.testing.assert_array_equal(model(x).numpy(), before)
    outputs = result.model(x).numpy()
    result.save(tmp_path / "m.bw")
    loaded = bw.load(tmp_path / "m.bw")
    np.testing.assert_array_equal(loaded(x).numpy(), outputs)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, rtol=1e-4, atol=1e-5)
    again = bw.PassManager([bw.Finetune(epochs=1, loss="mse")]).run(loaded, data=(x, y))
    assert set(again.graph.activations) == set(result.graph.activations)
    with pytest.raises(PromiseError, match="tensor"):
        bw.PassManager([bw.Quantize(8, activations=8)]).run(loaded, data=x)


def test_the_training_step_computes_with_quantized_activations() -> None:
    """A grid so coarse that every activation is zero leaves nothing to learn but the last bias."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    given = bw.PassManager([bw.Quantize(8, activations=2), bw.Finetune(epochs=1, loss="mse")]).run(
        model, data=(x, np.ones((64, 2), np.float32))
    )
    levels = {float(v) for v in np.unique(given.graph.activations[given.graph.structure.inputs[0]].project(x))}
    assert len(levels) <= 4


def test_a_layer_that_takes_integers_is_named() -> None:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    model = keras.Model(tokens, keras.layers.Dense(2)(keras.layers.Embedding(9, 4, name="table")(tokens)))
    x = np.random.default_rng(0).integers(0, 9, (16, 5)).astype(np.int32)
    remarks = run(bw.Quantize(8, activations=8), data=x, model=model).report.passes[0].remarks
    assert "inputs of table are left unchanged: none is floating point" in remarks


def test_shared_layers_and_shared_tensors_share_a_grid() -> None:
    model, x = activation_model()
    graph = run(bw.Quantize(8, activations=8), data=x, model=model).graph
    for layer in graph.structure.layers:
        for place in range(max((len(call.inputs) for call in layer.calls), default=0)):
            grids = {id(graph.activations.get(call.inputs[place])) for call in layer.calls if place < len(call.inputs)}
            assert len(grids) == 1


@pytest.mark.parametrize("rounding", ["error_feedback", "entropy"])
def test_rounding_by_few_samples_holds_on_new_inputs(rounding: Any) -> None:
    network = reference.Network([160, 32], seed=1)
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((40, 160)).astype(np.float32)
    inputs, new = (rng.standard_normal((count, 40)).astype(np.float32) @ mixing for count in (60, 2000))

    def error(one: bw.Quantize) -> float:
        model = run(one, data=inputs, model=network).model
        return float(
            np.square(model.forward(new, model.weights)[-1] - network.forward(new, network.weights)[-1]).mean()
        )

    few = bw.Quantize(3, rounding=rounding, price=0.0, vectors=None)
    assert error(few) < 0.7 * error(bw.Quantize(3, vectors=None))


def outliers(kind: str) -> tuple[reference.Network, Any]:
    """A layer with outliers that meet great inputs, and the inputs."""
    rng, network = np.random.default_rng(7), reference.Network([256, 32], seed=3)
    inputs, weights = rng.standard_normal((500, 256)).astype(np.float32), network.weights[0]
    if kind == "one great weight of a great input":
        weights[0], inputs[:, 0] = 12 * weights[0], 12 * inputs[:, 0]
    elif kind == "many great weights of great inputs":
        weights[:8], inputs[:, :8] = 8 * weights[:8], 30 * inputs[:, :8]
    elif kind == "heavy tails":
        weights[:] = rng.standard_t(3, weights.shape)
        inputs *= np.abs(weights).max(axis=1)
    elif kind == "a bias among the inputs":
        weights[5], inputs[:, 5] = 1.0, 20.0
    return network, inputs


KINDS = ["normal", "one great weight of a great input", "many great weights of great inputs", "heavy tails"]


@pytest.mark.parametrize("kind", [*KINDS, "a bias among the inputs"])
@pytest.mark.parametrize(
    "fields",
    [{"bits": 8}, {"bits": 8, "symmetric": False}, {"bits": 8, "granularity": 64}, {"bits": 10}, {"bits": 16}],
)
def test_the_default_scale_never_loses_to_the_greatest_magnitude_from_8_bits_on(kind: str, fields: Any) -> None:
    network, inputs = outliers(kind)

    def error(scale: Any) -> float:
        model = run(bw.Quantize(**fields, scale=scale, vectors=None), data=None, model=network).model
        changed = model.forward(inputs, model.weights)[-1] - network.forward(inputs, network.weights)[-1]
        return float(np.linalg.norm(changed))

    assert error("mse") <= 1.02 * error("max")


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_the_default_scale_errs_less_on_the_weights_of_narrower_grids(bits: int) -> None:
    kernel = NETWORK.weights[0]

    def error(scale: Any) -> float:
        result = run(bw.Quantize(bits, scale=scale), data=None)
        return float(np.square(result.graph.values["layer0/kernel"] - kernel).mean())

    assert error("mse") < error("max")
