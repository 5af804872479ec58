"""A reader that was written from the page of the format, without the library, decodes what the library writes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.artifact import read_content
from tests.artifact import independent
from tests.artifact.honest import files
from tests.golden import make_v3

OURS = [data for data in files() if data[8] == 3]


def same(path: Path) -> None:
    found = independent.read(path)
    expected = read_content(path).parameters
    assert list(found) == [parameter.path for parameter in expected]
    for parameter in expected:
        array = found[parameter.path]
        assert (array.dtype, array.shape) == (parameter.values.dtype, parameter.values.shape)
        assert array.tobytes() == parameter.values.tobytes()


def test_it_is_short_and_knows_nothing_of_the_library() -> None:
    text = Path(independent.__file__).read_text()
    assert len(text.splitlines()) <= 600
    tree = ast.parse(text)
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.startswith(("bitwidth", "tests"))]


@pytest.mark.parametrize("index", range(len(OURS)))
def test_small_files(index: int, tmp_path: Path) -> None:
    (tmp_path / "m.bw").write_bytes(OURS[index])
    same(tmp_path / "m.bw")


def test_the_golden_file() -> None:
    same(make_v3.FILE)


RECIPES: dict[str, list[bw.Pass]] = {
    "4 bits": [bw.Quantize(bits=4)],
    "8 bits": [bw.Quantize(bits=8)],
    "asymmetric": [bw.Quantize(bits=8, symmetric=False, granularity=16)],
    "rate": [bw.Quantize(rate=2.0)],
    "codebook": [bw.Quantize(bits=3, rule="codebook")],
    "powers": [bw.Quantize(bits=4, rule="power_of_two")],
    "pruned": [bw.Prune(0.7), bw.Quantize(bits=5)],
    "very sparse": [bw.Prune(0.97)],
    "2:4 of floats": [bw.Prune(pattern="2:4")],
    "blocks": [bw.Prune(0.6, pattern="block"), bw.Quantize(bits=4)],
    "nothing": [],
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_models(name: str, tmp_path: Path) -> None:
    """Large enough for lanes, classes of rows and columns, layers."""
    keras.utils.set_random_seed(0)
    layers: list[Any] = [keras.layers.Dense(300, activation="relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((28, 28, 3)), keras.layers.Conv2D(32, 5), keras.layers.Flatten(), *layers])
    model.layers[0].kernel.assign(model.layers[0].kernel * np.linspace(0.05, 3, 32))
    model.layers[2].kernel.assign(
        model.layers[2].kernel * np.linspace(0.01, 4, model.layers[2].kernel.shape[0])[:, None]
    )
    bw.PassManager(RECIPES[name]).run(model, progress=False).save(tmp_path / "m.bw")
    same(tmp_path / "m.bw")
