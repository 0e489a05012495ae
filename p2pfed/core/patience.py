"""Asking again somebody who may be lying: less often each time."""

from __future__ import annotations

from p2pfed.core.types import NodeId

MOST_DOUBLINGS = 8


class Patience:
    """Allows a question to each member at first every `seconds`, then after twice as long each time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked: dict[NodeId, tuple[int, float]] = {}
        """How often a member was asked, and from when on it may be asked again."""

    def allows(self, member: NodeId, now: float) -> bool:
        """Whether to ask `member` now, which counts as having asked."""
        times, until = self._asked.get(member, (0, now))
        if now < until:
            return False
        self._asked[member] = times + 1, now + self._seconds * 2.0 ** min(times, MOST_DOUBLINGS)
        return True
