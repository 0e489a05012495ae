"""The consortium's calendar: cycles of rounds on the wall clock, numbered alike for everybody and waited for by nobody.

As slots of proof-of-stake chains are (Ethereum's beacon chain), without their consensus: whoever has the manifest and a
clock knows which round it is. A cycle is `rounds` rounds of `round_seconds`; then nodes rest until the next one. In the
first `every` seconds cycles follow each other without rest, because banks join over hours. UTC seconds throughout: no
time zone, no leap second.

The admins may change the calendar from a cycle on. The new one begins there and goes on counting: `first`, `before`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property

from p2pfed.core.types import DAY

MOST = 2**40
"""Of seconds and rounds: beyond it a float no longer tells a millisecond."""
MOST_CYCLES = 10_000_000
MOST_CHANGES = 64
"""Extra and skipped cycles that a calendar lists, at most each."""
LEAST_ROUND_SECONDS = 10.0
"""Of the calendars that `consortium create` makes: heartbeats of 10 s and pulls have to fit into a round."""


@dataclass(frozen=True)
class Moment:
    """What the calendar says of a time."""

    cycle: int
    """The cycle that is under way or was last; -1 before the first."""
    round: int
    """The round of that cycle, from 1; 0 while nodes rest."""
    number: int
    """Rounds of all cycles up to and with this one, or up to the end of the last cycle: `Calendar.number`."""
    begins: float
    """Unix seconds at which this round, or this rest, began."""
    ends: float
    """Unix seconds at which it ends; infinity where no cycle comes any more."""

    @property
    def resting(self) -> bool:
        """Whether no round is under way."""
        return self.round == 0


@dataclass(frozen=True)
class Calendar:
    """When members train. `every` 0 is free running: each node's rounds follow each other at its own pace."""

    anchor: int
    """Unix seconds at which the cycle `first` begins."""
    every: int
    """Seconds from the beginning of one cycle to that of the next, once the first `every` seconds are over."""
    rounds: int
    """Rounds of a cycle."""
    round_seconds: float
    extra: tuple[int, ...] = ()
    """Unix seconds at which additional cycles begin, rising."""
    skipped: tuple[int, ...] = ()
    """Beginnings of cycles that are not held, rising."""
    first: int = 0
    """The cycle that begins at the anchor; above 0 for a calendar that took the place of another."""
    before: int = 0
    """Rounds of all cycles before `first`."""

    @property
    def free(self) -> bool:
        """Whether there are no cycles: only for experiments of a bounded number of rounds."""
        return self.every == 0

    @property
    def length(self) -> float:
        """Seconds of one cycle."""
        return self.rounds * self.round_seconds

    @cached_property
    def _dense(self) -> int:
        """Cycles in the first `every` seconds, one after the other; of a consortium that begins."""
        return 1 if self.first else max(1, int(self.every // self.length))

    def number(self, cycle: int, round: int) -> int:
        """Rounds of all cycles up to `round` of `cycle`: what rounds are compared and counted by.

        Of free-running nodes, whose cycle is 0, just the round. Cycles before `first` had another calendar: what this
        says of them is never more than `before`.
        """
        counted = self.before + (cycle - self.first) * self.rounds + round
        return min(counted, self.before) if cycle < self.first else counted

    def place(self, number: int) -> tuple[int, int]:
        """Cycle and round of a number; the inverse of `number`. (0, number) where there are no cycles."""
        if self.free:
            return 0, number
        cycle, past = divmod(number - self.before - 1, self.rounds)
        return self.first + cycle, past + 1

    def begins(self, cycle: int) -> float:
        """Unix seconds at which a cycle from `first` on begins."""
        k = cycle - self.first
        candidates = [self._regular(j) for j in range(k - len(self.extra), k + len(self.skipped) + 1) if j >= 0]
        held = [begin for begin in candidates if begin not in self.skipped]
        return next(b for b in [*held, *map(float, self.extra)] if self._cycle_begun(b) == cycle)

    def coming(self, wall: float, count: int = 3) -> list[tuple[int, float]]:
        """The next cycles after `wall`, with their beginnings."""
        first = self.at(wall).cycle + 1
        return [(cycle, self.begins(cycle)) for cycle in range(first, first + count)]

    def at(self, wall: float) -> Moment:
        """What it says of `wall` (Unix seconds)."""
        cycle = self._cycle_begun(wall)
        if cycle < self.first:
            return Moment(self.first - 1, 0, self.before, float("-inf"), self.begins(self.first))
        begun = self.begins(cycle)
        past = int((wall - begun) // self.round_seconds)
        if past >= self.rounds:
            end = begun + self.length
            return Moment(cycle, 0, self.number(cycle + 1, 0), end, self.begins(cycle + 1))
        begins = begun + past * self.round_seconds
        return Moment(cycle, past + 1, self.number(cycle, past + 1), begins, begins + self.round_seconds)

    def _regular(self, k: int) -> float:
        """When the k-th cycle would begin, were none skipped or added."""
        dense = self._dense
        return self.anchor + (k * self.length if k < dense else (k - dense + 1) * float(self.every))

    def _cycle_begun(self, wall: float) -> int:
        """The cycle that began last by `wall`; `first` - 1 before the first."""
        since = wall - self.anchor
        if since < 0:
            regular = -1
        elif since < self.every:
            regular = min(int(since // self.length), self._dense - 1)
        else:
            regular = self._dense - 1 + int(since // self.every)
        # a float's last bit must not decide whether a cycle that begins now has begun
        if self._regular(regular + 1) <= wall:
            regular += 1
        return self.first + regular + bisect_right(self.extra, wall) - bisect_right(self.skipped, wall)


FREE = Calendar(0, 0, 0, 0.0)
"""No cycles."""


def calendar_problems(calendar: Calendar) -> list[str]:
    """What no calendar may say, one line each."""
    c = calendar
    if c.free:
        return [] if c == FREE else ["without a period (every 0) there are no rounds, lengths or changes either"]
    if not (0 <= c.anchor <= MOST and 0 < c.every <= 366 * DAY):
        return ["anchor is not Unix seconds, or every not a period of up to a year"]
    if not (1 <= c.rounds <= MOST and 0.1 <= c.round_seconds <= DAY):
        return ["a cycle has a round at least, of 0.1 s to a day"]
    if not (0 <= c.first <= MOST_CYCLES and 0 <= c.before <= MOST) or (c.before > 0 and c.first == 0):
        return ["first or before is out of range"]
    if c.length > c.every:
        return [
            f"a cycle of {c.rounds} rounds of {c.round_seconds:g} s takes {c.length:g} s, longer than the {c.every} s "
            f"from one to the next; at most {int(c.every // c.round_seconds)} rounds fit"
        ]
    return _change_problems(c)


def _change_problems(c: Calendar) -> list[str]:
    """What extra and skipped cycles may not be."""
    problems = [
        f"{name}: at most {MOST_CHANGES} times, rising"
        for name, times in (("extra", c.extra), ("skipped", c.skipped))
        if len(times) > MOST_CHANGES or list(times) != sorted(set(times)) or (times and times[0] < c.anchor)
    ]
    if problems:
        return problems
    plain = replace(c, extra=(), skipped=())
    for time in c.skipped:
        if plain.begins(plain.at(time).cycle) != time:
            problems.append(f"skipped: no cycle begins at {time}")
    for time in c.extra:
        before, after = c.at(time - 1), c.at(time + c.length)
        if not before.resting or not (after.resting or after.begins == time + c.length):
            problems.append(f"extra: the cycle at {time} would overlap with another")
    return problems
