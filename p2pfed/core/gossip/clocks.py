"""How far this node's clock is from the other members': measured on direct exchanges, never set by them."""

from __future__ import annotations

from statistics import median

from p2pfed.core.effects import Effect
from p2pfed.core.problems import Problems
from p2pfed.core.types import NodeId

ENOUGH = 3
"""Members whose clocks must have been read before this node takes its own for wrong: of two it may be the right one."""
KEPT_SECONDS = 3600.0
"""A reading older than this says nothing."""
STEP_SECONDS = 0.5
"""A wall clock that moved so much more or less than the steady one was set."""


class Clocks:
    """The offsets of other members' clocks, and the steps of this one's."""

    def __init__(self) -> None:
        self._offsets: dict[NodeId, tuple[float, float]] = {}
        self._between: float | None = None
        """The wall clock's lead over the steady one."""

    def read(self, member: NodeId, theirs: float, round_trip: float, now: float, wall: float) -> None:
        """`member` answered with its clock's reading `theirs` after `round_trip` seconds; all in seconds."""
        self._offsets[member] = theirs - (wall - round_trip / 2), now

    def step(self, now: float, wall: float) -> float:
        """By how many seconds the wall clock was set since it was looked at last; 0 if it ran on."""
        before, self._between = self._between, wall - now
        if before is None or abs(self._between - before) < STEP_SECONDS:
            return 0.0
        moved = self._between - before
        # what was read before was compared with the clock as it was
        self._offsets = {member: (offset - moved, at) for member, (offset, at) in self._offsets.items()}
        return moved

    def behind(self, now: float) -> tuple[float, int]:
        """The median of the others' lead over this clock in seconds, and of how many clocks; (0, 0) of none."""
        known = [offset for offset, at in self._offsets.values() if now - at <= KEPT_SECONDS]
        return (median(known), len(known)) if known else (0.0, 0)

    def watch(self, most: float, problems: Problems, now: float, wall: float) -> tuple[bool, list[Effect]]:
        """Whether this clock is known to be wrong by more than `most` seconds, a round: then it tells no round.

        And what the operator is told.
        """
        self.step(now, wall)
        apart, known = self.behind(now)
        if abs(apart) <= most:
            return False, problems.clear("CLOCK_OFF")
        off = known >= ENOUGH
        heed = "it neither trains nor judges" if off else "of so few, nobody knows whose is right"
        return off, problems.raise_(
            "CLOCK_OFF",
            "error" if off else "warning",
            f"this machine's clock is {'behind' if apart > 0 else 'ahead of'} the others' by more than a round: {heed}",
            "set the clock, and keep it right with NTP",
        )
