"""What is no argument of a pass is refused when the pass is built, by the error that its docstring names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest

import bitwidth as bw
from bitwidth.passes import registry

TUNE = bw.Finetune(epochs=1, loss="mse")
# Fields without a default, and for each field with what it may be: whatever else is tried must be refused.
GIVEN: dict[type[Any], dict[str, Any]] = {
    bw.Prune: {"sparsity": 0.5},
    bw.Quantize: {"bits": 4},
    bw.Finetune: {},
    bw.Distill: {},
    bw.Ramp: {"of": bw.Prune(0.5), "during": TUNE},
    bw.Nested: {"of": bw.Quantize(8), "widths": (8, 4), "during": TUNE},
    bw.Where: {"of": bw.Prune(0.5), "where": "dense"},
    bw.Repeat: {"of": bw.Prune(0.5), "times": 2},
    bw.CorrectBias: {"of": bw.Quantize(3)},
    bw.EqualizeLayers: {},
    bw.Fisher: {},
    bw.Factorize: {"keep": 0.5},
    bw.FoldBatchNorm: {},
    bw.ReestimateBatchNorm: {},
    bw.Shrink: {"keep": 0.5},
    bw.ShrinkDense: {"keep": 0.5},
    bw.PassManager: {"passes": [bw.Prune(0.5)]},
    bw.Escape: {"quantile": 0.99},
    bw.AllBut: {"where": "dense"},
}
OBJECTS = (b"max", {1, 2}, 1j, np.arange(3.0), np.array("max"), np.bool_(True), int, -1, float("nan"), -0.5, False)
NAMES = ("foo", "", "Channel", "MAX")
LISTS: tuple[Any, ...] = ([], (), [1], (None,), {"a": "b"}, {})
COUNTS = (0, 1.0, "1", None, True, float("inf"))
MISFITS: dict[str, tuple[Any, ...]] = {
    "where": (0, 1.5, "", [""], ["dense", 3], [], {}, object()),
    "loss": (0, True, 1.5),
    "optimizer": (0, True, 1.5, [], ("adam",)),
    "metrics": (0, True, 1.5),
    "loss_weights": ("foo", True),
    "class_weight": (*NAMES, 1, [], [1.0, 2.0]),
    "callbacks": (*NAMES, None, 3, {}, ["x"], [3], [None], [dict], (TUNE,)),
    "verbose": (*NAMES, *LISTS, 3, None, 1.0),
    "passes": (*NAMES, None, 3, {}, ["x"], [None], [bw.Prune], bw.Prune(0.5)),
    "plane": (*NAMES, 3, ["dense/kernel"]),
    "bits": (*NAMES, *LISTS, {"dense": 0}, {"dense": "4"}, {3: 4}, {"dense": True}, 0, 17, 4.0, True),
    "symmetric": (*NAMES, *LISTS, 0, 1, None),
    "learn_steps": (*NAMES, *LISTS, 0, 1, None),
    "sequential": (*NAMES, *LISTS, 0, 1, None),
    "jit_compile": (*NAMES, *LISTS, 0, 1),
    "sparsity": (*NAMES, *LISTS, 1, 1.5, True, None),
    "floor": (*NAMES, *LISTS, 1.5, True, None),
    "end": (*NAMES, *LISTS, 0, 1.5, True, None),
    "learning_rate": (*NAMES, *LISTS, 0, True, float("inf")),
    "granularity": (*NAMES, *LISTS, 0, 1.5, True),
    "steps": (*NAMES, *LISTS, *COUNTS),
    "widths": (*NAMES, None, 8, (8,), (8, 8), (8, 1), (4, 2), (8, 4.0), (8, "4"), {8: 4}),
    "step": (*NAMES, *LISTS, 0, True),
    "rate": (*NAMES, *LISTS, 0, 17, True),
    "damping": (*NAMES, *LISTS, True, None, float("inf")),
    "price": (*NAMES, *LISTS, True, None, float("inf")),
    "activations": (*NAMES, *LISTS, 0, 1, 17, 8.0, True),
    "steps_per_epoch": (*NAMES, *LISTS, 0, 1.0, True),
    "error": (*NAMES, *LISTS, 0, True),
    "quantile": (*NAMES, *LISTS, 0, 1, True),
}
MISFITS |= dict.fromkeys(("keep", "macs", "parameters"), (*NAMES, *LISTS, 0, 1, 1.5, True, None))
MISFITS["temperature"] = (*NAMES, *LISTS, 0, True, None, float("inf"))
MISFITS["size"] = (*NAMES, *LISTS, 0, 1.5, True, "12", "12 kb", "-1 kB")
MISFITS["alpha"] = (*NAMES, *LISTS, 1.5, True, None)
MISFITS["teacher"] = ("foo", 1, 1.5, True, b"max", int)
MISFITS |= dict.fromkeys(("features", "attention"), (*NAMES, *LISTS[:-2], {}, 1, [""], {"a": 1}))
MISFITS["only"] = (*NAMES, *LISTS, 0, 1, "kernels")
MISFITS |= dict.fromkeys(("units", "rank"), (*NAMES, *LISTS, 0, 2.5, True, None))
MISFITS |= {"multiple_of": (*NAMES, *LISTS, *COUNTS)}
MISFITS |= dict.fromkeys(("refit", "inexact", "separate"), (*NAMES, *LISTS, 0, 1, None))
MISFITS["inputs"] = (*NAMES, *LISTS, 0, 2.5, True)
MISFITS |= dict.fromkeys(("samples", "epochs", "batch_size", "times", "iterations"), (*NAMES, *LISTS, *COUNTS))
CHOICES = (*NAMES, *LISTS, 0, 1, True)  # for all fields that are named nowhere above: they take a few names, or a pass
ALSO_FINE = {"teacher": (np.arange(3.0),), "loss_weights": (-1, -0.5, float("nan")), "bits": (), "verbose": (False,)}
BOOLEANS = ("symmetric", "learn_steps", "sequential", "jit_compile", "refit", "inexact", "separate")


def wrong(name: str) -> list[Any]:
    fine = [*ALSO_FINE.get(name, ()), *([False] if name in BOOLEANS else [])]
    plain = [value for value in OBJECTS if not any(value is item or repr(value) == repr(item) for item in fine)]
    return [*MISFITS.get(name, CHOICES), *plain]


def refusal(cls: type[Any], arguments: dict[str, Any]) -> str:
    """What the library says of arguments; errors of another kind are not caught."""
    try:
        cls(**arguments)
    except bw.errors.ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("cls", list(GIVEN), ids=lambda cls: cls.__name__)
def test_a_wrong_argument_is_refused_when_a_pass_is_built(cls: type[Any]) -> None:
    cls(**GIVEN[cls])
    for field in fields(cls):
        given = GIVEN[cls]
        if cls is bw.Escape and field.name in ("plane", "error"):
            given = {}
        if cls is bw.Quantize and field.name in ("rate", "step"):
            given = {}
        if issubclass(cls, bw.Shrink | bw.Factorize) and field.name in ("units", "rank", "error", "macs", "parameters"):
            given = {}
        for value in wrong(field.name):
            if value is None and field.default is None:
                continue
            said = refusal(cls, {**given, field.name: value})
            assert cls.__name__ in said, f"{cls.__name__}({field.name}={value!r}): {said or 'it was taken'}"


@pytest.mark.parametrize("cls", list(GIVEN), ids=lambda cls: cls.__name__)
def test_defaults_are_arguments(cls: type[Any]) -> None:
    defaults = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    assert cls(**{**defaults, **GIVEN[cls]}) == cls(**GIVEN[cls])


def test_every_pass_of_the_library_is_tried() -> None:
    passes = {name: cls for name, cls in registry._PASSES.items() if not name.startswith("docs.")}  # of doctests
    own = {cls for cls in passes.values() if cls.__module__.startswith("bitwidth.")}
    assert own <= set(GIVEN)


@pytest.mark.parametrize(
    "build",
    [
        lambda: bw.Finetune(callbacks=(bw.Prune,)),
        lambda: bw.Finetune(verbose="auto"),  # type: ignore[arg-type]
        lambda: bw.Prune(0.5, where=bw.Quantize),  # type: ignore[arg-type]
        lambda: bw.Quantize(4, granularity="foo"),
        lambda: bw.Ramp(bw.Prune(0.5), TUNE, end="1"),  # type: ignore[arg-type]
        lambda: bw.Quantize(4, scale=np.ones(3)),  # type: ignore[arg-type]
    ],
)
def test_what_was_once_taken_or_raised_otherwise(build: Callable[[], Any]) -> None:
    with pytest.raises(bw.errors.ConfigError):
        build()
