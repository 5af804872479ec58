"""What a run does how often: counted, so that no refactoring makes it dearer without a word."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.backends import tensorflow
from bitwidth.backends.tensorflow.reading import naming
from bitwidth.encodings import Dense, Masked, Quantized
from bitwidth.passes import base

X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = np.zeros(64, np.int32)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()

    def counted(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name(*args)] += 1
            return function(*args, **kwargs)

        return call

    modules = pkgutil.walk_packages(tensorflow.__path__, f"{tensorflow.__name__}.")
    walk = naming.names_of
    for module in (import_module(info.name) for info in modules if not info.name.endswith("demo")):
        if vars(module).get("names_of") is walk:
            monkeypatch.setattr(module, "names_of", counted(walk, lambda model: "names"))
    for kind in (Dense, Masked, Quantized):
        whose = counted(kind.encode, lambda self, values: f"{type(self).__name__} {values.shape}")
        monkeypatch.setattr(kind, "encode", whose)
    monkeypatch.setattr(base, "check_promises", counted(base.check_promises, lambda *_: "promises"))
    return found


def test_a_run_of_three_passes_does_everything_once(counts: Counter[str], tmp_path: Path) -> None:
    stack = [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
    model = keras.Sequential(stack)
    chain = [bw.Prune(0.5), bw.Quantize(4), bw.Finetune(epochs=1, loss=LOSS)]
    before: dict[str, Counter[str]] = {}

    def noted(event: bw.Event) -> None:
        if event.kind == "pass_started":
            before[event.pass_path[-1]] = Counter(counts)

    result = bw.PassManager(chain).run(model, (X, Y), on_event=noted)
    run = counts - before["passes[0] Prune"]  # what came before is the check that nothing would be lost
    assert run["promises"] == len(chain)
    for kernel in ((8, 16), (16, 4)):
        assert run[f"Masked {kernel}"] == len(chain), "one projection for each change"
        assert run[f"Quantized {kernel}"] == len(chain) - 1
    saving = Counter(counts)
    result.save(tmp_path / "model.bw")
    saved = counts - saving
    assert all(saved[f"Masked {kernel}"] == 1 for kernel in ((8, 16), (16, 4)))
    assert counts["names"] == 2, "once for the user's model and once for its copy"
    result.save(tmp_path / "again.bw")
    assert counts - saving == saved, "written once, and nobody has asked for the model"
