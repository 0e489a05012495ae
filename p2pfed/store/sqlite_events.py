"""The table of events of a node's database: appended to, verified, and thinned out with time."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from p2pfed.store.history import (
    FIRST_LINK,
    FORMAT_CHANGED,
    OLD_FIRST_LINK,
    TRAFFIC_KINDS,
    Linked,
    Looks,
    Retention,
    StoredEvent,
    aged,
    chained,
    check_chain,
    format_changed,
)
from p2pfed.store.schema import HISTORY_SINCE

BLOCK, BLOCKS = 1_000, 20
"""Events whose content goes at once where there is no room, and so many times in one look."""

_KEPT = "json IS NOT NULL AND digest != x''"
"""What has content that may go and leave its digest."""
_TRAFFIC = "kind IN ({})".format(", ".join(f"'{kind}'" for kind in TRAFFIC_KINDS))
_RECORD = f"NOT {_TRAFFIC} AND kind != '{FORMAT_CHANGED}'"


class EventTable:
    """Belongs to the thread of its connection; the caller begins and ends transactions, and all it knows is in them."""

    def __init__(self, db: sqlite3.Connection, retention: Retention, clock: Callable[[], float]) -> None:
        """`clock` as of `Looks`."""
        self._db, self._retention, self._looks = db, retention, Looks(clock)

    def end(self) -> tuple[int, bytes]:
        """Id and hash of the newest event that was ever stored, whatever is left of it."""
        last: int
        last, link = self._db.execute("SELECT last_event, last_hash FROM node").fetchone()
        return last, link

    def append(self, events: Sequence[StoredEvent]) -> bool:
        """Add to the end, and see what need not be kept; returns whether some of the record had to go for its size.

        Raises ValueError unless ids go on without a gap.
        """
        last, previous = self.end()
        rows = chained(previous, last, events)
        if not rows:
            return False
        self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", map(_row, rows))
        more = sum(len(event.json) for event in events)
        values = (rows[-1].id, rows[-1].hash, more)
        self._db.execute("UPDATE node SET last_event = ?, last_hash = ?, characters = characters + ?", values)
        if not self._looks.due():
            return False
        (before,) = self._db.execute("SELECT aged FROM node").fetchone()
        now = aged(before, events[-1].time)
        self._db.execute("UPDATE node SET aged = ?", (now,))
        self._forget_old(now)
        return self._make_room(last)

    def _forget_old(self, now: float) -> None:
        """Let go of the content that is older than is kept; of the first format, which has no digests, whole events."""
        since = self._retention.record_since(now)
        self._forget(f"{_TRAFFIC} AND time < ?", self._retention.traffic_since(now))
        self._forget(f"{_RECORD} AND time < ?", since)
        first_format = "SELECT {}(id) FROM events WHERE digest = x''"
        (young,) = self._db.execute(f"{first_format.format('min')} AND time >= ?", (since,)).fetchone()
        (newest,) = self._db.execute(first_format.format("max")).fetchone()
        old = newest if young is None else young - 1
        if old is not None:
            query = "UPDATE node SET anchor = (SELECT hash FROM events WHERE id = ?) WHERE EXISTS"
            self._db.execute(f"{query} (SELECT 1 FROM events WHERE id = ?)", (old, old))
            self._db.execute("DELETE FROM events WHERE id <= ?", (old,))

    def _make_room(self, last: int) -> bool:
        """Keep no more than there may be of the events up to `last`: the oldest traffic goes first.

        Returns whether others went. What is too much for one look is done at the next append.
        """
        shortened, kinds = False, _TRAFFIC
        for _ in range(BLOCKS):
            (characters,) = self._db.execute("SELECT characters FROM node").fetchone()
            if characters <= self._retention.max_bytes:
                return shortened
            if self._forget(_oldest(kinds), last):
                shortened = shortened or kinds is _RECORD
            elif kinds is _RECORD:
                return shortened  # what is left was appended just now
            else:
                kinds = _RECORD
        self._looks.soon()
        return shortened

    def _forget(self, which: str, *values: float) -> int:
        """Let go of the content of events; returns of how many."""
        where = f"WHERE {_KEPT} AND {which}"
        count, size = self._db.execute(f"SELECT count(*), total(length(json)) FROM events {where}", values).fetchone()
        if count:
            self._db.execute(f"UPDATE events SET json = NULL, salt = NULL {where}", values)
            self._db.execute("UPDATE node SET characters = characters - ?", (int(size),))
        return int(count)


def _oldest(kinds: str) -> str:
    return f"id IN (SELECT id FROM events WHERE {_KEPT} AND {kinds} AND id <= ? ORDER BY id LIMIT {BLOCK})"


def change_format(db: sqlite3.Connection, time: float) -> None:
    """Go on from a history of the first format, if there is one, in the second; see `format_changed`."""
    last = db.execute("SELECT id, hash, time FROM events ORDER BY id DESC LIMIT 1").fetchone()
    if last is None:
        db.execute("UPDATE node SET anchor = ?, last_hash = ?", (FIRST_LINK, FIRST_LINK))
        return
    row = format_changed(last[0], last[1], time, secrets.token_bytes(16))
    db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", _row(row))
    values = (row.id, row.hash, len(row.event.json) if row.event else 0, min(time, last[2]))
    db.execute("UPDATE node SET last_event = ?, last_hash = ?, characters = ?, aged = ?", values)


def verify(db: sqlite3.Connection, version: int) -> int:
    """How many events are stored in a database of schema `version`; raises StateCorrupt, as `check_chain`."""
    if version < HISTORY_SINCE:
        (anchor,) = db.execute("SELECT anchor FROM node").fetchone() or (OLD_FIRST_LINK,)
        return check_chain(anchor, _rows(db, "SELECT id, x'', hash, time, kind, json, x'' FROM events ORDER BY id"))
    anchor, *head = db.execute("SELECT anchor, last_event, last_hash FROM node").fetchone()
    rows = _rows(db, "SELECT id, digest, hash, time, kind, json, salt FROM events ORDER BY id")
    return check_chain(anchor, rows, (head[0], head[1]))


def _rows(db: sqlite3.Connection, query: str) -> Iterator[Linked]:
    for number, of_event, link, time, kind, text, salt in db.execute(query):
        event = None if text is None else StoredEvent(number, time, kind, text, salt or b"")
        yield Linked(number, of_event, link, event)


def _row(row: Linked) -> tuple[object, ...]:
    event = row.event
    assert event is not None, "only what has content is written"
    return row.id, event.time, event.kind, event.json, event.salt, row.digest, row.hash
