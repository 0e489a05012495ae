"""The event log: ids, observers, subscribers that lag, a disk that refuses, a restart."""

from __future__ import annotations

import asyncio
import json
import typing

import numpy as np
import pytest

from p2pfed.api import stream
from p2pfed.api.schemas import MemberRow
from p2pfed.api.sentences import sentence
from p2pfed.api.stream import EventLog, kind, to_json
from p2pfed.api.summary import Summary
from p2pfed.core import events
from p2pfed.core.events import (
    CaughtUp,
    ChangeComing,
    CycleBegun,
    CycleEnded,
    EquivocationProven,
    Event,
    FellBehind,
    GainMeasured,
    Listening,
    ManifestFollowed,
    ModelAdopted,
    ModelEvaluated,
    ModelHeld,
    ModelKept,
    ModelPromoted,
    MovedToOthers,
    NodeStarted,
    OperatorActed,
    PaymentsRead,
    PaymentsServed,
    PeerBenched,
    PeerChanged,
    ProblemCleared,
    ProblemRaised,
    RoundCompleted,
    RunFinished,
    SoftwareStarted,
    StandingChanged,
    TrainingAlone,
    UpdateAccepted,
    UpdateRefused,
)
from p2pfed.core.served import ServedDay
from p2pfed.core.types import NodeId, PeerState, Reason
from p2pfed.errors import DiskFault, StateLocked
from p2pfed.store.base import MemoryDisk, MemoryStore
from tests.api.conftest import source

A, B = NodeId("A" * 56), NodeId("B" * 56)
ONE_OF_EACH: list[Event] = [
    NodeStarted(0, 4),
    NodeStarted(12, 4),
    TrainingAlone(3),
    Listening(2, 5),
    ModelAdopted(3, 0.61),
    ModelAdopted(3, None),
    PeerChanged(A, PeerState.ALIVE, PeerState.SUSPECT),
    UpdateAccepted(A, 7, A, 600),
    UpdateAccepted(A, 7, B, 600),
    UpdateRefused(A, B, Reason.FORGED_SIGNATURE, "x" * 1000),
    UpdateRefused(A, A, Reason.DUPLICATE, ""),
    PeerBenched(A, "connection refused", 12.0),
    RoundCompleted(5, 5, float("nan"), 20, 1.0, 0.5, (source(A), source(B)), 0.1),
    RoundCompleted(6, 6, 0.4, 20, 1.0, 0.5, (), 0.0),
    ModelEvaluated(5, {"validation": {"auprc": np.float64(0.5), "confusion": [[1, 2], [3, 4]]}}, 0.5),
    ModelEvaluated(5, {"validation": {"auprc": None}}, 0.5),
    RunFinished(20),
    SoftwareStarted("1.2.3", "ab" * 32),
    ManifestFollowed(1, 2, "ab" * 32, ("admin-1", "admin-2")),
    ModelKept(80, 1, "ab" * 32, np.float64(0.5)),
    OperatorActed("pardon", "bank-b", "uid 1000"),
    ProblemRaised("ALONE", "warning", "nobody met", "check the seeds", A),
    ProblemRaised("NOTE", "info", "something", ""),
    ProblemCleared("ALONE", A),
    ProblemCleared("ALONE"),
    StandingChanged(A, "suspect", "quarantined", "its models", {"score": 4.0, "distance": np.float64(200.0)}),
    EquivocationProven(A, 7, "ab" * 32),
    ModelAdopted(3, 0.61, 2.5, 40),
    MovedToOthers(41, 5, 2.5),
    FellBehind(40, 80),
    CaughtUp(81),
    CycleBegun(2, 40, 1_800_000_000.0),
    CycleEnded(2, 40, 1_800_086_400.0),
    CycleEnded(2, 0, float("inf")),
    PaymentsRead(2, 6022, 38, 14.2),
    PaymentsRead(2, 6022, 38, 14.2, 1_250, 1_800_000_000.0, 1_800_086_400.0),
    PaymentsServed(0.0, 9.0, (ServedDay("2026-03-01", 900, 8, 9, 6, 0.7, "ab" * 32),)),
    ModelPromoted(80, 1, {"validation": {"auprc": np.float64(0.5)}}, 0.5, "AUPRC 0.5 on validation rows"),
    ChangeComing(3, 12, 1_800_086_400.0, ("the merge rule", "the calendar")),
    GainMeasured(4, 0.01, 0.61, 0.6, 40, 120, 33.0),
    ModelHeld(80, 1, {"validation": {"auprc": None}}, "AUPRC 0.4 on validation rows"),
]


def name_of(node: NodeId) -> str:
    return {A: "bank-a", B: "bank-b"}[node]


def log(store: MemoryStore | None = None, **options) -> EventLog:
    return EventLog(store or MemoryStore(), lambda: 1000.0, name_of, wall=lambda: 7000.0, **options)


