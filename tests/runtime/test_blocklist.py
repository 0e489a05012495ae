"""Who is blocked, and that it is not forgotten."""

from __future__ import annotations

import pytest

from p2pfed.core.types import NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.runtime.blocklist import Blocklist
from p2pfed.store.state_dir import StateDir

A, B = NodeId("A" * 56), NodeId("B" * 56)


def test_the_operators_word_stands_beside_the_configuration_and_survives_a_restart(tmp_path):
    state = StateDir(tmp_path)
    assert Blocklist(state, frozenset()).members == frozenset()
    blocklist = Blocklist(state, frozenset({A}))
    blocklist.block(B, True)
    assert blocklist.members == {A, B}
    again = Blocklist(state, frozenset())
    assert again.members == {B}
    again.block(A, False)
    again.block(B, False)
    assert again.members == Blocklist(state, frozenset()).members == frozenset()
    again.configured = frozenset({A})
    assert again.members == {A}


@pytest.mark.parametrize("damaged", [b"", b"{}", b"[1]", b"\xff"])
def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, damaged):
    state = StateDir(tmp_path)
    state.blocklist.write_bytes(damaged)
    with pytest.raises(StateCorrupt, match=r"blocklist\.json cannot be read .*peer block"):
        Blocklist(state, frozenset())
