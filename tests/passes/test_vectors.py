"""`Quantize(vectors="auto")`: parameters of one number per channel in few mantissa bits."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.analysis import fidelity
from bitwidth.data import digits
from bitwidth.encodings import FEW_MANTISSA_BITS, Dense
from bitwidth.errors import ConfigError, DataError
from bitwidth.passes.recipe import from_data, to_data
from bitwidth.passes.vectors import format_of, held_in
from tests import reference

NETWORK = reference.Network([6, 64, 32, 3], seed=3)
INPUTS = np.random.default_rng(0).standard_normal((600, 6)).astype(np.float32)
X, Y = digits().train
TEST = digits().test[0]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
AUTO = bw.Quantize(4, vectors="auto")


@cache
def trained() -> Any:
    """A small net with normalisations that knows its digits."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    body = [keras.Input((8, 8, 1)), layers.Conv2D(12, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    body += [layers.Conv2D(16, 3, strides=2, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential([*body, layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(10)])
    model.compile(keras.optimizers.Adam(5e-3), LOSS)
    model.fit(X, Y, batch_size=64, epochs=6, verbose=0)
    return model


def run(item: bw.Pass, model: Any = NETWORK, data: Any = INPUTS, **options: Any) -> bw.Result:
    return bw.PassManager([item]).run(model, data=data, **options)


def formats(result: bw.Result) -> dict[str, str | None]:
    """The format of each vector, by path."""
    held = {p.path: p.encoding.unmasked for p in result.graph if p.role != "kernel"}
    return {path: encoding.format for path, encoding in held.items() if isinstance(encoding, Dense)}


def remark(result: bw.Result) -> str:
    (found,) = [words for words in result.report.passes[0].remarks if words.startswith("vectors: ")]
    return found


def outputs(model: Any, images: Any = TEST) -> Any:
    return model.predict(images, verbose=0)


def test_outputs_stay_within_what_is_promised() -> None:
    """On images that the search did not see; the bound is on those that it saw, so there is room for chance."""
    sixteen, few = (run(bw.Quantize(4, vectors=kind), trained(), X) for kind in ("16-bit", "auto"))
    given = outputs(trained())
    divergences = [fidelity(["categorical logits"], [given], [outputs(r.model)])["kl"] for r in (sixteen, few)]
    assert divergences[1] <= 1.05 * divergences[0]
    assert set(formats(few).values()) <= {*FEW_MANTISSA_BITS, "bfloat16", "float16"}
    assert sum(name in FEW_MANTISSA_BITS for name in formats(few).values()) >= len(formats(few)) / 2
    seen = X[:1024]
    found = [
        fidelity(["categorical logits"], [outputs(trained(), seen)], [outputs(r.model, seen)])["kl"]
        for r in (sixteen, few)
    ]
    assert found[1] <= 1.01 * found[0]
    for path, array in sixteen.graph.values.items():
        if sixteen.graph[path].role == "kernel":
            assert np.array_equal(array, few.graph.values[path])


def test_each_role_has_one_format_and_a_remark_says_which() -> None:
    result = run(AUTO, trained(), X)
    roles: dict[str, set[Any]] = {}
    for path, name in formats(result).items():
        roles.setdefault(result.graph[path].role, set()).add(name)
    words = remark(result)
    for role, names in roles.items():
        (name,) = names
        assert f"{role} {'' if name == 'float16' else name}" in words
    assert "; KL " in words
    assert "on 1,024 samples" in words
    assert words in result.report.text()


def test_values_are_rounded_as_they_are_held_and_come_back_from_a_file(tmp_path: Path) -> None:
    result = run(AUTO, trained(), X)
    for path in formats(result):
        parameter = result.graph[path]
        values = result.graph.values[path]
        assert np.array_equal(parameter.encoding.project(values), values)
    result.save(tmp_path / "few.bw")
    loaded = bw.load(tmp_path / "few.bw")
    assert np.array_equal(outputs(loaded, TEST[:50]), outputs(result.model, TEST[:50]))
    entries = {entry.path: entry for entry in bw.inspect(tmp_path / "few.bw").parameters}
    for path, name in formats(result).items():
        assert entries[path].summary.format == name
        assert name is not None
        assert name in entries[path].kind


