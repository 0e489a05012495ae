"""A state that was written before there was a calendar, and what becomes of it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import time

import numpy as np
import pytest

from p2pfed.core.record import canonical, plain
from p2pfed.core.reputation.peer_record import Assessment, PeerRecord, Scales
from p2pfed.core.types import DAY, NodeId
from p2pfed.errors import StateCorrupt
from p2pfed.store import contents
from p2pfed.store.contents import verify_history
from p2pfed.store.history import FIRST_LINK, FORMAT_CHANGED, OLD_FIRST_LINK, Retention, StoredEvent
from p2pfed.store.schema import MIGRATIONS
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir

A = NodeId("A" * 56)
BEFORE_MERGED = "round, seq, statement_digest, vector, optimiser, aggregation, published, threshold, model"
PROVEN, GOOD = NodeId("B" * 56), NodeId("C" * 56)
REMEMBERED = {
    A: PeerRecord("quarantined", score=4.5, strikes=2, looks=30),
    PROVEN: PeerRecord("quarantined", proven=True, looks=3),
    GOOD: PeerRecord("suspect", score=2.5, looks=30, newest=Assessment(3.5, 4.0, 1.25, evidence=-0.25)),
}


def flat(record: PeerRecord) -> bytes:
    """A record as it was stored until what was measured of the newest model became a value of its own."""
    stored = plain(record)
    measured = stored.pop("newest")
    del measured["disagreement_fine"], measured["recognition_fine"], measured["excess"], measured["excess_fine"]
    return json.dumps(stored | measured | {"nearness": 0.9}).encode()


def test_a_measurement_that_is_no_more_made_is_left_out(tmp_path):
    stored = plain(REMEMBERED[GOOD])
    stored["newest"]["nearness"] = 0.9
    assert contents._peer(json.dumps(stored).encode(), tmp_path) == REMEMBERED[GOOD]


def of_schema_3(state: StateDir, damaged: bool = False) -> None:
    """A state as the last version before the calendar wrote it; `damaged` in its checkpoint."""
    with sqlite3.connect(state.database) as db:
        for statement in itertools.chain(*MIGRATIONS[:3]):
            db.execute(statement)
        db.execute("PRAGMA user_version = 3")
        db.execute("INSERT INTO node VALUES (1, ?, 5, ?)", ("ab" * 16, OLD_FIRST_LINK))
        content = [70, 64, "d64", np.full(9, 0.5, "<f4").tobytes(), b"adam", b"{}", b"frame", 0.25, "m"]
        stored = contents.content_hash(content)
        if damaged:
            content[0] = 71
        db.execute(f"INSERT INTO checkpoint (one, {BEFORE_MERGED}, sha256) VALUES (1{', ?' * 10})", (*content, stored))
        for member, record in REMEMBERED.items():
            row = (member, flat(record))
            db.execute("INSERT INTO reputation VALUES (?, ?, ?)", (*row, contents.content_hash(row)))
        scales = canonical(Scales(2.5))
        db.execute("INSERT INTO scales VALUES (1, ?, ?)", (scales, contents.content_hash((scales,))))
    db.close()


@pytest.fixture
def state(tmp_path) -> StateDir:
    return StateDir(tmp_path)


async def test_a_state_of_before_the_calendar_goes_on_and_its_quarantines_are_taken_back(state):
    of_schema_3(state)
    store = SqliteStore(state)
    found = store.restore()
    checkpoint = found.checkpoint
    assert (checkpoint.round, checkpoint.merged, checkpoint.seq, checkpoint.threshold) == (70, 70, 64, 0.25)
    assert found.pardoned == (A,)
    assert found.peers == {A: PeerRecord(), PROVEN: REMEMBERED[PROVEN], GOOD: REMEMBERED[GOOD]}
    assert found.scales is None and (found.instance, found.epoch) == ("ab" * 16, 6)
    assert (state.root / "node.v3.sqlite").exists()
    store.close()
    store = SqliteStore(state)
    assert store.restore().pardoned == (), "it is told once"
    checkpoint = store.restore().checkpoint
    assert (checkpoint.merged, checkpoint.decided, checkpoint.momentum, checkpoint.health) == (70, -1, b"", b"")
    assert checkpoint.trained == b""
    store.close()


def test_a_state_of_before_health_was_kept_loads_with_none(state):
    with sqlite3.connect(state.database) as db:
        for statement in itertools.chain(*MIGRATIONS[:5]):
            if "content_hash" not in statement:  # there is nothing yet to mend
                db.execute(statement)
        db.execute("PRAGMA user_version = 5")
        content = [
            70,
            64,
            "d64",
            np.full(9, 0.5, "<f4").tobytes(),
            b"adam",
            b"{}",
            b"frame",
            0.25,
            "m",
            69,
            3,
            b"moved",
        ]
        stored = contents.content_hash(content)
        columns = f"one, {BEFORE_MERGED}, merged, decided, momentum, sha256"
        db.execute(f"INSERT INTO checkpoint ({columns}) VALUES (1{', ?' * 13})", (*content, stored))
    db.close()
    for _ in range(2):
        store = SqliteStore(state)
        found = store.restore().checkpoint
        assert (found.round, found.merged, found.decided, found.momentum, found.health) == (70, 69, 3, b"moved", b"")
        store.close()


def test_a_damaged_checkpoint_of_before_the_calendar_stays_damaged(state):
    of_schema_3(state, damaged=True)
    for _ in range(2):
        with pytest.raises(StateCorrupt, match="the checkpoint does not have the hash"):
            SqliteStore(state)


def test_a_damaged_record_of_a_member_stays_damaged(state):
    of_schema_3(state)
    with sqlite3.connect(state.database) as db:
        db.execute("UPDATE reputation SET record = CAST('{}' AS BLOB) WHERE member = ?", (GOOD,))
    db.close()
    for _ in range(2):
        with pytest.raises(StateCorrupt, match="does not have the hash"):
            SqliteStore(state)


def old_history(state: StateDir, events: int) -> None:
    """A state of schema 6 with so many events of the first format."""
    with sqlite3.connect(state.database) as db:
        for statement in itertools.chain(*MIGRATIONS[:6]):
            if "content_hash" not in statement:  # there is nothing yet to mend
                db.execute(statement)
        db.execute("PRAGMA user_version = 6")
        db.execute("INSERT INTO node VALUES (1, ?, 5, ?)", ("ab" * 16, OLD_FIRST_LINK))
        link, began = OLD_FIRST_LINK, float(int(time.time()) - events)
        for number in range(1, events + 1):
            content = f'{number}\n{began + number!r}\nround_completed\n{{"round":{number}}}'
            link = hashlib.sha256(link + content.encode()).digest()
            row = number, began + number, "round_completed", f'{{"round":{number}}}', link
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
    db.close()


async def test_a_history_of_the_first_format_goes_on_in_the_second(state):
    old_history(state, 5)
    assert verify_history(state) == 5, "also before it is migrated"
    store = SqliteStore(state)
    assert store.restore().last_event == 6
    assert [e.id for e in await store.rounds(0, 9)] == [1, 2, 3, 4, 5]
    changed = (await store.events(5, 9))[0]
    assert (changed.kind, len(changed.salt)) == (FORMAT_CHANGED, 16)
    await store.append([StoredEvent(7, changed.time, "node_started", "{}", b"s" * 16)])
    assert await store.verify_chain() == 7
    store.close()
    assert verify_history(state) == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE events SET json = '{}' WHERE id = 3", r"broken from event 3 \(round_completed\) on"),
        ("DELETE FROM events WHERE id = 5", "broken from event 6"),
        ("UPDATE events SET hash = x'00' WHERE id = 5", "broken from event 5"),
    ],
)
async def test_what_is_changed_in_the_older_part_is_found_afterwards(state, change, said):
    old_history(state, 5)
    SqliteStore(state).close()
    with sqlite3.connect(state.database) as db:
        db.execute(change)
    db.close()
    with pytest.raises(StateCorrupt, match=said):
        verify_history(state)


async def test_events_of_the_first_format_go_whole_when_they_are_old(state):
    old_history(state, 5)
    hours = itertools.count()
    store = SqliteStore(state, Retention(record_days=1), lambda: 3600.0 * next(hours))
    changed = (await store.events(5, 9))[0]
    for number in range(7, 10):
        await store.append([StoredEvent(number, changed.time + 2 * DAY, "node_started", "{}")])
    assert [e.id for e in await store.events(0, 9)] == [6, 7, 8, 9], "what holds the two parts together stays"
    assert await store.verify_chain() == 4
    store.close()


async def test_an_event_of_1970_takes_none_of_those_before_it_with_it(state):
    old_history(state, 5)
    with sqlite3.connect(state.database) as db:
        link = db.execute("SELECT hash FROM events WHERE id = 5").fetchone()[0]
        link = hashlib.sha256(link + b"6\n0.0\nnode_started\n{}").digest()
        db.execute("INSERT INTO events VALUES (6, 0.0, 'node_started', '{}', ?)", (link,))
    db.close()
    store = SqliteStore(state)
    await store.append([StoredEvent(8, time.time(), "node_started", "{}")])
    assert await store.verify_chain() == 8
    store.close()


async def test_a_backup_goes_with_what_it_keeps(state):
    old_history(state, 5)
    SqliteStore(state).close()
    backup = state.root / "node.v6.sqlite"
    SqliteStore(state).close()
    assert backup.exists()
    os.utime(backup, (0, 0))
    SqliteStore(state).close()
    assert not backup.exists()


def test_a_state_without_events_begins_in_the_second_format(state):
    old_history(state, 0)
    store = SqliteStore(state)
    assert store.restore().last_event == 0
    store.close()
    with sqlite3.connect(state.database) as db:
        assert db.execute("SELECT anchor, last_hash FROM node").fetchone() == (FIRST_LINK, FIRST_LINK)
    db.close()
