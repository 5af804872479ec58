"""The whole house on every model of the zoo: prune, quantize, fine-tune, save, load in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.passes.base import off_grid
from tests import zoo

BATCH = 8
NOT_BUILT_FROM_A_FILE = {"subclassed_unserialisable"}


def zeros_like_outputs(model: Any, inputs: Any) -> Any:
    """Targets for a mean squared error, in the nest of the outputs."""
    return tf.nest.map_structure(lambda out: np.zeros(out.shape, np.float32), model(inputs))


def squared_error(targets: Any) -> Any:
    """A loss for each output."""
    return dict.fromkeys(targets, "mse") if isinstance(targets, dict) else "mse"


def outputs(model: Any, inputs: Any) -> list[np.ndarray[Any, Any]]:
    """What the model gives, flat."""
    return [np.asarray(out) for out in tf.nest.flatten(model(inputs, training=False))]


@pytest.fixture(scope="module")
def journeys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which each journey leaves its file, for the fresh process at the end."""
    return tmp_path_factory.mktemp("journeys")


@pytest.mark.parametrize("name", zoo.MODELS)
def test_through_the_whole_house(name: str, journeys: Path) -> None:
    model, inputs = zoo.MODELS[name](), zoo.batch(name, BATCH)
    given = [variable.numpy() for variable in model.variables]
    targets = zeros_like_outputs(model, inputs)
    tune = bw.Finetune(epochs=1, loss=squared_error(targets), learning_rate=1e-2, batch_size=4)

    plan = bw.PassManager([bw.Prune(0.5), bw.Quantize(8), bw.Quantize(4), tune]).plan(model, inputs)
    eight = bw.PassManager([bw.Prune(0.5), bw.Quantize(8)]).run(model, inputs)
    result = bw.PassManager([bw.Quantize(4), tune]).run(eight, (inputs, targets))

    assert all(np.array_equal(before, after.numpy()) for before, after in zip(given, model.variables, strict=True))
    assert {r.path for r in plan.passes[0].touched} == {r.path for r in eight.report.passes[0].touched}
    for parameter in result.graph:
        mask, values = eight.graph[parameter.path].encoding.mask, result.graph.values[parameter.path]
        if mask is not None:
            assert not np.count_nonzero(values[~mask]), f"pruned values of {parameter.path} came back"
            assert parameter.encoding.bits <= 4
        assert not parameter.is_float or not off_grid(parameter.encoding, values)
        assert np.array_equal(values, result.model.variables[parameter.index].numpy())
    masks = [parameter.encoding.mask for parameter in eight.graph if parameter.encoding.mask is not None]
    assert abs(sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) - 0.5) < 0.05

    path = journeys / f"{name}.bw"
    result.save(path, architecture=name not in NOT_BUILT_FROM_A_FILE)
    np.savez(journeys / f"{name}.npz", *outputs(result.model, inputs), *[v.numpy() for v in result.model.variables])


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_unserialisable_needs_a_model(kind: str, tmp_path: Path) -> None:
    model = zoo.MODELS["subclassed_unserialisable"]()
    result = bw.PassManager([bw.Quantize(4, vectors="16-bit" if kind == "float16" else None)]).run(model)
    with pytest.raises(bw.errors.FileError, match=r"load\(path, model=...\)"):
        result.save(tmp_path / "x.bw")
    assert not list(tmp_path.iterdir())
    result.save(tmp_path / "x.bw", architecture=False)
    with pytest.raises(bw.errors.ModelError, match="model="):
        bw.load(tmp_path / "x.bw")
    loaded = bw.load(tmp_path / "x.bw", model=zoo.MODELS["subclassed_unserialisable"]())
    for mine, theirs in zip(loaded.variables, result.model.variables, strict=True):
        assert np.array_equal(mine.numpy(), theirs.numpy())
    with pytest.raises(bw.errors.ModelError, match="variable"):
        bw.load(tmp_path / "x.bw", model=zoo.MODELS["mlp"]())


FRESH = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
import bitwidth as bw
from tests import zoo

failed = {}
for path in sorted(Path(sys.argv[1]).glob("*.bw")):
    own = zoo.MODELS[path.stem]() if path.stem in json.loads(sys.argv[2]) else None
    model = bw.load(path, model=own)
    found = [np.asarray(o) for o in tf.nest.flatten(model(zoo.batch(path.stem, 8), training=False))]
    found += [v.numpy() for v in model.variables]
    with np.load(path.with_suffix(".npz")) as expected:
        same = [np.array_equal(a, expected[f"arr_{i}"]) for i, a in enumerate(found)]
        if not all(same) or len(found) != len(expected.files):
            failed[path.stem] = same
print(json.dumps(failed))
"""


def test_loads_in_a_fresh_process_to_the_bit(journeys: Path) -> None:
    assert len(list(journeys.glob("*.bw"))) == len(zoo.MODELS), "run the whole module: files come from the tests above"
    arguments = [sys.executable, "-W", "ignore", "-c", FRESH, str(journeys), json.dumps(sorted(NOT_BUILT_FROM_A_FILE))]
    done = subprocess.run(
        arguments, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}
