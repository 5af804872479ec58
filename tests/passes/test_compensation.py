"""Pruning with compensation: the weights that stay make up for those that go."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.analysis import InputMoments
from bitwidth.backend import backend_for
from bitwidth.context import Context
from bitwidth.encodings import Masked
from bitwidth.passes.rounding import used_parts
from tests import reference, zoo


def correlated(inputs: int, samples: int = 256, seed: int = 0) -> Any:
    """Inputs each of which the others tell something of."""
    rng = np.random.default_rng(seed)
    few = rng.normal(size=(samples, max(2, inputs // 3)))
    return (few @ rng.normal(size=(few.shape[1], inputs)) + 0.3 * rng.normal(size=(samples, inputs))).astype(np.float32)


def errors(model: Any, data: Any, result: bw.Result, paths: Any) -> dict[str, float]:
    """The squared error of each layer's output, for the inputs that it met before."""
    session = backend_for(model).open(model)
    found = Context(session, data=data).ask(InputMoments(1024), session.graph)
    out = {}
    for path in paths:
        total = 0.0
        for part in used_parts(found[path]):
            e = part.arrangement.take(result.graph.values[path] - session.graph.values[path]).astype(np.float64)
            total += float(np.einsum("gio,gij,gjo->", e, part.gram, e))
        out[path] = total
    return out


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block", "rows", bw.Block(2, 2)])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_the_outputs_change_less_than_without(pattern: Any, scope: Any) -> None:
    network = reference.Network([24, 32, 8])
    data = correlated(24)
    sparsity = None if pattern == "2:4" else 0.5
    total: dict[str, float] = {}
    for criterion in ("magnitude", "activation", "compensation"):
        one = bw.Prune(sparsity, pattern=pattern, scope=scope, criterion=criterion)
        result = bw.PassManager([one]).run(network, data)
        total[criterion] = sum(errors(network, data, result, ["layer0/kernel", "layer1/kernel"]).values())
        pruned = [p for p in result.graph if p.encoding.mask is not None]
        zeros = sum(int((result.graph.values[p.path] == 0).sum()) for p in pruned)
        assert zeros == pytest.approx(0.5 * sum(p.size for p in pruned), abs=32)
    assert total["compensation"] < 0.6 * min(total["magnitude"], total["activation"])


def test_outputs_that_go_as_a_whole_have_nothing_that_makes_up_for_them() -> None:
    with pytest.raises(bw.errors.ConfigError, match="no weight stays to make up for the others"):
        bw.Prune(0.5, pattern="columns", criterion="compensation")


def test_weights_that_stay_are_fitted_and_those_that_go_are_zero() -> None:
    """One input is twice another: its weights can be given to the other for nothing."""
    network, data = reference.Network([6, 4]), correlated(6)
    data[:, 5] = 2 * data[:, 4]
    result = bw.PassManager([bw.Prune(1 / 6, pattern="rows", criterion="compensation")]).run(network, data)
    before, after = network.weights[0], result.graph.values["layer0/kernel"]
    gone = np.flatnonzero(~after.any(axis=1))
    assert gone.tolist() in ([4], [5])
    stays, factor = (5, 0.5) if gone[0] == 4 else (4, 2)
    np.testing.assert_allclose(after[stays], before[stays] + factor * before[gone[0]], rtol=0.05, atol=0.02)
    assert "the weights that stay of 1 tensors fitted to the inputs of at most 2,048 samples" in (
        result.report.passes[0].remarks
    )


def test_zeros_of_before_stay_and_count() -> None:
    network, data = reference.Network([24, 32, 8]), correlated(24)
    first = bw.PassManager([bw.Prune(0.3)]).run(network, data)
    again = bw.PassManager([bw.Prune(0.6, criterion="compensation")]).run(first, data)
    zeros = total = 0
    for path in ("layer0/kernel", "layer1/kernel"):
        old, new = first.graph[path].encoding.mask, again.graph[path].encoding.mask
        assert old is not None
        assert new is not None
        assert not (new & ~old).any()
        zeros, total = zeros + int((~new).sum()), total + new.size
    assert zeros == round(0.6 * total)
    milder = bw.PassManager([bw.Prune(0.1, criterion="compensation")]).run(first, data)
    one, two = (graph["layer0/kernel"].encoding.mask for graph in (milder.graph, first.graph))
    np.testing.assert_array_equal(np.array(one), np.array(two))


