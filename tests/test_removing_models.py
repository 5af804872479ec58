"""Half of the units of every exact group of whole models, removed by `Shrink` without data.

The pass compares the smaller model with the original whose consumers' slices are zero, at the logits and within 1e-5,
before it goes on with it. All vectors of the models are random, and gammas have both signs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.errors import ModelError
from bitwidth.graph.labels import couple
from tests import nets

SECONDS = 15.0  # of process time, for `Shrink` on an opened model
OPENINGS = 4.0  # on a slower machine: so many times what it takes to open the model
SUBCLASSED = ("residual_cnn", "tied_language", "subclassed_encoder")  # whose sizes stand in their code
SMALL = [name for name in nets.NETS if name not in (*nets.APPLICATIONS, *SUBCLASSED)]
ALL = [*SMALL, *SUBCLASSED, *(pytest.param(name, marks=pytest.mark.slow) for name in nets.APPLICATIONS)]
LONGEST = ("nasnet_mobile", "xception", "inception_v3")  # which take minutes to train and convert
HALVES = bw.PassManager([bw.Shrink(keep=0.5, criterion="magnitude", refit=False)])


def made(name: str) -> Any:
    """A model, functional where it was subclassed."""
    model = given(name)
    return bw.functionalize(model) if name in SUBCLASSED else model


def given(name: str) -> Any:
    keras.utils.set_random_seed(0)
    return nets.randomised(nets.NETS[name]())


def size(model: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.variables if "float" in variable.dtype)


@pytest.mark.parametrize("name", ALL)
def test_half_of_every_exact_group(name: str) -> None:
    model = made(name)
    before = size(model)
    started = time.process_time()
    opened = bw.open(model)
    opening = time.process_time() - started
    coupling = couple(opened.graph)
    kept = {group.name: range(max(1, group.size // 2)) for group in coupling.groups if group.exact}
    started = time.process_time()
    smaller = HALVES.run(opened).model
    assert time.process_time() - started <= max(SECONDS, OPENINGS * opening)
    assert type(smaller) is type(model)
    assert coupling.parameters(kept) < before
    assert size(smaller) <= 1.02 * coupling.parameters(kept)
    assert size(model) == before


@pytest.mark.parametrize("name", SUBCLASSED)
def test_a_model_whose_code_holds_its_sizes_is_refused_before_work_starts(name: str) -> None:
    model = given(name)
    before = size(model)
    wanted = r"nothing could be removed: .*; sizes may stand in the code of \w+: compress bw.functionalize\(model\)"
    inputs = nets.batch(model)
    tune = bw.Finetune(epochs=1, loss="mse")
    with pytest.raises(ModelError, match=wanted):
        bw.PassManager([tune, bw.Shrink(keep=0.5)]).run(model, (inputs, np.asarray(model(inputs))))
    with pytest.raises(ModelError, match=wanted):
        HALVES.plan(model)
    assert size(model) == before


def test_what_is_left_of_a_subclassed_encoder() -> None:
    model = HALVES.run(made("subclassed_encoder")).model
    attention = model.get_layer("blocks_1_attention")
    assert (attention.num_heads, attention.key_dim) == (2, 4)
    assert model.get_layer("blocks_0_up").units == 32
    assert model.get_layer("words").output_dim == 32  # a LayerNormalization takes means over it
    assert bw.PassManager([bw.Shrink(keep=0.5, inexact=True)]).run(made("subclassed_encoder")).model.count_params() > 0


_ELSEWHERE = """
import sys
import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

model = keras.saving.load_model("small.keras")
held = np.load("held.npz")
found = model(held["inputs"], training=False)
assert np.abs(found - held["outputs"]).max() <= 1e-4 * np.abs(held["outputs"]).max()
model.compile("adam", "mse")
model.fit(held["inputs"], held["outputs"], epochs=1, verbose=0)
one = held["inputs"][:1]  # models with loops convert at batch 1
call = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(one.shape, one.dtype))
lite = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(call)]).convert()
interpreter = tf.lite.Interpreter(model_content=lite)
(place,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.allocate_tensors()
interpreter.set_tensor(place["index"], one.astype(place["dtype"]))
interpreter.invoke()
wanted = np.asarray(model(one, training=False))
apart = np.abs(interpreter.get_tensor(output["index"]) - wanted).max()
assert apart <= 1e-3 * np.abs(wanted).max(), apart
assert not {"bitwidth", "tests"} & set(sys.modules)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in nets.NETS if name not in LONGEST])
def test_a_shrunk_model_lives_without_the_library_and_its_class(name: str, tmp_path: Path) -> None:
    model = HALVES.run(made(name)).model
    inputs = nets.batch(given(name), 4)
    model.save(tmp_path / "small.keras")
    np.savez(tmp_path / "held.npz", inputs=inputs, outputs=np.asarray(model(inputs, training=False)))
    command = [sys.executable, "-c", _ELSEWHERE]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]
