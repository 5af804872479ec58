"""Chains: the kernels of their layers, the one kernel that they stand for, and the graph that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwidth.errors import ModelError
from bitwidth.graph import Chain, Chains, Stage, cut_between, with_chains
from bitwidth.graph.foreseen import in_place
from tests import reference

RNG = np.random.default_rng(0)


def drawn(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def test_a_dense_layer() -> None:
    first, last = drawn(6, 2), drawn(2, 4)
    chain = Chain("net/a/kernel", (Stage("net/a_factor", (0,), first), Stage("net/a", (1,), last)))
    assert (chain.layer, chain.rank) == ("net/a", 2)
    np.testing.assert_array_equal(chain.kernels["net/a_factor/kernel"], first)
    np.testing.assert_array_equal(chain.kernels["net/a/kernel"], last)
    np.testing.assert_allclose(chain.product, first @ last, rtol=1e-6)
    assert chain.cut.made == {"net/a_factor/kernel": ("net/a/kernel",), "net/a/kernel": ("net/a/kernel",)}
    assert chain.cut.entrance("net/a") == "net/a_factor"


def test_axes_come_back_in_the_order_of_the_kernel() -> None:
    first, last = drawn(3, 5, 2), drawn(2, 4, 6)  # the inputs are the axes 1 and 3, the outputs 0 and 2
    chain = Chain("a/kernel", (Stage("f", (1, 3), first), Stage("a", (0, 2), last)))
    np.testing.assert_allclose(chain.product, np.einsum("bdr,rac->abcd", first, last), atol=1e-5)


@pytest.mark.parametrize(
    ("axes", "shapes", "kernels", "equation"),
    [
        (((0, 1, 2), (3,)), ((3, 5, 4, 2), (2, 6)), ((3, 5, 4, 2), (1, 1, 2, 6)), "hwir,ro->hwio"),
        (((0, 2), (1, 3)), ((3, 4, 2), (2, 5, 6)), ((3, 1, 4, 2), (1, 5, 2, 6)), "hir,rwo->hwio"),
    ],
)
def test_convolutions(axes: Any, shapes: Any, kernels: Any, equation: str) -> None:
    first, last = (drawn(*shape) for shape in shapes)
    chain = Chain("a/kernel", (Stage("f", axes[0], first), Stage("a", axes[1], last)), windows=2)
    assert tuple(kernel.shape for kernel in chain.kernels.values()) == kernels
    np.testing.assert_allclose(chain.product, np.einsum(equation, first, last), atol=1e-5)
    one, other = chain.kernels.values()
    positions = (1, 5) if axes[1] == (1, 3) else (1, 1)
    np.testing.assert_array_equal(other, np.moveaxis(last.reshape(2, *positions, 6), 0, 2))
    np.testing.assert_array_equal(one.ravel(), first.ravel())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (((0,), (6, 2)), ((1,), (3, 4))),
        (((0,), (6, 2)), ((0,), (2, 4))),
        (((0,), (6, 2)), ((2,), (2, 4))),
        (((0, 1), (6, 2)), ((2,), (2, 4))),
    ],
)
def test_what_is_no_chain_is_refused(one: Any, other: Any) -> None:
    with pytest.raises(ModelError, match=r"a/kernel: factors of shapes .* are no chain"):
        Chain("a/kernel", (Stage("f", one[0], drawn(*one[1])), Stage("a", other[0], drawn(*other[1]))))


@pytest.mark.parametrize(
    ("taken", "summed", "between"),
    [("abc", "c", "abr"), ("abcd", "cd", "abr"), ("...x", "x", "...r"), ("ab...", "b", "ar..."), ("abc", "b", "arc")],
)
def test_letters_between(taken: str, summed: str, between: str) -> None:
    assert in_place(taken, summed, "r") == between


def test_the_graph_with_a_chain_of_a_backend_that_hands_no_kernels_on() -> None:
    network = reference.Network([6, 8, 2])
    session = reference.ReferenceSession(network)
    before = session.graph
    chain = Chain("layer1/kernel", (Stage("between", (0,), drawn(8, 1)), Stage("layer1", (1,), drawn(1, 2))))
    planned = with_chains(before, Chains((chain,)))
    real = session.rebuild(before, Chains((chain,)))
    assert [p.path for p in planned] == [p.path for p in real]
    for parameter in real:
        one, other = planned[parameter.path], parameter
        assert (one.shape, one.role, one.layer, one.index) == (other.shape, other.role, other.layer, other.index)
        np.testing.assert_array_equal(planned.values[other.path], real.values[other.path])
    assert [(op.kind, op.layer) for op in planned.ops] == [(op.kind, op.layer) for op in real.ops]
    assert list(planned.layers) == list(real.layers)
    assert cut_between(before, planned).made == cut_between(before, real).made
    made = {name for op in planned.ops for name in op.outputs}
    assert all(name in made | {"input"} for op in planned.ops for name in op.inputs)
