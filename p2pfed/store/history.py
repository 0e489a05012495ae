"""The history of a node: events, the chain that no later edit passes, and how long what is kept.

Second format: an event is chained by a digest of its content, so content can go while the chain stays whole. Each has
16 random bytes of salt, which go with it: who sees only digests cannot test guesses of what happened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from p2pfed.core.types import DAY
from p2pfed.errors import StateCorrupt

FIRST_LINK = hashlib.sha256(b"p2pfed/events/2\0").digest()
"""What the first event's hash names as the one before."""
OLD_FIRST_LINK = hashlib.sha256(b"p2pfed/events/1\0").digest()
"""The same of the first format, in which content itself was chained."""
FORMAT_CHANGED = "format_changed"
"""Kind of the event with which the second format begins: it names the last link of the first."""
ROUND_KINDS = ("round_completed", "model_evaluated")
"""Kinds of event whose JSON has a `round` and which `Store.rounds` returns."""
TRAFFIC_KINDS = ("update_accepted", "update_refused", "peer_changed", "peer_benched")
"""Kinds that only say what came and went, more than half of all events: kept for a shorter time than the record."""


LOOK_SECONDS = 3600.0
"""Between two looks for content that need not be kept any longer."""


@dataclass(frozen=True)
class StoredEvent:
    """One event of the history: `id` counts from 1 without gaps, `time` is Unix seconds, `json` an object."""

    id: int
    time: float
    kind: str
    json: str
    salt: bytes = b""
    """16 random bytes."""


class Linked(NamedTuple):
    """An event in the chain."""

    id: int
    digest: bytes
    """Empty in the first format."""
    hash: bytes
    event: StoredEvent | None
    """None once its content is no longer kept."""


@dataclass(frozen=True)
class Retention:
    """How long content is kept; digests stay."""

    record_days: float = 400.0
    traffic_days: float = 35.0
    """Of `TRAFFIC_KINDS`."""
    max_bytes: int = 2_000_000_000
    """Of content, each character counted once: beyond, the oldest traffic goes first, then the record."""

    def record_since(self, now: float) -> float:
        """Unix seconds before which the content of the record goes."""
        return now - DAY * self.record_days

    def traffic_since(self, now: float) -> float:
        """The same of traffic."""
        return now - DAY * self.traffic_days

    def thinned(self, row: Linked, now: float) -> Linked:
        """`row` without its content if that is older than is kept; what holds the two formats together stays."""
        event = row.event
        if event is None or event.kind == FORMAT_CHANGED:
            return row
        since = self.traffic_since(now) if event.kind in TRAFFIC_KINDS else self.record_since(now)
        return row._replace(event=None) if event.time < since else row


USUAL = Retention()
"""What is kept unless the operator asks for something else."""


class Looks:
    """When to look for content that need not be kept any longer: once an hour by a clock that never falls."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._next = clock, -math.inf

    def due(self) -> bool:
        """Whether it is time; then the next time is in an hour."""
        if (now := self._clock()) < self._next:
            return False
        self._next = now + LOOK_SECONDS
        return True

    def soon(self) -> None:
        """Look again at the next chance: there was more than is done at once."""
        self._next = -math.inf


def aged(before: float | None, wall: float) -> float:
    """What time it is for what is kept, `before` at the last look: a clock that is set years ahead makes nothing old at
    once, but by a day with each look, and nothing once it is set back.
    """
    return wall if before is None else min(wall, before + DAY)


def digest(event: StoredEvent) -> bytes:
    """SHA-256 over salt and content."""
    return hashlib.sha256(event.salt + _content(event)).digest()


def chained(previous: bytes, last: int, events: Sequence[StoredEvent]) -> list[Linked]:
    """`events`, which must follow id `last` without a gap, as they are stored; raises ValueError."""
    rows = []
    for event in events:
        last += 1
        if event.id != last:
            raise ValueError(f"event {event.id} does not follow event {last - 1}")
        of_event = digest(event)
        previous = _link(previous, of_event)
        rows.append(Linked(last, of_event, previous, event))
    return rows


def format_changed(last: int, last_link: bytes, time: float, salt: bytes) -> Linked:
    """The event with which the second format begins, after event `last` of the first, whose hash is `last_link`."""
    content = {"format": 2, "link": last_link.hex(), "text": "the history goes on in its second format"}
    event = StoredEvent(last + 1, time, FORMAT_CHANGED, json.dumps(content), salt)
    of_event = digest(event)
    return Linked(event.id, of_event, _link(FIRST_LINK, of_event), event)


def check_chain(anchor: bytes, rows: Iterable[Linked], head: tuple[int, bytes] | None = None) -> int:
    """Verify stored events, oldest first, from the hash before them to the `head`; returns how many have content.

    `head` is id and hash of the newest one by what is remembered elsewhere. Raises StateCorrupt naming the first event
    that is not what was written, or that is missing.
    """
    before, count = None, 0
    for row in rows:
        if before is not None and row.id != before + 1:
            raise _broken_from(row, f"event {before} is the one before it")
        if row.event is not None and row.digest and digest(row.event) != row.digest:
            raise _broken_from(row, "it is not what was written")
        if _next_link(anchor, row) != row.hash:
            raise _broken_from(row, "it, or what was before it, is not what was written")
        before, anchor, count = row.id, row.hash, count + (row.event is not None)
    if head is not None and head != (before or 0, anchor):
        raise StateCorrupt(f"the event history lacks events up to {head[0]}: it ends with {before or 0}. {_WAY_OUT}")
    return count


def _next_link(anchor: bytes, row: Linked) -> bytes:
    if not row.digest:  # the first format
        return hashlib.sha256(anchor + (_content(row.event) if row.event else b"")).digest()
    if row.event is not None and row.event.kind == FORMAT_CHANGED:
        return _link(FIRST_LINK, row.digest) if anchor.hex() in row.event.json else b""
    return _link(anchor, row.digest)


def _link(previous: bytes, of_event: bytes) -> bytes:
    return hashlib.sha256(previous + of_event).digest()


def _content(event: StoredEvent) -> bytes:
    # a kind is one word, so this reads one way
    return f"{event.id}\n{float(event.time)!r}\n{event.kind}\n{event.json}".encode()


_WAY_OUT = "Something other than p2pfed wrote there: keep a copy of the state directory, and compare it with a backup"


def _broken_from(row: Linked, why: str) -> StateCorrupt:
    kind = f" ({row.event.kind})" if row.event else ""
    return StateCorrupt(f"the event history is broken from event {row.id}{kind} on: {why}. {_WAY_OUT}")
