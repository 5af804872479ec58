"""What parameters of a group take of the bytes that they share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwidth.artifact.format.header import CODES, Entry, Group, Stream
from bitwidth.artifact.format.layout import chunk_size
from bitwidth.artifact.version3.shares import FULL, with_pieces
from bitwidth.errors import CorruptFileError


def entry(count: int, layers: bool, kept: int | None = None) -> Entry:
    streams = (
        Stream("scale", "floats", "float16", (3,)),
        Stream(CODES, "layers" if layers else CODES, "int32", (count,)),
    )
    config = {"kind": "quantized", "low": -127, "high": 127, "block": [count]}
    return Entry("a", "kernel", (count,), "float32", True, config, streams, count if kept is None else kept)


MEMBERS = st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=8)


@given(st.lists(st.tuples(MEMBERS, st.integers(0, 1 << 20), st.integers(0, 1 << 20)), max_size=4))
def test_shares_add_up_to_the_chunks(given_: list[tuple[list[tuple[int, bool]], int, int]]) -> None:
    entries, groups = [], []
    for members, first, later in given_:
        entries += [entry(*member) for member in members]
        in_layers = any(flag for _, flag in members)
        groups.append(Group(len(members), (first, 5), (later,) if in_layers else ()))
    found = with_pieces(entries, groups, "m.bw")
    at = 0
    for group in groups:
        members_ = found[at : at + group.count]
        at += group.count
        assert sum(one.pieces[0].bytes for one in members_) == chunk_size(group.lengths)
        rest = sum(piece.bytes for one in members_ for piece in one.pieces[1:])
        assert rest == (chunk_size(group.later) if group.later else 0)
        assert all(piece.bytes >= 0 for one in members_ for piece in one.pieces)
        for one in members_:
            assert [piece.bits for piece in one.pieces] == ([0, 5] if one.streams[-1].coder == "layers" else [0])
    assert at == len(found)


def test_shares_are_by_weight() -> None:
    large, small = with_pieces([entry(3000, False), entry(1000, False)], [Group(2, (40_000,))], "m.bw")
    assert 2.9 < large.bytes / small.bytes < 3.1
    whole, pruned = with_pieces([entry(3000, False), entry(3000, False, 0)], [Group(2, (40_000,))], "m.bw")
    assert pruned.bytes < whole.bytes / 100


@pytest.mark.parametrize(
    ("entries", "groups"),
    [
        ([entry(9, False)], []),
        ([], [Group(0, (1,))]),
        ([entry(9, False)], [Group(2, (1,))]),
        ([entry(9, False)], [Group(1, (1,), (1,))]),
        ([entry(9, True)], [Group(1, (1,))]),
        ([entry(9, True)], [Group(1, (1,), (1, 1))]),
        ([entry(FULL, False), entry(9, False)], [Group(2, (1,))]),
    ],
)
def test_groups_that_no_writer_makes_are_refused(entries: list[Entry], groups: list[Group]) -> None:
    with pytest.raises(CorruptFileError):
        with_pieces(entries, groups, "m.bw")