def test_without_data_they_go_by_the_error_of_the_kernels() -> None:
    coarse, fine = (run(bw.Quantize(bits, vectors="auto"), data=None) for bits in (3, 6))
    assert set(formats(coarse).values()) == {"e8m6"}
    assert "vectors: bias e8m6, " in remark(coarse)
    assert "by the error of the kernels; there is no data" in remark(coarse)
    assert set(formats(fine).values()) == {"float16"}
    assert "vectors: in 16 bits, as kernels with a relative squared error" in remark(fine)


def test_few_samples_tell_nothing() -> None:
    few, none = run(AUTO, data=INPUTS[:15]), run(AUTO, data=None)
    assert "outputs of 16 samples or more would tell" in remark(few)
    assert formats(few) == formats(none)
    assert "on 16 samples" in remark(run(AUTO, data=INPUTS[:16]))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_outputs_that_are_not_numbers_are_no_leave() -> None:
    model = reference.Network([6, 64, 3], seed=3)
    model.weights[0][0, 0] = 1e30  # some outputs are infinite, and differences of them NaN
    model.weights[2][0] = 1e30
    result = run(bw.Quantize(8, vectors="auto"), model)
    assert set(formats(result).values()) == {"float16"}


def test_kernels_that_stay_ask_for_16_bits() -> None:
    """Without kernels on grids nothing tells what error is small."""
    result = run(bw.Quantize(4, vectors="auto", where="*bias"), data=None)
    assert set(formats(result).values()) == {"float16"}


def test_of_a_model_that_is_not_a_classifier_the_error_of_the_outputs_counts() -> None:
    single = reference.Network([6, 64, 32, 1], seed=3)
    result = run(AUTO, single)
    assert "output error" in remark(result)
    given, sixteen = single.forward(INPUTS, single.weights)[-1], run(bw.Quantize(4), single).model
    errors = [np.square(net.forward(INPUTS, net.weights)[-1] - given).mean() for net in (sixteen, result.model)]
    assert errors[1] <= 1.01 * errors[0]


def test_nothing_to_round_is_no_remark() -> None:
    result = run(bw.Quantize(4, vectors="auto", where="*kernel"))
    assert not [words for words in result.report.passes[0].remarks if words.startswith("vectors")]
    assert not set(formats(result).values()) & {*FEW_MANTISSA_BITS, "bfloat16", "float16"}


def test_the_same_run_makes_the_same_choice() -> None:
    one, other = (run(AUTO, trained(), X[:500]) for _ in range(2))
    assert formats(one) == formats(other)
    for path, array in one.graph.values.items():
        assert np.array_equal(array, other.graph.values[path])


def test_a_second_run_keeps_what_the_first_promised() -> None:
    first = run(AUTO)
    second = bw.PassManager([bw.Quantize(4, vectors="auto")]).run(first, data=INPUTS)
    for path, name in formats(first).items():
        before, after = first.graph[path].encoding, second.graph[path].encoding
        assert before.broken_by(after) is None, name
    third = bw.PassManager([bw.Quantize(4)]).run(first, data=INPUTS)
    assert formats(third) == formats(first)


def test_masks_of_vectors_stay() -> None:
    pruned = bw.PassManager([bw.Prune(0.3, where=["*kernel", "*bias"])]).run(NETWORK)
    result = bw.PassManager([AUTO]).run(pruned, data=INPUTS)
    for parameter in pruned.graph:
        if parameter.encoding.mask is not None:
            held = result.graph[parameter.path].encoding
            assert held.mask is not None
            assert np.array_equal(held.mask, parameter.encoding.mask)


def test_values_near_the_end_of_floats_stay_finite() -> None:
    model = reference.Network([6, 8, 2], seed=3)
    model.weights[1][0] = 3.4e38
    for data in (None, INPUTS):
        result = run(bw.Quantize(2, vectors="auto", samples=64), model, data)
        assert all(np.isfinite(result.graph.values[path]).all() for path in formats(result))


