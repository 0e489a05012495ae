"""What status says of a node's learning: where in the calendar it is, what serves, what was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from p2pfed.api.progress import CycleRow, DataStatus, Gain, LastCycle, ServedRow, Serving
from p2pfed.core.events import ChangeComing, GainMeasured, PaymentsRead
from p2pfed.core.gossip.cycles import Cycles
from p2pfed.core.gossip.own import OwnModel
from p2pfed.core.phase import Phase
from p2pfed.core.record import RecordError
from p2pfed.core.served import ServedDay
from p2pfed.core.succession import InForce, what_changes
from p2pfed.data.reading import Reading
from p2pfed.runtime.trainer import Loaded

SHOWN_DAYS = 30
"""Days of payments that status lists."""

State = Literal["waiting", "training", "listening", "resting", "behind", "clock_off", "finished"]


def state(rounds: OwnModel, finished: bool) -> State:
    """What the node is at; `finished` is whether it has done the rounds that were asked for."""
    if finished or rounds.phase is Phase.FINISHED:
        return "finished"
    if isinstance(rounds, Cycles):
        if rounds.moment.cycle < 0:
            return "waiting"
        if rounds.clock_off:
            return "clock_off"
        if rounds.behind:
            return "behind"
        if rounds.moment.resting:
            return "resting"
        if rounds.readings.of(rounds.moment.cycle) is None:
            return "waiting"
    elif rounds.phase in (Phase.LOADING, Phase.MEETING):
        return "waiting"
    return "listening" if rounds.listener else "training"


def calendar(rounds: OwnModel, wall: float) -> dict[str, Any]:
    """The fields of LearningStatus that are about the calendar, at `wall` (Unix seconds)."""
    agreed = rounds.manifest.calendar
    if agreed.free or not isinstance(rounds, Cycles):
        nothing = dict.fromkeys(("cycle", "round_of_cycle", "rounds_of_cycle", "next_begins"))
        return nothing | {"next_cycles": []}
    at = agreed.at(wall)
    coming = [] if rounds.finished else [CycleRow(cycle=c, begins=begins) for c, begins in agreed.coming(wall)]
    return {
        "cycle": None if at.cycle < 0 else at.cycle,
        "round_of_cycle": at.round,
        "rounds_of_cycle": agreed.rounds,
        "next_begins": coming[0].begins if coming else None,
        "next_cycles": coming,
    }


def last_cycle(rounds: OwnModel) -> LastCycle | None:
    """The cycle that ended last."""
    past = rounds.health.last
    return None if past is None else LastCycle(cycle=past.cycle, trained=past.trained, ended=past.ended)


def serving(rounds: OwnModel) -> Serving | None:
    """The champion."""
    champion = rounds.gate.champion
    if champion is None:
        return None
    return Serving(
        cycle=champion.cycle,
        round=rounds.manifest.calendar.place(champion.round)[1],
        auprc=champion.metrics.get("validation", {}).get("auprc"),
        since=champion.since,
    )


def served_days(days: Sequence[ServedDay]) -> list[ServedRow]:
    """The newest of the `days` that are kept, oldest first."""
    return [
        ServedRow(
            day=day.day,
            rows=day.rows,
            frauds=day.frauds,
            alerts=day.alerts,
            auprc=day.auprc,
            recall=day.recall,
            precision=day.precision,
            model=day.model,
        )
        for day in days[-SHOWN_DAYS:]
    ]


def coming(force: InForce) -> ChangeComing | None:
    """The change that waits for its cycle; free-running nodes have no cycle it could wait for."""
    new, old = force.coming, force.manifest
    if new is None or old.calendar.free:
        return None
    return ChangeComing(new.version, new.from_cycle, old.calendar.begins(new.from_cycle), what_changes(old, new))


def gain(measured: GainMeasured | None) -> Gain | None:
    """What the consortium was worth when it was measured last."""
    if measured is None:
        return None
    return Gain(
        auprc=measured.gain,
        serves=measured.serves,
        alone=measured.alone,
        frauds=measured.frauds,
        rounds=measured.rounds,
        cycle=measured.cycle,
        seconds=measured.seconds,
    )


def data(
    rounds: OwnModel,
    loaded: Loaded | None,
    read: tuple[float, PaymentsRead] | None,
    wall: float,
    kept: dict[str, Any] | None = None,
) -> DataStatus:
    """What was read of the payments last, and when they are read next; `read` is when they were, and the event.

    Before the first reading of this process it is what was `kept` of the last one before.
    """
    found = (loaded.reading or {}) if loaded else _of_before(kept)
    report = loaded.report if loaded else {}
    frauds = None if loaded is None else sum(n for part, n in report.items() if part.endswith("_frauds"))
    return DataStatus(
        rows=found.get("rows", report.get("rows_read")),
        frauds=found.get("frauds", frauds),
        immature=found.get("immature"),
        newest_payment=found.get("newest"),
        read_at=found.get("read_at", read[0] if read else None),
        read_seconds=found.get("seconds", read[1].seconds if read else None),
        next_reading=_next_reading(rounds, wall),
    )


def _of_before(kept: dict[str, Any] | None) -> dict[str, Any]:
    """A kept reading, unless another version of p2pfed wrote it otherwise."""
    if kept is None:
        return {}
    try:
        return Reading.from_plain(kept).plain()
    except RecordError:
        return {}


def _next_reading(rounds: OwnModel, wall: float) -> float | None:
    if not isinstance(rounds, Cycles) or rounds.finished:
        return None
    agreed = rounds.manifest.calendar
    at = agreed.at(wall)
    if rounds.readings.opened(at.cycle + 1) or rounds.readings.refused == at.cycle + 1:
        return None
    return rounds.readings.due(at, agreed.begins(at.cycle + 1))
