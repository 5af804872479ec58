from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

import bitwidth as bw
from bitwidth.errors import BitwidthError, ConfigError
from bitwidth.passes import registry
from bitwidth.passes.recipe import from_data, to_data


def is_wide(parameter: bw.Parameter) -> bool:
    return parameter.size > 100


bw.register_function("tests.is_wide", is_wide)


def planes(path: str, values: Any) -> Any:
    return values > 1


bw.register_function("tests.planes", planes)


def by_size(parameter: bw.Parameter, graph: bw.Graph, context: bw.Context) -> Any:
    return np.abs(graph.values[parameter.path])


bw.register_function("tests.by_size", by_size)


@dataclass(frozen=True)
class Tagged(bw.Pass, name="tests.tagged"):
    """A user's own pass with fields of many types, none of them checked."""

    value: Any = None
    other: Any = ()

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph


LOSS = {"class_name": "CategoricalFocalCrossentropy", "config": {"from_logits": True, "gamma": 1.5, "name": None}}
PASSES: list[bw.Pass] = [
    bw.Quantize(bits=4),
    bw.Prune(pattern="2:4", criterion="compensation", samples=64),
    bw.Prune(0.5, pattern=bw.Block(2, 8), criterion=by_size),
    bw.Quantize({"conv1": 8, None: 4}, where=bw.AllBut(["logits", "head*"])),
    bw.Quantize(2, granularity=64, where="conv*", scale="max", vectors=None),
    bw.Quantize(4, vectors="auto"),
    bw.Quantize(8, granularity="tensor", where=("a", "b/kernel")),
    bw.Quantize(8, where=["a", "b/kernel"]),
    bw.Quantize(8, where=is_wide),
    bw.Quantize(8, symmetric=False, rounding="error_feedback", damping=0.05, samples=64, importance="fisher"),
    bw.Quantize(rate=2.5, rounding="entropy", price=0.05, scope="local"),
    bw.Quantize(step=0.5),
    bw.FoldBatchNorm(where="conv*"),
    bw.EqualizeLayers(iterations=3, where="conv*"),
    bw.CorrectBias(bw.Quantize(3), samples=64, sequential=True),
    bw.ReestimateBatchNorm(samples=64, batch_size=8),
    bw.Quantize(3, rule="codebook", activations=8, ranges="max", escape=bw.Escape(quantile=0.99)),
    bw.Quantize(rule=bw.BitRule([[1, 2, 4], [10, 20]], scale=(0.5, 1.0), symmetric=True)),
    bw.Quantize(4, escape=bw.Escape(plane=planes, format="float16")),
    bw.Prune(0.5),
    bw.Prune(0.9, scope="local", criterion="fisher", where="head"),
    bw.Prune(0.25, floor=0.1, criterion=bw.Fisher(samples=64, labels="data", likelihood="gaussian")),
    bw.Shrink(0.5),
    bw.Shrink(units=10, criterion="fisher", where="conv*", samples=64),
    bw.Shrink(macs=0.5, multiple_of=8, refit=False),
    bw.Shrink(parameters=0.3, inexact=True),
    bw.ShrinkDense(7 / 8),
    bw.ShrinkDense(inputs=7),
    bw.ShrinkDense(units=10, criterion="fisher", where="conv*", samples=64),
    bw.ShrinkDense(macs=0.5, multiple_of=8, refit=False),
    bw.ShrinkDense(parameters=0.3, inexact=True),
    bw.Factorize(0.25),
    bw.Factorize(rank=8, where=["conv*", "head"], separate=False, samples=64),
    bw.Factorize(error=0.1),
    bw.Factorize(macs=0.5),
    bw.Factorize(parameters=0.3),
    bw.Finetune(),
    bw.Finetune(
        epochs=3,
        loss="mse",
        optimizer="sgd",
        learning_rate=1e-3,
        decay="cosine",
        batch_size=16,
        steps_per_epoch=5,
        class_weight={0: 1.0, 7: 2.5},
        loss_weights={"label": 0.5, "value": 1.0},
        metrics=("accuracy",),
        jit_compile=False,
        verbose=2,
        learn_steps=True,
    ),
    bw.Finetune(loss={"label": "mse", "value": "mae"}, metrics={"label": ("accuracy",)}),
    bw.Finetune(loss=LOSS),
    bw.Distill(),
    bw.Distill(
        3,
        temperature=4.0,
        alpha=0.25,
        loss=LOSS,
        only="norms_and_biases",
        optimizer="sgd",
        learning_rate=1e-3,
        decay="constant",
        batch_size=16,
        steps_per_epoch=5,
        class_weight={0: 1.0},
        loss_weights={"label": 0.5},
        metrics=("accuracy",),
        jit_compile=False,
        verbose=2,
        learn_steps=True,
    ),
    bw.Distill(price=1e-6),
    bw.Distill(9, size="12 kB"),
    bw.Finetune(9, size=12_000),
    bw.Finetune(price=1e-6),
    bw.Distill(features=["conv", "block/dense"], attention={"mine": "theirs"}),
    bw.Finetune(loss=is_wide),
    bw.Where(bw.Quantize(3), "encoder"),
    bw.Repeat(bw.Where(bw.Prune(0.5), is_wide), times=3),
    bw.Ramp(bw.Prune(0.9), during=bw.Finetune(epochs=4, loss="mse"), steps=5, end=0.5, shape="linear"),
    bw.Nested(bw.Quantize(8), widths=(8, 4, 2), during=bw.Finetune(loss="mse")),
    bw.CorrectBias(bw.Quantize(3), samples=64, sequential=True),
    bw.EqualizeLayers(iterations=3, where="conv*"),
    bw.FoldBatchNorm(where="conv*"),
    bw.ReestimateBatchNorm(samples=64, batch_size=32),
    bw.PassManager([]),
    bw.PassManager(
        [
            bw.Ramp(bw.Where(bw.Quantize(2, granularity="tensor"), "a*"), during=bw.Finetune(loss="mse")),
            bw.PassManager([bw.Prune(0.5), bw.Repeat(bw.PassManager([bw.Quantize(4)]), 2)]),
        ]
    ),
    Tagged(),
    Tagged((1, (2.5, "x", None)), {"a": (True, {1: "b"})}),
]


