"""Patterns through cuts: n:m is in force again on what is left; what would tear blocks is refused by plan and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.encodings import Masked, pattern_of_mask
from bitwidth.errors import ConfigError
from bitwidth.passes.layout import layout_of
from bitwidth.passes.patterns import pattern_of


def dense() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((16,)), layers.Dense(32, "relu", name="a"), layers.Dense(24, "relu", name="b")]
    return keras.Sequential([*stack, layers.Dense(4, name="out")])


def conv() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((8, 8, 4)), layers.Conv2D(16, 3, name="a"), layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.Conv2D(16, 3, name="b"), layers.GlobalAveragePooling2D(), layers.Dense(4, name="out")]
    return keras.Sequential(stack)


def holds(graph: Any, path: str, pattern: str) -> bool:
    parameter = graph[path]
    rule, layout = pattern_of(pattern, "test"), layout_of(graph, parameter)
    return rule.broken(np.ones(parameter.shape, bool), parameter.encoding.mask, layout) is None


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8"])
@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("build", [dense, conv])
def test_n_of_m_is_in_force_after_a_cut(build: Any, with_data: bool, pattern: str, tmp_path: Path) -> None:
    model = build()
    x = np.random.default_rng(0).standard_normal((200, *model.input_shape[1:])).astype("float32")
    prune, cut = bw.Prune(pattern=pattern, where=["b", "out"]), bw.Shrink(keep=0.5, multiple_of=8, where=["a", "b"])
    manager = bw.PassManager([prune, bw.Quantize(bits=8), cut])
    result = manager.run(model, x if with_data else None)
    assert result.graph["b/kernel"].shape[-2] == model.get_layer("b").kernel.shape[-2] // 2
    for path in ("b/kernel", "out/kernel"):
        assert holds(result.graph, path, pattern)
        assert pattern_of_mask(result.graph[path].encoding) == pattern
        mask = result.graph[path].encoding.mask
        assert mask is not None
        assert not result.graph.values[path][~mask].any()
    if pattern == "2:4":
        assert "more weights are zero, so that what is left is 2:4" in str(result.report)
    result.save(tmp_path / "cut.bw")
    again = bw.PassManager([cut]).run(bw.load(tmp_path / "cut.bw"), x if with_data else None)
    assert all(holds(again.graph, path, pattern) for path in ("b/kernel", "out/kernel"))
    plan = manager.plan(model)
    assert "a: " in str(plan)


@pytest.mark.parametrize(
    ("pattern", "cut", "words"),
    [
        ("2:4", bw.Shrink(keep=0.45), "b/kernel is pruned in the pattern 2:4, .* a would .*multiple_of=4"),
        ("2:4", bw.Shrink(macs=0.5), "give multiple_of=4"),
        ("2:4", bw.ShrinkDense(inputs=6), "a/kernel is pruned in the pattern 2:4"),
        ("block", bw.Shrink(keep=0.5), "b/kernel .* 4x1, .* blocks would be torn; shrink before pruning"),
        (bw.Block(1, 4), bw.Shrink(keep=0.5), "a/kernel .* 1x4, .* blocks would be torn"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_plan_and_run(pattern: Any, cut: Any, words: str) -> None:
    model = dense()
    manager = bw.PassManager([bw.Prune(0.5, pattern=pattern), cut])
    before = [array.copy() for array in model.get_weights()]
    for call in (manager.plan, manager.run):
        with pytest.raises(ConfigError, match=words):
            call(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("pattern", ["unstructured", "rows", "columns"])
def test_other_patterns_go_through(pattern: Any) -> None:
    result = bw.PassManager([bw.Prune(0.5, pattern=pattern), bw.Shrink(keep=0.45)]).run(dense())
    assert result.graph["b/kernel"].shape == (14, 10)


def test_a_budget_in_multiples_keeps_n_of_m() -> None:
    result = bw.PassManager([bw.Prune(pattern="2:4"), bw.Shrink(macs=0.5, multiple_of=4)]).run(dense())
    assert all(holds(result.graph, f"{name}/kernel", "2:4") for name in ("a", "b", "out"))


def test_a_ramp_and_later_passes_keep_the_name_of_the_pattern(tmp_path: Path) -> None:
    model = dense()
    x = np.random.default_rng(0).standard_normal((64, 16)).astype("float32")
    y = np.zeros(64, "int32")
    tune = bw.Finetune(1, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    passes = [bw.Ramp(bw.Prune(pattern="2:4"), during=tune), bw.Quantize(bits=4), tune, bw.Prune(0.7)]
    result = bw.PassManager(passes).run(model, (x, y))
    assert pattern_of_mask(result.graph["b/kernel"].encoding) == "2:4"
    result.save(tmp_path / "model.bw")
    loaded = bw.open(bw.load(tmp_path / "model.bw"))
    assert pattern_of_mask(loaded.graph["b/kernel"].encoding) == "2:4"
    incomplete = bw.PassManager([bw.Prune(0.3, pattern="2:4")]).run(model)
    assert pattern_of_mask(incomplete.graph["b/kernel"].encoding) == ""


def test_a_mask_says_its_pattern_and_a_cut_does_not_vouch_for_it() -> None:
    held = Masked(np.array([True, False, True, False]), pattern="2:4")
    again = Masked.from_state(held.state())
    assert again.pattern == "2:4"
    assert held.take(0, np.array([0, 2])).pattern == ""
    assert "pattern" not in Masked(np.array([True])).state().config
