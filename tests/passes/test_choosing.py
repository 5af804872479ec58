"""From losses to masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwidth.errors import ConfigError
from bitwidth.graph import Parameter
from bitwidth.passes.choosing import Choosing
from bitwidth.passes.criteria import Losses
from bitwidth.passes.layout import Layout
from bitwidth.passes.patterns import pattern_of
from bitwidth.passes.ranking import GONE

SHAPES = {"a": (12, 8), "b": (8, 4)}
PARAMETERS = tuple(Parameter(path, shape, "float32", "kernel", path) for path, shape in SHAPES.items())
LAYOUTS = {path: Layout(shape, (), (), (0,), (1,)) for path, shape in SHAPES.items()}


def choosing(pattern: Any = "unstructured", sparsity: float = 0.5, **options: Any) -> Choosing:
    fields = {"scope": "global", "floor": 0.2, "channels": {"b": [(1,)]}, **options}
    return Choosing(pattern_of(pattern, "Prune"), sparsity, layouts=LAYOUTS, **fields)


def losses(seed: int = 0, **fields: Any) -> Losses:
    rng = np.random.default_rng(seed)
    return Losses({path: np.square(rng.normal(size=shape)) for path, shape in SHAPES.items()}, **fields)


@pytest.mark.parametrize("pattern", ["unstructured", "block", "rows"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.6])
def test_the_least_units_go_and_never_too_many(pattern: str, scope: str, sparsity: float) -> None:
    given = losses()
    rule = choosing(pattern, sparsity, scope=scope)
    masks = rule.masks(PARAMETERS, given)
    for group in [PARAMETERS] if scope == "global" else [(p,) for p in PARAMETERS]:
        zeros = sum(int((~masks[p.path]).sum()) for p in group)
        total = sum(p.size for p in group)
        assert sparsity * total - 8 <= zeros <= sparsity * total + 0.5
    for p in PARAMETERS:
        units = rule.units(p)
        means = units.sums(given.squares[p.path]) / units.sums(np.ones(p.shape))
        kept = units.sums(masks[p.path]) > 0
        assert (~kept).sum() == 0 or means[~kept].max() <= np.sort(means[kept])[-1]
        assert masks[p.path].any()


def test_what_a_criterion_says_counts_and_what_it_does_not_know_loses_its_share() -> None:
    known = {"a": np.arange(96, dtype=np.float64).reshape(12, 8)}
    masks = choosing(floor=0).masks(PARAMETERS, losses(known=known, comparable=True))
    assert masks["a"].mean() == pytest.approx(0.5, abs=0.05)
    assert masks["b"].mean() == pytest.approx(0.5, abs=0.1)
    assert (masks["a"].ravel() == (np.arange(96) >= np.flatnonzero(masks["a"].ravel())[0])).all()


def test_scores_below_zero_are_scores() -> None:
    known = {path: -np.square(np.random.default_rng(1).normal(size=shape)) for path, shape in SHAPES.items()}
    masks = choosing(floor=0).masks(PARAMETERS, losses(known=known, comparable=True))
    assert sum(int(mask.sum()) for mask in masks.values()) == 64
    for path, mask in masks.items():
        assert known[path][mask].min() >= known[path][~mask].max()


def test_n_of_m_grows_to_the_pattern() -> None:
    given = losses()
    before = np.ones(SHAPES["a"], np.bool_)
    for sparsity in (0.1, 0.25, 0.4, 0.5):
        masks = choosing("2:4", sparsity).masks(PARAMETERS, given)
        assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * 128)
        assert not (masks["a"] & ~before).any()
        before = masks["a"]
    assert (before.reshape(3, 4, 8).sum(axis=1) == 2).all()


def test_masks_of_before_are_among_the_zeros() -> None:
    given = losses()
    given.squares["a"][::2] = GONE
    masks = choosing("rows", 0.5).masks(PARAMETERS, given)
    assert not masks["a"][::2].any()
    assert 128 * 0.5 - 8 <= sum(int((~mask).sum()) for mask in masks.values()) <= 64


@pytest.mark.parametrize("pattern", ["unstructured", "rows", "block"])
def test_floors_and_channels_of_the_outputs_stay(pattern: str) -> None:
    given = losses()
    given.squares["b"][...] *= 1e-12
    masks = choosing(pattern, 0.8).masks(PARAMETERS, given)
    assert masks["b"].mean() >= 0.2 * 0.2
    assert masks["b"].any(axis=0).all()


def test_no_room() -> None:
    with pytest.raises(ConfigError, match=r"sparsity=0\.97 is too much for the 128 weights of 2 tensors"):
        choosing("unstructured", 0.97).check_room(PARAMETERS, losses())
    choosing("unstructured", 0.97, floor=0).check_room(PARAMETERS, losses())
    choosing("unstructured", 0.97, scope="local").check_room(PARAMETERS, losses())
    choosing("1:4", 0.75).check_room(PARAMETERS, losses())