def through_json(item: bw.Pass) -> bw.Pass:
    return from_data(json.dumps(to_data(item)))


@pytest.mark.parametrize("item", PASSES, ids=[f"{type(item).__name__}{place}" for place, item in enumerate(PASSES)])
def test_round_trip(item: bw.Pass) -> None:
    again = through_json(item)
    assert type(again) is type(item)
    assert again == item
    assert to_data(again) == to_data(item)
    assert from_data(to_data(item)) == item


@pytest.mark.parametrize("item", PASSES, ids=[f"{type(item).__name__}{place}" for place, item in enumerate(PASSES)])
def test_a_manager_round_trips_with_it(item: bw.Pass) -> None:
    manager = bw.PassManager([item, bw.Quantize(4)])
    assert bw.PassManager.from_recipe(manager.to_recipe()) == manager
    assert bw.PassManager.from_recipe(json.dumps(manager.to_recipe())) == manager


def test_every_built_in_pass_is_covered() -> None:
    passes = {name: cls for name, cls in registry._PASSES.items() if not name.startswith("docs.")}  # of doctests
    own = {cls for cls in passes.values() if cls.__module__.startswith("bitwidth.passes")}
    assert own <= {type(item) for item in PASSES}


def test_every_field_of_the_built_in_passes_is_covered() -> None:
    """A field that no recipe above changes could be lost without a test."""
    for cls in {type(item) for item in PASSES}:
        made = [item for item in PASSES if type(item) is cls]
        missing = {f.name for f in fields(cls) if all(getattr(item, f.name) == f.default for item in made)}
        assert missing <= {"callbacks", "teacher"}, cls


@pytest.mark.parametrize("item", PASSES, ids=[f"{type(item).__name__}{place}" for place, item in enumerate(PASSES)])
def test_every_field_is_written(item: bw.Pass) -> None:
    data = to_data(item)
    assert data["bitwidth"] == 2
    assert set(data) == {"bitwidth", "pass", *(field.name for field in fields(item))}


GOLDEN = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parents[1].glob("golden/recipes/*"))
}


# What 0.1.0 meant by a value, in the words of today: a rate of None was the optimizer's own.
SAID_OTHERWISE: dict[Any, Any] = {("finetune", "learning_rate", None): "own"}


