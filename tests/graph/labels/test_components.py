"""Labels that are equal through others, against a plain union of sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.graph.labels.components import components


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_those_of_a_union_of_sets(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = drawn
    sets = [{label} for label in range(count)]
    for one, other in edges:
        union = sets[one] | sets[other]
        for label in union:
            sets[label] = union
    pairs = [(np.array([one]), np.array([other])) for one, other in edges]
    assert components(count, pairs).tolist() == [min(item) for item in sets]


def test_a_long_chain_takes_few_rounds() -> None:
    count = 100_000
    order = np.random.default_rng(0).permutation(count)
    assert not components(count, [(order[:-1], order[1:])]).any()