def test_held_in_leaves_what_has_fewer_bits() -> None:
    result = run(bw.Quantize(4))
    graph = held_in(result.graph, [p for p in result.graph if p.role == "bias"], {"bias": 2})
    assert {p.encoding.describe() for p in graph if p.role == "bias"} == {"11-bit float e8m2"}
    again = held_in(graph, [p for p in graph if p.role == "bias"], {"bias": 5})
    assert {p.encoding.describe() for p in again if p.role == "bias"} == {"11-bit float e8m2"}
    seven = held_in(result.graph, [p for p in result.graph if p.role == "bias"], {"bias": 7})
    assert {p.encoding.describe() for p in seven if p.role == "bias"} == {"bfloat16"}
    assert held_in(seven, list(seven), {"bias": 7}).same(seven, "layer0/bias")
    nine = held_in(result.graph, [p for p in result.graph if p.role == "bias"], {"bias": 9})
    for path in ("layer0/bias", "layer1/bias"):
        assert nine[path].encoding.describe() == "float16"
        bits, given = (g.values[path].astype(np.float16).view(np.uint16) for g in (nine, result.graph))
        assert not (bits & 1).any()
        assert (np.abs(bits.astype(int) - given.astype(int)) <= 1).all()
        assert (given & 1).any()
    assert [format_of(bits) for bits in range(1, 8)] == [*reversed(FEW_MANTISSA_BITS), "bfloat16"]


@pytest.mark.parametrize("value", ["few", "8-bit", 8, True, "e8m3", ""])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r'vectors must be .*"?auto'):
        bw.Quantize(4, vectors=value)


def test_data_that_does_not_fit_is_refused_before_work_starts() -> None:
    begun: list[Any] = []
    manager = bw.PassManager([bw.Prune(0.5), AUTO])
    with pytest.raises(DataError):
        manager.run(trained(), data=np.zeros((40, 3), np.float32), on_event=begun.append)
    assert not [event for event in begun if event.kind == "pass_done"]


def test_recipes_hold_it() -> None:
    item = bw.Quantize(4, vectors="auto")
    data = to_data(item)
    assert data["vectors"] == "auto"
    assert data["bitwidth"] == 2
    assert from_data(data) == item
    assert from_data({"bitwidth": 1, "pass": "quantize", "bits": 4, "vectors": "auto"}) == item
    manager = bw.PassManager(
        [bw.Where(bw.Nested(bw.Quantize(8, vectors="auto"), (8, 4), during=bw.Finetune()), "conv*")]
    )
    assert to_data(from_data(json.dumps(to_data(manager)))) == to_data(manager)


def test_a_plan_tells_what_it_would_do() -> None:
    plan = bw.PassManager([AUTO]).plan(NETWORK)
    assert "layer0/bias" in plan.text() or "bias" in plan.text()


def test_where_confines_it() -> None:
    result = run(bw.Where(AUTO, "layer0"))
    assert formats(result)["layer0/bias"] in (*FEW_MANTISSA_BITS, "bfloat16", "float16")
    assert formats(result)["layer1/bias"] is None


def tune(**fields: Any) -> bw.Finetune:
    return bw.Finetune(**{"epochs": 2, "loss": LOSS, "batch_size": 64, "learning_rate": 1e-3, **fields})


@pytest.mark.parametrize("of", [AUTO, bw.PassManager([bw.Prune(0.5), AUTO]), bw.Where(AUTO, "conv*")])
def test_a_ramp_refuses_it(of: bw.Pass) -> None:
    """Training could not change from 16-bit floats to shorter ones while it runs."""
    with pytest.raises(ConfigError, match='vectors="auto" goes by what a finished model does; in a ramp use "16-bit"'):
        bw.Ramp(of, during=tune())


def test_training_after_it_keeps_the_formats() -> None:
    result = bw.PassManager([AUTO, tune(epochs=1)]).run(trained(), (X[:512], Y[:512]))
    before = run(AUTO, trained(), (X[:512], Y[:512]))
    assert formats(before) == formats(result)
    for path in formats(result):
        values = result.graph.values[path]
        assert np.array_equal(result.graph[path].encoding.project(values), values)


def test_nested_widths_share_them() -> None:
    item = bw.Nested(bw.Quantize(8, vectors="auto"), (8, 4), during=tune(epochs=1))
    result = run(item, trained(), (X[:512], Y[:512]))
    assert set(formats(result).values()) <= {*FEW_MANTISSA_BITS, "bfloat16", "float16"}


def test_bias_correction_over_it() -> None:
    result = run(bw.CorrectBias(bw.Quantize(3, vectors="auto"), samples=64), trained(), X[:256])
    for path in formats(result):
        values = result.graph.values[path]
        assert np.array_equal(result.graph[path].encoding.project(values), values)
