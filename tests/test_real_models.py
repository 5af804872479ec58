"""Models that people have: read, quantized to 8 and 4 bits, pruned, fine-tuned, saved, loaded in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.backends.tensorflow.models.architecture import rebuild
from bitwidth.backends.tensorflow.models.deferred import has_value
from bitwidth.backends.tensorflow.reading.naming import names_of
from bitwidth.passes.base import off_grid
from tests import real

FRESH = """
import sys
import numpy as np
import bitwidth as bw

model = bw.load(sys.argv[1])
with np.load(sys.argv[2]) as stored:
    np.testing.assert_array_equal(model(stored["inputs"], training=False).numpy(), stored["outputs"])
    for index, variable in enumerate(model.variables):
        np.testing.assert_array_equal(variable.numpy(), stored[f"variable{index}"])
"""


def journey(model: Any, inputs: Any, targets: Any, loss: str, folder: Path) -> None:
    """The journey of one model; its file is loaded in a fresh process."""
    eight = bw.PassManager([bw.Quantize(8)]).run(model)
    tune = bw.Finetune(epochs=1, loss=loss, learning_rate=1e-4, batch_size=4)
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4), tune]).run(eight, (inputs, targets))
    pruned = 0
    for parameter in result.graph:
        values = result.graph.values[parameter.path]
        assert not parameter.is_float or not off_grid(parameter.encoding, values)
        if parameter.encoding.mask is not None:
            assert not np.count_nonzero(values[~parameter.encoding.mask])
            assert parameter.encoding.bits == 4
            pruned += int((~parameter.encoding.mask).sum())
    total = sum(parameter.size for parameter in result.graph if parameter.encoding.mask is not None)
    assert 0.49 < pruned / total < 0.51
    assert any(record.distortion for record in result.report.passes[-1].touched)
    result.save(folder / "model.bw")
    stored = {f"variable{index}": variable.numpy() for index, variable in enumerate(result.model.variables)}
    outputs = result.model(inputs, training=False).numpy()
    np.savez(folder / "expected.npz", inputs=inputs, outputs=outputs, **stored)
    arguments = [sys.executable, "-W", "ignore", "-c", FRESH, str(folder / "model.bw"), str(folder / "expected.npz")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_sleepecg_classifier(tmp_path: Path) -> None:
    model = real.sleepecg_classifier(tmp_path)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 6, model.input_shape[-1])).astype(np.float32)
    inputs[:, 4:] = -1.0
    targets = rng.integers(0, model.output_shape[-1], (8, 6))
    journey(model, inputs, targets, "sparse_categorical_crossentropy", tmp_path)


@pytest.mark.slow
def test_mobilenet_v2(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((8, 96, 96, 3), np.float32)
    journey(real.mobilenet_v2(), inputs, rng.integers(0, 10, 8), "sparse_categorical_crossentropy", tmp_path)


APPLICATIONS = [name for name in dir(keras.applications) if name[0].isupper()]


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_of_keras_is_built_from_its_configuration(name: str) -> None:
    """As a file would hold it: the same variables by the same names, and none of them with a value yet."""
    model = getattr(keras.applications, name)(weights=None)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    made = rebuild(config, {"shape": list(model.input_shape), "dtype": "float32"})
    assert [path for path, _, _ in names_of(made).variables] == [path for path, _, _ in names_of(model).variables]
    assert [tuple(v.shape) for v in made.variables] == [tuple(v.shape) for v in model.variables]
    assert not any(has_value(variable) for variable in made.variables)
    keras.backend.clear_session()