def test_every_built_in_pass_has_golden_recipes() -> None:
    built_in = {
        name for name, cls in registry._PASSES.items() if cls.__module__.startswith("bitwidth.") and "." not in name
    }
    assert set(GOLDEN) == built_in


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_recipes_of_format_1_give_what_they_gave(name: str) -> None:
    """What version 0.1.0 wrote, and every field of what it read back: its defaults, whatever ours are now."""

    def check(given: Any, now: Any) -> None:
        if isinstance(given, dict) and "pass" in given:
            assert set(given) <= set(now)
            for key, entry in given.items():
                check(SAID_OTHERWISE.get((given["pass"], key, entry) if entry is None else None, entry), now[key])
        elif isinstance(given, list):
            assert len(given) == len(now)
            for one, other in zip(given, now, strict=True):
                check(one, other)
        else:
            assert given == now

    for case in GOLDEN[name]:
        assert case["recipe"]["bitwidth"] == 1
        check(case["gives"], to_data(from_data(case["recipe"])))


@pytest.mark.parametrize(
    ("name", "field", "default"),
    [("prune", "scope", "local"), ("quantize", "vectors", None), ("finetune", "epochs", 9)],
)
def test_a_default_that_changes_does_not_change_what_was_saved(
    name: str, field: str, default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"prune": bw.Prune(0.5), "quantize": bw.Quantize(4), "finetune": bw.Finetune()}[name]
    of_2, of_1 = to_data(item), GOLDEN[name][0]["recipe"]
    cls: Any = type(item)
    init, own = cls.__init__, getattr(item, field)
    place = [f.name for f in fields(cls)].index(field)

    def changed(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **(kwargs if len(args) > place else {field: default, **kwargs}))

    monkeypatch.setattr(cls, "__init__", changed)
    assert getattr(cls(0.5) if name == "prune" else cls(4) if name == "quantize" else cls(), field) == default
    assert getattr(from_data(of_2), field) == own
    assert getattr(from_data(of_1), field) == own
    chain = {"bitwidth": 1, "pass": "chain", "passes": [{k: v for k, v in of_1.items() if k != "bitwidth"}]}
    made = from_data(chain)
    assert isinstance(made, bw.PassManager)
    assert getattr(made.passes[0], field) == own


@dataclass(frozen=True)
class Fisher:
    """A user's own dataclass that is called like one of the library's."""

    samples: int = 3


@dataclass(frozen=True)
class Budget:
    """A user's own type of values."""

    bytes: int
    of: Any = None


bw.register_value("tests.budget", Budget)


@pytest.mark.parametrize("value", [Fisher(), (1, Fisher()), {"a": Fisher()}])
def test_a_value_is_known_by_its_class_and_not_by_its_name(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"Tagged\.value.*register_value"):
        to_data(Tagged(value))
    with pytest.raises(ConfigError, match="Fisher"):
        bw.register_value("Fisher", Fisher)


@pytest.mark.parametrize("value", [Budget(3), (Budget(1), "x"), Budget(2, Budget(1, bw.Fisher(8))), bw.AllBut("a*")])
def test_a_registered_value_round_trips(value: Any) -> None:
    again = through_json(Tagged(value))
    assert again == Tagged(value)


def test_a_value_has_one_name_and_is_a_dataclass() -> None:
    assert bw.register_value("tests.budget", Budget) is Budget
    for name, cls in (("tests.budget", Tagged), ("tests.other", Budget), ("tests.int", int)):
        with pytest.raises(ConfigError):
            bw.register_value(name, cls)


@dataclass(frozen=True)
class Keeps(bw.Pass, name="tests.keeps"):
    """A default that has no form in recipes."""

    value: Any = object

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph


def test_a_default_without_a_form_stands_for_itself() -> None:
    assert through_json(Keeps()) == Keeps()
    with pytest.raises(ConfigError, match=r"Keeps\.value"):
        to_data(Keeps(dict))


def test_a_recipe_of_one_pass_makes_a_chain() -> None:
    assert bw.PassManager.from_recipe({"pass": "prune", "sparsity": 0.5}) == bw.PassManager([bw.Prune(0.5)])


