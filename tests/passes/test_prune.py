"""What `Prune` masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import bitwidth as bw
from bitwidth.passes.prune import keep_most_important
from tests import reference

NETWORK = reference.Network([6, 8, 2])


def mask_of(graph: bw.Graph, path: str) -> Any:
    """The mask of a pruned parameter."""
    mask = graph[path].encoding.mask
    assert mask is not None
    return mask


SCORES = arrays.arrays(np.float64, arrays.array_shapes(max_dims=2, max_side=8), elements=st.floats(0, 10))


@given(st.lists(SCORES, min_size=1, max_size=4), st.floats(0, 0.99))
def test_the_least_important_go_and_one_stays(scores: list[Any], sparsity: float) -> None:
    keeps = keep_most_important(scores, sparsity)
    assert [keep.shape for keep in keeps] == [score.shape for score in scores]
    total, kept = sum(score.size for score in scores), sum(int(keep.sum()) for keep in keeps)
    wanted = total - round(sparsity * total)
    assert wanted <= kept <= wanted + len(scores)
    assert all(keep.any() for keep in keeps)
    dropped = [score[~keep].max(initial=-1) for score, keep in zip(scores, keeps, strict=True)]
    if kept == wanted:
        staying = [score[keep].min(initial=np.inf) for score, keep in zip(scores, keeps, strict=True)]
        assert max(dropped) <= min(staying)


def test_global_and_local() -> None:
    both = {scope: bw.PassManager([bw.Prune(0.5, scope=scope)]).run(NETWORK).graph for scope in ("global", "local")}
    masks = {scope: [mask_of(graph, p.path) for p in graph if p.role == "kernel"] for scope, graph in both.items()}
    assert sum(mask.sum() for mask in masks["global"]) == 32
    assert [int(mask.sum()) for mask in masks["local"]] == [24, 8]
    assert [int(mask.sum()) for mask in masks["global"]] != [24, 8]


def test_biases_are_left_alone_with_the_reason() -> None:
    record = bw.PassManager([bw.Prune(0.5)]).run(NETWORK).report.passes[0]
    assert record.skipped == {
        "layer0/bias": "bias: only kernels and embeddings are pruned",
        "layer1/bias": "bias: only kernels and embeddings are pruned",
    }


def test_pruning_twice_only_adds() -> None:
    first = bw.PassManager([bw.Prune(0.4)]).run(NETWORK)
    second = bw.PassManager([bw.Prune(0.7)]).run(first)
    for path in ("layer0/kernel", "layer1/kernel"):
        assert not (mask_of(second.graph, path) & ~mask_of(first.graph, path)).any()
    milder = bw.PassManager([bw.Prune(0.1)]).run(first)
    assert (mask_of(milder.graph, "layer0/kernel") == mask_of(first.graph, "layer0/kernel")).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 1.0}, "below 1"),
        ({"sparsity": -0.1}, "at least 0"),
        ({"sparsity": "half"}, "number"),
        ({"sparsity": float("nan")}, "at least 0"),
        ({"sparsity": 0.5, "scope": "layer"}, "scope"),
        ({"sparsity": 0.5, "criterion": "random"}, "criterion"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(bw.errors.ConfigError, match=message):
        bw.Prune(**fields)
