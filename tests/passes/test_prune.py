"""What `Prune` masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bitwidth as bw
from tests import reference

NETWORK = reference.Network([6, 8, 2])


def mask_of(graph: bw.Graph, path: str) -> Any:
    """The mask of a pruned parameter."""
    mask = graph[path].encoding.mask
    assert mask is not None
    return mask


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
        ({"sparsity": 0.5, "floor": -0.1}, "floor must be from 0 to 1"),
        ({"sparsity": 0.5, "floor": 1.5}, "floor must be from 0 to 1"),
        ({"sparsity": 0.5, "floor": "much"}, "floor must be a number"),
        ({"sparsity": 0.5, "floor": float("nan")}, "floor must be from 0 to 1"),
        ({"sparsity": 0.5, "scope": "layer"}, "scope"),
        ({"sparsity": 0.5, "criterion": "random"}, "criterion"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(bw.errors.ConfigError, match=message):
        bw.Prune(**fields)


def scaled(factors: list[float], widths: list[int], seed: int = 0) -> reference.Network:
    """A network of layers of very different scales."""
    network = reference.Network(widths, seed=seed)
    for place, factor in enumerate(factors):
        network.weights[2 * place] *= np.float32(factor)
    return network


def left(network: Any, one: bw.Prune) -> tuple[list[Any], tuple[str, ...]]:
    """The masks of the kernels, and the remarks."""
    result = bw.PassManager([one]).run(network)
    return [mask_of(result.graph, p.path) for p in result.graph if p.role == "kernel"], result.report.passes[0].remarks


@pytest.mark.parametrize("factors", [[1.0, 1.0, 0.01], [100.0, 1.0, 1.0], [1e-6, 1.0, 1e6], [3.0, 0.1, 0.5]])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9])
def test_layers_of_other_scales_keep_their_floors(factors: list[float], sparsity: float) -> None:
    network = scaled(factors, [32, 64, 48, 10])
    masks, _ = left(network, bw.Prune(sparsity))
    assert sum(int(mask.sum()) for mask in masks) == round(sum(m.size for m in masks) * (1 - sparsity))
    assert all(mask.mean() >= 0.2 * (1 - sparsity) for mask in masks)
    assert masks[-1].any(axis=0).all()


def test_the_scale_of_a_layer_does_not_matter() -> None:
    plain, _ = left(scaled([1, 1, 1], [32, 64, 48, 10]), bw.Prune(0.7))
    other, _ = left(scaled([256, 1, 1 / 1024], [32, 64, 48, 10]), bw.Prune(0.7))
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_output_layer_of_one_unit_that_is_small_keeps_weights() -> None:
    """100 inputs to one output, beside a layer of greater weights: the first case that was met."""
    network = scaled([1.0, 0.01], [20, 100, 1])
    (_, last), _ = left(network, bw.Prune(0.5))
    assert last.sum() >= 10


@pytest.mark.parametrize("floor", [0.0, 0.2, 0.5, 1.0])
def test_the_floor_is_a_share_of_what_local_would_leave(floor: float) -> None:
    network = scaled([1.0, 1.0], [64, 64, 16])
    network.weights[2] = np.random.default_rng(0).standard_cauchy((64, 16)).astype(np.float32) ** 5
    masks, remarks = left(network, bw.Prune(0.5, floor=floor))
    assert masks[1].mean() == pytest.approx(max(floor * 0.5, masks[1].mean()), abs=1e-3)
    assert any(remark.startswith("layer1/kernel: nearly emptied") for remark in remarks) == (masks[1].mean() <= 0.11)
    assert sum(int(mask.sum()) for mask in masks) == (64 * 64 + 64 * 16) // 2


@pytest.mark.parametrize(
    ("widths", "one", "greatest"),
    [
        ([2, 64], bw.Prune(0.6), 0.5),
        ([4, 4, 40], bw.Prune(0.9), 0.767),
        ([6, 8, 2], bw.Prune(0.99), 0.9531),
    ],
)
def test_floors_that_leave_no_room_are_refused_before_work_starts(widths: Any, one: bw.Prune, greatest: float) -> None:
    network = reference.Network(widths)
    for work in (bw.PassManager([one]).run, bw.PassManager([one]).plan):
        with pytest.raises(bw.errors.ConfigError, match=rf"give sparsity={greatest} at most, or a lower floor"):
            work(network)
    masks, _ = left(network, bw.Prune(greatest))
    assert masks[-1].any(axis=0).all()
    left(network, bw.Prune(one.sparsity, floor=0))


def test_masks_of_before_count_with_floors() -> None:
    first = bw.PassManager([bw.Prune(0.9, where="layer0")]).run(reference.Network([32, 32, 8]))
    again = bw.PassManager([bw.Prune(0.9)]).run(first)
    assert not (mask_of(again.graph, "layer0/kernel") & ~mask_of(first.graph, "layer0/kernel")).any()
    assert sum(int(mask_of(again.graph, f"layer{i}/kernel").sum()) for i in (0, 1)) == 128