def test_true_is_not_one() -> None:
    """`True == 1`, but a field that is True is written although its default is 1."""
    again = from_data(to_data(bw.Finetune(verbose=True)))  # type: ignore[arg-type]
    assert isinstance(again, bw.Finetune)
    assert again.verbose is True


def test_numpy_numbers_become_plain() -> None:
    data = to_data(Tagged((np.float32(0.5), np.int64(3), np.bool_(True)), {np.int64(1): np.float64(2.0)}))
    assert json.loads(json.dumps(data))["value"] == [0.5, 3, True]
    assert from_data(data) == Tagged((0.5, 3, True), {1: 2.0})


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 5), inner, max_size=3)
        | st.builds(Tagged, inner, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(plain)
def test_round_trip_of_any_plain_field(value: Any) -> None:
    """Also of mappings whose keys look like a recipe's own."""
    assert through_json(Tagged(value)) == Tagged(value)


@pytest.mark.parametrize("key", ["pass", "function", "map", "keras", "value", "class_name", "bitwidth"])
def test_a_mapping_may_have_any_key(key: str) -> None:
    item = Tagged({key: "quantize"}, {"config": {key: 1}})
    assert through_json(item) == item


# ---- what cannot be written


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda f: bw.Quantize(4, where=f), "Quantize.where"),
        (lambda f: bw.PassManager([bw.Prune(0.5), bw.Where(bw.Quantize(4), f)]), "PassManager.passes[1].where"),
        (lambda f: bw.Repeat(bw.Where(bw.Prune(0.5, where=f), "a"), 2), "Repeat.of.of.where"),
        (lambda f: bw.Ramp(bw.Prune(0.5), during=bw.Finetune(loss=f)), "Ramp.during.loss"),
        (lambda f: bw.Finetune(loss={"label": f}), "Finetune.loss['label']"),
        (lambda f: bw.Finetune(callbacks=(SimpleNamespace(set_model=f),)), "Finetune.callbacks[0]"),
        (lambda f: bw.Finetune(metrics=["accuracy", f]), "Finetune.metrics[1]"),
    ],
)
def test_a_lambda_is_refused_with_the_path_of_its_field(make: Callable[[Any], bw.Pass], field: str) -> None:
    item = make(lambda parameter: True)
    with pytest.raises(ConfigError) as caught:
        to_data(item)
    assert str(caught.value).startswith(f"{field}: ")
    assert "register_function" in str(caught.value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.zeros(3), 1j, bw.Prune, float])
def test_what_has_no_plain_form_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"Tagged\.value: .*cannot be written to a recipe"):
        to_data(Tagged(value))


def test_a_pass_without_a_name_is_refused() -> None:
    @dataclass(frozen=True)
    class Nameless(bw.Pass):
        @override
        def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
            return graph

    with pytest.raises(ConfigError, match=r"PassManager\.passes\[0\]: Nameless has no name for recipes"):
        bw.PassManager([Nameless()]).to_recipe()


def test_a_subclass_does_not_take_the_name_of_its_base() -> None:
    @dataclass(frozen=True)
    class Gentler(bw.Prune):
        extra: int = 0

    assert Gentler.name == ""
    with pytest.raises(ConfigError, match="Gentler has no name"):
        to_data(Gentler(0.5))


# ---- what cannot be read

