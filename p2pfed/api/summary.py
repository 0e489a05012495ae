"""What the events so far add up to: open problems, learning so far, what each member sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pfed.api.schemas import Problem, UpdateRow
from p2pfed.core.events import (
    Event,
    Metrics,
    ModelEvaluated,
    PaymentsRead,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, Verdict


@dataclass
class Arrived:
    """What one member's updates came to since this node started."""

    newest: UpdateAccepted | None = None
    time: float | None = None
    """When the newest was accepted, on the clock that never falls."""
    accepted: int = 0
    ignored: int = 0
    rejected: int = 0
    last_refusal: str | None = None


@dataclass
class _Open:
    since: float
    """Unix seconds."""
    count: int
    problem: ProblemRaised


class Summary:
    """An observer of an EventLog; read by whoever answers `status` and `updates`."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """`wall` is what the machine's clock shows, Unix seconds."""
        self._wall = wall
        self.round: RoundCompleted | None = None
        self.evaluated: ModelEvaluated | None = None
        self.read: tuple[float, PaymentsRead] | None = None
        """When the payments were read last, Unix seconds, and what of them."""
        self.finished = False
        self.merged = 0
        self.arrived: dict[NodeId, Arrived] = {}
        self._problems: dict[tuple[str, str], _Open] = {}

    def observe(self, now: float, event: Event) -> None:
        """Take one event in at `now`, on the clock that never falls."""
        if isinstance(event, RoundCompleted):
            self.round = event
            self.merged += len(event.merged)
        elif isinstance(event, ModelEvaluated):
            self.evaluated = event
        elif isinstance(event, PaymentsRead):
            self.read = self._wall(), event
        elif isinstance(event, RunFinished):
            self.finished = True
        elif isinstance(event, (UpdateAccepted, UpdateRefused)):
            self._count(now, event)
        elif isinstance(event, ProblemRaised):
            known = self._problems.get((event.code, event.subject))
            self._problems[event.code, event.subject] = _Open(
                known.since if known else self._wall(), known.count + 1 if known else 1, event
            )
        elif isinstance(event, ProblemCleared):
            self._problems.pop((event.code, event.subject), None)

    def _count(self, now: float, event: UpdateAccepted | UpdateRefused) -> None:
        arrived = self.arrived.setdefault(event.member, Arrived())
        if isinstance(event, UpdateAccepted):
            arrived.newest, arrived.time = event, now
            arrived.accepted += 1
            return
        arrived.last_refusal = event.reason.code
        if event.reason.verdict is Verdict.REJECT:
            arrived.rejected += 1
        else:
            arrived.ignored += 1

    @property
    def metrics(self) -> dict[str, Metrics]:
        """Of the newest evaluated model, by row set; empty before the first."""
        return self.evaluated.metrics if self.evaluated else {}

    @property
    def accepted(self) -> int:
        """Updates accepted from all members."""
        return sum(a.accepted for a in self.arrived.values())

    @property
    def rejected(self) -> int:
        """Updates that broke a rule."""
        return sum(a.rejected for a in self.arrived.values())

    @property
    def last_update(self) -> float | None:
        """When the newest update was accepted, on the clock that never falls."""
        return max((a.time for a in self.arrived.values() if a.time is not None), default=None)

    @property
    def degraded(self) -> bool:
        """Whether a problem needs somebody."""
        return any(p.problem.severity != "info" for p in self._problems.values())

    def problems(self, name_of: Callable[[NodeId], str]) -> list[Problem]:
        """The open problems, oldest first."""
        return [
            Problem(
                code=p.problem.code,
                severity=p.problem.severity,
                since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(p.since)),
                count=p.count,
                subject=name_of(NodeId(p.problem.subject)) if p.problem.subject else "",
                message=p.problem.message,
                hint=p.problem.hint,
            )
            for p in self._problems.values()
        ]

    def updates(self, members: Iterable[NodeId], name_of: Callable[[NodeId], str], now: float) -> list[UpdateRow]:
        """One row for each of `members`, in that order, at `now` on the clock that never falls."""
        return [self._row(member, name_of, now) for member in members]

    def _row(self, member: NodeId, name_of: Callable[[NodeId], str], now: float) -> UpdateRow:
        arrived = self.arrived.get(member, Arrived())
        newest = arrived.newest
        return UpdateRow(
            name=name_of(member),
            id=member,
            seq=newest.seq if newest else None,
            via=name_of(newest.via) if newest else None,
            bytes=newest.bytes if newest else None,
            seconds_ago=None if arrived.time is None else max(0.0, now - arrived.time),
            accepted=arrived.accepted,
            ignored=arrived.ignored,
            rejected=arrived.rejected,
            last_refusal=arrived.last_refusal,
        )
