"""The admin API: one table of routes, served on a Unix socket and, mostly to read, on loopback TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from p2pfed.api.guard import Guard, Handler, add_headers, over_unix_socket
from p2pfed.api.metrics import NodeMetrics
from p2pfed.api.openapi import Parameter, Route, document
from p2pfed.api.reading import Reads, sse, wants_stream
from p2pfed.api.schemas import (
    Accepted,
    EventRow,
    EvidenceRow,
    MemberRow,
    RefreshRequest,
    ReputationReply,
    RoundRow,
    Status,
    UpdateRow,
)
from p2pfed.api.stream import EventLog, Subscription
from p2pfed.api.view import NodeView
from p2pfed.core.events import OperatorActed
from p2pfed.core.types import Address
from p2pfed.errors import StateLocked, Unavailable, UsageError
from p2pfed.net import limits
from p2pfed.net.door import Door, Refused

WRITE_SECONDS = 30.0
"""A reader of a stream that takes nothing for so long is let go."""
HEARTBEAT_SECONDS = 15.0
"""A comment line keeps an idle event stream open through proxies."""
PAGE = 1_000
"""Most rows of one answer; ask again with `since`."""

_ROWS = Parameter("limit", 100, 1, PAGE, "at most this many")
_SINCE_ROUND = Parameter("since", 0, 0, 2**53, "rounds after this one")
_SINCE_EVENT = Parameter("since", 0, 0, 2**53, "events after this id; a stream goes on from Last-Event-ID instead")

ROUTES = (
    Route("GET", "/api/v1/status", "status", "Health, problems, learning and this process", Status),
    Route("GET", "/api/v1/members", "members", "Every member as this node sees it", MemberRow, many=True),
    Route(
        "GET", "/api/v1/members/{member}/reputation", "reputation", "What this node thinks of a member, and why",
        ReputationReply,
    ),
    Route(
        "POST", "/api/v1/members/{member}/block", "block", "Have nothing to do with a member", Accepted, writes=True,
    ),
    Route("POST", "/api/v1/members/{member}/unblock", "unblock", "End a block", Accepted, writes=True),
    Route(
        "POST", "/api/v1/members/{member}/pardon", "pardon", "Forget what speaks against a member", Accepted,
        writes=True,
    ),
    Route(
        "GET", "/api/v1/rounds", "rounds", "Completed rounds, oldest first", RoundRow, True,
        parameters=(_SINCE_ROUND, _ROWS),
    ),
    Route("GET", "/api/v1/updates", "updates", "What has arrived from each other member", UpdateRow, many=True),
    Route("GET", "/api/v1/evidence", "evidence", "Proofs that members equivocated", EvidenceRow, many=True),
    Route(
        "GET", "/api/v1/events", "events", "The history as JSON, or with `Accept: text/event-stream` as it happens",
        EventRow, True, ("application/json", "text/event-stream"), (_SINCE_EVENT, _ROWS),
    ),
    Route(
        "POST", "/api/v1/data/refresh", "refresh", "Read the payments anew, and with `accept` take them as they are",
        Accepted, writes=True, body=RefreshRequest,
    ),
    Route("POST", "/api/v1/stop", "stop", "Stop gracefully", Accepted, writes=True),
    Route("POST", "/api/v1/reload", "reload", "Read the configuration again", Accepted, writes=True),
    Route("GET", "/api/v1/openapi.json", "openapi", "This document"),
    Route("GET", "/metrics", "prometheus", "Prometheus metrics", media=("text/plain",)),
    Route("GET", "/livez", "livez", "The process answers", media=("text/plain",)),
    Route("GET", "/readyz", "readyz", "State and listeners are open; 503 if not", media=("text/plain",)),
)  # fmt: skip

_MEMBERS = TypeAdapter(list[MemberRow])
_UPDATES = TypeAdapter(list[UpdateRow])
_EVIDENCE = TypeAdapter(list[EvidenceRow])


class AdminServer:
    """Serves ROUTES on a Unix socket (0600) and, if `listen` is given, on that loopback address."""

    def __init__(
        self,
        view: NodeView,
        log: EventLog,
        metrics: NodeMetrics,
        *,
        socket_path: Path,
        listen: Address | None,
        hosts: Sequence[str],
        token: str,
        version: str,
        refused: Refused,
    ) -> None:
        """`hosts` and `token` as in Guard; `version` of the software; `refused` hears of whom was turned away."""
        self._view = view
        self._log = log
        self._metrics = metrics
        self._socket_path = socket_path
        self._listen = listen
        self._guard = Guard(hosts, token)
        self._document = json.dumps(document(ROUTES, version))
        self._refused = refused
        self._doors: list[Door] = []
        self._runner: web.AppRunner | None = None
        self.address: Address | None = None
        """Where the TCP listener is bound, once started."""

    def application(self) -> web.Application:
        """The aiohttp application of ROUTES."""
        app = web.Application(
            middlewares=[self._busy, self._guard.errors, self._guard.hosts, self._reads.bounded], client_max_size=4096
        )
        app.on_response_prepare.append(add_headers)
        for route in ROUTES:
            handler: Handler = getattr(self, f"_{route.handler}")
            app.router.add_route(route.method, route.path, self._checked(handler) if route.writes else handler)
        return app

    async def start(self) -> None:
        """Bind; raises Unavailable if the address is taken and StateLocked if the socket cannot be made."""
        self._reads = Reads(self._guard)
        runner = web.AppRunner(self.application(), access_log=None, keepalive_timeout=75, shutdown_timeout=5)
        await runner.setup()
        self._runner = runner
        self._serve(runner, self._bind_socket())
        if self._listen is not None:
            family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
            try:
                listening = socket.create_server((self._listen.host, self._listen.port), family=family)
            except OSError as error:
                await self.stop()
                raise Unavailable(
                    f"cannot serve the admin API on {self._listen}: {error.strerror}; "
                    "set admin.listen to a free port, to port 0 for any, or to null"
                ) from None
            self._serve(runner, listening)
            self.address = Address(*listening.getsockname()[:2])

    def _serve(self, runner: web.AppRunner, listening: socket.socket) -> None:
        assert runner.server is not None
        most, per_host = limits.ADMIN_CONNECTIONS, limits.ADMIN_CONNECTIONS_PER_HOST
        self._doors.append(Door(listening, runner.server, self._refused, most, per_host))

    @web.middleware
    async def _busy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Push out no connection on which a request is being answered."""
        with contextlib.ExitStack() as answering:
            if request.transport is not None:
                for door in self._doors:
                    answering.enter_context(door.busy(request.transport))
            return await handler(request)

    async def stop(self) -> None:
        """End event streams, finish other requests, unbind."""
        self._log.end_subscriptions()
        for door in self._doors:
            await door.close()
        self._doors.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._reads.close()
            self._socket_path.unlink(missing_ok=True)

    def _bind_socket(self) -> socket.socket:
        path = self._socket_path
        path.unlink(missing_ok=True)  # left by a killed daemon: whoever starts here holds the state's lock
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # 0600 from the first moment
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            listener.close()
            raise StateLocked(f"cannot make the admin socket {path}: {error.strerror}") from None
        finally:
            os.umask(mask)
        return listener

    def _checked(self, handler: Handler) -> Handler:
        async def write(request: web.Request) -> web.StreamResponse:
            by = await self._guard.check_write(request)
            answer = await handler(request)
            action = request.path.rsplit("/", 1)[-1]
            if action == "refresh" and (await _refresh_asked(request)).accept:
                action += " --accept"  # whoever says so answers for the rows
            self._log.emit(OperatorActed(action, request.match_info.get("member", ""), by))
            return answer

        return write

    # --- handlers, by their names in ROUTES ---------------------------------------------------------------------------

    async def _status(self, _: web.Request) -> web.Response:
        return _json(self._view.status().model_dump_json())

    async def _members(self, _: web.Request) -> web.Response:
        return _json(_MEMBERS.dump_json(self._view.members()))

    async def _reputation(self, request: web.Request) -> web.Response:
        with _named():
            return _json(self._view.reputation(request.match_info["member"]).model_dump_json())

    async def _block(self, request: web.Request) -> web.Response:
        with _named():
            return _accepted(await self._view.block(request.match_info["member"], True))

    async def _unblock(self, request: web.Request) -> web.Response:
        with _named():
            return _accepted(await self._view.block(request.match_info["member"], False))

    async def _pardon(self, request: web.Request) -> web.Response:
        with _named():
            return _accepted(await self._view.pardon(request.match_info["member"]))

    async def _updates(self, _: web.Request) -> web.Response:
        return _json(_UPDATES.dump_json(self._view.updates()))

    async def _evidence(self, _: web.Request) -> web.Response:
        return _json(_EVIDENCE.dump_json(self._view.evidence()))

    async def _rounds(self, request: web.Request) -> web.Response:
        since, limit = _number(request, _SINCE_ROUND), _number(request, _ROWS)
        return _json(await self._reads.rounds(await self._log.rounds(since, limit)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if wants_stream(request):
            return await self._stream(request)
        since, limit = _number(request, _SINCE_EVENT), _number(request, _ROWS)
        return _json(await self._reads.events(await self._log.since(since, limit)))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        seen = request.headers.get("Last-Event-ID")
        if seen is not None and not (seen.isascii() and seen.isdigit() and len(seen) < 16):
            raise web.HTTPBadRequest(text="Last-Event-ID must be the id of an event")
        if seen is None and "since" in request.query:
            seen = str(_number(request, _SINCE_EVENT))
        with self._log.subscribe("socket" if over_unix_socket(request) else "tcp") as subscription:
            if subscription is None:
                raise web.HTTPServiceUnavailable(text="too many event streams are open", headers={"Retry-After": "10"})
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            last = self._log.resume_after(None if seen is None else int(seen))
            with contextlib.suppress(ConnectionResetError):  # the reader has gone, which is how most streams end
                await self._follow(response, request, subscription, last)
            return response

    async def _follow(
        self, response: web.StreamResponse, request: web.Request, subscription: Subscription, last: int
    ) -> None:
        async def write(data: bytes) -> None:
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(data)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError from None

        begun = last
        while page := await self._log.since(last, PAGE):
            if last == begun and page[0].id > last + 1:
                await write(b'event: gap\ndata: {"next":%d}\n\n' % page[0].id)
            frames = await self._reads.frames(page)
            await write(frames)
            await self._reads.pace(request, len(frames))
            last = page[-1].id
        while not subscription.closed:
            news = await subscription.next(HEARTBEAT_SECONDS)
            if news is None:
                await write(b":\n\n")
            elif news.id > last:
                await write(sse(news))
                last = news.id

    async def _refresh(self, request: web.Request) -> web.Response:
        return _accepted(await self._view.refresh((await _refresh_asked(request)).accept))

    async def _stop(self, _: web.Request) -> web.Response:
        self._view.stop()
        return _accepted("stopping")

    async def _reload(self, _: web.Request) -> web.Response:
        return _json(Accepted(detail="reloaded", changes=self._view.reload()).model_dump_json())

    async def _openapi(self, _: web.Request) -> web.Response:
        return _json(self._document)

    async def _prometheus(self, _: web.Request) -> web.Response:
        text, content_type = self._metrics.scrape(self._view, self._log.dropped)
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._view.ready()
        return web.Response(status=200 if ready else 503, text="ready\n" if ready else "not ready\n")


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Within, a member that is none is not found."""
    try:
        yield
    except UsageError as error:
        raise web.HTTPNotFound(text=str(error)) from None


async def _refresh_asked(request: web.Request) -> RefreshRequest:
    try:
        return RefreshRequest.model_validate_json(await request.read() or b"{}")
    except ValidationError:
        raise web.HTTPBadRequest(text='the body must be {"accept": true} or {"accept": false}, or empty') from None


def _accepted(detail: str) -> web.Response:
    return _json(Accepted(detail=detail).model_dump_json())


def _number(request: web.Request, parameter: Parameter) -> int:
    text = request.query.get(parameter.name)
    if text is None:
        return parameter.default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise web.HTTPBadRequest(text=f"{parameter.name} must be a whole number")
    if not parameter.minimum <= int(text) <= parameter.maximum:
        raise web.HTTPBadRequest(text=f"{parameter.name} must be from {parameter.minimum} to {parameter.maximum}")
    return int(text)


def _json(body: str | bytes) -> web.Response:
    return web.Response(body=body if isinstance(body, bytes) else body.encode(), content_type="application/json")