BAD_RECIPES: dict[str, tuple[Any, str | None]] = {
    "no JSON": ("{", "a recipe is JSON"),
    "a list": ("[]", 'an object with a "pass"'),
    "a number": (5, 'an object with a "pass"'),
    "nothing": (None, 'an object with a "pass"'),
    "no pass": ({"bits": 4}, 'an object with a "pass"'),
    "an unknown pass": ({"pass": "shrinkify"}, "no pass named 'shrinkify' is registered; known: .*quantize"),
    "a pass that is no name": ({"pass": {"a": 1}}, "no pass named"),
    "an unknown pass inside": (
        {"pass": "where", "of": {"pass": "shrinkify"}, "where": "a"},
        "no pass named 'shrinkify'",
    ),
    "an unknown field": ({"pass": "quantize", "bits": 4, "bit": 3}, "quantize: no field 'bit'; it has: .*bits"),
    "a missing field": ({"pass": "prune"}, "Prune: give sparsity"),
    "a later version": (
        {"bitwidth": 3, "pass": "quantize", "bits": 4},
        "recipe of version 3; .* reads versions 1 and 2",
    ),
    "a version that is no number": ({"bitwidth": "x", "pass": "quantize", "bits": 4}, "version 'x'"),
    "an unknown function": (
        {"pass": "quantize", "bits": 4, "where": {"function": "os.system"}},
        "no function named 'os.system'",
    ),
    "a function that is no name": ({"pass": "quantize", "bits": 4, "where": {"function": ["a"]}}, None),
    "an unknown value": ({"pass": "prune", "sparsity": 0.5, "criterion": {"value": "Hessian"}}, "no value named"),
    "a value that is no name": ({"pass": "prune", "sparsity": 0.5, "criterion": {"value": {}}}, None),
    "an unknown field of a value": (
        {"pass": "prune", "sparsity": 0.5, "criterion": {"value": "Fisher", "seed": 1}},
        "seed",
    ),
    "a wrong field of a value": (
        {"pass": "prune", "sparsity": 0.5, "criterion": {"value": "Fisher", "samples": 0}},
        "samples must be",
    ),
    "a field out of range": ({"pass": "quantize", "bits": 40}, "bits must be"),
    "a field of a wrong type": ({"pass": "repeat", "of": 5, "times": 2}, "of must be a pass"),
    "a map of triples": ({"pass": "finetune", "loss": {"map": [[1, 2, 3]]}}, None),
    "a map that is a number": ({"pass": "finetune", "loss": {"map": 5}}, None),
    "a map with a list for a key": ({"pass": "finetune", "loss": {"map": [[{"map": []}, 1]]}}, None),
    "any other object": ({"pass": "finetune", "loss": {"import": "os"}}, "cannot hold"),
    "nested deep": ("[" * 100_000, None),
    "passes nested deep": ('{"pass":"chain","passes":[' * 400 + "]}" * 400, None),
}


@pytest.mark.parametrize("name", list(BAD_RECIPES))
def test_a_recipe_that_is_not_valid_is_refused(name: str) -> None:
    recipe, words = BAD_RECIPES[name]
    with pytest.raises(ConfigError, match=words):
        from_data(recipe)