def test_the_examples_cover_every_event():
    assert {type(e) for e in ONE_OF_EACH} == set(typing.get_args(events.Event))


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_every_event_is_json_and_one_printable_line(event):
    fields = json.loads(json.dumps(to_json(event), allow_nan=False))
    assert set(fields) == set(vars(event))
    line = sentence(event, name_of)
    assert line and "\n" not in line and len(line) < 400
    assert A not in line and B not in line, "people read names, not ids"


def test_a_reading_says_what_is_known_of_it_and_no_more():
    known = PaymentsRead(2, 6022, 38, 14.2, 1_250, 1_800_000_000.0, 1_800_086_400.0)
    assert sentence(known, name_of) == (
        "payments for cycle 2 read in 14.2 s: 6,022 training rows with 38 frauds, 1,250 rows immature, the newest "
        "payment of 2027-01-15 08:00:00 UTC, read next at 2027-01-16 08:00:00 UTC"
    )
    assert sentence(PaymentsRead(2, 6022, 38, 14.2), name_of).endswith("6,022 training rows with 38 frauds")


async def test_events_are_written_with_what_the_machines_clock_showed_however_it_is_set():
    store, wall, steady, heard = MemoryStore(), [5000.0], [1000.0], []
    summary = Summary(wall=lambda: wall[0])
    observers = [lambda now, event: heard.append(now), summary.observe]
    written = EventLog(store, lambda: steady[0], name_of, observers, wall=lambda: wall[0])
    written.emit(ProblemRaised("ALONE", "warning", "nobody is there", "wait"))
    written.emit(UpdateAccepted(A, 1, A, 100))
    wall[0], steady[0] = 120.0, 1003.0  # somebody set the clock back
    written.emit(CycleEnded(2, 40, 9000.0))
    written.emit(PaymentsRead(3, 6022, 38, 14.2))
    written.emit(ProblemRaised("CLOCK_OFF", "error", "the clock is wrong", "set it"))
    await written.flush()
    assert [event.time for event in await store.events(0, 10)] == [5000.0, 5000.0, 120.0, 120.0, 120.0]
    assert heard == [1000.0, 1000.0, 1003.0, 1003.0, 1003.0], "how long things take is measured without it"
    assert summary.read[0] == 120.0
    assert summary.updates([A], name_of, steady[0])[0].seconds_ago == 3.0
    problems = [(problem.code, problem.since) for problem in summary.problems(name_of)]
    assert problems == [("ALONE", "1970-01-01T01:23:20Z"), ("CLOCK_OFF", "1970-01-01T00:02:00Z")], "in order"


def test_foreign_text_cannot_command_a_terminal():
    for event in (
        UpdateRefused(A, B, Reason.MALFORMED, "\x1b[2J\r\nforged line"),
        PeerBenched(A, "\x1b]0;title\x07 \u202e", 1.0),
    ):
        assert sentence(event, name_of).isprintable()
    row = MemberRow(
        name="bank-a", id=A, status="alive", address="x\n:1", seen_seconds=1, rtt_ms=None, manifest=1,
        version="\x1b[31m" + "9" * 1000, proto=1, age=1, standing="trusted",
        score=0.0, trust=1.0, note="",
    )  # fmt: skip
    assert row.version.isprintable() and len(row.version) == 200
    assert row.address.isprintable()


def test_fields_become_the_words_of_the_api():
    assert to_json(ONE_OF_EACH[6]) == {"member": A, "before": "alive", "after": "suspect"}
    assert to_json(UpdateRefused(A, B, Reason.NOT_FINITE, "")) == {
        "member": A,
        "blamed": B,
        "reason": "not_finite",
        "detail": "",
    }
    assert to_json(ONE_OF_EACH[12])["loss"] is None
    assert kind(ONE_OF_EACH[12]) == "round_completed"


async def test_ids_go_on_over_a_restart():
    disk = MemoryDisk()
    first = log(MemoryStore(disk))
    first.emit(TrainingAlone(1))
    first.emit(TrainingAlone(2))
    await first.flush()
    second = log(MemoryStore(disk))
    second.emit(TrainingAlone(3))
    assert [(e.id, json.loads(e.json)["round"]) for e in await second.since(0, 10)] == [(1, 1), (2, 2), (3, 3)]
    assert [e.id for e in await second.since(2, 10)] == [3]


async def test_observers_hear_each_event_at_once():
    heard = []
    log(observers=[lambda now, event: heard.append((now, event))]).emit(TrainingAlone(1))
    assert heard == [(1000.0, TrainingAlone(1))]


async def test_a_reader_that_lags_is_let_go_and_delays_nobody():
    events_log = log()
    with events_log.subscribe() as slow:
        for number in range(stream.QUEUE + 5):
            events_log.emit(TrainingAlone(number))
        assert slow.closed
        assert (await slow.next(0.01)).id == 1, "what it was told before is still there"
    events_log.emit(TrainingAlone(0))


async def test_there_is_a_most_of_subscribers():
    events_log = log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "SUBSCRIBERS", 1)
        with events_log.subscribe() as first, events_log.subscribe() as second:
            assert first is not None
            assert second is None
        with events_log.subscribe() as third:
            assert third is not None


