"""The history in a real file: what is taken away is found, and old content goes first where there is no room."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3

import pytest

from p2pfed.errors import StateCorrupt
from p2pfed.store import sqlite_events
from p2pfed.store.contents import verify_history
from p2pfed.store.history import Retention, StoredEvent
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir


@pytest.fixture
def state(tmp_path) -> StateDir:
    return StateDir(tmp_path)


async def filled(state: StateDir) -> None:
    """A closed store with ten events."""
    store = SqliteStore(state)
    await store.append([StoredEvent(i, float(i), "node_started", json.dumps({"n": i})) for i in range(1, 11)])
    store.close()


def change(state: StateDir, statement: str) -> None:
    with sqlite3.connect(state.database) as db:
        assert db.execute(statement).rowcount != 0
    db.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM events WHERE id > 6", "lacks events up to 10: it ends with 6"),
        ("DELETE FROM events", "lacks events up to 10: it ends with 0"),
        ("DELETE FROM events WHERE id = 4", r"broken from event 5 \(node_started\) on: event 3 is the one before it"),
        ("UPDATE events SET json = '{}' WHERE id = 4", r"broken from event 4 \(node_started\) on: it is not what was"),
        ("UPDATE events SET salt = x'00' WHERE id = 4", r"broken from event 4 \(node_started\) on: it is not what was"),
        (
            "UPDATE events SET json = NULL, digest = x'00' WHERE id = 4",
            "broken from event 4 on: it, or what was before",
        ),
    ],
)
async def test_what_is_taken_from_the_history_is_found(state, statement, said):
    await filled(state)
    assert verify_history(state) == 10
    change(state, statement)
    with pytest.raises(StateCorrupt, match=said):
        verify_history(state)


async def test_a_node_goes_on_behind_what_was_taken_from_its_history(state):
    await filled(state)
    change(state, "DELETE FROM events WHERE id > 6")
    store = SqliteStore(state)
    assert store.restore().last_event == 10, "the others may have seen seals of these"
    await store.append([StoredEvent(11, 11.0, "node_started", "{}")])
    with pytest.raises(StateCorrupt, match="broken from event 11"):
        await store.verify_chain()
    store.close()


async def test_a_manifest_that_was_followed_must_be_there(state):
    store = SqliteStore(state)
    for version in (1, 2):
        await store.save_manifest(version, b"signed")
    store.close()
    state.manifest(2).unlink()
    for read in (SqliteStore, verify_history):
        with pytest.raises(StateCorrupt, match=r"manifests/2\.json is missing, and this node has followed version 2"):
            read(state)
    state.save_manifest(2, b"signed")
    SqliteStore(state).close()


async def test_a_manifest_counts_once_it_was_verified(state):
    store = SqliteStore(state)
    state.save_manifest(1, b"signed")
    store.following(1)
    state.save_manifest(2, b"something else")  # left there by whoever; no start gets as far as to follow it
    store.close()
    SqliteStore(state).close()
    state.manifest(2).unlink()
    SqliteStore(state).close()
    state.manifest(1).unlink()
    with pytest.raises(StateCorrupt, match="is missing"):
        SqliteStore(state)


async def test_where_there_is_no_room_traffic_goes_first(state):
    hours = itertools.count()
    store = SqliteStore(state, Retention(max_bytes=1_200_000), lambda: 3600.0 * next(hours))
    kinds, text = ("update_accepted", "round_completed"), json.dumps({"round": 1, "text": "x" * 300})
    for hour in range(100):
        first = 1 + 100 * hour
        new = [StoredEvent(i, 3600.0 * hour, kinds[i % 2], text) for i in range(first, first + 100)]
        if await store.append(new):
            break
        kept = await store.events(0, 10_000)
        assert sum(e.kind == kinds[1] for e in kept) == 50 * (hour + 1), "none of the record goes before its time"
    kept = await store.events(0, 10_000)
    assert {e.kind for e in kept[:-100]} <= {"round_completed"} and kept[-100:] == new, "what is new stays"
    assert await store.verify_chain() == len(kept) < 50 * hour
    store.close()


async def test_what_is_too_much_for_one_look_goes_at_the_next_appends(state, monkeypatch):
    monkeypatch.setattr(sqlite_events, "BLOCK", 5)
    monkeypatch.setattr(sqlite_events, "BLOCKS", 2)
    store = SqliteStore(state, Retention(max_bytes=1_000_000), lambda: 0.0)
    await store.append([StoredEvent(i, 1.0, "node_started", "x" * 100_000) for i in range(1, 41)])
    lefts = []
    for number in range(41, 46):
        await store.append([StoredEvent(number, 1.0, "node_started", "y")])
        lefts.append(sum(len(e.json) == 100_000 for e in await store.events(0, 100)))
    assert lefts == [40, 40, 40, 40, 40], "the first look found nothing that was there before"
    store.close()
    store = SqliteStore(state, Retention(max_bytes=1_000_000), lambda: 0.0)
    for number in range(46, 52):
        await store.append([StoredEvent(number, 1.0, "node_started", "y")])
        lefts.append(sum(len(e.json) == 100_000 for e in await store.events(0, 100)))
    assert lefts[5:] == sorted(lefts[5:], reverse=True) and lefts[-1] <= 10 < lefts[5] < 40
    store.close()


async def test_what_was_not_written_is_not_counted(state):
    """A disk that refuses is tried again and again with the same events."""
    store = SqliteStore(state, Retention(max_bytes=1_000_000), lambda: 0.0)
    commit = store._transaction

    @contextlib.contextmanager
    def refused():
        with commit():
            yield
            raise sqlite3.OperationalError("disk I/O error")

    events = [StoredEvent(i, 1.0, "node_started", "x" * 2_000) for i in range(1, 101)]
    for _ in range(10):
        store._transaction = refused
        with pytest.raises(sqlite3.OperationalError):
            await store.append(events)
    store._transaction = commit
    await store.append(events)
    store.close()
    store = SqliteStore(state, Retention(max_bytes=1_000_000), lambda: 0.0)
    assert not await store.append([StoredEvent(101, 1.0, "node_started", "{}")])
    assert len(await store.events(0, 200)) == 101
    store.close()