nodes = st.recursive(
    st.none() | st.integers(-3, 3) | st.floats() | st.sampled_from(["quantize", "prune", "chain", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["pass", "function", "map", "keras", "value", "config", "class_name", "of", "bits", "passes"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(nodes)
def test_any_recipe_makes_a_pass_or_a_config_error(node: Any) -> None:
    for recipe in (node, {"pass": "tests.tagged", "value": node}, {"pass": "finetune", "loss": node}):
        try:
            assert isinstance(from_data(recipe), bw.Pass)
        except BitwidthError:
            continue


# ---- nothing is imported by name

EVIL = "xml.dom.pulldom"  # a module that nothing here needs


@pytest.mark.parametrize(
    "loss",
    [
        {"keras": "Evil", "config": {"module": EVIL}},
        {"class_name": "Evil", "config": {"module": EVIL}},
        {"class_name": "Evil", "config": {"fn": {"module": EVIL, "class_name": "PullDOM", "config": {}}}},
        {"class_name": "Evil", "config": [{"a": [{"module": f"{EVIL}.x"}]}]},
        {"class_name": "Evil", "config": {}, "module": EVIL},
        {"class_name": "Evil", "config": {"module": "keras_evil.losses"}},
        {"class_name": "Evil", "config": {"module": ["keras", EVIL]}},
        {"map": [["class_name", "PullDOM"], ["config", {"map": []}], ["module", EVIL]]},
        {"map": [["class_name", "Evil"], ["config", {"map": [["fn", {"map": [["module", EVIL]]}]]}]]},
        {"map": [["label", {"class_name": "Evil", "config": {"module": EVIL}}]]},
        [{"keras": "Evil", "config": {"module": EVIL}}],
        {"function": EVIL},
        {"pass": EVIL},
    ],
)
def test_a_module_outside_of_keras_is_refused(loss: Any) -> None:
    before = set(sys.modules)
    for recipe in ({"pass": "finetune", "loss": loss}, {"pass": "finetune", "optimizer": loss}):
        with pytest.raises(ConfigError):
            from_data(json.dumps(recipe))
    assert set(sys.modules) == before


def test_a_module_of_keras_is_named_and_not_imported() -> None:
    before = set(sys.modules)
    inner = {"module": "keras.initializers", "class_name": "Zeros", "config": {}}
    loss = {"class_name": "Custom", "config": {"start": inner}}
    made = from_data({"pass": "finetune", "loss": loss})
    assert isinstance(made, bw.Finetune)
    assert made.loss == loss
    assert set(sys.modules) == before


def test_a_keras_object_is_read_as_its_name_and_configuration() -> None:
    made = from_data({"pass": "finetune", "loss": {"keras": "Huber", "config": {"delta": 2.0}}})
    assert isinstance(made, bw.Finetune)
    assert made.loss == {"class_name": "Huber", "config": {"delta": 2.0}}


def test_a_configuration_keeps_its_lists() -> None:
    loss = {"class_name": "Custom", "config": {"weights": [1.0, 2.0], "names": ["a"]}}
    assert through_json(bw.Finetune(loss=loss)) == bw.Finetune(loss=loss)


# ---- names


def test_a_function_has_one_name() -> None:
    assert bw.register_function("tests.is_wide", is_wide) is is_wide
    with pytest.raises(ConfigError, match=r"'tests\.is_wide' is registered already"):
        bw.register_function("tests.is_wide", lambda parameter: False)


def test_a_pass_has_one_name() -> None:
    with pytest.raises(ConfigError, match=r"'quantize' is registered already: bitwidth\.passes\.quantize\.Quantize"):

        class Other(bw.Pass, name="quantize"):
            pass

    assert from_data({"pass": "quantize", "bits": 4}) == bw.Quantize(4)


class Announced:
    """An entry point of an installed package."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load = load


def test_a_pass_that_a_package_announces_is_loaded_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load() -> Any:
        @dataclass(frozen=True)
        class Extra(bw.Pass, name="tests.announced"):
            size: int = 1

            @override
            def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
                return graph

        loaded.append("tests.announced")
        return Extra

    monkeypatch.setattr(registry, "_PASSES", dict(registry._PASSES))
    monkeypatch.setattr(registry, "_announced", lambda: {"tests.announced": Announced(load)})
    from_data({"pass": "quantize", "bits": 4})
    with pytest.raises(ConfigError, match=r"known: .*tests\.announced"):
        from_data({"pass": "unheard"})
    assert loaded == []
    made = from_data({"pass": "tests.announced", "size": 3})
    assert type(made).__name__ == "Extra"
    assert to_data(made) == {"bitwidth": 2, "pass": "tests.announced", "size": 3}
    from_data({"pass": "tests.announced"})
    assert loaded == ["tests.announced"]


@pytest.mark.parametrize("given_one", [bw.Prune, object, is_wide, 5])
def test_an_announcement_of_something_else_is_refused(given_one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_announced", lambda: {"tests.other": Announced(lambda: given_one)})
    with pytest.raises(ConfigError, match=r"the entry point 'tests\.other' loads .*not a Pass declared with that name"):
        from_data({"pass": "tests.other"})


def test_announcements_come_from_the_metadata_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Point:
        name = "tests.point"

        @staticmethod
        def load() -> Any:
            return Tagged

    def entry_points(*, group: str) -> list[type[Point]]:
        asked.append(group)
        return [Point]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._announced.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"entry point 'tests\.point' loads .*Tagged"):
            from_data({"pass": "tests.point"})
        assert asked == ["bitwidth.passes"]
    finally:
        registry._announced.cache_clear()


def test_configurations_hold_plain_data() -> None:
    """Numbers of numpy are written as numbers; what has no plain form is refused with the field."""

    def optimizer(rate: object) -> bw.PassManager:
        return bw.PassManager([bw.Finetune(1, optimizer={"class_name": "Adam", "config": {"learning_rate": rate}})])

    written = optimizer(np.float32(0.5)).to_recipe()["passes"][0]["optimizer"]
    assert written == {"keras": "Adam", "config": {"learning_rate": 0.5}}
    with pytest.raises(bw.errors.ConfigError, match=r"optimizer: its configuration cannot.*object is not plain data"):
        optimizer(object()).to_recipe()
