"""A late joiner's first model: the one declared exception to trusting only one's own.

A node without checkpoint that meets min(3, n-1) members already at sequence 10 takes the coordinate median of up to 15
of their models, if that is not worse on its own validation rows than the initial weights. Otherwise, or when the
waiting time is over, it starts from the initial weights.
"""

from __future__ import annotations

import math
from enum import Enum

from p2pfed.core.aggregation import coordinate_median
from p2pfed.core.effects import Effect, StartEvaluation
from p2pfed.core.inbox import Slot
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.membership import PeerTable
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector

MATURE_SEQ = 10
MOST_SOURCES = 15
ENOUGH_SOURCES = 3


class Stage(Enum):
    """How far the decision has come."""

    MEETING = "meeting"  # listening to heartbeats
    COLLECTING = "collecting"  # pulling mature members' models
    JUDGING = "judging"  # measuring median and initial weights on own validation rows
    DECIDED = "decided"


class Adoption:
    """The decision, step by step; the node turns its answers into effects."""

    def __init__(self, initial: Vector, others: int, decided: bool) -> None:
        self.stage = Stage.DECIDED if decided else Stage.MEETING
        self.sources: list[NodeId] = []
        self._needed = min(ENOUGH_SOURCES, others)
        self._initial = initial
        self._median: Vector | None = None
        self._initial_quality: tuple[float, float] | None = None

    def mature(self, peers: PeerTable) -> list[NodeId]:
        """Members whose newest update is old enough to adopt from."""
        return [h.member for h in peers.heartbeats() if h.seq >= MATURE_SEQ]

    def met_enough(self, peers: PeerTable) -> bool:
        """Whether as many members have been heard as the rule needs."""
        return sum(1 for _ in peers.heartbeats()) >= self._needed

    def can_collect(self, peers: PeerTable) -> bool:
        """Whether enough mature members are known."""
        return self._needed > 0 and len(self.mature(peers)) >= self._needed

    def judge(self, slots: list[Slot]) -> list[Effect]:
        """Evaluate median and initial weights; no effects (and DECIDED) if too few models are in `slots`."""
        if len(slots) < self._needed:
            self.stage = Stage.DECIDED
            return []
        self.stage = Stage.JUDGING
        self.sources = [s.update.statement.sender for s in slots[:MOST_SOURCES]]
        self._median = coordinate_median([s.update.vector for s in slots[:MOST_SOURCES]])
        return [
            StartEvaluation("adoption:initial", self._initial),
            StartEvaluation("adoption:median", self._median),
        ]

    def judged(self, result: EvaluationFinished) -> tuple[Vector, float | None] | None:
        """After both evaluations: the adopted vector and its AUPRC, or None if the initial weights are better."""
        metrics = result.metrics.get("validation", {})
        auprc, loss = metrics.get("auprc"), metrics.get("loss")
        quality = (0.0 if auprc is None else _ordered(auprc), 0.0 if loss is None else _ordered(-loss))
        if result.purpose == "adoption:initial":
            self._initial_quality = quality
            return None
        self.stage = Stage.DECIDED
        if self._median is None or self._initial_quality is None or quality < self._initial_quality:
            return None
        return self._median, auprc


def _ordered(figure: float) -> float:
    """NaN, which compares with nothing, as the worst figure there is."""
    return float("-inf") if math.isnan(figure) else figure
