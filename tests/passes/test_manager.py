"""The manager: order, records, plan, measuring, errors before work starts; and the contract of a pass."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

import bitwidth as bw
from tests import reference

DATA = reference.regression()
TUNE = bw.Finetune(epochs=3, loss="mse", learning_rate=0.05, batch_size=8)


def network() -> reference.Network:
    return reference.Network([6, 8, 2])


def test_measures_before_and_after_each_pass() -> None:
    report = bw.PassManager([bw.Prune(0.5), TUNE]).run(network(), DATA, DATA).report
    assert set(report.initial) == {"loss"}
    assert report.passes[0].metrics["loss"] > report.passes[1].metrics["loss"]
    assert "0.1" not in json.dumps(report.to_dict()["passes"][0]["config"]["scope"])
    text = str(report)
    for word in ("as given", "1. Prune", "2. Finetune", "layer0/kernel", "left alone (bias:", "in file"):
        assert word in text


def test_every_parameter_is_accounted_for_by_every_pass() -> None:
    report = bw.PassManager([bw.Prune(0.5), TUNE, bw.Quantize(4)]).run(network(), DATA).report
    for record in report:
        accounted = {r.path for r in record.touched} | set(record.skipped)
        assert accounted == {"layer0/kernel", "layer0/bias", "layer1/kernel", "layer1/bias"}


def test_plan_needs_no_data_and_changes_nothing() -> None:
    model = network()
    before = reference.checksum(model)
    manager = bw.PassManager([bw.Prune(0.5, criterion="fisher"), TUNE, bw.Quantize(4)])
    plan = manager.plan(model)
    done = manager.run(model, DATA).report
    assert reference.checksum(model) == before
    assert plan.planned
    assert [len(record.touched) for record in plan][::2] == [len(record.touched) for record in done][::2]
    sizes = [sum(r.bytes_after or 0 for r in report.passes[-1].parameters) for report in (plan, done)]
    assert abs(sizes[0] - sizes[1]) <= 4
    assert "trains 4 parameters" in plan.passes[1].remarks[0]


def test_report_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(network())
    result.save(tmp_path / "x.bw")
    inside = bw.inspect(tmp_path / "x.bw")
    assert {entry.path: entry.bytes for entry in inside.parameters} == result.report.file_bytes
    assert inside.bytes == result.size == (tmp_path / "x.bw").stat().st_size


def test_nothing_runs_when_a_later_pass_cannot() -> None:
    ran: list[str] = []

    @dataclass(frozen=True)
    class Noisy(bw.Pass):
        @override
        def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
            ran.append("ran")
            return graph

    for late in (bw.Finetune(1), bw.Quantize(4, where="layer9"), bw.Prune(0.5, criterion="fisher")):
        with pytest.raises(bw.errors.BitwidthError):
            bw.PassManager([Noisy(), late]).run(network())
    assert not ran


@pytest.mark.parametrize("passes", [[bw.Quantize], [3], bw.Quantize(4), "prune", [bw.Prune(0.1), None]])
def test_only_passes_are_taken(passes: Any) -> None:
    with pytest.raises(bw.errors.ConfigError, match="PassManager"):
        bw.PassManager(passes)


@pytest.mark.parametrize("model", [None, reference.Network, 3, "model.keras", {}])
def test_only_models_are_taken(model: Any) -> None:
    with pytest.raises(bw.errors.BitwidthError, match="expected a"):
        bw.PassManager([]).run(model)


@pytest.mark.parametrize("data", [(DATA[0][:0], DATA[1][:0]), DATA[0][:0]])
def test_empty_data(data: Any) -> None:
    with pytest.raises(bw.errors.DataError, match="empty"):
        bw.PassManager([bw.Quantize(4)]).run(network(), data)


def test_weights_that_are_not_finite() -> None:
    model = network()
    model.weights[0][0, 0] = np.nan
    with pytest.raises(bw.errors.ModelError, match="not finite"):
        bw.PassManager([bw.Quantize(4)]).run(model)


class Undecorated(bw.Pass):
    """Its field is none."""

    amount: float = 0.5

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph


@dataclass(frozen=True)
class OffGrid(bw.Pass):
    """Moves values off their grid."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph.update({p.path: graph.values[p.path] * np.float32(1.01) for p in context.select(graph)})


