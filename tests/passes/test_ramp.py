"""Ramps over models with frozen parts, of passes that move values, in selections, and with callbacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from bitwidth.backend import Progress
from bitwidth.data import digits
from tests import reference, zoo

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = (part[:384] for part in digits().train)


def tune(**fields: Any) -> bw.Finetune:
    return bw.Finetune(**{"epochs": 2, "loss": LOSS, "batch_size": 64, "learning_rate": 1e-2, **fields})


def transfer(kind: str) -> Any:
    """A model with a part that does not train."""
    layers = keras.layers
    norm = {
        "batch": layers.BatchNormalization,
        "layer": layers.LayerNormalization,
        "group": lambda name: layers.GroupNormalization(2, name=name),
    }
    body: list[Any] = [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(16, name="body")]
    if kind in norm:
        body.append(norm[kind](name="norm"))
    model = zoo.filled(keras.Sequential([*body, layers.ReLU(), layers.Dense(10, name="head")]))
    if kind == "frozen":
        model.get_layer("body").trainable = False
    return model


def run(model: Any, *passes: bw.Pass, data: Any = (X, Y), **options: Any) -> bw.Result:
    return bw.PassManager(passes).run(model, data, **options)


@pytest.mark.parametrize(
    "of", [bw.Prune(0.6), bw.Prune(0.6, scope="local"), bw.Quantize(3), bw.PassManager([bw.Prune(0.5), bw.Quantize(4)])]
)
def test_a_frozen_part_is_constrained_at_once_and_the_rest_is_ramped(of: bw.Pass) -> None:
    seen: list[int] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kernel = self.model.get_layer("body").kernel.numpy()
            seen.append(len(np.unique(kernel)))

    manager = bw.PassManager([bw.Ramp(of, during=tune(callbacks=[Watch()]))])
    manager.plan(transfer("frozen"))
    result = manager.run(transfer("frozen"), (X, Y))
    assert len(set(seen)) == 1, "the frozen kernel moved while the ramp ran"
    assert seen[0] < 16 * 64
    for path in ("body/kernel", "head/kernel"):
        assert result.graph[path].encoding.bits <= 4 or result.graph[path].encoding.mask is not None
    assert any("body/kernel" in remark for remark in result.report.passes[0].remarks)
    before = transfer("frozen").get_layer("body").kernel.numpy()
    np.testing.assert_array_equal(
        result.graph.values["body/kernel"], result.graph["body/kernel"].encoding.project(before)
    )


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
@pytest.mark.parametrize("of", [bw.Quantize(4), bw.Quantize(2, granularity="tensor")])
def test_quantization_is_ramped_over_any_normalisation(kind: str, of: bw.Pass) -> None:
    result = run(transfer(kind), bw.Ramp(of, during=tune(epochs=1)), data=(X, Y), validation=(X, Y))
    assert all(p.encoding.bits <= 16 for p in result.graph if p.is_float)


def test_all_of_a_model_may_be_frozen() -> None:
    model = transfer("plain")
    model.trainable = False
    result = run(model, bw.Ramp(bw.Prune(0.5), during=tune()))
    assert result.graph["head/kernel"].encoding.mask is not None


@pytest.mark.parametrize("kind", ["frozen", "batch", "layer"])
def test_nested_widths_over_a_frozen_part(kind: str) -> None:
    item = bw.Nested(bw.Quantize(8), (8, 4, 2), during=tune(epochs=1, learn_steps=True))
    result = run(transfer(kind), item)
    assert result.graph["body/kernel"].encoding.bits == 8
    said = any("not trainable, so at 8 bits" in remark for remark in result.report.passes[0].remarks)
    assert said == (kind == "frozen")


def test_fine_tuning_sees_a_frozen_kernel_as_it_is_held() -> None:
    seen = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(self.model.get_layer("body").kernel.numpy())

    result = run(transfer("frozen"), bw.Quantize(2), tune(epochs=1, callbacks=[Watch()]))
    for kernel in seen:
        np.testing.assert_array_equal(kernel, result.graph.values["body/kernel"])


@pytest.mark.parametrize("of", [bw.Prune(0.6), bw.Quantize(3), bw.PassManager([bw.Prune(0.5), bw.Quantize(4)])])
@pytest.mark.parametrize("backend", ["keras", "reference"])
def test_a_ramp_of_a_part_is_a_part_of_a_ramp(of: bw.Pass, backend: str) -> None:
    if backend == "keras":
        model, data, during, where = transfer("plain"), (X, Y), tune(), "head"
    else:
        model, data = reference.Network([6, 8, 2]), reference.regression()
        during, where = tune(loss="mse", batch_size=8), "layer1"
    first = run(model, bw.Ramp(bw.Where(of, where), during=during), data=data)
    second = run(model, bw.Where(bw.Ramp(of, during=during), where), data=data)
    for path in first.graph.parameters:
        np.testing.assert_array_equal(first.graph.values[path], second.graph.values[path])
    assert [r.path for r in first.report.passes[0].touched] == [r.path for r in second.report.passes[0].touched]


def test_a_chain_of_parts_is_ramped() -> None:
    of = bw.PassManager([bw.Where(bw.Prune(0.5), "body"), bw.Where(bw.Quantize(3), "head")])
    result = run(transfer("plain"), bw.Ramp(of, during=tune()))
    assert result.graph["body/kernel"].encoding.mask is not None
    assert result.graph["head/kernel"].encoding.bits == 3


@dataclass(frozen=True)
class Clip(bw.Pass, name="tests.clip"):
    """Moves values: clips kernels."""

    limit: float

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        context.remark(f"clipped to {self.limit:g}")
        chosen = [p.path for p in context.select(graph) if p.role == "kernel"]
        clipped = {path: np.clip(graph.values[path], -self.limit, self.limit) for path in chosen}
        return graph.update({path: graph[path].encoding.project(array) for path, array in clipped.items()})

    @override
    def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
        for p in context.selection(after).chosen:
            if p.role == "kernel" and np.abs(after.values[p.path]).max() > self.limit:
                raise bw.errors.ContractError("not clipped")

    @override
    def at(self, strength: float) -> Clip:
        return replace(self, limit=self.limit / max(strength, 0.05))


@dataclass(frozen=True)
class Shrink(Clip, name="tests.shrink"):
    """A soft threshold."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        chosen = [p.path for p in context.select(graph) if p.role == "kernel"]
        values = {path: graph.values[path] for path in chosen}
        return graph.update({p: np.sign(v) * np.maximum(np.abs(v) - self.limit, 0) for p, v in values.items()})

    @override
    def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
        pass

    @override
    def at(self, strength: float) -> Shrink:
        return replace(self, limit=self.limit * strength)


