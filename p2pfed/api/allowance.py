"""How much of the history one member may fill: what it does beyond that is still counted, but no longer recorded."""

from __future__ import annotations

from dataclasses import dataclass

from p2pfed.core.events import (
    Event,
    PeerBenched,
    PeerChanged,
    RoundCompleted,
    StandingChanged,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, Reason, Verdict

AT_ONCE = 500.0
"""Events a member may cause at once."""
PER_ROUND = 8.0
"""Events a member may cause in each round of this node: it may relay the updates of several others."""
PER_SECOND = 1 / 60
"""As long as no round ends."""
REPEAT_SECONDS = 3600.0
"""What is ignored for one reason again and again, which is nobody's fault, is recorded at most this often a member."""


@dataclass
class _Left:
    events: float = AT_ONCE
    at: float = 0.0
    rounds: int = 0


class Allowances:
    """Decides event by event. Without it one member's flood would push everything else out of the bounded history."""

    def __init__(self) -> None:
        self._left: dict[NodeId, _Left] = {}
        self._rounds = 0
        self._ignored: dict[tuple[NodeId, Reason], float] = {}

    def repeats(self, event: Event, now: float) -> bool:
        """Whether `event` is one that is harmless and was recorded not long ago: who counts has heard of it."""
        if not isinstance(event, UpdateRefused) or event.reason.verdict is Verdict.REJECT:
            return False
        return now - self._ignored.get((event.blamed, event.reason), float("-inf")) < REPEAT_SECONDS

    def recorded(self, event: Event, now: float) -> None:
        """`event` went into the history: only then is another one like it a repetition."""
        if isinstance(event, UpdateRefused):
            self._ignored[event.blamed, event.reason] = now

    def allow(self, event: Event, now: float) -> bool:
        """Whether to record `event`; those that no member caused always are."""
        if isinstance(event, RoundCompleted):
            self._rounds += 1
        member = _cause(event)
        if member is None:
            return True
        left = self._left.setdefault(member, _Left(at=now, rounds=self._rounds))
        gained = (now - left.at) * PER_SECOND + (self._rounds - left.rounds) * PER_ROUND
        left.events, left.at, left.rounds = min(AT_ONCE, left.events + gained), now, self._rounds
        if left.events < 1:
            return False
        left.events -= 1
        return True


def _cause(event: Event) -> NodeId | None:
    """The member that can make an event of this kind happen as often as it likes."""
    match event:
        case UpdateRefused():
            return event.blamed
        case UpdateAccepted():
            return event.via
        case PeerBenched():
            return event.peer
        case PeerChanged() | StandingChanged():
            return event.member
    return None
