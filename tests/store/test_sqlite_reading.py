"""The history is read beside the thread that saves the model."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from p2pfed.core.effects import Save
from p2pfed.core.types import NodeId
from p2pfed.store.history import StoredEvent
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir


@pytest.fixture
def store(tmp_path):
    opened = SqliteStore(StateDir(tmp_path / "state").create())
    yield opened
    opened.close()


async def test_a_long_answer_delays_no_save(store):
    go_on = threading.Event()
    reading = store._reader._thread.submit(go_on.wait, 10)
    asked = asyncio.create_task(store.events(0, 10))
    await asyncio.wait_for(store.save(Save(marks={NodeId("A"): (1, "ab" * 32)})), 5)
    assert not reading.done()
    go_on.set()
    assert await asyncio.wait_for(asked, 5) == []


async def test_what_was_stored_is_read_at_once(store):
    for number in range(1, 4):
        await store.append([StoredEvent(number, 1.0, "node_started", '{"text":"t"}', b"s" * 16)])
        assert [event.id for event in await store.events(0, 10)] == list(range(1, number + 1))


def test_what_reads_cannot_write(store):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._reader._db.execute("DELETE FROM events")
