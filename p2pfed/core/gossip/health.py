"""What an operator should worry about at a cycle's end: mass quarantines, silence of the others, quality that falls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

from p2pfed.core.effects import Effect, Emit
from p2pfed.core.events import ModelHeld, ModelPromoted, StandingChanged
from p2pfed.core.gossip.champion import TOLERANCE
from p2pfed.core.problems import Problems
from p2pfed.core.types import NodeId

MANY = 3
"""Members newly quarantined within one cycle that are too many to be a coincidence; or half of the others."""
FALLING = 3
"""Cycles in a row in which the merged model did worse on validation rows, in each by more than the tolerance."""


class Health:
    """What happened in the cycle so far, and the problems that follow."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._quarantined: set[NodeId] = set()
        self._heard = False
        self._qualities: deque[float] = deque(maxlen=FALLING + 1)

    def merged(self, effects: Iterable[Effect], members: int, others: int) -> list[Effect]:
        """A merge took the models of `members`, and told `effects`; `others` are all other members."""
        self._heard = self._heard or members > 0
        events = [effect.event for effect in effects if isinstance(effect, Emit)]
        changes = [e for e in events if isinstance(e, StandingChanged) and e.after == "quarantined"]
        self._quarantined.update(change.member for change in changes)
        many = len(self._quarantined)
        if not many or many < min(MANY, (others + 1) // 2):
            return []
        return self._problems.raise_(
            "MANY_QUARANTINED",
            "error",
            f"{many} of {others} other members were quarantined for their models within one cycle",
            "so many attackers are unlikely: see `p2pfed peer show`, and compare this bank's data with the others'",
        )

    def cycle_ended(self, cycle: int, others: int) -> list[Effect]:
        """The rounds of a cycle are over."""
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
        self._quarantined, self._heard = set(), False
        return effects

    def decided(self, effects: Iterable[Effect]) -> list[Effect]:
        """The gate has measured the model that a cycle ended with, and told `effects`."""
        events = [effect.event for effect in effects if isinstance(effect, Emit)]
        metrics = next((e.metrics for e in events if isinstance(e, ModelPromoted | ModelHeld)), {})
        quality = metrics.get("validation", {}).get("auprc")
        if quality is None:
            return []
        self._qualities.append(quality)
        told = list(self._qualities)
        falling = len(told) > FALLING and all(sooner - later > TOLERANCE for sooner, later in pairwise(told))
        if not falling:
            return self._problems.clear("QUALITY_FALLS")
        return self._problems.raise_(
            "QUALITY_FALLS",
            "error",
            f"AUPRC of the merged model on validation rows fell in {FALLING} cycles: "
            + ", ".join(f"{q:.3f}" for q in told),
            "look at what changed in the payments (`p2pfed data status`); what serves is only replaced by what is no "
            "worse",
        )
