"""A node that was away, or joins late: silent until it is with the others again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from p2pfed.core.effects import Checkpoint, Effect, Emit
from p2pfed.core.events import CaughtUp, FellBehind, ModelAdopted, MovedToOthers
from p2pfed.core.gossip.calendar import Moment
from p2pfed.core.gossip.catch_up import FEWEST_SOURCES, PROVING_ROUNDS, CatchUp, Stage
from p2pfed.core.gossip.own import OwnModel
from p2pfed.core.gossip.readings import Readings
from p2pfed.core.inputs import EvaluationFinished
from p2pfed.core.merging import HALFWAY, Merge
from p2pfed.core.phase import Phase
from p2pfed.core.weights import Vector


class Returning(OwnModel):
    """The part of training by the calendar that looks whether the others have gone on, and follows them."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.readings = Readings()
        self.catch_up = CatchUp(self.manifest, self._peers, self._updates, self._reputation.yardstick)
        self.moment = Moment(-1, 0, 0, float("-inf"), float("-inf"))
        """Where the calendar was when it was looked at last."""
        self._begun: Vector | None = None
        """What the training of this round began from, once it is done."""
        self._proving = 0
        """The round in which it came near the others."""
        self._merged_before = 0
        """`merged` as it was until then."""

    @property
    def behind(self) -> bool:
        """See `OwnModel`."""
        return self.catch_up.behind

    @property
    def catching_up(self) -> bool:
        """See `OwnModel`."""
        return self.behind or self.moment.resting

    def met(self, now: float, wall: float) -> list[Effect]:
        """Who joins or comes back while the others rest catches up at once."""
        return self._rest_catch_up(now) if self.moment.resting else []

    def _rest_catch_up(self, now: float) -> list[Effect]:
        tried = self.catch_up.tried_in == self.moment.cycle
        return [] if self.clock_off or self.moment.cycle < 0 or tried else self._look_behind(now)

    def _look_behind(self, now: float) -> list[Effect]:
        """See whether the others are ahead, or most of them lost, and go on catching up if they are."""
        lost = self.catch_up.lost_most(self.moment.number)
        if self.catch_up.stage in (Stage.WITH_THE_OTHERS, Stage.PROVING):
            if not self.catch_up.left_behind(self.merged, self.moment.number):
                return []
            if not lost and self._begun is not None and self.catch_up.proven(self.vector, self.moment.number):
                self.merged = self.moment.number  # all had stopped, or a round was missed: the models are near
                return []
            return [*self._fall_behind(lost, now), *self._catch_up(now)]
        # members that do not answer must not keep it waiting for longer than a round
        return self._catch_up(now, waited=not self.moment.resting)

    def _fall_behind(self, lost: bool, now: float) -> list[Effect]:
        self.catch_up.stage = Stage.BEHIND
        effects: list[Effect] = [Emit(FellBehind(self.merged, self.moment.number))]
        if not lost:
            effects += self.catch_up.collect(self.moment.number, now)
        happened = (
            "more than half of the members are lost"
            if lost
            else f"the others are at round {self.moment.number}, this node's model at {self.merged}"
        )
        return effects + self._problems.raise_(
            "BEHIND",
            "error",
            f"{happened}: this node publishes nothing and judges nobody until it has caught up",
            "it catches up by itself once it reaches them; members that will not come back the admins should remove",
        )

    def pulls_ended(self, now: float, wall: float) -> list[Effect]:
        """Who is behind looks at what has come."""
        return self._catch_up(now) if self._updates.idle and self.catch_up.stage is Stage.BEHIND else []

    def _catch_up(self, now: float, waited: bool = False) -> list[Effect]:
        """Look whom to follow, once what was asked for has come, or a round was `waited` for it."""
        if self.catch_up.stage is not Stage.BEHIND or self.phase is Phase.TRAINING:
            return []
        if not (self._updates.idle or waited):
            return []
        if self.catch_up.lost_most(self.moment.number):
            return []
        slots = self.catch_up.trusted(self.moment.number)
        if slots and self.catch_up.outdated(self.moment.number):
            return self.catch_up.collect(self.moment.number, now)
        if not slots:
            return self._alone_behind()
        if self.catch_up.near(self.vector, slots):
            return self._prove()
        if self.catch_up.tried_in == self.moment.cycle:
            return self._speak_first()
        cycle = next((c for c in (self.moment.cycle, self.moment.cycle + 1) if self.readings.of(c)), None)
        if cycle is None:  # nobody can measure yet
            soon = self.moment.resting and not self.readings.held(self.moment.cycle + 1)
            return self.readings.open(self.moment.cycle + 1, now) if soon else []
        return self.catch_up.measure(self.vector, slots, cycle, self.moment.cycle)

    def _merge(self, number: int) -> Merge:
        """Merge at the end of round `number`; who is behind, or far from all, moves to the others."""
        begun = self.vector if self._begun is None else self._begun
        self._reputation.apart(self.catch_up.apart(number))
        if sources := self.catch_up.approached(number):
            close = len(sources) >= FEWEST_SOURCES and not self.catch_up.far(self.vector, sources)
            most = 1.0 if close or self.moment.resting else HALFWAY  # in the rest nobody moves on
            merge, there = self.merging.approach(self.vector, sources, most)
            self.vector = merge.vector
            if there and not self.catch_up.outdated(number):
                self._begin_proving()
            return merge
        judges = self.manifest.gossip.reputation  # without it nobody is taken for one that poisons
        if judges and (sources := self.catch_up.far_from(self.vector, number)):
            merge, _ = self.merging.approach(self.vector, sources)
            self.vector = merge.vector
            told = [Emit(MovedToOthers(number, len(sources), merge.displacement)), *self.merging.doubt(odd=True)]
            return replace(merge, effects=[*merge.effects, *told])
        # rounds that it trained by itself since count for nothing: the others do not know them
        own = min(max(self.round, self.merged), self.merged + 1)
        lost = self.catch_up.stage is Stage.BEHIND
        merge = self.merging.end_round(
            begun, self.vector, self.train_rows, number, own, judge=not self.behind, any_round=lost
        )
        self.vector = merge.vector
        return merge

    def _alone_behind(self) -> list[Effect]:
        """Nobody who is trusted has a model to catch up with: this node goes on with its own."""
        effects = self._problems.raise_(
            "NO_SOURCES",
            "warning",
            "this node was away, and no trusted member has a model to catch up with: it goes on with its own",
            "see `p2pfed members`: whoever is quarantined or does not answer is not asked",
        )
        return effects + self._speak_first()

    def _speak_first(self) -> list[Effect]:
        """Go on, if all are silent: each waits for the others."""
        return self._caught_up() if self.catch_up.nobody(self.moment.number) else []

    def _prove(self) -> list[Effect]:
        self._begin_proving()
        return [self._save()]

    def _begin_proving(self) -> None:
        """Its model is near the others': train from it, silently; an optimiser that has rested makes large steps."""
        self.catch_up.stage, self._merged_before = Stage.PROVING, self.merged
        self.merged = self._proving = self.moment.number
        self.merging.rest()

    def _checkpoint(self) -> Checkpoint:
        """Who restarts while it proves itself is behind still."""
        checkpoint = super()._checkpoint()
        if self.catch_up.stage is not Stage.PROVING:
            return checkpoint
        return replace(checkpoint, merged=min(self._merged_before, self.merged))

    def _proven(self) -> list[Effect]:
        """At a round's end: is what was trained in it near the others' models?"""
        if self.catch_up.stage is not Stage.PROVING:
            return []
        trained = self._begun is not None and self.catch_up.proven(self.vector, self.moment.number)
        late = self.moment.number - self._proving > PROVING_ROUNDS
        return self._caught_up() if trained or late else []

    def _caught_up(self) -> list[Effect]:
        self.catch_up.stage, self.merged = Stage.WITH_THE_OTHERS, self.moment.number
        self._reputation.apart(filter(self._updates.trusts, self._peers.members))  # for all were apart from this node
        effects: list[Effect] = [self._save(), Emit(CaughtUp(self.moment.number))]
        return effects + self._problems.clear("BEHIND")

    def _measured_median(self, done: EvaluationFinished, wall: float) -> list[Effect]:
        own = self.vector
        adopted = self.catch_up.measured(done)
        if adopted is None:
            return []
        sources, auprc = len(self.catch_up.sources), done.metrics.get("validation", {}).get("auprc")
        distance = self._reputation.yardstick.distances(own, [adopted])[0]
        self.vector, self._begun = adopted, None
        told = ModelAdopted(sources, auprc, distance, self.catch_up.reference)
        effects: list[Effect] = [*self._prove(), Emit(told), *self._problems.clear("NO_SOURCES")]
        if self.moment.resting:
            cycle = self.moment.cycle
            effects += self.gate.first(cycle, self.merged, adopted, done, wall)
            effects += self.readings.close(cycle + 1)
        return effects
