"""Which rounds of the calendar a node has trained: none is trained twice, also where its clock is set back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from p2pfed.core import record
from p2pfed.core.gossip.calendar import Calendar

KEPT = 4096
"""Rounds that are remembered, the newest: more than two months of the default calendar."""


@dataclass(frozen=True)
class _Kept:
    """What a restart goes on with."""

    first: int
    """`Calendar.first` of the calendar that the numbers are of."""
    runs: tuple[tuple[int, int], ...]
    """First and last of each run of numbers."""


class TrainedRounds:
    """Numbers of one calendar."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._numbers: dict[int, None] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def add(self, number: int) -> None:
        """Remember it, and forget who has been here longest of too many."""
        self._numbers.pop(number, None)
        self._numbers[number] = None
        if len(self._numbers) > KEPT:
            del self._numbers[next(iter(self._numbers))]

    def state(self) -> bytes:
        """What a restart goes on with, as JSON; empty before anything was trained."""
        runs: list[tuple[int, int]] = []
        for number in sorted(self._numbers):
            if runs and number == runs[-1][1] + 1:
                runs[-1] = runs[-1][0], number
            else:
                runs.append((number, number))
        return record.canonical(_Kept(self._calendar.first, tuple(runs))) if runs else b""

    def restore(self, state: bytes) -> None:
        """Go on from `state()` of an earlier process; one of another version says nothing.

        Under another calendar numbers from its beginning on are of other rounds: who learned late of a change has
        trained some of the old one's.
        """
        try:
            kept = record.parse(_Kept, state) if state else _Kept(0, ())
        except record.RecordError:
            return
        most = self._calendar.before if kept.first != self._calendar.first else math.inf
        for first, last in kept.runs:
            for number in range(first, last + 1):
                if number <= most:
                    self.add(number)
