"""What an operator should worry about at a cycle's end: mass quarantines, silence of the others, quality that falls.

A restart goes on where it was: cycles are a day long, and a daemon may be restarted in each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from p2pfed.core import record
from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ModelHeld, ModelPromoted, PaymentsServed, ProblemRaised
from p2pfed.core.gossip.calendar import Calendar, Moment
from p2pfed.core.gossip.champion import FEWEST_FRAUDS, TOLERANCE
from p2pfed.core.problems import Problems
from p2pfed.core.served import Served, together
from p2pfed.core.types import NodeId

MANY = 3
"""Members newly quarantined within one cycle that are too many to be a coincidence; or half of the others."""
FALLING = 3
"""Cycles in a row in which a model did worse, in each by more than the tolerance."""
MERGED, SERVED = (
    "of the merged model on validation rows",
    "of what served, on payments whose labels have matured since,",
)
"""Whose AUPRC may fall."""
KEPT = ("MANY_QUARANTINED", "NOBODY_PUBLISHES", "QUALITY_FALLS", "READING_REFUSED")
"""The problems that a restart does not end. An incomplete curve is looked at anew with every reading."""


@dataclass(frozen=True)
class PastCycle:
    """A cycle that is over."""

    cycle: int
    trained: int
    """Rounds of it that this node trained."""
    ended: float
    """Unix seconds."""


@dataclass(frozen=True)
class _Kept:
    """What a restart goes on with."""

    cycle: int = -1
    trained: int = 0
    last: PastCycle | None = None
    quarantined: tuple[str, ...] = ()
    heard: bool = False
    merged: tuple[tuple[float, float], ...] = ()
    served: tuple[tuple[float, float], ...] = ()
    problems: tuple[ProblemRaised, ...] = ()
    listening: bool | None = None
    held: tuple[str, ...] | None = None


class Health:
    """What happened in the cycle so far, and the problems that follow."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._cycle = -1
        self.trained = 0
        """Rounds of this cycle that this node trained."""
        self.last: PastCycle | None = None
        """The newest cycle that is over, of those that this node was up in."""
        self._quarantined: set[NodeId] = set()
        self.held: set[NodeId] = set()
        """Who was in quarantine when it was looked last."""
        self.listening: bool | None = None
        """Whether this bank published nothing in its last cycle, for it had too few frauds; None before the first."""
        self._heard = False
        self._qualities: dict[str, deque[tuple[float, float]]] = {
            which: deque(maxlen=FALLING + 1) for which in (MERGED, SERVED)
        }
        """The newest AUPRCs, and by how much each must be below the one before to be a fall."""
        self._counted_until = -math.inf
        self._open_before: tuple[ProblemRaised, ...] = ()

    def state(self) -> bytes:
        """What a restart goes on with, as JSON; empty before anything happened.

        Not how far payments were counted: what the books did not come to write down is counted again.
        """
        merged, served = (tuple(told) for told in self._qualities.values())
        quarantined = tuple(sorted(self._quarantined))
        problems = self._problems.open(KEPT)
        counted = (self._cycle, self.trained, self.last, quarantined, self._heard)
        kept = _Kept(*counted, merged, served, problems, self.listening, tuple(sorted(self.held)) or None)
        return b"" if kept == _Kept() else record.canonical(kept)

    def restore(self, state: bytes, of_model: bool = True) -> None:
        """Go on from `state()` of an earlier process; one of another version says nothing.

        It was `of_model`, or of another model, whose quality says nothing of this one's.
        """
        if not state:
            return
        try:
            kept = record.build(_Kept, record.plain(_Kept()) | record.load(state))
        except (record.RecordError, TypeError):
            return
        self.last, self.listening = kept.last, kept.listening
        if not of_model:
            return
        self._cycle, self._heard, self.trained = kept.cycle, kept.heard, kept.trained
        self._quarantined = {NodeId(member) for member in kept.quarantined}
        if kept.held is not None:  # else those in quarantine now are none of this cycle
            self.held = {NodeId(member) for member in kept.held}
        self._qualities[MERGED].extend(kept.merged)
        self._qualities[SERVED].extend(kept.served)
        self._open_before = kept.problems

    def started(self, at: Moment, calendar: Calendar) -> list[Effect]:
        """Tell again, `at` what the calendar says of now, what was open before the start."""
        over = self._cycle < at.cycle or (self._cycle == at.cycle and at.resting)
        if over and self._cycle >= calendar.first and (self.last is None or self.last.cycle < self._cycle):
            # it ended while this node was down
            self.last = PastCycle(self._cycle, self.trained, calendar.begins(self._cycle) + calendar.length)
        if at.cycle != self._cycle:
            self.cycle_begun(-1 if at.resting else at.cycle)  # of a cycle that is over nothing was counted
        told = self._open_before
        return [e for p in told for e in self._problems.raise_(p.code, p.severity, p.message, p.hint, p.subject)]

    def cycle_begun(self, cycle: int) -> None:
        """Count anew."""
        self._cycle, self.trained, self._quarantined, self._heard = cycle, 0, set(), False

    def count_on(self, before: Health) -> None:
        """Go on with what `before`, whose model was another, has counted that is not of a model."""
        self._counted_until, self.last, self.listening = before._counted_until, before.last, before.listening

    def merged(self, members: int, others: int, held: Iterable[NodeId]) -> list[Effect]:
        """A merge took the models of so many `members`, of all `others`; in quarantine are now `held`."""
        self._heard = self._heard or members > 0
        before, self.held = self.held, set(held)
        self._quarantined |= self.held - before
        many = len(self._quarantined)
        if not many or many < min(MANY, (others + 1) // 2):
            return []
        return self._problems.raise_(
            "MANY_QUARANTINED",
            "error",
            f"{many} of {others} other members were quarantined within one cycle",
            "so many attackers are unlikely: see what each did by `p2pfed peer show`; if it is their models, compare "
            "this bank's data with the others'",
        )

    def cycle_ended(self, cycle: int, others: int, wall: float) -> list[Effect]:
        """The rounds of a cycle are over, at `wall` (Unix seconds)."""
        self.last = PastCycle(cycle, self.trained, wall)
        effects: list[Effect] = []
        if not self._quarantined:
            effects += self._problems.clear("MANY_QUARANTINED")
        if self._heard or not others:
            effects += self._problems.clear("NOBODY_PUBLISHES")
        else:
            effects += self._problems.raise_(
                "NOBODY_PUBLISHES",
                "error",
                f"no member's model was merged in cycle {cycle}: this bank learns alone",
                "see `p2pfed members`: are the others up, reachable, with enough frauds, and their clocks right?",
            )
        return effects

    def decided(self, effects: Iterable[Effect]) -> list[Effect]:
        """The gate has measured the model that a cycle ended with, and told `effects`."""
        events = [effect.event for effect in effects if isinstance(effect, Emit)]
        metrics = next((e.metrics for e in events if isinstance(e, ModelPromoted | ModelHeld)), {})
        quality = metrics.get("validation", {}).get("auprc")
        if quality is None:
            return []
        return self._note(MERGED, quality, TOLERANCE)

    def served(self, got: Served | None) -> list[Effect]:
        """A reading has brought labels that matured. What a trainer read that was lost is read, and counted, again."""
        if got is None or got.since < self._counted_until:
            return []
        effects = self._problems.clear("CURVE_INCOMPLETE") if not got.error else self._problems.raise_(
            "CURVE_INCOMPLETE",
            "warning",
            f"how well what served has served is not known for all payments: {got.error}",
            "training and scoring go on; a model version that is damaged may be restored from a backup, or removed",
        )  # fmt: skip
        if not got.days:
            return effects
        self._counted_until = got.until
        effects.append(Emit(PaymentsServed(got.since, got.until, got.days)))
        whole = together(got.days)
        if whole.auprc is None or whole.frauds < FEWEST_FRAUDS:
            return effects
        # other payments each time: unlike on validation rows, which stay, chance alone moves it
        chance = math.sqrt(whole.auprc * (1 - whole.auprc) / whole.frauds)
        return effects + self._note(SERVED, whole.auprc, max(TOLERANCE, chance))

    def _note(self, which: str, quality: float, tolerance: float) -> list[Effect]:
        """Tell, or tell no more, that one quality or both fall."""
        self._qualities[which].append((float(quality), float(tolerance)))
        said = []
        for what, told in self._qualities.items():
            falls = [sooner - later > tolerance for (sooner, _), (later, tolerance) in pairwise(told)]
            if len(falls) == FALLING and all(falls):
                said.append(f"AUPRC {what} fell in {FALLING} cycles: " + ", ".join(f"{q:.3f}" for q, _ in told))
        if not said:
            return self._problems.clear("QUALITY_FALLS")
        return self._problems.raise_(
            "QUALITY_FALLS",
            "error",
            "; ".join(said),
            "look at what changed in the payments (`p2pfed data status`); what serves is only replaced by what is no "
            "worse",
        )
