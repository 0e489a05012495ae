"""Which rounds of the calendar a node has trained: none is trained twice, also where its clock is set back."""

from __future__ import annotations

from dataclasses import dataclass

from p2pfed.core import record

KEPT = 4096
"""Rounds that are remembered, the newest: more than two months of the default calendar."""


@dataclass(frozen=True)
class _Kept:
    """What a restart goes on with."""

    runs: tuple[tuple[int, int], ...]
    """First and last of each run of numbers."""


class TrainedRounds:
    """Numbers of the calendar."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}
        """In the order in which they were trained."""

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def add(self, number: int) -> None:
        """Remember it, and forget the oldest of too many."""
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
        return record.canonical(_Kept(tuple(runs))) if runs else b""

    def restore(self, state: bytes) -> None:
        """Go on from `state()` of an earlier process; one of another version says nothing."""
        try:
            runs = record.parse(_Kept, state).runs if state else ()
        except record.RecordError:
            return
        for first, last in runs:
            for number in range(first, last + 1):
                self.add(number)
