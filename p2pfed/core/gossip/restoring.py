"""A started node says nothing until others have told which of its sequence numbers they hold.

Its state may be an old backup: what it would sign then might contradict what it signed before, and would prove a lie
that nobody told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from p2pfed.core.types import NodeId

ENOUGH = 3
"""Members that must have answered, or all others if there are fewer."""
SILENT_SECONDS = 60.0
"""After so long without any answer nobody is waited for."""
SKIPS_KEPT = 64
"""Runs of skipped sequence numbers that are remembered; whoever named the last of them is asked for proof at once."""


class Restoring:
    """Who has answered since the start."""

    def __init__(self) -> None:
        self._answered: set[NodeId] = set()
        self._until: float | None = None

    @property
    def answerers(self) -> frozenset[NodeId]:
        """Who has answered."""
        return frozenset(self._answered)

    def begin(self, now: float) -> float:
        """The node started; answers when to look again."""
        self._until = now + SILENT_SECONDS
        return self._until

    def answered(self, member: NodeId, now: float) -> None:
        """`member` said which number it holds of this node; who says so again puts nothing off."""
        if member not in self._answered:
            self._answered.add(member)
            self._until = now + SILENT_SECONDS

    def waiting(self, others: Iterable[NodeId], now: float) -> bool:
        """Whether too few of the `others` have answered, and somebody may yet."""
        if self._until is not None and now >= self._until:
            return False
        return len(self._answered) < ENOUGH and len(self._answered) < sum(1 for _ in islice(others, ENOUGH))


class Skipped:
    """Sequence numbers that others named before this node came to sign them: it never will."""

    def __init__(self) -> None:
        self.runs: deque[range] = deque(maxlen=SKIPS_KEPT)
        self._shown = 0

    def add(self, newest: int, seq: int) -> None:
        """The node, which has signed up to `newest`, goes on above `seq`."""
        first = newest + 1
        if self.runs and self.runs[-1].stop == first:  # nothing was signed since
            first = self.runs.pop().start
        self.runs.append(range(first, seq + 1))

    def shown(self, seq: int, told: bool) -> int | None:
        """An own statement with number `seq` was shown: the newest that this node knew of, if that is news.

        It is none if the number was not skipped, nor if one as high was shown before; nor is the first, where the
        operator is `told` already that the state is an old one.
        """
        run = next((run for run in self.runs if seq in run), None)
        before = self._shown
        if run is None or seq <= before:
            return None
        self._shown = seq
        return None if told and not before else run.start - 1
