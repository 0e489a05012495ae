"""A member that makes many events: what of them is recorded, and what is only counted."""

from __future__ import annotations

import pytest

from p2pfed.api import allowance, stream
from p2pfed.api.stream import EventLog, kind
from p2pfed.api.summary import Summary
from p2pfed.core.events import (
    PeerBenched,
    PeerChanged,
    RoundCompleted,
    StandingChanged,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.types import NodeId, PeerState, Reason
from p2pfed.store.base import MemoryStore

A, B = NodeId("A" * 56), NodeId("B" * 56)

FLOODS = [
    UpdateRefused(B, A, Reason.FORGED_SIGNATURE, ""),
    UpdateAccepted(B, 7, A, 600),
    PeerBenched(A, "refused", 0.0),
    StandingChanged(A, "trusted", "suspect", "its models", {}),
    PeerChanged(A, PeerState.ALIVE, PeerState.LEFT),
]


@pytest.mark.parametrize("flood", FLOODS, ids=kind)
async def test_one_members_flood_does_not_push_the_history_out(flood):
    store, heard = MemoryStore(), []
    events_log = EventLog(store, lambda: 0.0, str, [lambda _, event: heard.append(event)])
    for _ in range(10_000):
        events_log.emit(flood)
    for number in range(50):
        events_log.emit(RoundCompleted(number, number, 0.4, 20, 1.0, 0.5, (), 0.0))
        events_log.emit(UpdateAccepted(B, number, B, 600))
        events_log.emit(flood)
    await events_log.flush()
    recorded = [e.kind for e in await store.events(0, 20_000)]
    assert len(recorded) <= allowance.AT_ONCE + 150
    assert recorded.count("round_completed") == 50
    assert [e.kind for e in await store.events(0, 20_000) if '"via": "BBBB' in e.json].count("update_accepted") == 50
    assert recorded[-1] == kind(flood), "each round a few more"
    assert len(heard) == 10_150, "observers, who count, hear of every one"
    assert events_log.dropped == len(heard) - len(recorded)


async def test_what_is_harmless_is_recorded_once_an_hour_and_counted_each_time():
    now, summary = [0.0], Summary()
    log = EventLog(MemoryStore(), lambda: now[0], str, [summary.observe])
    for number in range(5):
        log.emit(UpdateRefused(A, A, Reason.NOT_ASKED, f"sequence {number}"))
    log.emit(UpdateRefused(A, A, Reason.DUPLICATE, ""))
    log.emit(UpdateRefused(B, B, Reason.NOT_ASKED, ""))
    for _ in range(2):  # what is somebody's fault is recorded each time
        log.emit(UpdateRefused(A, B, Reason.MALFORMED, ""))
    assert len(await log.since(0, 100)) == 1 + 1 + 1 + 2
    now[0] += 3600.0
    log.emit(UpdateRefused(A, A, Reason.NOT_ASKED, ""))
    assert len(await log.since(0, 100)) == 6
    assert (summary.arrived[A].ignored, summary.arrived[A].rejected, log.dropped) == (7, 2, 0)


async def test_what_was_not_recorded_the_first_time_is_the_next_time(monkeypatch):
    monkeypatch.setattr(stream, "MAX_PENDING", 0)
    log = EventLog(MemoryStore(), lambda: 0.0, str)
    log.emit(UpdateRefused(A, A, Reason.NOT_ASKED, ""))
    monkeypatch.undo()
    for _ in range(2):
        log.emit(UpdateRefused(A, A, Reason.NOT_ASKED, ""))
    assert (len(await log.since(0, 100)), log.dropped) == (1, 1)


async def test_a_relay_of_many_members_is_recorded_as_long_as_rounds_go_on():
    store = MemoryStore()
    events_log = EventLog(store, lambda: 0.0, str)
    for number in range(200):
        events_log.emit(RoundCompleted(number, number, 0.4, 20, 1.0, 0.5, (), 0.0))
        for _ in range(7):
            events_log.emit(UpdateAccepted(B, number, A, 600))
    assert events_log.dropped == 0
