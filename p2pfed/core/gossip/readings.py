"""When the bank's payments are read: anew for each cycle, by a trainer of its own, and by none while nodes rest."""

from __future__ import annotations

from p2pfed.core.effects import CloseTrainer, Effect, Emit, OpenTrainer
from p2pfed.core.events import PaymentsRead
from p2pfed.core.gossip.calendar import Calendar, Moment
from p2pfed.core.inputs import TrainerReady

LEAD = 1.5
"""Times the last reading: so much before a cycle its trainer is started."""
FIRST_LEAD_SECONDS = 120.0
"""Before anything was read: TensorFlow's import alone takes some ten seconds of a processor."""
LEAST_LEAD_SECONDS = 15.0
IDLE_SECONDS = 120.0
"""A trainer that waits longer than this while nodes rest is ended."""


class Readings:
    """The trainers of one node, by the cycle whose payments each has read."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        """How long the last reading took, from asking for a trainer."""
        self.refused: int | None = None
        """The cycle whose payments looked wrong last."""
        self.asked: int | None = None
        """The cycle whose payments the operator wants to be read anew, until they are."""
        self.held_from: int | None = None
        """The cycle from which on another model is trained: its trainers are of no use to the present one."""
        self._opened: dict[int, float] = {}
        self._ready: dict[int, TrainerReady] = {}
        self._since: dict[int, float] = {}
        self._accepting: set[int] = set()

    def of(self, cycle: int) -> TrainerReady | None:
        """What the trainer of `cycle` has read, if it is ready, and of the model that is trained now."""
        return None if self.held(cycle) else self._ready.get(cycle)

    def held(self, cycle: int) -> bool:
        """Whether the trainer of `cycle` is one of a model that is not trained yet."""
        return self.held_from is not None and cycle >= self.held_from

    def opened(self, cycle: int) -> bool:
        """Whether a trainer was asked for."""
        return cycle in self._opened

    def idles(self, cycle: int, early: float, now: float) -> bool:
        """Whether the trainer of `cycle`, started for a joiner or by the operator, has nothing to do for long.

        It is needed in `early` seconds.
        """
        ready_for = now - self._since[cycle] if cycle in self._ready else 0.0
        return min(early, ready_for) > IDLE_SECONDS

    def open(self, cycle: int, now: float, accept: bool = False) -> list[Effect]:
        """Ask for the trainer of `cycle`, unless it was, or the cycle's payments were refused."""
        if cycle in self._opened or (cycle == self.refused and not accept):
            return []
        self._opened[cycle] = now
        if accept:
            self._accepting.add(cycle)
        return [OpenTrainer(cycle, accept)]

    def accepting(self, cycle: int) -> bool:
        """Whether the operator's word is under way that the payments of `cycle` are right."""
        return cycle in self._accepting

    def close(self, cycle: int) -> list[Effect]:
        """End the trainers of `cycle` and of those before."""
        old = [c for c in self._opened if c <= cycle]
        for c in old:
            self.forget(c)
        return [CloseTrainer(cycle)] if old else []

    def forget(self, cycle: int) -> None:
        """The trainer of `cycle` has ended by itself."""
        self._opened.pop(cycle, None)
        self._ready.pop(cycle, None)
        self._since.pop(cycle, None)
        self._accepting.discard(cycle)

    def ready(self, got: TrainerReady, now: float) -> bool:
        """A trainer is ready; answers whether anybody waits for it."""
        if got.cycle not in self._opened:
            return False
        if got.cycle not in self._ready:
            self.seconds = now - self._opened[got.cycle]
        self._ready[got.cycle], self._since[got.cycle] = got, now
        self._accepting.discard(got.cycle)
        return True

    def told(self, got: TrainerReady, calendar: Calendar, rounds: int, wall: float) -> Emit:
        """What the operator is told of a reading, and when the next one is, unless one is under way or none comes.

        After `rounds` of all cycles nothing is read (0: always).
        """
        following = got.cycle + 1
        over = 0 < rounds <= calendar.number(following, 0) or self.opened(following)
        due = None if over else max(calendar.begins(following) - self.lead(), wall)
        seconds = self.seconds or 0.0
        return Emit(PaymentsRead(got.cycle, got.train_rows, got.train_frauds, seconds, got.immature, got.newest, due))

    def lost(self, cycle: int, now: float) -> None:
        """A trainer died; another one takes its place."""
        self._ready.pop(cycle, None)
        if cycle in self._opened:
            self._opened[cycle] = now

    def lead(self) -> float:
        """Seconds before a cycle at which its trainer is started."""
        return FIRST_LEAD_SECONDS if self.seconds is None else max(LEAD * self.seconds, LEAST_LEAD_SECONDS)

    def due(self, moment: Moment, begins_next: float) -> float:
        """The wall-clock time at which the next cycle's trainer is started."""
        return max(begins_next - self.lead(), moment.begins)
