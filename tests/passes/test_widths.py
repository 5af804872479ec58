"""Widths by layer, all but some layers, and what is said when a later pass narrows an earlier one's choice."""

from __future__ import annotations

import json
from typing import Any

import pytest

import bitwidth as bw
from tests import reference

DATA = reference.regression()
TUNE = bw.Finetune(epochs=2, loss="mse", batch_size=8)


def network() -> reference.Network:
    return reference.Network([6, 8, 8, 2])


def run(*passes: bw.Pass) -> bw.Result:
    return bw.PassManager(passes).run(network(), DATA)


def bits(result: bw.Result) -> list[float]:
    return [result.graph[f"layer{i}/kernel"].encoding.bits for i in range(3)]


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ({"layer0": 8, None: 4}, [8, 4, 4]),
        ({None: 3, "layer2": 6, "layer0": 8}, [8, 3, 6]),
        ({"layer[02]": 5, None: 2}, [5, 2, 5]),
        ({"layer1/kernel": 4}, [32, 4, 32]),
    ],
)
def test_widths_by_layer(widths: Any, expected: list[float]) -> None:
    item = bw.Quantize(widths)
    assert bits(run(item)) == expected
    assert bits(run(bw.Ramp(item, during=TUNE))) == expected
    assert bits(run(bw.Where(item, "*"))) == expected
    again = bw.PassManager.from_recipe(json.dumps(bw.PassManager([item]).to_recipe()))
    assert again == bw.PassManager([item])
    assert [
        r.bits for r in bw.PassManager([item]).plan(network()).passes[0].parameters if r.role == "kernel"
    ] == expected
    json.dumps(run(item).report.to_dict())


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({}, "bits by layer"),
        ({3: 4}, "bits by layer"),
        ({"layer0": 0}, "from 1 to 16"),
        ({"layer0": True}, "from 1 to 16"),
        ({"layer9": 4, None: 2}, "layer9"),
        ({"layer0": 4, "layer0/kernel": 5}, "twice"),
    ],
)
def test_widths_that_do_not_fit_are_refused_before_work_starts(widths: Any, message: str) -> None:
    for method in ("plan", "run"):
        with pytest.raises(bw.errors.ConfigError, match=message):
            getattr(bw.PassManager([bw.Quantize(widths)]), method)(network())


def test_what_no_width_names_is_said() -> None:
    record = run(bw.Quantize({"layer0": 8})).report.passes[0]
    assert record.skipped["layer1/kernel"] == "no width in `bits` names it"


@pytest.mark.parametrize(
    "passes",
    [
        [bw.Quantize(8, where=["layer0", "layer2"]), bw.Quantize(4)],
        [bw.Quantize(8, where="layer0"), bw.Where(bw.Quantize(4), "*")],
        [bw.Quantize(8), bw.Ramp(bw.Quantize(2), during=TUNE)],
        [bw.Prune(0.5), bw.Quantize(8), bw.Repeat(bw.PassManager([bw.Quantize(4)]), 2)],
    ],
)
def test_narrowing_what_an_earlier_pass_chose_is_said_once(passes: list[bw.Pass]) -> None:
    for report in (run(*passes).report, bw.PassManager(passes).plan(network())):
        last = report.passes[-1]
        said = [
            remark
            for record in (last, *last.inner, *(i for r in last.inner for i in r.inner))
            for remark in record.remarks
        ]
        said = [remark for remark in said if "fewer bits than an earlier pass chose" in remark]
        assert len(said) == 1
        assert "layer0/kernel (8 to " in said[0]
        assert not any("fewer bits" in remark for record in report.passes[:-1] for remark in record.remarks)


@pytest.mark.parametrize("out", ["layer0", ["layer0", "layer2"], "*kernel"])
def test_all_but(out: Any) -> None:
    everything = {p.path for p in run().graph}
    named = {p.path for p in run().graph.select(out)}
    assert {p.path for p in run().graph.select(bw.AllBut(out))} == everything - named
    item = bw.Quantize(4, where=bw.AllBut(out))
    touched = {record.path for record in run(bw.Quantize(8, where=out), item).report.passes[1].touched}
    assert touched == everything - named
    assert bw.PassManager.from_recipe(json.dumps(bw.PassManager([item]).to_recipe())) == bw.PassManager([item])


@pytest.mark.parametrize("out", [None, 3, [], "layer9", "*", bw.AllBut("layer9")])
def test_all_but_what_is_not_there_is_refused(out: Any) -> None:
    with pytest.raises(bw.errors.SelectionError):
        bw.PassManager([bw.Prune(0.5, where=bw.AllBut(out))]).plan(network())
