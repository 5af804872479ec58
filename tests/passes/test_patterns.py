"""Which weights go together, and which have to stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L  # noqa: N812

import bitwidth as bw
from bitwidth.errors import ConfigError
from bitwidth.passes.layout import Layout
from bitwidth.passes.patterns import pattern_of
from tests import reference, zoo

DENSE = Layout((12, 10), (), (), (0,), (1,))
CONV = Layout((3, 3, 8, 4), (), (0, 1), (2,), (3,))


def pruned(model: Any, one: bw.Prune, data: Any = None) -> bw.Result:
    return bw.PassManager([one]).run(model, data)


def mask(result: bw.Result, path: str) -> Any:
    found = result.graph[path].encoding.mask
    return np.ones(result.graph[path].shape, np.bool_) if found is None else found


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([DENSE, CONV]))
def test_blocks_are_those_counted_by_hand(inputs: int, outputs: int, layout: Layout) -> None:
    labels = pattern_of(bw.Block(inputs, outputs), "Prune").units(layout, layout.shape).labels
    assert labels is not None
    seen: dict[Any, int] = {}
    for place in np.ndindex(*layout.shape):
        *window, i, o = place
        block = (*window, i // inputs, o // outputs)
        assert seen.setdefault(block, int(labels[place])) == labels[place]
    assert len(set(seen.values())) == len(seen) == labels.max() + 1


@pytest.mark.parametrize(("name", "axis"), [("rows", 2), ("columns", 3)])
def test_rows_are_inputs_and_columns_outputs_with_all_of_the_window(name: str, axis: int) -> None:
    labels = pattern_of(name, "Prune").units(CONV, CONV.shape).labels
    assert labels is not None
    moved = np.moveaxis(labels, axis, 0).reshape(CONV.shape[axis], -1)
    assert (moved == np.arange(CONV.shape[axis])[:, None]).all()


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_n_of_m_keeps_the_greatest_of_each_run(n: int, more: int, seed: int) -> None:
    m = n + more
    layout = Layout((3, 2 * m, 5), (), (0,), (1,), (2,))
    scores = np.random.default_rng(seed).random(layout.shape)
    pattern = pattern_of(f"{n}:{m}", "Prune")
    kept = pattern.stay(scores, layout)
    assert kept is not None
    runs, sets = scores.reshape(3, 2, m, 5), kept.reshape(3, 2, m, 5)
    assert (sets.sum(axis=2) == n).all()
    assert (np.where(sets, runs, np.inf).min(axis=2) > np.where(sets, -np.inf, runs).max(axis=2)).all()
    ones = np.ones(layout.shape, np.bool_)
    assert pattern.broken(ones, kept, layout) is None
    kept[0, :, 0] = True
    assert "stay in 2 of its runs" in str(pattern.broken(ones, kept, layout))


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ("4:2", "n must be below m"),
        ("2:2", "n must be below m"),
        ("0:4", "pattern must be"),
        ("2 of 4", "pattern must be"),
        ("blocks", "pattern must be"),
        (None, "pattern must be"),
        (4, "pattern must be"),
    ],
)
def test_what_is_no_pattern_is_refused(given_: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bw.Prune(0.5, pattern=given_)


@pytest.mark.parametrize("fields", [{"inputs": 0}, {"outputs": 1.5}, {"inputs": True}])
def test_blocks_are_checked(fields: Any) -> None:
    with pytest.raises(ConfigError, match=r"Block: .* must be an integer of at least 1"):
        bw.Block(**fields)


def test_the_sparsity_of_n_of_m() -> None:
    assert bw.Prune(pattern="1:4").sparsity == 0.75
    assert bw.Prune(0.75, pattern="1:4") == bw.Prune(pattern="1:4")
    with pytest.raises(ConfigError, match=r"the pattern 2:4 leaves 0\.5 zero, got sparsity=0\.6"):
        bw.Prune(0.6, pattern="2:4")
    with pytest.raises(ConfigError, match="give sparsity"):
        bw.Prune(pattern="rows")


@pytest.mark.parametrize(
    ("model", "scope"),
    [
        ("all_convs", "global"),
        ("attention_encoder", "local"),
        ("tied_language_model", "global"),
        pytest.param("all_convs", "local", marks=pytest.mark.slow),
        pytest.param("lstm_gru_bidirectional", "global", marks=pytest.mark.slow),
    ],
)
def test_every_kernel_is_pruned_in_the_pattern_or_left_alone_with_the_reason(model: str, scope: Any) -> None:
    net = bw.open(zoo.MODELS[model]())
    for pattern in ("1:2", "block", bw.Block(1, 2), bw.Block(2, 2), "rows", "columns"):
        one = bw.Prune(None if pattern == "1:2" else 0.4, pattern=pattern, scope=scope)
        if pattern == "columns" and model == "tied_language_model":  # its table makes the logits, and what they meet
            one = replace(one, floor=0)
        result = pruned(net, one)  # `ensures` has verified the pattern
        record = result.report.passes[0]
        for parameter in record.parameters:
            assert parameter.path in record.skipped or mask(result, parameter.path).any()
        kernels = {p.path for p in result.graph if p.role in ("kernel", "recurrent_kernel", "embedding")}
        assert kernels - set(record.skipped)
        reasons = {record.skipped[path] for path in kernels & set(record.skipped)}
        known = ("sums over one channel", "not a multiple", "outputs of the model", "looked up", "all one unit")
        assert all(any(words in reason for words in known) for reason in reasons), reasons


def test_kernels_that_a_pattern_does_not_fit_are_named_before_work_starts() -> None:
    for work in ("run", "plan"):
        with pytest.raises(ConfigError, match=r"nothing to do .* its 6 inputs are not a multiple of 4"):
            getattr(bw.PassManager([bw.Prune(pattern="2:4", where="hidden")]), work)(zoo.MODELS["mlp"]())


def test_columns_of_the_outputs_stay_unless_asked() -> None:
    net = zoo.MODELS["mlp"]()
    kept = pruned(net, bw.Prune(0.4, pattern="columns", scope="local"))
    assert "logits/kernel: its columns are outputs of the model" in "\n".join(
        f"{path}: {why}" for path, why in kept.report.passes[0].skipped.items()
    )
    asked = pruned(net, bw.Prune(0.4, pattern="columns", scope="local", floor=0))
    assert mask(asked, "logits/kernel").any(axis=0).sum() == 2


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("pattern", ["unstructured", "block", "rows", "columns", bw.Block(3, 64)])
def test_no_layer_is_emptied(pattern: Any, scope: Any) -> None:
    x = keras.Input((4, 4, 3))
    y = L.Conv2D(8, 1, name="narrow")(L.Conv2D(2, 3, name="first")(x))
    model = zoo.filled(keras.Model(x, L.Dense(2, name="head")(L.Flatten()(y))))
    result = pruned(model, bw.Prune(0.95, pattern=pattern, scope=scope, floor=0))
    for parameter in result.graph:
        if parameter.role == "kernel":
            assert mask(result, parameter.path).any(), parameter.path


def test_a_sparsity_that_whole_units_do_not_reach_is_told() -> None:
    result = pruned(reference.Network([4, 4, 2]), bw.Prune(0.4, pattern="rows", scope="local"))
    assert "25.0% are zero, of 40.0% asked for: units go as a whole" in result.report.passes[0].remarks


@pytest.mark.parametrize("pattern", ["block", "rows"])
def test_units_of_several_kernels_compete_whatever_the_scales_of_layers(pattern: str) -> None:
    plain, scaled = reference.Network([64, 64, 8]), reference.Network([64, 64, 8])
    scaled.weights[2] *= np.float32(1024)
    one, two = (pruned(network, bw.Prune(0.5, pattern=pattern)) for network in (plain, scaled))
    for path in ("layer0/kernel", "layer1/kernel"):
        np.testing.assert_array_equal(mask(one, path), mask(two, path))
    assert sum(mask(one, f"layer{index}/kernel").sum() for index in (0, 1)) == pytest.approx(2304, abs=64)


def test_patterns_over_masks_that_are_there() -> None:
    first = pruned(reference.Network([16, 16, 4]), bw.Prune(0.3))
    for one in (bw.Prune(pattern="2:4"), bw.Prune(0.6, pattern="block"), bw.Prune(0.5, pattern="rows", floor=0)):
        again = pruned(first, one)
        for path in ("layer0/kernel", "layer1/kernel"):
            assert not (mask(again, path) & ~mask(first, path)).any()
        assert any("tensors had masks" in line for line in again.report.passes[0].remarks)
    runs = mask(pruned(first, bw.Prune(pattern="2:4")), "layer0/kernel").reshape(4, 4, 16).sum(axis=1)
    assert runs.max() == 2


@pytest.mark.parametrize("later", [bw.Prune(0.7), bw.Quantize(4), bw.Prune(pattern="1:4"), bw.EqualizeLayers()])
def test_later_passes_keep_a_pattern(later: bw.Pass) -> None:
    first = pruned(reference.Network([16, 16, 4]), bw.Prune(pattern="2:4"))
    after = bw.PassManager([later]).run(first)
    for path in ("layer0/kernel", "layer1/kernel"):
        runs = (after.graph.values[path] != 0).reshape(-1, 4, after.graph[path].shape[1]).sum(axis=1)
        assert runs.max() <= 2


def test_plans_show_a_pattern_without_data() -> None:
    for one in (bw.Prune(pattern="1:2", criterion="activation"), bw.Prune(0.5, pattern="block", criterion="fisher")):
        record = bw.PassManager([one]).plan(zoo.MODELS["mlp"]()).passes[0]
        kernels = [p for p in record.parameters if p.path.endswith("kernel")]
        assert [p.path for p in kernels if "zero" in p.after] == ["hidden/kernel", "logits/kernel"]
        assert any(line.startswith("planned by magnitude") for line in record.remarks)
