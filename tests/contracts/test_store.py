"""What every Store promises, run over all of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from p2pfed.core.effects import Checkpoint, KeptProof, Save
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.types import DAY, NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store.base import MemoryDisk, MemoryStore, Store
from p2pfed.store.history import Retention, StoredEvent
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

A, B = NodeId("A" * 56), NodeId("B" * 56)

Open = Callable[..., Store]
"""Opens the same state again, as a restarted daemon would; keyword arguments go to the store."""


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request, tmp_path) -> Open:
    disk, state, opened = MemoryDisk(), StateDir(tmp_path), []

    def open_again(**options: Any) -> Store:
        for store in opened:
            store.close()
        store = MemoryStore(disk, **options) if request.param == "memory" else SqliteStore(state, **options)
        opened[:] = [store]
        return store

    yield open_again
    for store in opened:
        store.close()


def checkpoint(seq: int, digest: str = "d") -> Checkpoint:
    vector = np.arange(5, dtype=np.float32) + seq
    newer = seq + 3, 7, b"moved", b"{}", b"{2}"
    return Checkpoint(seq + 1, seq, f"{digest}{seq}", vector, b"adam", b'{"m":1}', b"frame", 0.25, "model", *newer)


def event(number: int, kind: str = "node_started", json: str = "{}") -> StoredEvent:
    return StoredEvent(number, 1000.5 + number, kind, json)


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    for field in dataclasses.fields(Checkpoint):
        np.testing.assert_equal(getattr(found, field.name), getattr(expected, field.name))
    assert found.vector.dtype == np.float32


def test_a_new_state_is_empty_and_has_an_identity_of_its_own(open_store, tmp_path):
    found = open_store().restore()
    assert (found.epoch, found.checkpoint, found.marks, found.frames) == (1, None, {}, {})
    assert (found.peers, found.scales, found.manifests, found.last_event) == ({}, None, (), 0)
    assert len(bytes.fromhex(found.instance)) == 16
    assert MemoryStore().restore().instance != found.instance


def test_each_opening_counts_and_the_instance_stays(open_store):
    found = [open_store().restore() for _ in range(3)]
    assert [f.epoch for f in found] == [1, 2, 3]
    assert len({f.instance for f in found}) == 1


async def test_what_was_saved_comes_back(open_store):
    store = open_store()
    await store.save(Save(checkpoint(1), {A: (4, "a4")}, {B: b"pushed"}))
    await store.save(Save(checkpoint(2), {B: (7, "b7")}))
    found = open_store().restore()
    assert_same(found.checkpoint, checkpoint(2))
    assert found.marks == {A: (4, "a4"), B: (7, "b7")}
    assert found.frames == {B: b"pushed"}


async def test_a_threshold_may_be_unknown(open_store):
    without = dataclasses.replace(checkpoint(1), threshold=None)
    await open_store().save(Save(without))
    assert_same(open_store().restore().checkpoint, without)


async def test_a_frame_replaces_the_members_older_one(open_store):
    store = open_store()
    await store.save(Save(frames={A: b"one"}))
    await store.save(Save(frames={A: b"two"}))
    assert open_store().restore().frames == {A: b"two"}


async def test_what_is_thought_of_a_member_replaces_what_was_and_stays_otherwise(open_store):
    store = open_store()
    await store.save(Save(peers={A: PeerRecord(score=1.0), B: PeerRecord()}, scales=Scales(1.5)))
    await store.save(Save(peers={A: PeerRecord(score=2.0)}))
    await store.save(Save(checkpoint(1)))
    found = open_store().restore()
    assert (found.peers, found.scales) == ({A: PeerRecord(score=2.0), B: PeerRecord()}, Scales(1.5))


async def test_a_proof_is_kept_once_and_can_be_cleared(open_store):
    store = open_store()
    await store.save(Save(proofs={"b" * 64: KeptProof(b"one")}))
    await store.save(Save(proofs={"a" * 64: KeptProof(b"two"), "b" * 64: KeptProof(b"one")}))
    await store.save(Save(checkpoint(1)))
    found = open_store().restore().proofs
    assert list(found.items()) == [("b" * 64, KeptProof(b"one")), ("a" * 64, KeptProof(b"two"))]
    await open_store().save(Save(proofs={"b" * 64: KeptProof(b"one", cleared=7)}))
    found = open_store().restore().proofs
    assert list(found.items()) == [("b" * 64, KeptProof(b"one", 7)), ("a" * 64, KeptProof(b"two"))]


async def test_marks_only_rise(open_store):
    store = open_store()
    await store.save(Save(marks={A: (4, "a4")}))
    await store.save(Save(marks={A: (3, "a3")}))
    await store.save(Save(marks={A: (4, "other")}))
    assert open_store().restore().marks == {A: (4, "a4")}


async def test_a_sequence_number_never_goes_back_nor_stands_for_two_statements(open_store):
    store = open_store()
    await store.save(Save(checkpoint(5)))
    await store.save(Save(checkpoint(5)))  # the same statement again is no contradiction
    with pytest.raises(StateCorrupt, match="after 5"):
        await store.save(Save(checkpoint(4), {A: (1, "a1")}))
    with pytest.raises(StateCorrupt, match="second statement"):
        await store.save(Save(checkpoint(5, digest="x"), {A: (1, "a1")}, peers={A: PeerRecord()}, scales=Scales()))
    found = open_store().restore()
    assert_same(found.checkpoint, checkpoint(5))
    assert (found.marks, found.peers, found.scales) == ({}, {}, None), "a refused save must leave nothing behind"


async def test_a_listener_saves_rounds_without_ever_signing(open_store):
    store = open_store()
    await store.save(Save(dataclasses.replace(checkpoint(0), statement_digest="")))
    await store.save(Save(dataclasses.replace(checkpoint(0), statement_digest="", round=9)))
    assert open_store().restore().checkpoint.round == 9


async def test_manifests_come_back_in_order_of_version(open_store):
    store = open_store()
    for version in (10, 2, 1):
        await store.save_manifest(version, b"manifest %d" % version)
    assert open_store().restore().manifests == (b"manifest 1", b"manifest 2", b"manifest 10")


async def test_events_come_back_in_order_and_are_paged(open_store):
    store = open_store()
    events = [event(i, json=f'{{"n":{i}}}') for i in range(1, 8)]
    await store.append(events[:3])
    await store.append(events[3:])
    assert await store.events(0, 100) == events
    assert await store.events(2, 3) == events[2:5]
    assert await store.events(7, 3) == []
    store = open_store()
    assert store.restore().last_event == 7
    assert await store.events(0, 100) == events


@pytest.mark.parametrize("wrong", [0, 2, 4])
async def test_event_ids_leave_no_gap_and_never_repeat(open_store, wrong):
    store = open_store()
    await store.append([event(1)])
    with pytest.raises(ValueError, match="does not follow"):
        await store.append([event(2), event(wrong)])
    assert await store.events(0, 10) == [event(1)]


async def test_rounds_are_found_by_number_whatever_the_order_of_their_events(open_store):
    store = open_store()
    await store.append(
        [
            event(1, "round_completed", '{"round":1}'),
            event(2, "node_started", '{"round":2}'),
            event(3, "round_completed", '{"round":2}'),
            event(4, "model_evaluated", '{"round":1}'),
            event(5, "round_completed", '{"round":3}'),
            event(6, "model_evaluated", '{"round":3}'),
        ]
    )
    assert [e.id for e in await store.rounds(0, 100)] == [1, 4, 3, 5, 6]
    assert [e.id for e in await store.rounds(0, 2)] == [1, 4, 3]
    assert [e.id for e in await store.rounds(2, 100)] == [5, 6]


def hourly() -> Callable[[], float]:
    """A clock that shows an hour more each time it is looked at."""
    hours = itertools.count()
    return lambda: 3600.0 * next(hours)


async def test_content_goes_when_it_is_old_and_the_chain_holds(open_store):
    """Ten events of each kind, a day apart: traffic is kept for three days, the record for six."""
    store = open_store(retention=Retention(record_days=6, traffic_days=3), clock=hourly())
    kinds = ("round_completed", "update_refused")
    story = [StoredEvent(i, DAY * ((i + 1) // 2), kinds[i % 2], '{"round":1}', b"s" * 16) for i in range(1, 21)]
    for one in story:
        await store.append([one])
    kept = await store.events(0, 100)
    now = story[-1].time
    assert kept == [e for e in story if e.time >= now - DAY * (6 if e.kind == kinds[0] else 3)]
    assert [e.id for e in await store.rounds(0, 100)] == [e.id for e in kept if e.kind == kinds[0]]
    assert await store.verify_chain() == len(kept) < len(story)
    store = open_store()
    assert store.restore().last_event == len(story)
    await store.append([StoredEvent(21, now, "node_started", "{}")])
    assert await store.verify_chain() == len(kept) + 1


async def test_what_is_old_is_looked_for_once_an_hour(open_store):
    now = [0.0]
    store = open_store(retention=Retention(record_days=0.001, traffic_days=0.001), clock=lambda: now[0])
    await store.append([event(1)])
    now[0] = 3599.0
    await store.append([StoredEvent(2, event(1).time + 3599, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 10)] == [1, 2]
    now[0] = 3600.0
    await store.append([StoredEvent(3, event(1).time + 3600, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 10)] == [2, 3]


async def test_a_clock_that_is_set_years_ahead_makes_nothing_old_at_once(open_store):
    store = open_store(retention=Retention(record_days=6, traffic_days=3), clock=hourly())
    await store.append([event(1), event(2, "update_refused")])
    ahead = event(1).time + 3 * 365 * DAY
    for number in range(3, 6):
        await store.append([StoredEvent(number, ahead, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 9)] == [1, 2, 3, 4, 5]
    await store.append([StoredEvent(6, event(1).time + 3600, "node_started", "{}")])  # it is set right again
    for number in range(7, 9):
        await store.append([StoredEvent(number, ahead, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 9)][:3] == [1, 2, 3]
    for number in range(9, 16):  # where it stays ahead, it is that late
        await store.append([StoredEvent(number, ahead, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 9)][:2] == [3, 4]


async def test_an_empty_history_verifies(open_store):
    assert await open_store().verify_chain() == 0
