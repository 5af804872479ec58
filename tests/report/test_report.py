from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.encodings import Dense, Encoding, IntegerLevels, Masked, Quantized, uniform_levels
from bitwidth.graph import Graph, Parameter, Structure
from bitwidth.report import FileSize, PassRecord, Report, Weigh, compare, distortion, packed_bytes

KERNEL = np.array([[1.0, -2.0], [0.0, 4.0], [3.0, 0.5]], np.float32)


def graph() -> Graph:
    parameters = [
        Parameter("a/kernel", (3, 2), "float32", "kernel", "a"),
        Parameter("a/bias", (2,), "float32", "bias", "a"),
        Parameter("b/steps", (), "int32", "state", "b"),
        Parameter("c/table", (0, 4), "float32", "embedding", "c"),
    ]
    values: dict[str, NDArray[Any]] = {
        "a/kernel": KERNEL,
        "a/bias": np.zeros(2, np.float32),
        "b/steps": np.array(3, np.int32),
        "c/table": np.zeros((0, 4), np.float32),
    }
    return Graph(Structure("net", (), (), (), (), ()), parameters, values)


def grid(bits: int | None, scale: float = 1.0) -> Quantized:
    levels = IntegerLevels() if bits is None else uniform_levels(bits)
    return Quantized(levels, np.array([[scale]], np.float32), (3, 2))


def record(encodings: dict[str, Encoding], skipped: dict[str, str] | None = None, **fields: Any) -> PassRecord:
    before = graph()
    parameters = compare(before, before.update(encodings=encodings), skipped or {})
    return PassRecord("Quantize", {"bits": 4, "where": None}, 1.25, parameters, **fields)


def test_a_record_says_what_changed() -> None:
    before = graph()
    after = before.update(encodings={"a/kernel": grid(4, 0.5)})
    kernel, bias, steps, table = compare(before, after, {"a/bias": "bias: one number per channel", "c/table": "empty"})
    assert (kernel.path, kernel.before, kernel.after) == ("a/kernel", "dense", "4-bit x1")
    assert kernel.bits == 4
    assert kernel.sparsity == pytest.approx(1 / 6)
    assert kernel.bytes_before == 24
    assert kernel.bytes_after == (6 * 4 + 16 + 7) // 8
    assert kernel.distortion == pytest.approx(0.25 / (KERNEL**2).sum())  # 4 is clipped to 7 * 0.5
    assert kernel.reason == ""
    assert bias.reason == "bias: one number per channel"
    assert (bias.sparsity, bias.distortion) == (1.0, 0.0)
    assert steps.reason == "left as it was"
    assert (steps.sparsity, steps.distortion) == (0.0, 0.0)
    assert table.reason == "empty"
    assert (table.sparsity, table.bytes_after) == (0.0, 0)


def test_a_reason_is_dropped_where_the_parameter_was_changed() -> None:
    done = record({"a/kernel": grid(4)}, {"a/kernel": "not this one"})
    assert [found.path for found in done.touched] == ["a/kernel"]
    assert set(done.skipped) == {"a/bias", "b/steps", "c/table"}


def test_new_values_alone_are_a_change() -> None:
    before = graph()
    kernel = compare(before, before.update({"a/kernel": KERNEL * 2}), {})[0]
    assert (kernel.before, kernel.after, kernel.reason) == ("dense", "dense", "")
    assert kernel.distortion == pytest.approx(1.0)


def test_a_mask_counts_in_bytes_and_zeros() -> None:
    keep = np.array([[True, False], [False, True], [False, False]])
    kernel = record({"a/kernel": Masked(keep, Dense("float16"))}).parameters[0]
    assert kernel.sparsity == pytest.approx(4 / 6)
    assert kernel.bytes_after == (6 + 2 * 16 + 7) // 8


def test_codes_without_a_bound_have_no_bits_and_no_bytes() -> None:
    done = record({"a/kernel": grid(None)})
    kernel = done.parameters[0]
    assert (kernel.bits, kernel.bytes_before, kernel.bytes_after) == (None, 24, None)
    assert packed_bytes(grid(None), graph()["a/kernel"]) is None
    keep = np.ones((3, 2), bool)
    assert packed_bytes(Masked(keep, grid(None)), graph()["a/kernel"]) is None
    text = str(Report("net", (done,)))
    assert "integer steps x1" in text
    json.dumps(Report("net", (done,)).to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0),
        ([3.0, 4.0], [3.0, 3.5], 0.01),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [1.0, 0.0], 1.0),
        ([], [], 0.0),
    ],
)
def test_distortion(before: list[float], after: list[float], expected: float) -> None:
    assert distortion(np.array(before, np.float32), np.array(after, np.float32)) == pytest.approx(expected)


def test_distortion_is_summed_in_double_precision() -> None:
    large = np.full(1000, 1e30, np.float32)
    assert distortion(large, large / 2) == pytest.approx(0.25)
    half = np.full(1000, 300, np.float16)
    assert distortion(half, half / 2) == pytest.approx(0.25)