@pytest.mark.parametrize("backend", ["keras", "reference"])
@pytest.mark.parametrize("of", [Clip(0.05), bw.PassManager([Clip(0.04)]), bw.PassManager([Clip(0.1), bw.Prune(0.5)])])
def test_values_that_a_pass_moves_are_what_training_goes_on_from(of: bw.Pass, backend: str) -> None:
    model = transfer("plain") if backend == "keras" else reference.Network([6, 8, 2])
    data = (X, Y) if backend == "keras" else reference.regression()
    during = tune() if backend == "keras" else tune(loss="mse", batch_size=8)
    plain, result = (run(model, item, data=data) for item in (during, bw.Ramp(of, during=during)))
    limit = max(
        item.limit for item in (of.passes if isinstance(of, bw.PassManager) else [of]) if isinstance(item, Clip)
    )
    for p in result.graph:
        if p.role == "kernel":
            assert np.abs(result.graph.values[p.path]).max() <= limit
            assert np.abs(plain.graph.values[p.path]).max() > limit
    if isinstance(of, Clip):
        assert "clipped to 0.05" in result.report.passes[0].remarks


@pytest.mark.parametrize("kind", ["plain", "frozen"])
def test_a_soft_threshold_makes_weights_zero(kind: str) -> None:
    result = run(transfer(kind), bw.Ramp(Shrink(0.02), during=tune()))
    for path in ("body/kernel", "head/kernel"):
        assert (result.graph.values[path] == 0).mean() > 0.05


@dataclass(frozen=True)
class StartsLate(bw.Pass):
    """Constrains nothing at all until full strength."""

    full: bool = True

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        context.select(graph)
        return bw.Prune(0.5).apply(graph, context) if self.full else graph

    @override
    def at(self, strength: float) -> StartsLate:
        return StartsLate(strength == 1.0)


