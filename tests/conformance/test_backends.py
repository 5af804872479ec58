"""Every backend passes the suite, and a backend that breaks a law does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.backend import Training
from bitwidth.errors import DataError
from bitwidth.graph import Graph
from bitwidth.testing import backends as suite
from bitwidth.testing import check_backend
from tests import reference, toy

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype(np.float32)
Y = RNG.normal(size=(32, 2)).astype(np.float32)


def dense() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((6,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
    return keras.Sequential([*stack, layers.Dense(2)])


def recurrent() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.LSTM(4)(layers.Reshape((3, 2))(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(x)))


def arrays() -> toy.Arrays:
    rng = np.random.default_rng(3)
    return toy.Arrays({"a": rng.normal(size=(6, 4)).astype(np.float32), "b": np.ones(4, np.float32)})


@pytest.mark.parametrize("make", [dense, recurrent])
def test_the_tensorflow_backend_conforms(make: Callable[[], Any]) -> None:
    check_backend(make, (X, Y))


def test_the_numpy_reference_backend_conforms() -> None:
    check_backend(lambda: reference.Network([6, 8, 2]), reference.regression())


def test_the_toy_backend_conforms_as_far_as_it_goes() -> None:
    for check in (suite.check_opening, suite.check_writing, suite.check_handing_over):
        check(arrays)
    suite.check_building(arrays)
    suite.check_sharing(arrays)
    assert len(Path(toy.__file__).read_text(encoding="utf-8").splitlines()) <= 150


def test_the_toy_backend_prunes_quantizes_and_saves(tmp_path: Path) -> None:
    model = arrays()
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(model)
    result.save(tmp_path / "arrays.bw")
    loaded = bw.load(tmp_path / "arrays.bw")
    np.testing.assert_array_equal(loaded.arrays["a"], result.model.arrays["a"])
    assert (loaded.arrays["a"] == 0).sum() >= 12
    again = bw.PassManager([bw.Quantize(3)]).run(loaded)
    assert again.graph["a"].encoding.mask is not None
    assert bw.Result.from_bytes(result.to_bytes()).size == result.size
    assert "given" in str(bw.PassManager([bw.Quantize(4)]).plan(model))
    with pytest.raises(DataError, match="give no data"):
        bw.PassManager([bw.Quantize(4)]).run(model, X)


def broken(name: str, change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A change to the reference session that breaks one law."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reference.ReferenceSession, name, change(getattr(reference.ReferenceSession, name)))

    return apply


def noisy(method: Any) -> Any:
    """Answers that differ each time, if only a little."""
    rng = np.random.default_rng(0)

    def call(self: Any, graph: Graph, *args: Any, **kwargs: Any) -> Any:
        found = method(self, graph, *args, **kwargs)
        if isinstance(found, tuple):
            return tuple(array + rng.normal() for array in found)
        return {k: v + rng.normal() if isinstance(v, float) else v for k, v in found.items()}

    return call


def forgets_encodings(method: Any) -> Any:
    def call(self: Any, graph: Graph) -> Any:
        finished = method(self, graph)
        finished.model.encodings = {}
        return finished

    return call


def off_grid(method: Any) -> Any:
    def call(self: Any, graph: Graph, training: Training, steer: Any = None) -> Any:
        trained = method(self, graph, training, steer)
        values = {p.path: trained.graph.values[p.path] + 0.01 for p in trained.graph}
        return type(trained)(trained.graph.update(values), trained.history)

    return call


def trains_all(method: Any) -> Any:
    return lambda self, graph, training, steer=None: method(self, graph, replace(training, only=None), steer)


def never_stops(method: Any) -> Any:
    def call(self: Any, graph: Graph, training: Training, steer: Any = None) -> Any:
        told = training.on_step
        quiet = None if told is None else (lambda step, total: told(step, total) and False)
        return method(self, graph, replace(training, on_step=quiet), steer)

    return call


BROKEN = {
    "forgets encodings": (broken("finish", forgets_encodings), "opened again it is"),
    "outputs that change": (broken("probe", noisy), "differ from call to call"),
    "a loss that changes": (broken("measure", noisy), "gives two results"),
    "leaves the grid": (broken("train", off_grid), "does not hold"),
    "trains all": (broken("train", trains_all), "was trained, and only"),
    "never stops": (broken("train", never_stops), "told to end after 2 steps"),
    "takes any data": (broken("check_data", lambda method: lambda *args, **kwargs: None), "is taken"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_backend_that_breaks_a_law_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, words = BROKEN[name]
    change(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        check_backend(lambda: reference.Network([6, 8, 2]), reference.regression())