def test_a_report_is_plain_data() -> None:
    inner = record({"a/kernel": grid(2)})
    done = record(
        {"a/kernel": grid(4)},
        metrics={"loss": 0.25, "accuracy": 0.75},
        history={"loss": [0.5, 0.25]},
        remarks=("fine",),
        inner=(inner,),
    )
    files = {"a/kernel": 20, "a/bias": 10, "b/steps": 5, "c/table": 4}
    report = Report("net", (done,), {"loss": 0.125}, weigh=Weigh(lambda: FileSize(100, files)))
    data = report.to_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert (again["model"], again["planned"], again["initial"]) == ("net", False, {"loss": 0.125})
    assert again["file_bytes"]["a/kernel"] == 20
    (told,) = again["passes"]
    assert (told["name"], told["config"], told["seconds"]) == ("Quantize", {"bits": 4, "where": None}, 1.25)
    assert told["metrics"] == {"loss": 0.25, "accuracy": 0.75}
    assert told["history"] == {"loss": [0.5, 0.25]}
    assert told["inner"][0]["parameters"][0]["after"] == "2-bit x1"
    assert told["parameters"][0]["bytes_after"] == 5
    held = told["parameters"][0]["encoding_after"]
    assert (held["kind"], held["bits"], held["levels"], held["scale_shape"]) == ("quantized", 4, "integers", [1, 1])
    assert told["parameters"][0]["encoding_before"]["kind"] == "dense"
    again_held = Report.from_dict(again).passes[0].parameters[0]
    assert again_held.encoding_after == grid(4).summary()
    assert str(again_held.encoding_after) == again_held.after
    assert Report.from_dict(again) == Report.from_dict(json.loads(json.dumps(report.to_dict())))
    back = json.loads(json.dumps(Report.from_dict(again).to_dict()))
    assert back | {"file_bytes": files} == again
    for parameter in told["parameters"]:  # as version 0.1.0 wrote it
        del parameter["encoding_before"], parameter["encoding_after"]
    assert Report.from_dict(again).passes[0].parameters[0].encoding_after is None


def test_a_report_prints_every_reason_once() -> None:
    reasons = {
        "a/bias": "bias: not wanted",
        "b/steps": "int32 is not a floating point dtype",
        "c/table": "bias: not wanted",
    }
    done = record({"a/kernel": grid(4)}, reasons, remarks=("trained for 2 epochs",), metrics={"accuracy": 0.75})
    lines = str(Report("net", (done,), {"loss": 0.5})).splitlines()
    assert lines[0] == "net: 36 bytes -> 17 packed (2.1 times smaller)"
    assert "  left alone (bias: not wanted): a/bias, c/table" in lines
    assert "  left alone (int32 is not a floating point dtype): b/steps" in lines
    assert "  trained for 2 epochs" in lines
    assert lines[1].split() == ["pass", "touched", "loss", "accuracy", "seconds", "packed", "bytes"]
    assert lines[3].split() == ["as", "given", "0.5000", "36"]
    assert lines[4].split() == ["1.", "Quantize", "1", "of", "4", "0.7500", "1.2", "17"]
    assert Report("net", (done,)).skipped == {"1: Quantize": reasons}


def test_a_report_ends_with_the_result() -> None:
    first, second = record({"a/kernel": grid(4)}), record({"a/kernel": grid(2)})
    files = {"a/kernel": 1020, "a/bias": 10, "b/steps": 5, "c/table": 4}
    text = str(Report("net", (first, second), weigh=Weigh(lambda: FileSize(sum(files.values()), files))))
    result = text[text.index("the result") :].splitlines()
    assert result[1].split()[-2:] == ["in", "file"]
    kernel = next(line for line in result if line.startswith("a/kernel"))
    assert kernel.split() == ["a/kernel", "2-bit", "x1", "2", "33.3%", "24", "4", "1,020"]
    assert "in file" not in str(Report("net", (first,)))


def test_a_planned_report_says_so() -> None:
    assert str(Report("net", (record({}),), planned=True)).startswith("net: planned: 36 bytes -> 36 packed\n")


def test_a_report_of_no_passes_prints() -> None:
    assert str(Report("net", ())).startswith("net: - bytes -> - packed\n")
    assert list(Report("net", ())) == []


def test_a_pass_without_parameters_prints() -> None:
    text = str(Report("net", (PassRecord("Nothing", {}, 0.0),)))
    assert "1. Nothing" in text


def many(count: int) -> Graph:
    """A model of `count` kernels and as many biases."""
    kernels = [Parameter(f"layer{i}/kernel", (2, 3), "float32", "kernel", f"layer{i}") for i in range(count)]
    biases = [Parameter(f"layer{i}/bias", (3,), "float32", "bias", f"layer{i}") for i in range(count)]
    values = {parameter.path: np.ones(parameter.shape, np.float32) for parameter in [*kernels, *biases]}
    return Graph(Structure("many", (), (), (), (), ()), [*kernels, *biases], values)


def test_a_model_of_many_parameters_prints_a_row_per_role_and_width() -> None:
    before = many(60)
    kernels = [parameter.path for parameter in before if parameter.role == "kernel"]
    after = before.update(encodings={path: Dense("float16") for path in kernels})
    records = compare(before, after, {f"layer{i}/bias": "only kernels" for i in range(60)})
    weigh = Weigh(lambda: FileSize(0, {r.path: 10 for r in records}))
    report = Report("many", (PassRecord("Halve", {}, 0.0, records),), weigh=weigh)
    short, full = str(report), report.text()
    assert "60 x kernel" in short
    assert "1,440" in short
    assert "720" in short
    assert "layer0/bias, layer1/bias, layer2/bias and 57 more" in short
    assert short.count("\n") < 25
    for record in records:
        assert record.path in full
