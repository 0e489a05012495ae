"""Combining what others published into this node's model: who counts is the reputation's word, how the rule's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from p2pfed.core.aggregation import (
    AggregationRule,
    Candidate,
    KnowsTraining,
    Merged,
    SeesLoss,
    coordinate_median,
    rule_from_name,
)
from p2pfed.core.aggregation.geometry import moves_to
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import Source
from p2pfed.core.inbox import Slot
from p2pfed.core.messages import ModelUpdate
from p2pfed.core.misfit import LOOK_EVERY, Labels
from p2pfed.core.momentum import Momentum
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.sources import traced
from p2pfed.core.training_scale import distances
from p2pfed.core.types import NodeId
from p2pfed.core.updates import Updates
from p2pfed.core.weights import Vector

STRIDE = 4.0
"""Times as far as a round of training: so far a round brings who is far back to the others, whoever they are."""
HALFWAY = 0.5
"""The share of the way that it goes where the others agree: who is far has trained little lately, and by `STRIDE` alone
it would take dozens of rounds."""


@dataclass(frozen=True)
class Merge:
    """The model after a merge, whose models were at hand, how far it moved, and what is to be told."""

    vector: Vector
    sources: tuple[Source, ...]
    displacement: float
    effects: list[Effect]

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Whose models were at hand for the merge; the rule may have kept nothing of some."""
        return tuple(source.member for source in self.sources)


class Merging:
    """The merges of one node; `count` is how many there were, which is all the time that a free-running node knows."""

    def __init__(self, manifest: Manifest, updates: Updates, reputation: Reputation, problems: Problems) -> None:
        self._updates, self._reputation, self._problems = updates, reputation, problems
        self.rule: AggregationRule = rule_from_name(manifest.gossip.rule)
        if isinstance(self.rule, SeesLoss):
            self.rule.see(lambda vector: reputation.yardstick.probe.loss(manifest.model, vector))
        if isinstance(self.rule, KnowsTraining):
            self.rule.measure_by(reputation.yardstick.training)
        self._judging = manifest.gossip.reputation
        self._labels = Labels(manifest.contract, manifest.model, problems)
        self.momentum = Momentum()
        self.count = 0

    def rest(self) -> None:
        """After an absence what moved the node before, and how far, says nothing of now."""
        self.momentum = Momentum()
        self._reputation.yardstick.training.forget()

    def note_training(self, begun: Vector, trained: Vector) -> None:
        """Learn how far a round of local training moves this node."""
        yardstick = self._reputation.yardstick
        learn = yardstick.note_training if self._judging else yardstick.training.note
        learn(begun, trained)
        self.rule.note_training(begun, trained)

    def end_round(
        self,
        begun: Vector,
        trained: Vector,
        rows: int,
        number: int | None = None,
        own: int | None = None,
        judge: bool = True,
        any_round: bool = False,
    ) -> Merge:
        """Merge into what a round made of `begun`, and let half the usual movement go on.

        `number` is the calendar's round that ends and `own` the one of `trained`, None of free-running nodes. Who is
        behind the others does not `judge`, and may take their models of `any_round`, clipped.
        """
        candidates = self.momentum.ahead(trained, self._updates.candidates(self._now(number), own, any_round))
        merged = self._merge(trained, rows, candidates, number, judge)
        vector = self.momentum.push(begun, merged.vector, merged=bool(merged.members))
        return replace(merged, vector=vector)

    def approach(self, own: Vector, slots: Sequence[Slot], most: float = HALFWAY) -> tuple[Merge, bool]:
        """Move `own` towards the coordinate median of the models in `slots`; whether it is there.

        For who is far from them, and so judges nobody: to the merge rule many models that agree look like copies of
        one. Of three or more models one alone cannot lead; of fewer, those that differ lead by `STRIDE` at most.
        `most` is the share of the way to models that agree.
        """
        vectors = [slot.update.vector for slot in slots]
        middle = coordinate_median(vectors)
        (apart,), (distance,) = moves_to(own, [middle])
        length = max(float(distance), 1e-12)
        share = STRIDE * self._reputation.yardstick.training.unit(own) / length
        if len(vectors) > 2 or len(vectors) == 2 and distances(vectors[0], middle) <= length / 4:
            share = max(share, most)
        share = min(share, 1.0)
        self.count += 1
        vector = own + np.float32(share) * apart
        members = [slot.update.statement.sender for slot in slots]
        equally, way = dict.fromkeys(members, 1 / len(members)), dict.fromkeys(members, share)
        merged = Merged(vector, equally, share * length, way)
        sources = self._traced(own, merged, dict(zip(members, vectors, strict=True)), [slot.update for slot in slots])
        return Merge(vector, sources, share * length, self._updates.expire(self.count)), share == 1.0

    def outside_rounds(self, own: Vector, rows: int) -> Merge:
        """Merge what has arrived as it is."""
        return self._merge(own, rows, self._updates.candidates(self.count))

    @property
    def something_new(self) -> bool:
        """Whether a model waits that no merge has seen."""
        return any(slot.merged_in is None for slot in self._updates.slots(1))

    def _now(self, number: int | None) -> int:
        return self.count if number is None else number

    def _merge(
        self, own: Vector, rows: int, candidates: list[Candidate], number: int | None = None, judge: bool = True
    ) -> Merge:
        if not candidates:
            return Merge(own, (), 0.0, [])
        effects: list[Effect] = []
        # who has never trained has no unit to judge by
        judge = judge and self._reputation.yardstick.training.moved is not None
        if judge or not self._judging:  # else they are new still to the next merge that judges
            self._updates.inbox.merged([c.member for c in candidates if c.waited == 0], self._now(number))
        if self._judging and judge:
            judged = self._reputation.judge(own, rows, candidates, number)
            candidates = judged.candidates
            effects = [*map(Emit, judged.changes), *self.doubt(judged.odd)]
        elif self._judging:
            candidates = self._reputation.trusted(candidates)
        self.count += 1
        updates = [slot.update for c in candidates if (slot := self._updates.inbox.slot(c.member)) is not None]
        effects += self._updates.expire(self.count)
        if not candidates:
            return Merge(own, (), 0.0, effects)
        if judge and self.count % LOOK_EVERY == 0:
            effects += self._labels.look(self._reputation.yardstick.probe, [c.vector for c in candidates])
        merged = self.rule.merge(own, rows, candidates)
        sources = self._traced(own, merged, {c.member: c.vector for c in candidates}, updates)
        return Merge(merged.vector, sources, merged.displacement, effects)

    def _traced(
        self, own: Vector, merged: Merged, models: dict[NodeId, Vector], updates: Sequence[ModelUpdate]
    ) -> tuple[Source, ...]:
        return traced(own, merged, models, {u.statement.sender: u for u in updates}, self._reputation.peers)

    def doubt(self, odd: bool) -> list[Effect]:
        """Tell the operator that it may be this node that is `odd`, or that it is not any more."""
        if not odd:
            return self._problems.clear("ODD_ONE_OUT")
        return self._problems.raise_(
            "ODD_ONE_OUT",
            "warning",
            "more than half of the members' models look bad from here, so it may be this node that differs",
            "compare this bank's data and its mapping to the contract with the other members'",
        )
