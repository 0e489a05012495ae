"""A yardstick for defences: the best rule without memory, told in every merge what no real node can know."""

from __future__ import annotations

from collections.abc import Sequence

from p2pfed.core.aggregation import Candidate, NearestNeighbours
from p2pfed.core.types import NodeId


class InformedNeighbours(NearestNeighbours):
    """Nearest-neighbour averaging that drops as many of a merge's models as attackers sent: NNA with an oracle's f.

    It is told how many they are and not which. A scenario names it as
    `gossip.rule: p2pfed.adversary.oracle:InformedNeighbours`; the simulator tells it who attacks in this run, at any
    time of it, so a sleeping attacker counts. Where nobody tells, it knows of none and takes the plain average.
    """

    name = "oracle_nna"

    def __init__(self) -> None:
        super().__init__()
        self.known: frozenset[NodeId] = frozenset()

    def attackers(self, candidates: Sequence[Candidate]) -> int:
        """How many of `candidates` are from known attackers."""
        return sum(c.member in self.known for c in candidates)
