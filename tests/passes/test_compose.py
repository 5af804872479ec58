"""Passes made of passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from tests import reference

DATA = reference.regression()
TUNE = bw.Finetune(epochs=4, loss="mse", learning_rate=0.05, batch_size=8)


def run(*passes: bw.Pass) -> bw.Result:
    return bw.PassManager(passes).run(reference.Network([6, 8, 2]), DATA)


def test_where_narrows_selections_further() -> None:
    result = run(bw.Where(bw.Quantize(4, where="layer*"), "layer1"))
    assert {record.path for record in result.report.passes[0].touched} == {"layer1/kernel", "layer1/bias"}
    with pytest.raises(bw.errors.SelectionError, match="within"):
        run(bw.Where(bw.Quantize(4, where="layer0"), "layer1"))


@dataclass(frozen=True)
class Everywhere(bw.Pass):
    """A pass that does not choose its parameters by `context.select`."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph.update({path: graph.values[path] * np.float32(2) for path in graph.values})


def test_a_pass_that_reaches_beyond_where_is_refused() -> None:
    with pytest.raises(bw.errors.ContractError, match=r"Everywhere changed layer1/kernel, which 'layer0' leaves out"):
        run(bw.Where(Everywhere(), "layer0"))


def test_where_around_a_chain() -> None:
    result = run(bw.Where(bw.PassManager([bw.Prune(0.5), TUNE]), "layer0"))
    assert {r.path for r in result.report.passes[0].touched} == {"layer0/kernel", "layer0/bias"}
    assert [inner.name for inner in result.report.passes[0].inner] == ["Prune", "Finetune"]


def test_repeat_runs_each_time_on_what_the_last_has_made() -> None:
    result = run(bw.Repeat(bw.Prune(0.5), times=3))
    assert [inner.name for inner in result.report.passes[0].inner] == ["Prune"] * 3
    assert (
        result.graph["layer0/kernel"].encoding.describe()
        == run(bw.Prune(0.5)).graph["layer0/kernel"].encoding.describe()
    )


@pytest.mark.parametrize(("shape", "half"), [("cubic", 0.875), ("linear", 0.5)])
def test_strength_grows_from_nothing_to_full(shape: Any, half: float) -> None:
    ramp = bw.Ramp(bw.Prune(0.8), during=TUNE, steps=10, end=0.5, shape=shape)
    strengths = [ramp.strength(t) for t in np.linspace(0, 1, 21)]
    assert strengths[0] == 0
    assert strengths[5] == pytest.approx(half)
    assert strengths[10:] == [1.0] * 11
    assert strengths == sorted(strengths)


def test_a_ramp_ends_at_full_strength() -> None:
    result = run(bw.Ramp(bw.Prune(0.8), during=TUNE))
    masks = [p.encoding.mask for p in result.graph if p.encoding.mask is not None]
    assert sum(int(mask.sum()) for mask in masks) == 13
    assert result.report.passes[0].history["loss"]


def test_a_short_training_still_ends_at_full_strength() -> None:
    short = bw.Finetune(epochs=1, loss="mse", batch_size=64)
    masks = [p.encoding.mask for p in run(bw.Ramp(bw.Prune(0.8), during=short)).graph if p.encoding.mask is not None]
    assert sum(int(mask.sum()) for mask in masks) == 13


def test_what_cannot_be_ramped_is_refused_at_once() -> None:
    for build in (
        lambda: bw.Ramp(TUNE, during=TUNE),
        lambda: bw.Ramp(bw.Prune(0.5), during=bw.Prune(0.5)),  # type: ignore[arg-type]
        lambda: bw.Ramp(bw.Prune(0.5), during=bw.Ramp(bw.Prune(0.5), during=TUNE)),
        lambda: bw.Ramp(bw.Prune(0.5), during=TUNE, steps=0),
        lambda: bw.Ramp(bw.Prune(0.5), during=TUNE, end=0.0),
        lambda: bw.Repeat(TUNE, times=0),
        lambda: bw.Repeat(bw.Prune, times=2),  # type: ignore[arg-type]
        lambda: bw.Where(bw.Prune(0.5), where=3),  # type: ignore[arg-type]
    ):
        with pytest.raises(bw.errors.ConfigError):
            build()


def test_a_ramp_of_quantization_cannot_start_without_its_grid() -> None:
    result = run(bw.Ramp(bw.Quantize(2), during=TUNE))
    assert result.graph["layer0/kernel"].encoding.bits == 2
