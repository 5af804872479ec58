"""Options as values, and fields by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import bitwidth as bw
from bitwidth.errors import ConfigError

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"rounding": bw.ErrorFeedback()}, {"rounding": "error_feedback"}),
    ({"rounding": bw.ErrorFeedback(damping=0.2)}, {"rounding": "error_feedback", "damping": 0.2}),
    ({"rounding": bw.EntropyRounding(price=0.3)}, {"rounding": "entropy", "price": 0.3}),
    ({"activations": bw.Activations()}, {"activations": 8}),
    ({"activations": bw.Activations(16, ranges="max")}, {"activations": 16, "ranges": "max"}),
    ({"granularity": bw.PerGroup(32)}, {"granularity": 32}),
    ({"rounding": bw.ErrorFeedback(0.2), "damping": 0.2}, {"rounding": "error_feedback", "damping": 0.2}),
]


@pytest.mark.parametrize(("option", "plain"), SAME)
def test_an_option_is_another_spelling_of_plain_fields(option: dict[str, Any], plain: dict[str, Any]) -> None:
    item = bw.Quantize(4, **option)
    assert item == bw.Quantize(4, **plain)
    recipe = bw.PassManager([item]).to_recipe()
    assert recipe == bw.PassManager([bw.Quantize(4, **plain)]).to_recipe()
    assert bw.PassManager.from_recipe(recipe).passes == (item,)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rounding": bw.Activations()}, "Activations is a value of activations, not of rounding"),
        ({"granularity": bw.ErrorFeedback()}, "ErrorFeedback is a value of rounding"),
        ({"rounding": bw.ErrorFeedback(0.2), "damping": 0.3}, "damping=0.3 beside ErrorFeedback"),
        ({"activations": bw.Activations(8), "ranges": "max"}, "ranges='max' beside Activations"),
        ({"rounding": bw.ErrorFeedback(-1)}, "damping must be a finite number"),
        ({"activations": bw.Activations(1)}, "activations must be an integer from 2 to 16, got 1"),
        ({"granularity": bw.PerGroup(0)}, "granularity"),
        ({"rounding": bw.ErrorFeedback}, "rounding must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bw.Quantize(4, **given)


TUNE = bw.Finetune(loss="mse")
BY_POSITION: list[tuple[Callable[[], bw.Pass], bw.Pass]] = [
    (lambda: bw.Quantize(4, "tensor", "a*"), bw.Quantize(4, granularity="tensor", where="a*")),  # type: ignore[call-arg]
    (lambda: bw.Prune(0.5, "local"), bw.Prune(0.5, scope="local")),  # type: ignore[call-arg]
    (lambda: bw.Finetune(3, "mse"), bw.Finetune(3, loss="mse")),  # type: ignore[call-arg]
    (lambda: bw.Ramp(bw.Prune(0.5), TUNE, 6), bw.Ramp(bw.Prune(0.5), TUNE, steps=6)),  # type: ignore[call-arg]
    (
        lambda: bw.Nested(bw.Quantize(8), (8, 4), TUNE),  # type: ignore[call-arg]
        bw.Nested(bw.Quantize(8), (8, 4), during=TUNE),
    ),
    (lambda: bw.CorrectBias(bw.Quantize(4), 64), bw.CorrectBias(bw.Quantize(4), samples=64)),  # type: ignore[call-arg]
    (lambda: bw.EqualizeLayers(5, "a*"), bw.EqualizeLayers(5, where="a*")),  # type: ignore[call-arg]
    (lambda: bw.ReestimateBatchNorm(64, 8), bw.ReestimateBatchNorm(64, batch_size=8)),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("build", "expected"), BY_POSITION)
def test_fields_by_position_still_work_with_a_warning(build: Callable[[], bw.Pass], expected: bw.Pass) -> None:
    with pytest.warns(DeprecationWarning, match=f"{type(expected).__name__}: give .*= by name"):
        assert build() == expected


@pytest.mark.parametrize("cls", [type(expected) for _, expected in BY_POSITION])
def test_signatures_show_keywords(cls: type[Any]) -> None:
    kinds = [p.kind for p in inspect.signature(cls).parameters.values()]
    by_name = kinds.count(inspect.Parameter.KEYWORD_ONLY)
    assert by_name == len(fields(cls)) - (2 if cls in (bw.Ramp, bw.Nested) else 1)


def test_what_python_refuses_is_refused() -> None:
    with pytest.raises(TypeError, match=r"multiple values|positional"):
        bw.Quantize(4, "tensor", granularity="channel")  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        bw.Prune(0.5, "local", "magnitude", None, 0.2, "2:4", 64, "more")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        bw.Prune(0.5, share=2)  # type: ignore[call-arg]
