"""Answers members' requests: one table of routes, every body with an announced length, a limit and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from p2pfed.core import wire
from p2pfed.core.consortium import MAX_MANIFEST
from p2pfed.core.fields import MAX_NUMBER
from p2pfed.core.types import NodeId, Reason, Verdict
from p2pfed.errors import LocalFault, RemoteFault
from p2pfed.net import limits
from p2pfed.net.bucket import Bucket
from p2pfed.net.frames import check_announced, read_body, read_frame
from p2pfed.net.transport import PeerHandler, Traffic

T = TypeVar("T")
Answer = Callable[[NodeId, web.BaseRequest], Awaitable[bytes | None]]


class Refusal(Exception):
    """A request is not answered; `status` and one sentence go back, and the connection is closed."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass
class PeerServer:
    """Turns the HTTP requests of one member at a time into calls of `handler`."""

    handler: PeerHandler
    traffic: Traffic
    departed: dict[NodeId, int] = field(default_factory=dict)
    """Members that were removed, and by which version: they may ask for that, and for nothing else."""
    _buckets: dict[NodeId, Bucket] = field(default_factory=dict)
    _pushing: set[NodeId] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._routes: dict[tuple[str, str], Answer] = {
            ("GET", f"{limits.PREFIX}/hello"): self._hello,
            ("GET", f"{limits.PREFIX}/update"): self._update,
            ("PUT", f"{limits.PREFIX}/update"): self._pushed,
            ("POST", f"{limits.PREFIX}/heartbeats"): self._heartbeats,
            ("GET", f"{limits.PREFIX}/manifest"): self._manifest,
        }

    async def answer(self, asking: NodeId, request: web.BaseRequest) -> web.StreamResponse:
        """Answer `request` of the member `asking`, sending included, or say why not and close the connection."""
        response: web.StreamResponse | None = None
        try:
            async with asyncio.timeout(limits.deadline(request.content_length or 0)):
                body = await self._dispatch(asking, request)
                self.traffic.received[asking] += request.content_length or 0
            async with asyncio.timeout(limits.deadline(len(body or b""))):
                response = _response(body)
                await _send(request, response, body or b"")
                self.traffic.sent[asking] += len(body or b"")
                return response
        except TimeoutError:
            self.handler.refused("deadline", request.remote or "")
            if response is not None and request.transport is not None:
                request.transport.abort()
            return _refuse(408, "too slow")
        except Refusal as refusal:
            return _refuse(refusal.status, str(refusal))
        except RemoteFault as fault:
            if fault.reason.verdict is Verdict.IGNORE:
                return web.Response(status=204)
            if asking not in self.departed:
                self.handler.offended(asking, fault)
            return _refuse(413 if fault.reason is Reason.OVERSIZE else 422, str(fault))
        except LocalFault:
            return _refuse(503, "try again later")
        except ConnectionError:  # the peer has hung up: nobody reads this
            return _refuse(400, "")

    async def _dispatch(self, asking: NodeId, request: web.BaseRequest) -> bytes | None:
        self._charge(asking, request, 1)
        route = self._routes.get((request.method, request.path))
        if route is None:
            raise Refusal(404, "no such request in this version of the protocol")
        if request.method == "GET" and request.body_exists:
            raise RemoteFault(Reason.MALFORMED, "a GET request with a body")
        removed_by = self.departed.get(asking)
        if removed_by is None or (route == self._manifest and _number(_query(request, "version")) <= removed_by):
            body = await route(asking, request)
            if route != self._update:  # frames lie ready, and have a rate of their own
                self._owe(asking, len(body or b"") / limits.TABLE_BYTES_PER_REQUEST)
            return body
        raise Refusal(410, f"the admins removed this bank in version {removed_by}")

    def _charge(self, asking: NodeId, request: web.BaseRequest, cost: float) -> None:
        """Take `cost` from the member's allowance; raises Refusal when it is used up."""
        now = asyncio.get_running_loop().time()
        if not self._bucket(asking, now).take(now, cost):
            self.handler.refused("rate", request.remote or "")
            raise Refusal(429, f"more than {limits.REQUESTS_PER_SECOND:.0f} requests a second, or large ones too often")

    def _owe(self, asking: NodeId, cost: float) -> None:
        """Count what was done for the member already; it may ask again once that is within its rate."""
        now = asyncio.get_running_loop().time()
        self._bucket(asking, now).owe(now, cost)

    def _bucket(self, asking: NodeId, now: float) -> Bucket:
        return self._buckets.setdefault(asking, Bucket(limits.REQUESTS_PER_SECOND, limits.REQUEST_BURST, now))

    async def _hello(self, asking: NodeId, request: web.BaseRequest) -> bytes:
        return wire.encode_hello(self.handler.hello(asking))

    async def _update(self, asking: NodeId, request: web.BaseRequest) -> bytes | None:
        member, after = _query(request, "member"), _number(_query(request, "after"))
        return self.handler.update(asking, NodeId(member), after)

    async def _manifest(self, asking: NodeId, request: web.BaseRequest) -> bytes | None:
        body = self.handler.manifest(_number(_query(request, "version")))
        if body is not None and len(body) > MAX_MANIFEST:
            raise Refusal(503, "that manifest is larger than its limit")
        return body

    async def _heartbeats(self, asking: NodeId, request: web.BaseRequest) -> bytes:
        announced = check_announced(request.headers, wire.MAX_TABLE)
        self._charge(asking, request, announced / limits.TABLE_BYTES_PER_REQUEST)
        length = _begin_body(request, wire.MAX_TABLE)
        return await self.handler.heartbeats(asking, await _read(read_body(request.content, length)))

    async def _pushed(self, asking: NodeId, request: web.BaseRequest) -> None:
        trust = self.handler.trust()
        largest = wire.frame_limit(trust.schema)
        self._charge(asking, request, limits.PUSH_COST)
        if asking in self._pushing or len(self._pushing) >= max(limits.MIN_PUSHES, limits.PUSH_MEMORY // largest):
            raise Refusal(503, "another update is being received")
        self._pushing.add(asking)
        try:
            # a longer one may be of another generation of the model: its head says so, and no more of it is read
            length = _begin_body(request, wire.longest_frame())
            frame, _ = await _read(read_frame(request.content, length, trust))
            self._owe(asking, length / limits.PUSH_BYTES_PER_REQUEST)
            await self.handler.pushed(asking, frame)
        finally:
            self._pushing.discard(asking)


async def _read(reading: Awaitable[T]) -> T:
    """Await bytes of a request's body; a peer that hangs up in the middle is a dropped connection, not our error."""
    try:
        return await reading
    except (asyncio.IncompleteReadError, web.RequestPayloadError):
        raise ConnectionResetError("the peer closed the connection in the middle of a request") from None


def _begin_body(request: web.BaseRequest, limit: int) -> int:
    """The announced length of a plain body of at most `limit` bytes; tells the peer to go on if it asked."""
    length = check_announced(request.headers, limit)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return length


def _query(request: web.BaseRequest, name: str) -> str:
    values = request.query.getall(name, [])
    if len(values) != 1:
        raise RemoteFault(Reason.MALFORMED, f"the query must give {name} once")
    return values[0]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_NUMBER):
        raise RemoteFault(Reason.MALFORMED, "a number in the query is not one")
    return int(text)


def _response(body: bytes | None) -> web.StreamResponse:
    if body is None:
        return web.Response(status=204)
    # a Response, whose head waits for the first piece of the body: a StreamResponse's costs a record and a wake-up
    return web.Response(headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(body))})


async def _send(request: web.BaseRequest, response: web.StreamResponse, body: bytes) -> None:
    await response.prepare(request)
    view = memoryview(body)
    for start in range(0, len(body), limits.WRITTEN):  # in pieces, so that other connections get their turn
        await response.write(view[start : start + limits.WRITTEN])
    await response.write_eof()


def _refuse(status: int, sentence: str) -> web.StreamResponse:
    headers = {"Retry-After": str(limits.RETRY_AFTER_SECONDS)} if status in (429, 503) else None
    response = web.Response(status=status, text=sentence[: limits.MAX_PROBLEM], headers=headers)
    response.force_close()
    return response
