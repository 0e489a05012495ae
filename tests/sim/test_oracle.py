"""Nearest-neighbour averaging that is told how many attack, as a yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from p2pfed.adversary.oracle import InformedNeighbours
from p2pfed.core.aggregation import Candidate, Merged, code_allowed, rule_from_name
from p2pfed.core.types import NodeId
from tests.sim.consortium import simulated

NAME = "p2pfed.adversary.oracle:InformedNeighbours"


@code_allowed()
def test_it_drops_as_many_as_attack_and_not_which() -> None:
    rule = rule_from_name(NAME)
    assert isinstance(rule, InformedNeighbours)
    rule.known = frozenset(map(NodeId, ("B", "Z")))
    places = {"A": 9.0, "B": 1.0, "C": 2.0}
    candidates = [Candidate(NodeId(m), np.array([at], np.float32), 1, 0) for m, at in places.items()]
    merged = rule.merge(np.zeros(1, np.float32), 1, candidates)
    assert merged.vector == 1.0  # of 0, 1 and 2: the farthest goes, honest as it is
    assert rule.merge(np.zeros(1, np.float32), 1, [candidates[0]]).vector == 4.5


@code_allowed()
def test_the_simulator_tells_it_who_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    merge = InformedNeighbours.merge

    def watched(self: Any, own: Any, rows: int, candidates: Sequence[Candidate]) -> Merged:
        counts.append(self.attackers(candidates))
        assert len(self.known) in (0, 2)  # attackers know of none
        return merge(self, own, rows, candidates)

    monkeypatch.setattr(InformedNeighbours, "merge", watched)
    attackers = [{"kind": "gaussian", "nodes": ["bank-2", "bank-5"]}]
    gossip = {"rule": NAME, "reputation": False}
    assert simulated(seed=1, gossip=gossip, attackers=attackers).transcript
    assert set(counts) <= {0, 1, 2} and 2 in counts
    told = sum(counts)
    counts.clear()
    assert simulated(seed=1, gossip=gossip).transcript
    assert told > 0 == sum(counts)
