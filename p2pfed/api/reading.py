"""The history as the API shows it, and how much of it may be read by whoever has no token.

Anybody on the machine may read over TCP: without a bound that would take the node's time away. What is read over the
Unix socket, or with the token, is the operator's and is not counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from p2pfed.api.guard import Guard, Handler
from p2pfed.api.schemas import EventRow, RoundRow
from p2pfed.net.bucket import Bucket
from p2pfed.store.history import StoredEvent

BYTES_PER_SECOND = 512 * 1024
BYTES_AT_ONCE = 8 * 1024 * 1024
REQUEST_BYTES = 4096
"""What each request counts besides its answer."""
HISTORY = frozenset({"/api/v1/rounds", "/api/v1/events"})
"""Paths whose answers may be long: one is made at a time."""
FREE = frozenset({"/livez", "/readyz"})
"""Paths that supervisors ask for, who end what does not answer."""

_ROUNDS = TypeAdapter(list[RoundRow])
_EVENTS = TypeAdapter(list[EventRow])


class Reads:
    """What is read over TCP without the token, all of it together; made inside a running event loop."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._bucket = Bucket(BYTES_PER_SECOND, BYTES_AT_ONCE, self._now())
        self._one = asyncio.Semaphore()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")

    @web.middleware
    async def bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse to read more than the rate; of the history one answer is made at a time."""
        if request.path in FREE or self._guard.trusts(request):
            return await handler(request)
        if request.path in HISTORY and not wants_stream(request):
            async with self._one:
                return await self._counted(request, handler)
        return await self._counted(request, handler)

    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._bucket.take(self._now(), REQUEST_BYTES):
            raise web.HTTPTooManyRequests(
                text="too much was read; ask later, send the token, or use the socket in the state directory",
                headers={"Retry-After": "10"},
            )
        response = await handler(request)
        self._bucket.owe(self._now(), response.content_length or 0)
        return response

    async def pace(self, request: web.Request, length: int) -> None:
        """Count so many bytes of a stream's history, and wait until they are within the rate."""
        if not self._guard.trusts(request):
            await asyncio.sleep(self._bucket.owe(self._now(), length))

    async def rounds(self, events: Sequence[StoredEvent]) -> bytes:
        """Completed rounds as JSON, made beside the event loop."""
        return await self._beside(lambda: _ROUNDS.dump_json(round_rows(events)))

    async def events(self, events: Sequence[StoredEvent]) -> bytes:
        """Events as JSON, made beside the event loop."""
        return await self._beside(lambda: _EVENTS.dump_json([event_row(event) for event in events]))

    async def frames(self, events: Sequence[StoredEvent]) -> bytes:
        """Events as server-sent ones, made beside the event loop."""
        return await self._beside(lambda: b"".join(map(sse, events)))

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown()

    async def _beside(self, make: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._thread, make)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def wants_stream(request: web.Request) -> bool:
    """Whether events are asked for as they happen."""
    return "text/event-stream" in request.headers.get("Accept", "")


def event_row(stored: StoredEvent) -> EventRow:
    """A stored event as the API shows it."""
    fields = json.loads(stored.json)
    return EventRow(id=stored.id, time=stored.time, kind=stored.kind, text=fields.pop("text", ""), fields=fields)


def sse(event: StoredEvent) -> bytes:
    """A stored event as a server-sent one."""
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event_row(event).model_dump_json()}\n\n".encode()


def round_rows(events: Sequence[StoredEvent]) -> list[RoundRow]:
    """Completed rounds out of `Store.rounds`, each with its evaluation if there is one."""
    completed: dict[int, dict[str, Any]] = {}
    evaluated: dict[int, dict[str, Any]] = {}
    for event in events:
        fields = json.loads(event.json)
        fields.pop("text", None)
        if event.kind == "round_completed":
            sources = fields.setdefault("sources", [])  # the first format told only whose models were merged
            fields.setdefault("merged", [source["member"] for source in sources])
            completed[fields["round"]] = {**fields, "time": event.time}
        else:
            evaluated[fields["round"]] = {"metrics": fields["metrics"], "threshold": fields["threshold"]}
    unknown = {"metrics": None, "threshold": None}
    return [RoundRow(**fields, **evaluated.get(number, unknown)) for number, fields in completed.items()]