async def test_waiting_for_news_ends_with_news_or_time():
    events_log = log()
    with events_log.subscribe() as reader:
        assert await reader.next(0.01) is None
        waiting = asyncio.create_task(reader.next(5))
        await asyncio.sleep(0)
        events_log.emit(TrainingAlone(1))
        assert (await waiting).id == 1
        ending = asyncio.create_task(reader.next(5))
        await asyncio.sleep(0)
        events_log.end_subscriptions()
        assert await ending is None
        assert reader.closed


async def test_where_a_reader_goes_on():
    disk = MemoryDisk()
    first = log(MemoryStore(disk))
    first.emit(TrainingAlone(1))
    await first.flush()
    second = log(MemoryStore(disk))
    second.emit(TrainingAlone(2))
    assert second.resume_after(None) == 2
    assert second.resume_after(0) == 0
    assert second.resume_after(2) == 2
    assert second.resume_after(77) == 1, "ids that a crash took are given anew by this start: show all of it"


async def test_old_events_come_from_the_store_when_the_ring_has_turned(monkeypatch):
    monkeypatch.setattr(stream, "RING", 5)
    events_log = log()
    for number in range(1, 21):
        events_log.emit(TrainingAlone(number))
    assert [e.id for e in await events_log.since(3, 4)] == [4, 5, 6, 7]
    assert [e.id for e in await events_log.since(17, 4)] == [18, 19, 20]


class StubbornStore(MemoryStore):
    """A store whose disk is full, or slow, as long as the test says so."""

    full = False
    fault: Exception = DiskFault("the disk is full")
    gate: asyncio.Event | None = None

    async def append(self, events):
        if self.gate is not None:
            await self.gate.wait()
        if self.full:
            raise self.fault
        await super().append(events)


async def test_events_wait_for_a_full_disk_up_to_a_limit_and_ids_leave_no_gap(monkeypatch):
    monkeypatch.setattr(stream, "MAX_PENDING", 10)
    store = StubbornStore()
    store.full = True
    events_log = log(store)
    for number in range(15):
        events_log.emit(TrainingAlone(number))
    with pytest.raises(DiskFault):
        await events_log.flush()
    assert events_log.dropped == 5
    store.full = False
    await events_log.flush()
    events_log.emit(TrainingAlone(99))
    await events_log.flush()
    assert [e.id for e in await store.events(0, 100)] == list(range(1, 12))


@pytest.mark.parametrize("fault", [DiskFault("the disk is full"), StateLocked("another process writes")])
async def test_a_full_disk_is_one_problem_until_there_is_room(monkeypatch, fault):
    monkeypatch.setattr(stream, "FLUSH_SECONDS", 0.001)
    store, heard = StubbornStore(), []
    store.full, store.fault = True, fault
    events_log = log(store, observers=[lambda _, event: heard.append(kind(event))])
    events_log.emit(TrainingAlone(1))
    running = asyncio.create_task(events_log.run())
    async with asyncio.timeout(5):
        while "problem_raised" not in heard:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        store.full = False
        while "problem_cleared" not in heard:
            await asyncio.sleep(0.001)
    running.cancel()
    assert heard == ["training_alone", "problem_raised", "problem_cleared"]


async def test_a_history_that_had_to_be_shortened_is_one_problem(monkeypatch):
    store = MemoryStore()
    keep = store.append

    async def without_room(batch):
        await keep(batch)
        return full

    full, now = True, 0.0
    monkeypatch.setattr(store, "append", without_room)
    log = EventLog(store, lambda: now, str)
    for _ in range(3):
        log.emit(RunFinished(1))
        await log.flush()
    told = [e for e in await store.events(0, 9) if e.kind == "problem_raised"]
    assert [json.loads(e.json)["code"] for e in told] == ["HISTORY_SHORTENED"]
    assert len({e.salt for e in await store.events(0, 9)}) == 4, "each event has a salt of its own"
    cleared = []
    for now, full in ((3700.0, False), (3800.0, True), (7400.0, False), (10_900.0, False), (11_100.0, False)):  # noqa: B007
        log.emit(RunFinished(1))
        await log.flush()
        cleared.append([e.kind for e in await store.events(0, 99)].count("problem_cleared"))
    assert cleared == [0, 0, 0, 0, 1], "two hours after the last time"


async def test_a_cancelled_flush_stores_each_event_once():
    store = StubbornStore()
    store.gate = asyncio.Event()
    events_log = log(store)
    events_log.emit(TrainingAlone(1))
    cancelled = asyncio.create_task(events_log.flush())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    events_log.emit(TrainingAlone(2))
    store.gate.set()
    await events_log.flush()
    assert [e.id for e in await store.events(0, 100)] == [1, 2]


async def test_running_stores_by_itself(monkeypatch):
    monkeypatch.setattr(stream, "FLUSH_SECONDS", 0.001)
    store = MemoryStore()
    events_log = log(store)
    events_log.emit(TrainingAlone(1))
    running = asyncio.create_task(events_log.run())
    async with asyncio.timeout(5):
        while not await store.events(0, 1):
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
