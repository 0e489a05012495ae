"""From one way of training to the next: what a node keeps when a change of the manifest begins, and what it forgets."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit, Withdraw
from p2pfed.core.gossip.calendar import MOST_CYCLES, Moment
from p2pfed.core.gossip.returning import Returning
from p2pfed.core.phase import Phase

OF_A_MODEL = ("MANY_QUARANTINED", "QUALITY_FALLS", "COLUMNS_UNLIKE", "FRAUDS_UNLIKE")
"""Problems that say nothing of the next model."""


class Switching(Returning):
    """The part of training by the calendar that hands over to itself under another manifest."""

    _listening: bool

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the rounds are done that this node was asked for."""

    @abstractmethod
    def _look(self, now: float, wall: float) -> list[Effect]: ...

    @abstractmethod
    def _end_round(self, over: Moment, now: float) -> list[Effect]: ...

    @abstractmethod
    def _end_cycle(self, before: Moment, now: float, wall: float) -> list[Effect]: ...

    def expect(self, coming: Manifest | None) -> None:
        """What trainers of cycles of another model read is not used before it is in force."""
        other = coming is not None and coming.model_digest != self.manifest.model_digest
        self.readings.held_from = coming.from_cycle if coming is not None and other else None

    def switch(self, manifest: Manifest, now: float, wall: float) -> tuple[Self, list[Effect]]:
        """See `OwnModel`: what the old calendar has under way is ended, then the new one is looked at."""
        effects = self._end_old(now, wall)
        anew = manifest.model_digest != self.manifest.model_digest
        if anew:
            effects += self._close_trainers(manifest.from_cycle)
        forgotten = self._forget_models(manifest) if anew else []
        new = self._successor(manifest)
        new._take_over(self, anew, wall)
        effects += [new._save(), *forgotten, *self._problems.clear("BEHIND"), *self._problems.clear("NO_SOURCES")]
        return new, [*effects, *new._look(now, wall)]

    def _end_old(self, now: float, wall: float) -> list[Effect]:
        before, at = self.moment, self.manifest.calendar.at(wall)
        if before.resting or (at.cycle, at.round) == (before.cycle, before.round):
            return []
        self.moment = at
        effects = [] if self.clock_off else self._end_round(before, now)
        if at.resting or at.cycle != before.cycle:
            effects += self._end_cycle(before, now, wall)
        return effects

    def _close_trainers(self, begins: int) -> list[Effect]:
        """End those of the old model; who did not know of the change has no other."""
        knew, self.readings.held_from = self.readings.held_from is not None, None
        return self.readings.close(begins - 1 if knew else MOST_CYCLES)

    def _forget_models(self, manifest: Manifest) -> list[Effect]:
        changes = self._reputation.begin_anew(manifest.model)
        cleared = [effect for code in OF_A_MODEL for effect in self._problems.clear(code)]
        return [Withdraw(self._me), *self._updates.forget(), *map(Emit, changes), *cleared]

    def _take_over(self, old: Self, anew: bool, wall: float) -> None:
        self.readings, self.mute, self.clock_off = old.readings, old.mute, old.clock_off
        self.train_rows, self.train_frauds = old.train_rows, old.train_frauds
        self._listening, self.merging.count = old._listening, old.merging.count
        if anew:
            self.health.count_on(old.health)
        else:
            self.gate, self._usual_seconds = old.gate, old._usual_seconds
            self.health = old.health
        at, calendar = self.manifest.calendar.at(wall), self.manifest.calendar
        # as if it had rested before: the round that is under way is begun
        begins = at.begins if at.resting else calendar.begins(at.cycle)
        rested = Moment(at.cycle - 1, 0, calendar.number(at.cycle, 0), float("-inf"), begins)
        self.moment = at if at.resting else rested
        self.phase = Phase.FINISHED if self.finished else Phase.RESTING
