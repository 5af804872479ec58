from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.artifact.format.states import arrays_of, config_of, state_of
from bitwidth.encodings import EncodingState

NAMES = st.text("abc_", min_size=1, max_size=3)
STATES = st.recursive(
    st.builds(
        lambda names: EncodingState("leaf", {"width": 3}, {name: np.arange(2) for name in names}),
        st.sets(NAMES, max_size=3),
    ),
    lambda inner: st.builds(
        lambda names, parts: EncodingState("node", {}, {name: np.arange(3) for name in names}, parts),
        st.sets(NAMES, max_size=2),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=6,
)


def plain(state: EncodingState) -> object:
    held = {name: array.tolist() for name, array in state.arrays.items()}
    return state.kind, dict(state.config), held, {name: plain(part) for name, part in state.parts.items()}


@given(STATES)
def test_a_state_is_taken_apart_and_put_together(state: EncodingState) -> None:
    assert plain(state_of(config_of(state), dict(arrays_of(state)))) == plain(state)


def test_many_parts_and_many_arrays_take_time_in_proportion() -> None:
    config = {"kind": "node", "parts": {f"p{index}": {"kind": "leaf"} for index in range(20_000)}}
    scales = {f"p{index}.scale": np.zeros(1) for index in range(20_000)}
    started = time.perf_counter()
    state = state_of(config, scales)
    assert time.perf_counter() - started < 2, "each array is looked at once, not once for each part"
    assert len(state.parts) == 20_000
    assert all(len(part.arrays) == 1 for part in state.parts.values())
