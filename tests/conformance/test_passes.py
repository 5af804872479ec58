"""Every pass passes the conformance suite: on the numpy reference backend, and on a Keras model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from bitwidth.testing import check_pass, check_ramp, inside
from tests import reference, zoo


@dataclass(frozen=True)
class RoundBiases(bw.Pass, name="tests.round_biases"):
    """The ten-line pass of a user."""

    digits: int = 2

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        biases = [p for p in context.select(graph) if p.role == "bias" and p.encoding.bits == 32]
        return graph.update({bias.path: np.round(graph.values[bias.path], self.digits) for bias in biases})


def smallest_variance(parameter: bw.Parameter, graph: bw.Graph, context: bw.Context) -> Any:
    """A user's criterion: how far a weight is from the mean of its output."""
    values = graph.values[parameter.path]
    return np.square(values - values.mean(axis=0))


bw.register_function("tests.smallest_variance", smallest_variance)
TUNE = bw.Finetune(epochs=2, loss="mse", learning_rate=0.01, batch_size=8)
PASSES: dict[str, bw.Pass] = {
    "prune": bw.Prune(0.5),
    "prune local": bw.Prune(0.7, scope="local"),
    "prune fisher": bw.Prune(0.5, criterion=bw.Fisher(samples=16, likelihood="gaussian")),
    "prune 1:2": bw.Prune(pattern="1:2"),
    "prune 2:4 activation": bw.Prune(pattern="2:4", criterion="activation", where="layer1*", samples=16),
    "prune blocks": bw.Prune(0.4, pattern=bw.Block(2, 3)),
    "prune rows": bw.Prune(0.3, pattern="rows", criterion=bw.Fisher(samples=16, likelihood="gaussian")),
    "prune columns": bw.Prune(0.3, pattern="columns", scope="local"),
    "prune activation": bw.Prune(0.6, criterion="activation", samples=32),
    "prune compensation": bw.Prune(0.5, criterion="compensation", samples=32),
    "prune compensation 1:2": bw.Prune(pattern="1:2", criterion="compensation"),
    "prune compensation blocks": bw.Prune(0.4, pattern="block", criterion="compensation", scope="local", floor=0),
    "prune function": bw.Prune(0.5, criterion=smallest_variance),
    "ramp prune movement": bw.Ramp(bw.Prune(0.5, criterion="movement"), during=TUNE),
    "ramp prune 1:2": bw.Ramp(bw.Prune(pattern="1:2", criterion="activation", samples=32), during=TUNE),
    "ramp prune rows": bw.Ramp(bw.Prune(0.4, pattern="rows"), during=TUNE),
    "quantize 8": bw.Quantize(8),
    "quantize 4 groups": bw.Quantize(4, granularity=2),
    "quantize 3 per tensor": bw.Quantize(3, granularity="tensor", scale="max", vectors=None),
    "quantize few-bit vectors": bw.Quantize(4, vectors="auto", samples=32),
    "quantize 1": bw.Quantize(1),
    "quantize 16": bw.Quantize(16),
    "quantize lopsided": bw.Quantize(4, symmetric=False),
    "quantize powers": bw.Quantize(4, rule="power_of_two"),
    "quantize codebook": bw.Quantize(3, rule="codebook", importance="fisher", samples=16),
    "quantize ternary": bw.Quantize(rule="ternary"),
    "quantize binary": bw.Quantize(rule="binary", granularity=3),
    "quantize table": bw.Quantize(rule=bw.BitRule([[1, 2, 4, 8], [1, 3]], symmetric=True)),
    "quantize escape": bw.Quantize(3, escape=bw.Escape(quantile=0.9)),
    "quantize feedback": bw.Quantize(3, rounding="error_feedback", samples=32),
    "quantize entropy": bw.Quantize(4, rounding="entropy", importance="inputs"),
    "quantize rate": bw.Quantize(rate=2.5, rounding="error_feedback", samples=32),
    "quantize rate local": bw.Quantize(rate=3, scope="local"),
    "quantize step": bw.Quantize(step=0.5, rounding="entropy"),
    "quantize activations": bw.Quantize(8, activations=8),
    "finetune": TUNE,
    "distill": bw.Distill(epochs=2, loss="mse", learning_rate=0.01, batch_size=8),
    "distill with labels": bw.Distill(epochs=1, loss="mse", learning_rate=0.01, batch_size=8, alpha=0.5),
    "distill norms and biases": bw.Distill(epochs=1, learning_rate=0.01, batch_size=8, only="norms_and_biases"),
    "ramp prune": bw.Ramp(bw.Prune(0.6), during=TUNE),
    "ramp quantize": bw.Ramp(bw.Quantize(4), during=TUNE),
    "repeat": bw.Repeat(bw.PassManager([bw.Prune(0.3), TUNE]), times=2),
    "where": bw.Where(bw.Quantize(8), "*kernel"),
    "chain": bw.PassManager([bw.Prune(0.5), TUNE, bw.Quantize(4), TUNE]),
    "empty chain": bw.PassManager([]),
    "a user's": RoundBiases(digits=1),
    "shrink": bw.Shrink(keep=0.5, samples=32),
    "shrink by magnitude": bw.Shrink(keep=0.5, criterion="magnitude", refit=False),
    "shrink by fisher": bw.Shrink(units=3, criterion="fisher", samples=16),
    "shrink to a budget": bw.Shrink(macs=0.6, criterion="activation", multiple_of=2, samples=32),
    "shrink dense": bw.ShrinkDense(parameters=0.7, samples=32),
    "shrink in a chain": bw.PassManager([bw.Prune(0.5), bw.ShrinkDense(keep=0.5), TUNE, bw.Quantize(4)]),
    "factorize": bw.Factorize(0.3, samples=32),
    "factorize within an error": bw.Factorize(error=0.6, samples=32),
    "factorize to a budget": bw.Factorize(macs=0.7, samples=32),
    "factorize in a chain": bw.PassManager([bw.Factorize(parameters=0.7), TUNE, bw.Prune(0.3), bw.Quantize(4)]),
    "correct bias": bw.CorrectBias(bw.Quantize(3), samples=32),
    "correct bias in turn": bw.CorrectBias(bw.Quantize(3), samples=32, sequential=True),
    "correct bias chain": bw.CorrectBias(bw.PassManager([bw.Prune(0.3), bw.Quantize(3)]), samples=32),
    "equalize layers": bw.EqualizeLayers(iterations=5),
    "fold batch norm": bw.FoldBatchNorm(),
    "reestimate batch norm": bw.ReestimateBatchNorm(samples=32),
    "all corrections": bw.PassManager(
        [
            bw.FoldBatchNorm(),
            bw.EqualizeLayers(),
            bw.CorrectBias(bw.Quantize(3), samples=32),
            bw.ReestimateBatchNorm(samples=32),
        ]
    ),
}
KERAS = [
    "prune compensation",
    "quantize rate",
    "quantize activations",
    "quantize codebook",
    "prune fisher",
    "quantize 4 groups",
    "ramp prune",
    "chain",
    "shrink",
    "shrink to a budget",
    "factorize in a chain",
    "a user's",
]
CORRECTIONS = ["correct bias", "equalize layers", "fold batch norm", "reestimate batch norm", "all corrections"]


