"""Whatever the library writes of a Keras model, the strict reader reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.artifact import open_file, pack, read_content
from bitwidth.passes import Pass
from tests import zoo

PASSES: dict[str, list[Pass]] = {
    "nothing": [],
    "grids": [bw.Prune(0.5), bw.Quantize(4)],
    "zero points": [bw.Quantize(5, symmetric=False)],
    "codebooks": [bw.Prune(0.3), bw.Quantize(3, rule="codebook")],
    "powers": [bw.Quantize(4, rule="power_of_two")],
    "ternary": [bw.Quantize(rule="ternary")],
    "binary": [bw.Quantize(rule="binary", granularity="tensor")],
    "rows": [bw.Quantize(rule=bw.BitRule([[-4, -1, 0, 1, 4], [0, 10]], bias="fit"), granularity=4)],
    "rate": [bw.Quantize(rate=3.0)],
    "step": [bw.Prune(0.2), bw.Quantize(step=0.3)],
    "escapes": [bw.Prune(0.2), bw.Quantize(4, escape=bw.Escape(quantile=0.99, format="float16"))],
}


def assert_read(model: Any, passes: list[Pass], path: Path, data: Any = None) -> None:
    result = bw.PassManager(passes).run(model, data)
    result.save(path, architecture=False)
    with open_file(path) as file:
        for parameter, variable in zip(file.parameters(), result.model.variables, strict=True):
            np.testing.assert_array_equal(parameter.values, np.asarray(variable.numpy()).astype(parameter.values.dtype))
        file.architecture()
    assert pack(read_content(path)).data == path.read_bytes()


@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_files_of_the_zoo(name: str, tmp_path: Path) -> None:
    assert_read(zoo.MODELS[name](), PASSES["grids"], tmp_path / "m.bw")


@pytest.mark.parametrize("name", list(PASSES))
def test_files_of_every_encoding(name: str, tmp_path: Path) -> None:
    assert_read(zoo.MODELS["convnet_bn"](), PASSES[name], tmp_path / "m.bw")


@keras.saving.register_keras_serializable("tests.honest")
class Odd(keras.layers.Layer):  # type: ignore[misc]
    """Variables of every dtype that a file can hold."""

    dtypes = ("float16", "float32", "float64", "bfloat16", "int8", "int32", "int64", "uint8", "uint32", "bool")

    def build(self, input_shape: Any) -> None:
        for dtype in self.dtypes:
            self.add_weight(shape=(2, 3), dtype=dtype, initializer="ones", trainable=False, name=dtype)

    def call(self, x: Any) -> Any:
        return x + keras.ops.cast(self.weights[0][0, 0], x.dtype)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16", "float16", "float64"])
def test_variables_of_every_dtype(policy: str, tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, dtype=policy), keras.layers.Dropout(0.5), Odd(dtype=policy)]
    )
    assert_read(model, PASSES["nothing"], tmp_path / "m.bw")


def test_inputs_on_grids(tmp_path: Path) -> None:
    passes: list[Pass] = [bw.Quantize(8, activations=8)]
    assert_read(zoo.MODELS["convnet_bn"](), passes, tmp_path / "m.bw", data=zoo.batch("convnet_bn", 32))
    assert bw.inspect(tmp_path / "m.bw").activations