@dataclass(frozen=True)
class Everywhere(bw.Pass):
    """Does not ask what it may touch."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph.update({p.path: graph.values[p.path] * 2 for p in graph if p.is_float})

    @override
    def at(self, strength: float) -> Everywhere:
        return self


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (StartsLate(), "at the mildest strength"),
        (bw.Repeat(StartsLate(), 2), "at the mildest strength"),
        (bw.PassManager([bw.Prune(0.2), bw.Where(StartsLate(), "head")]), None),
        (Everywhere(), "was not given"),
    ],
)
def test_what_a_run_could_not_ramp_is_refused_by_plan_and_check(of: bw.Pass, message: str | None) -> None:
    manager = bw.PassManager([bw.Ramp(of, during=tune())])
    if message is None:  # the mask of another pass is there from the start
        manager.run(transfer("frozen"), (X, Y))
        return
    for call in (lambda: manager.plan(transfer("frozen")), lambda: manager.run(transfer("frozen"), (X, Y))):
        with pytest.raises(bw.errors.ConfigError, match=message) as caught:
            call()
        assert caught.value.pass_path[0] == "passes[0] Ramp"


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_ramp_starts_from_what_was_promised(bits: int) -> None:
    """The mildest strength, 8 bits, would break the promise of 4."""
    result = run(transfer("plain"), bw.Quantize(4), bw.Ramp(bw.Quantize(bits), during=tune(epochs=1)))
    assert result.graph["head/kernel"].encoding.bits == bits


@dataclass(frozen=True)
class NeedsMasks(bw.Pass):
    """Requires what is not there."""

    @override
    def requires(self, graph: bw.Graph, context: bw.Context) -> None:
        if all(parameter.encoding.mask is None for parameter in graph):
            raise bw.errors.ContractError("nothing is pruned yet")

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return bw.Prune(0.5).apply(graph, context)

    @override
    def at(self, strength: float) -> NeedsMasks:
        return self


@dataclass(frozen=True)
class Broken(bw.Quantize):
    """Promises what it does not keep."""

    @override
    def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
        raise bw.errors.ContractError("I promised more")


@dataclass(frozen=True)
class Picky(bw.Finetune):
    """A training with a requirement and a promise."""

    before: bool = True

    @override
    def requires(self, graph: bw.Graph, context: bw.Context) -> None:
        if self.before:
            raise bw.errors.ContractError("not yet")

    @override
    def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
        raise bw.errors.ContractError("not good enough")


@pytest.mark.parametrize(
    ("item", "path", "message"),
    [
        (bw.Ramp(NeedsMasks(), during=tune()), "Ramp > NeedsMasks", "nothing is pruned yet"),
        (bw.Ramp(bw.Where(NeedsMasks(), "*"), during=tune()), "Ramp > Where > NeedsMasks", "nothing is pruned"),
        (bw.Repeat(NeedsMasks(), 2), "Repeat > NeedsMasks", "nothing is pruned"),
        (bw.Ramp(bw.Prune(0.5), during=Picky(1, loss=LOSS)), "Ramp > Picky", "not yet"),
        (bw.Ramp(bw.Prune(0.5), during=Picky(1, loss=LOSS, before=False)), "Ramp > Picky", "not good enough"),
        (bw.Nested(bw.Quantize(8), (8, 4), during=Picky(1, loss=LOSS)), "Nested > Picky", "not yet"),
        (
            bw.Nested(bw.Quantize(8), (8, 4), during=Picky(1, loss=LOSS, before=False)),
            "Nested > Picky",
            "not good enough",
        ),
        (bw.Nested(Broken(8), (8, 4), during=tune()), "Nested > Broken", "I promised more"),
        (bw.CorrectBias(NeedsMasks()), "CorrectBias > NeedsMasks", "nothing is pruned"),
    ],
)
def test_requirements_and_promises_inside(item: bw.Pass, path: str, message: str) -> None:
    with pytest.raises(bw.errors.ContractError, match=message) as caught:
        run(transfer("plain"), bw.Quantize(8), item)
    assert " > ".join(caught.value.pass_path) == f"passes[1] {path}"
    assert str(caught.value).startswith(f"passes[1] {path}: ")


@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_schedule_of_widths_is_a_function_of_progress(times: int) -> None:
    nested = bw.Nested(bw.Quantize(8), (8, 4, 2), during=tune())
    total = 3 * times
    assert [nested.width(step, total) for step in range(total)] == [8, 4, 2] * times
    assert nested.width(total, total) == 8
    assert Progress(3, 12).fraction == 0.25


@pytest.mark.parametrize("of", [bw.Prune(0.9), bw.Quantize(2)])
def test_early_stopping_counts_from_full_strength_on(of: bw.Pass) -> None:
    stop = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True, mode="max")  # never better
    ramp = bw.Ramp(of, during=tune(epochs=8, callbacks=[stop]), end=0.5)
    result = run(transfer("plain"), ramp)
    assert not any("training ended at strength" in remark for remark in result.report.passes[0].remarks)
    assert 4 < len(result.report.passes[0].history["loss"]) <= 8
    assert stop.start_from_epoch == 0
    run(transfer("plain"), tune(epochs=8, callbacks=[stop]))


def test_a_callback_that_goes_back_over_a_ramp_is_refused(tmp_path: Any) -> None:
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    manager = bw.PassManager([bw.Ramp(bw.Prune(0.5), during=tune(callbacks=[backup]))])
    for call in (lambda: manager.plan(transfer("plain")), lambda: manager.run(transfer("plain"), (X, Y))):
        with pytest.raises(bw.errors.ConfigError, match="BackupAndRestore"):
            call()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adamm"}, "adamm"),
        ({"callbacks": (SimpleNamespace(set_model=print),)}, "callbacks must be"),
        ({"loss": "msee"}, "msee"),
        ({"metrics": ["accuracyy"]}, "accuracyy"),
        ({"optimizer": {"class_name": "Adamm", "config": {}}}, "Adamm"),
    ],
)
@pytest.mark.parametrize("inside", ["alone", "ramp", "where", "nested"])
def test_a_plan_refuses_what_a_run_refuses(fields: dict[str, Any], message: str, inside: str) -> None:
    during = tune(**fields)
    item: bw.Pass = {
        "alone": during,
        "ramp": bw.Ramp(bw.Prune(0.5, criterion="fisher"), during=during),
        "where": bw.Where(during, "head"),
        "nested": bw.Nested(bw.Quantize(8), (8, 4), during=during),
    }[inside]
    for call in (lambda: bw.PassManager([item]).plan(transfer("plain")), lambda: run(transfer("plain"), item)):
        with pytest.raises(bw.errors.BitwidthError, match=message):
            call()


@pytest.mark.parametrize("item", [tune(), bw.Where(tune(), "*"), bw.Repeat(tune(), 2)])
def test_a_plan_says_what_training_will_touch(item: bw.Pass) -> None:
    record = bw.PassManager([item]).plan(transfer("frozen")).passes[0]
    assert {r.path for r in record.touched} == {"head/kernel", "head/bias"}
    assert set(record.skipped.values()) == {"not trainable"}


@pytest.mark.parametrize(
    "item", [bw.Ramp(bw.Prune(0.5), tune()), bw.Nested(bw.Quantize(8, vectors=None), (8, 4), during=tune())]
)
def test_a_plan_of_a_ramp_says_what_its_training_will_touch(item: bw.Pass) -> None:
    record = bw.PassManager([item]).plan(transfer("frozen")).passes[0]
    assert {r.path for r in record.touched} == {"body/kernel", "head/kernel", "head/bias"}


@pytest.mark.parametrize(
    "item",
    [
        bw.Prune(0.5, criterion="fisher"),
        bw.Ramp(bw.Prune(0.5, criterion=bw.Fisher(8)), tune()),
        bw.Where(bw.Prune(0.5, criterion="fisher"), "*"),
    ],
)
def test_a_plan_says_that_it_shows_magnitude(item: bw.Pass) -> None:
    remarks = bw.PassManager([item]).plan(transfer("plain")).passes[0].remarks
    assert any("planned by magnitude" in remark for remark in remarks)


@dataclass(frozen=True)
class Counted(bw.Finetune):
    """Counts the trainings that have begun."""

    @override
    def train(self, graph: bw.Graph, context: bw.Context, steer: Any) -> bw.Graph:
        BEGUN.append(self.label)
        return super().train(graph, context, steer)


BEGUN: list[str] = []


@pytest.mark.parametrize(
    ("passes", "error"),
    [
        ([bw.Quantize(4), "train", bw.Ramp(bw.Quantize(5), tune())], bw.errors.PromiseError),
        ([bw.Quantize(4), "train", bw.Nested(bw.Quantize(8), (8, 4), during=tune())], bw.errors.PromiseError),
        ([bw.Quantize(2), "train", bw.Where(bw.Quantize(4), "head")], bw.errors.PromiseError),
        ([bw.Quantize(4), "train", bw.Repeat(bw.Quantize(5), 2)], bw.errors.PromiseError),
    ],
)
def test_nothing_is_trained_where_a_later_pass_would_be_refused(passes: list[Any], error: Any) -> None:
    BEGUN.clear()
    chain = [Counted(1, loss=LOSS) if item == "train" else item for item in passes]
    for call in (lambda: bw.PassManager(chain).plan(transfer("plain")), lambda: run(transfer("plain"), *chain)):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.pass_path[0].startswith("passes[2] ")
    assert not BEGUN
