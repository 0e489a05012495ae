"""What an interpreter may ask a node without an input leaves no trace: a journal of inputs replays all the same."""

from __future__ import annotations

import pytest

from p2pfed.core import membership
from tests.core.heap import Network, make_manifest


def test_questions_change_no_later_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MAX_TABLE_ROWS", 3)  # so that a table is a random choice of rows
    hashes = set()
    for questions in (0, 5):
        network = Network(make_manifest(5, fanout=1), rounds=0)
        nodes = [network.start(i) for i in range(5)]
        for second in range(1, 30):
            network.run(second)
            for node in nodes:
                for _ in range(questions):
                    assert len(node.heartbeats(node.me).rows) <= 3
                node.hello(network.ids[0], network.now)
        hashes.add(network.hash())
    assert len(hashes) == 1
