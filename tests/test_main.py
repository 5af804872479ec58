"""The command line, in this process; `.ci/run` runs the demo as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import pytest

import bitwidth as bw
from bitwidth import __main__ as command
from bitwidth.backends.tensorflow import demo


def small(train: Any) -> Any:
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, name="logits")])


def test_the_demo_compresses_writes_and_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [type(item).__name__ for item in command.pipeline().passes] == ["Ramp", "Quantize", "Finetune"]
    monkeypatch.setattr(demo, "train_network", small)
    monkeypatch.setattr(command, "pipeline", lambda: bw.PassManager([bw.Quantize(bits=4)]))
    assert command.main(["demo", "--out", str(tmp_path / "new" / "digits")]) == 0
    told = capsys.readouterr().out
    assert "1. Quantize" in told
    assert "(loaded again)" in told
    folder = tmp_path / "new" / "digits"
    report = json.loads((folder / "digits-report.json").read_text("utf-8"))
    assert bw.Report.from_dict(report).passes[0].name == "Quantize"
    assert f"{(folder / 'digits.bw').stat().st_size:,} bytes" in told
    assert keras.saving.load_model(folder / "digits.keras").name

    assert command.main(["inspect", str(folder / "digits.bw")]) == 0
    assert "logits/kernel" in capsys.readouterr().out
    assert command.main(["diff", str(folder / "digits.bw"), str(folder / "digits.bw")]) == 0
    assert "0 of 2 parameters changed" in capsys.readouterr().out


def test_an_error_is_told_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["inspect", str(tmp_path / "missing.bw")]) == 1
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith("error: ")
    assert "missing.bw" in told.err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--version"])
    assert capsys.readouterr().out == f"bitwidth {bw.__version__}\n"