@dataclass(frozen=True)
class GivesNothing(bw.Pass):
    """Forgets to return."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> Any:
        return None


@dataclass(frozen=True)
class Liar(bw.Pass):
    """Promises what it does not do."""

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph

    @override
    def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
        raise bw.errors.ContractError("I promised more")


@dataclass(frozen=True)
class NeedsMasks(bw.Pass):
    """Needs what the passes before have to leave."""

    @override
    def requires(self, graph: bw.Graph, context: bw.Context) -> None:
        if all(parameter.encoding.mask is None for parameter in graph):
            raise bw.errors.ContractError("NeedsMasks: nothing is pruned yet")

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (OffGrid(), bw.errors.PromiseError, r"OffGrid leaves \d+ values of layer0/kernel that its encoding \(4-bit"),
        (GivesNothing(), bw.errors.ContractError, "must return a Graph, got NoneType"),
        (Undecorated(), bw.errors.ContractError, "decorate it with @dataclass"),
        (Liar(), bw.errors.ContractError, "I promised more"),
        (NeedsMasks(), bw.errors.ContractError, "nothing is pruned yet"),
    ],
)
def test_contracts(item: bw.Pass, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bw.PassManager([bw.Quantize(4), item]).run(network())


def test_requires_is_met_by_the_pass_before() -> None:
    bw.PassManager([bw.Prune(0.5), NeedsMasks()]).run(network())


PACKAGE = """
from dataclasses import dataclass
import numpy as np
import bitwidth as bw

@dataclass(frozen=True)
class Halve(bw.Pass, name="thirdparty.halve"):
    def apply(self, graph, context):
        return graph.update({p.path: graph.values[p.path] / 2 for p in context.select(graph)})
"""


def test_a_package_announces_its_passes_by_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "thirdparty.py").write_text(PACKAGE)
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bitwidth.passes]\nthirdparty.halve = thirdparty:Halve\n")
    code = (
        "import sys, bitwidth as bw\n"
        "assert 'thirdparty' not in sys.modules\n"
        "made = bw.PassManager.from_recipe({'pass': 'thirdparty.halve'})\n"
        "print(made.passes[0], made.to_recipe())\n"
    )
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": f"{tmp_path}:{root}"}
    arguments = [sys.executable, "-c", code]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Halve()" in done.stdout
    assert "thirdparty.halve" in done.stdout


@dataclass(frozen=True)
class Foreign(bw.Pass):
    """Fails with an error of another library."""

    where: str = "apply"

    @override
    def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
        return graph if self.where != "apply" else {}["nothing"]  # type: ignore[index]

    @override
    def check(self, graph: bw.Graph, context: bw.Context) -> None:
        if self.where == "check":
            raise ZeroDivisionError("nothing")


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda item: item, "passes[1] Foreign"),
        (lambda item: bw.Where(item, "layer0"), "passes[1] Where > Foreign"),
        (lambda item: bw.Repeat(bw.PassManager([item]), 2), "passes[1] Repeat > PassManager > passes[0] Foreign"),
        (lambda item: bw.CorrectBias(item), "passes[1] CorrectBias > Foreign"),
    ],
)
@pytest.mark.parametrize(("where", "kind"), [("apply", KeyError), ("check", ZeroDivisionError)])
def test_an_error_of_another_library_gets_the_place_as_a_note(wrap: Any, path: str, where: str, kind: Any) -> None:
    with pytest.raises(kind) as caught:
        bw.PassManager([bw.Prune(0.5), wrap(Foreign(where))]).run(network(), DATA)
    assert caught.value.__notes__ == [f"bitwidth: raised in {path}"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (bw.Quantize(4, where="layer9"), "passes[1] Quantize: where='layer9' is not a layer"),
        (
            bw.Where(bw.Quantize(4, where="layer9"), "layer0"),
            "passes[1] Where > Quantize: where='layer9' is not",
        ),
        (bw.Prune(0.5, where="*bias"), "passes[1] Prune: nothing to do"),
        (bw.Finetune(1), "passes[1] Finetune: no loss"),
    ],
)
def test_an_error_of_a_pass_begins_with_its_place(item: bw.Pass, message: str) -> None:
    with pytest.raises(bw.errors.ConfigError) as caught:
        bw.PassManager([bw.Prune(0.5), item]).run(network(), DATA)
    assert str(caught.value).startswith(message)


def test_no_check_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    @dataclass(frozen=True)
    class Noted(bw.Pass):
        @override
        def check(self, graph: bw.Graph, context: bw.Context) -> None:
            calls.append("check")

        @override
        def requires(self, graph: bw.Graph, context: bw.Context) -> None:
            calls.append("requires")

        @override
        def ensures(self, before: bw.Graph, after: bw.Graph, context: bw.Context) -> None:
            calls.append("ensures")

        @override
        def apply(self, graph: bw.Graph, context: bw.Context) -> bw.Graph:
            calls.append("apply")
            return graph

    once = ["check", "requires", "apply", "ensures"]
    for item in (Noted(), bw.Where(Noted(), "layer0"), bw.Repeat(Noted(), 1), bw.CorrectBias(Noted())):
        for chain in (bw.PassManager([item]), bw.PassManager([bw.PassManager([item])])):
            calls.clear()
            chain.run(network(), DATA)
            assert calls == once, item.label