@pytest.mark.parametrize("name", PASSES)
def test_conforms_on_the_reference_backend(name: str) -> None:
    data = reference.regression()
    result = check_pass(PASSES[name], reference.Network([6, 8, 2]), data, data, depth=2)
    assert result.report.passes


@pytest.mark.parametrize("name", KERAS)
def test_conforms_on_keras(name: str) -> None:
    inputs = zoo.batch("mlp", 16)
    model = zoo.MODELS["mlp"]()
    targets = np.zeros(model(inputs).shape, np.float32)
    check_pass(PASSES[name], model, (inputs, targets), during=TUNE, depth=0)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_conform_on_a_convolutional_network(name: str) -> None:
    check_pass(PASSES[name], zoo.MODELS["convnet_bn"](), zoo.batch("convnet_bn", 32), depth=0)


@pytest.mark.parametrize("item", [bw.Prune(0.9), bw.Quantize(3), bw.Quantize(12), bw.Where(bw.Prune(0.2), "a*")])
def test_strengths(item: bw.Pass) -> None:
    check_ramp(item)


@dataclass(frozen=True)
class Unprune(bw.Pass):
    """Tries to undo what was promised."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph.update({p.path: graph.values[p.path] + np.float32(0.001) for p in graph if p.role == "kernel"})


def test_a_pass_that_undoes_promises_is_refused() -> None:
    pruned = bw.PassManager([bw.Prune(0.5)]).run(reference.Network([6, 8, 2]))
    with pytest.raises(bw.errors.PromiseError, match="layer0/kernel"):
        bw.PassManager([Unprune()]).run(pruned)


@dataclass(frozen=True)
class Sleepy(bw.Pass):
    """Defines `at`, and does nothing where it is asked by a ramp."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph if context.only is not None else bw.Prune(0.5).apply(graph, context)

    @override
    def at(self, strength: float) -> Sleepy:
        return self


@dataclass(frozen=True)
class Surprising(bw.Pass):
    """Is planned, and then refuses to run."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        if "Repeat" in "".join(context.path):
            raise bw.errors.ContractError("not here")
        return graph

    @override
    def preview(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph


@pytest.mark.parametrize(
    ("item", "message"), [(Sleepy(), "a ramp of Sleepy does nothing"), (Surprising(), "planned, and then refused")]
)
def test_the_suite_finds_passes_that_do_not_compose(item: bw.Pass, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_pass(item, reference.Network([6, 8, 2]), reference.regression(), during=TUNE)


def test_every_combinator_is_tried_two_deep() -> None:
    names = {made.label.partition("(")[0] for made in inside(bw.Prune(0.5), TUNE, 2)}
    assert names == {"PassManager", "Where", "Repeat", "CorrectBias", "Ramp"}
    assert len(list(inside(bw.Prune(0.5), TUNE, 2))) >= 20
