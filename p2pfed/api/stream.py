"""One stream of events with rising ids, many readers: history, SSE, and whoever observes (log, metrics, summary)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Literal

from p2pfed.api.allowance import Allowances
from p2pfed.api.sentences import sentence
from p2pfed.core.events import Event, ProblemCleared, ProblemRaised
from p2pfed.core.types import NodeId, Reason
from p2pfed.errors import DiskFault, StateLocked
from p2pfed.store.base import Store
from p2pfed.store.history import StoredEvent

RING = 256
"""Newest events kept in memory, for subscribers that come back."""
QUEUE = 256
"""Events a subscriber may fall behind before it is let go; it comes back with its last id."""
SUBSCRIBERS = 32
"""Of each listener: whoever takes all of one leaves those of the other to the operator."""
MAX_PENDING = 10_000
"""Events that wait for the disk; beyond, events are only observed, not recorded, and counted in `dropped`."""
FLUSH_SECONDS = 1.0
SHORTENED = (
    "the history is larger than audit.max_bytes: some of the record went before audit.keep_days were over",
    "let it be larger, or keep the record for fewer days; digests of what went are kept, so the rest can be verified",
)
"""What is wrong and what to do, once content of the record had to go for its size."""

SHORTENED_SECONDS = 2 * 3600.0
"""The store looks once an hour: so long after the record was shortened last, it has looked and found room."""

Observer = Callable[[float, Event], None]
"""Hears each event, and when it was on a clock that never falls."""


def to_json(event: Event) -> dict[str, Any]:
    """The event's fields as JSON values; numbers that are not finite become null."""
    return {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}


def kind(event: Event) -> str:
    """`RoundCompleted` -> `round_completed`: the stable name in the API, the log and SSE."""
    return kind_name(type(event))


def kind_name(event: type) -> str:
    """The same of a class of events."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event.__name__).lower()


def _plain(value: Any) -> Any:
    if isinstance(value, Reason):
        return value.code
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float):  # NumPy's float64 is one too
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


class Subscription:
    """The events since `EventLog.subscribe`, in order, until the reader falls too far behind."""

    def __init__(self, via: str) -> None:
        self.via = via
        self._events: deque[StoredEvent] = deque()
        self._news = asyncio.Event()
        self.closed = False

    def offer(self, event: StoredEvent | None) -> None:
        """Add an event; None, or one too many, ends the subscription."""
        if event is None or len(self._events) >= QUEUE:
            self.closed = True
        else:
            self._events.append(event)
        self._news.set()

    async def next(self, timeout: float) -> StoredEvent | None:
        """The next event; None after `timeout` seconds without one, or when the subscription has ended."""
        if not self._events and not self.closed:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), timeout)
            except TimeoutError:
                return None
        return self._events.popleft() if self._events else None


class EventLog:
    """Numbers events, shows them to observers and subscribers at once, and stores them in batches."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        name_of: Callable[[NodeId], str],
        observers: Sequence[Observer] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` never falls: observers and allowances measure with it how long things take. `wall` is what the
        machine's clock shows, which may be set: events are written with it. `name_of` gives a member's name for
        sentences.
        """
        self._store = store
        self._clock, self._wall = clock, wall
        self._name_of = name_of
        self._observers = observers
        self._newest = store.restore().last_event
        self._before = self._newest
        self._ring: deque[StoredEvent] = deque(maxlen=RING)
        self._pending: list[StoredEvent] = []
        self._subscriptions: list[Subscription] = []
        self._writing: asyncio.Task[None] | None = None
        self._allowances = Allowances()
        self._shortened: float | None = None
        """When the record was shortened last, on `clock`."""
        self.dropped = 0
        """Events that observers heard of and the history did not take: a full disk, or one member's flood."""

    def emit(self, event: Event) -> None:
        """Tell everybody; never waits and never fails for a slow reader or disk."""
        now = self._clock()
        for observe in self._observers:
            observe(now, event)
        if self._allowances.repeats(event, now):
            return
        if len(self._pending) >= MAX_PENDING or not self._allowances.allow(event, now):
            self.dropped += 1
            return
        self._allowances.recorded(event, now)
        self._newest += 1
        entry = {**to_json(event), "text": sentence(event, self._name_of)}
        text, salt = json.dumps(entry, ensure_ascii=False), secrets.token_bytes(16)
        stored = StoredEvent(self._newest, self._wall(), kind(event), text, salt)
        self._pending.append(stored)
        self._ring.append(stored)
        for subscription in self._subscriptions:
            subscription.offer(stored)

    async def run(self) -> None:
        """Store what has been emitted, every second, for ever; a disk that refuses is a problem until it does not."""
        refused = False
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except (DiskFault, StateLocked) as fault:
                if not refused:
                    self.emit(ProblemRaised("HISTORY_NOT_STORED", "error", str(fault), "events wait in memory"))
                refused = True
            else:
                if refused:
                    self.emit(ProblemCleared("HISTORY_NOT_STORED"))
                refused = False

    async def flush(self) -> None:
        """Return when all that was emitted before is durable; raises what `Store.append` raises."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        # a caller that is cancelled must not leave half-known whether a batch was stored
        await asyncio.shield(self._writing)

    async def _write(self) -> None:
        while self._pending:
            batch = list(self._pending)
            shortened = await self._store.append(batch)
            del self._pending[: len(batch)]
            self._tell_shortened(shortened)

    def _tell_shortened(self, now_too: bool) -> None:
        """Raise the problem when the record is first shortened, clear it once it no longer is."""
        last, now = self._shortened, self._clock()
        if now_too:
            self._shortened = now
            if last is None:
                self.emit(ProblemRaised("HISTORY_SHORTENED", "warning", *SHORTENED))
        elif last is not None and now - last > SHORTENED_SECONDS:
            self._shortened = None
            self.emit(ProblemCleared("HISTORY_SHORTENED"))

    async def since(self, last: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` events with id > `last`, oldest first."""
        if self._ring and last >= self._ring[0].id - 1:
            return [e for e in self._ring if e.id > last][:limit]
        await self.flush()
        return await self._store.events(last, limit)

    async def rounds(self, since: int, limit: int) -> list[StoredEvent]:
        """See Store.rounds; includes what has just been emitted."""
        await self.flush()
        return await self._store.rounds(since, limit)

    def resume_after(self, last: int | None) -> int:
        """Where a subscriber that has seen `last` goes on: None has seen nothing and wants only what is new.

        An id from before a crash that took unstored events with it goes on with this start's first event.
        """
        if last is None:
            return self._newest
        return last if last <= self._newest else self._before

    @contextmanager
    def subscribe(self, via: Literal["socket", "tcp"] = "tcp") -> Iterator[Subscription | None]:
        """A Subscription while the block runs; None if there are too many `via` this listener already."""
        if sum(subscription.via == via for subscription in self._subscriptions) >= SUBSCRIBERS:
            yield None
            return
        subscription = Subscription(via)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)

    @property
    def subscribers(self) -> int:
        """How many read along."""
        return len(self._subscriptions)

    def end_subscriptions(self) -> None:
        """Let every subscriber go: the server is stopping."""
        for subscription in self._subscriptions:
            subscription.offer(None)