@pytest.mark.parametrize(
    "grid",
    [
        bw.Quantize(4),
        bw.Quantize(4, granularity=8),
        bw.Quantize(4, symmetric=False),
        bw.Quantize(4, rule="power_of_two"),
        bw.Quantize(3, escape=bw.Escape(quantile=0.95)),
        bw.PassManager([bw.Prune(0.2), bw.Quantize(5)]),
    ],
)
def test_values_on_a_grid_end_on_it(grid: bw.Pass) -> None:
    network, data = reference.Network([24, 32, 8]), correlated(24)
    held = bw.PassManager([grid]).run(network, data)
    path = "layer0/kernel"
    found = {}
    for criterion in ("magnitude", "compensation"):
        result = bw.PassManager([bw.Prune(0.5, criterion=criterion)]).run(held, data)
        encoding = result.graph[path].encoding
        assert isinstance(encoding, Masked)
        np.testing.assert_array_equal(encoding.project(result.graph.values[path]), result.graph.values[path])
        assert encoding.bits == held.graph[path].encoding.bits
        found[criterion] = errors(held.model, data, result, [path])[path]
    assert found["compensation"] < found["magnitude"]


@pytest.mark.parametrize(
    "model",
    ["all_convs", "attention_encoder", pytest.param("lstm_gru_bidirectional", marks=pytest.mark.slow)],
)
def test_every_kind_of_kernel_is_compensated(model: str) -> None:
    net, data = zoo.MODELS[model](), zoo.batch(model, 48)
    result = bw.PassManager([bw.Prune(0.5, criterion="compensation", scope="local")]).run(net, data)
    plain = bw.PassManager([bw.Prune(0.5, scope="local")]).run(net, data)
    paths = [p.path for p in result.graph if p.encoding.mask is not None and p.role != "embedding"]
    assert len(paths) >= 6
    ours, theirs = errors(net, data, result, paths), errors(net, data, plain, paths)
    for path in paths:
        assert ours[path] <= 1.0001 * theirs[path], path
    assert sum(ours.values()) < 0.8 * sum(theirs.values())


def test_compensation_is_the_same_each_time_and_with_other_groups_of_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = reference.Network([24, 32, 8]), correlated(24)
    one = bw.PassManager([bw.Prune(0.5, criterion="compensation")])
    first = one.run(network, data)
    monkeypatch.setattr("bitwidth.passes.rounding._GRAM_BYTES", 1)
    monkeypatch.setattr("bitwidth.passes.rounding._GRAM_SHARE", 0.0)
    second = one.run(network, data)
    for path in first.graph.values:
        np.testing.assert_array_equal(first.graph.values[path], second.graph.values[path])


def test_with_corrected_biases_and_training_after() -> None:
    network, data = reference.Network([6, 16, 2]), reference.regression()
    tune = bw.Finetune(epochs=2, loss="mse", learning_rate=0.01, batch_size=8)
    chain = [bw.CorrectBias(bw.Prune(0.5, criterion="compensation", samples=32)), tune, bw.Quantize(8)]
    result = bw.PassManager(chain).run(network, data)
    for path in ("layer0/kernel", "layer1/kernel"):
        keep = result.graph[path].encoding.mask
        assert keep is not None
        assert not result.graph.values[path][~keep].any()


def test_a_single_layer_and_a_single_unit() -> None:
    x = keras.Input((3,))
    model = zoo.filled(keras.Model(x, L.Dense(1, name="one")(x)))
    result = bw.PassManager([bw.Prune(0.3, criterion="compensation")]).run(model, correlated(3))
    assert (result.graph.values["one/kernel"] != 0).sum() == 2
