"""A pass that removes entries, as a user would write one: promises, records and data go through the cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers
from typing_extensions import override

import bitwidth as bw
from bitwidth.encodings import Masked
from bitwidth.errors import ModelError
from bitwidth.graph import Cut, Graph
from tests import reference

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(units: int = 8) -> Any:
    keras.utils.set_random_seed(1)
    stack = [keras.Input((6,)), layers.Dense(units, "relu", name="hidden"), layers.Dropout(0.1, name="drop")]
    return keras.Sequential([*stack, layers.Dense(3, name="out")], name="net")


def halved(graph: Graph, first: str, second: str) -> tuple[int, Cut]:
    """The half of the hidden units with the greatest weights, for two dense layers."""
    norms = np.abs(graph.values[f"{first}/kernel"]).sum(axis=0)
    best = np.sort(np.argsort(-norms)[: len(norms) // 2])
    return len(best), Cut({f"{first}/kernel": {1: best}, f"{first}/bias": {0: best}, f"{second}/kernel": {0: best}})


@dataclass(frozen=True)
class HalveKeras(bw.Pass):
    cuts: ClassVar[bool] = True

    @override
    def apply(self, graph: Graph, context: bw.Context) -> Graph:
        count, cut = halved(graph, "hidden", "out")
        context.remark(f"{count} units are left")
        return context.session.move(graph, network(count), cut)


@dataclass(frozen=True)
class HalveReference(bw.Pass):
    cuts: ClassVar[bool] = True

    @override
    def apply(self, graph: Graph, context: bw.Context) -> Graph:
        count, cut = halved(graph, "layer0", "layer1")
        return context.session.move(graph, reference.Network([6, count, 2]), cut)


def test_a_chain_around_a_cut_keeps_what_was_promised(tmp_path: Path) -> None:
    model = network()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    chain = [bw.Prune(0.5, scope="local"), HalveKeras(), bw.Quantize(4), bw.Finetune(epochs=1), HalveKeras()]
    result = bw.PassManager(chain).run(model, (X, Y), (X, Y))
    assert [p.shape for p in result.graph if p.role == "kernel"] == [(6, 2), (2, 3)]
    assert result.model.get_layer("hidden").units == 2
    assert result.model.compiled
    mask = result.graph["hidden/kernel"].encoding.mask
    assert mask is not None
    assert (result.graph.values["hidden/kernel"][~mask] == 0).all()
    assert all(len(record.touched) > 0 for record in result.report.passes)
    assert all("kl" in record.fidelity for record in result.report.passes)
    assert result.report.passes[0].bytes_before is not None
    result.save(tmp_path / "small.bw")
    np.testing.assert_array_equal(
        bw.load(tmp_path / "small.bw").predict(X, verbose=0), result.model.predict(X, verbose=0)
    )
    assert model.get_layer("hidden").units == 8
    again = bw.PassManager([HalveKeras()]).run(result, (X, Y))
    assert again.graph["hidden/kernel"].shape == (6, 1)
    assert isinstance(again.graph["hidden/kernel"].encoding, Masked)


def test_the_cut_model_computes_what_is_left_of_the_old_one() -> None:
    before = bw.PassManager([bw.Quantize(8)]).run(network())
    after = bw.PassManager([HalveKeras()]).run(before)
    kept = after.graph.structure.cut.kept["hidden/kernel"][1]
    hidden = np.maximum(
        X @ before.model.get_layer("hidden").kernel.numpy() + before.model.get_layer("hidden").bias.numpy(), 0
    )
    out = before.model.get_layer("out")
    expected = hidden[:, kept] @ out.kernel.numpy()[kept] + out.bias.numpy()
    np.testing.assert_allclose(after.model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-5)


def test_an_opened_model_is_cut_in_one_run_and_whole_in_the_next() -> None:
    opened = bw.open(network(), (X, Y))
    small = bw.PassManager([HalveKeras(), bw.Quantize(4)]).run(opened)
    whole = bw.PassManager([bw.Quantize(4)]).run(opened)
    assert small.graph["hidden/kernel"].shape == (6, 4)
    assert whole.graph["hidden/kernel"].shape == (6, 8)
    assert small.size < whole.size
    with pytest.raises(ModelError, match="several results share"):
        opened.session.move(opened.graph, network(4), Cut())


def test_a_model_that_is_not_the_cut_one_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong(bw.Pass):
        cuts: ClassVar[bool] = True

        @override
        def apply(self, graph: Graph, context: bw.Context) -> Graph:
            return context.session.move(graph, network(5), halved(graph, "hidden", "out")[1])

    with pytest.raises(ModelError, match=r"hidden/kernel: of shape \(6, 5\) in the cut model, and \(6, 4\) is left"):
        bw.PassManager([Wrong()]).run(network())


def test_the_reference_backend_moves_too() -> None:
    data = reference.regression()
    chain = [bw.Prune(0.5, scope="local"), HalveReference(), bw.Quantize(4), bw.Finetune(epochs=2, loss="mse")]
    result = bw.PassManager(chain).run(reference.Network([6, 8, 2]), data)
    assert [p.shape for p in result.graph if p.role == "kernel"] == [(6, 4), (4, 2)]
    assert result.graph["layer0/kernel"].encoding.mask is not None
