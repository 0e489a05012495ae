"""Asks other members over HTTPS: one pinned context for each, connections kept alive, every answer bounded."""

from __future__ import annotations

import asyncio
import io
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import is_ip_address
from aiohttp.http import HttpProcessingError
from yarl import URL

from p2pfed.core import wire
from p2pfed.core.consortium import MAX_MANIFEST
from p2pfed.core.messages import HeartbeatTable, Hello, ModelUpdate, Statement
from p2pfed.core.types import Address, NodeId, Reason, short
from p2pfed.errors import RemoteFault
from p2pfed.net import limits
from p2pfed.net.bucket import Bucket
from p2pfed.net.frames import check_announced, read_body, read_frame
from p2pfed.net.places import Places
from p2pfed.net.resolving import Resolver
from p2pfed.net.tls import Pins, client_context, pins_of, receive_into
from p2pfed.net.transport import Cause, Traffic, Unreachable

T = TypeVar("T")


@dataclass(frozen=True)
class _Request:
    """What is asked; `limit` is the longest answer in bytes."""

    method: str
    path: str
    limit: int
    query: dict[str, str]
    body: bytes = b""
    expect: bool = False


class _Answers(ResponseHandler):
    """aiohttp's connection to a peer, which ends if more answers come at once than can have been asked for.

    aiohttp skips interim answers (100 to 199) without an end: a peer that sends nothing else would keep the loop busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, received: memoryview) -> None:
        super().__init__(loop)
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over."""
        receive_into(transport, self._received)
        super().connection_made(transport)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take one answer that has been parsed."""
        if len(self) < limits.MAX_ANSWERS:
            super().feed_data(data, size)
        elif self.transport is not None and self.exception() is None:
            self.set_exception(HttpProcessingError(message="more answers than requests"))
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Makes connections of that kind."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        received = memoryview(bytearray(limits.ANSWER_BUFFER))
        self._factory = partial(  # type: ignore[assignment]  # makes a subclass of what aiohttp's own makes
            _Answers, loop=asyncio.get_running_loop(), received=received
        )


class HttpTransport:
    """The daemon's Transport; made inside a running event loop. `pem` is this node's TLS key and certificate."""

    def __init__(
        self,
        pem: Path,
        trust: wire.Trust,
        traffic: Traffic,
        blocked: frozenset[NodeId] = frozenset(),
        places: Places | None = None,
    ) -> None:
        """`places` says where to dial besides what the manifest allows."""
        self._pem = pem
        self._places = places or Places()
        self._resolver = Resolver(self._places)
        self._dials: dict[NodeId, Bucket] = {}
        self._traffic = traffic
        self._contexts: dict[NodeId, ssl.SSLContext] = {}
        self._answered: dict[NodeId, Address] = {}
        self._pins = Pins({}, {}, ())
        self.use(trust, blocked)
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,
                limit_per_host=limits.CLIENT_CONNECTIONS_PER_PEER,
                keepalive_timeout=limits.CLIENT_KEEPALIVE_SECONDS,
                use_dns_cache=False,
                resolver=self._resolver,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.CONNECT_SECONDS),
            skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding"],
            auto_decompress=False,
            read_bufsize=limits.CHUNK,
            max_line_size=limits.MAX_LINE,
            max_field_size=limits.MAX_FIELD,
            max_headers=limits.MAX_FIELDS,
        )

    def use(self, trust: wire.Trust, blocked: frozenset[NodeId] = frozenset()) -> None:
        """Follow a new manifest or blocklist; see Transport."""
        before, self._pins = self._pins.by_member, pins_of(trust.manifest, blocked)
        self._trust = trust
        self._places.follow(trust.manifest)
        self._dials = {peer: dials for peer, dials in self._dials.items() if peer in self._pins.by_member}
        for peer in list(self._contexts):
            if self._pins.by_member.get(peer) != before[peer]:
                del self._contexts[peer]

    async def close(self) -> None:
        """Drop every connection."""
        await self._session.close()

    async def hello(self, peer: NodeId, addresses: Sequence[Address]) -> Hello:
        """See Transport."""
        hello = wire.decode_hello(await self._timed(peer, addresses, _Request("GET", "hello", wire.MAX_HELLO, {})))
        if hello.member != peer:
            raise RemoteFault(Reason.UNRELATED_ANSWER, "a hello in somebody else's name")
        return hello

    async def pull(self, peer: NodeId, addresses: Sequence[Address], member: NodeId, after: int) -> ModelUpdate | None:
        """See Transport."""
        trust = self._trust
        limit, longest = wire.frame_limit(trust.schema), wire.longest_frame()
        request = _Request("GET", "update", limit, {"member": member, "after": str(after)})

        async def read(response: aiohttp.ClientResponse) -> tuple[bytes, Statement] | None:
            if response.status == 204:
                return None
            frame, statement = await read_frame(response.content, check_announced(response.headers, longest), trust)
            if statement.sender != member or statement.seq <= after:
                raise RemoteFault(Reason.UNRELATED_ANSWER, f"sequence {statement.seq} of {short(statement.sender)}")
            return frame, statement

        answer = await self._ask(peer, addresses, request, read)
        if answer is None:
            return None
        frame, statement = answer
        self._traffic.received[peer] += len(frame)
        if len(frame) > limits.OFF_LOOP:
            return await asyncio.to_thread(wire.open_payload, statement, frame, trust)
        return wire.open_payload(statement, frame, trust)

    async def push(self, peer: NodeId, addresses: Sequence[Address], frame: bytes) -> None:
        """See Transport."""
        await self._ask(peer, addresses, _Request("PUT", "update", 0, {}, frame, expect=True), _read_small(0))
        self._traffic.sent[peer] += len(frame)

    async def exchange(self, peer: NodeId, addresses: Sequence[Address], table: HeartbeatTable) -> HeartbeatTable:
        """See Transport."""
        trust, body = self._trust, wire.encode_table(table)
        answer = await self._timed(peer, addresses, _Request("POST", "heartbeats", wire.MAX_TABLE, {}, body))
        self._traffic.sent[peer] += len(body)
        return wire.decode_table(answer, trust, {row.heartbeat.member: row.signed for row in table.rows})

    async def manifest(self, peer: NodeId, addresses: Sequence[Address], version: int) -> bytes | None:
        """See Transport."""
        request = _Request("GET", "manifest", MAX_MANIFEST, {"version": str(version)})
        body = await self._ask(peer, addresses, request, _read_manifest(self._trust.manifest.longest_successor))
        self._traffic.received[peer] += len(body)
        return body or None

    async def identify(self, address: Address) -> NodeId:
        """See Transport. Only a TLS handshake: whoever completes it holds that member's key."""
        loop = asyncio.get_running_loop()
        try:
            context = client_context(self._pem, self._pins.certificates)
            async with asyncio.timeout(limits.CONNECT_SECONDS):
                host = address.host if is_ip_address(address.host) else await self._look_up(address)
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, host, address.port, ssl=context, server_hostname=address.host
                )
        except (OSError, EOFError, ValueError) as error:
            raise Unreachable(*_unreachable(address, error)) from None
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        transport.close()
        member = self._pins.by_certificate.get(certificate)
        if member is None:
            raise Unreachable("certificate", f"{address}: the certificate there is no member's own")
        return member

    async def _timed(self, peer: NodeId, addresses: Sequence[Address], request: _Request) -> bytes:
        """A small request and its answer; keeps how long it took, and how much came."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        body = await self._ask(peer, addresses, request, _read_small(request.limit))
        self._traffic.round_trips[peer] = loop.time() - started
        self._traffic.received[peer] += len(body)
        return body

    async def _ask(
        self,
        peer: NodeId,
        addresses: Sequence[Address],
        request: _Request,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        """Send `request` to the first address that answers, the one that did last time before the others."""
        waits = (limits.CONNECT_SECONDS + limits.DIAL_JITTER) * max(0, len(addresses) - 1)
        try:
            async with asyncio.timeout(limits.deadline(request.limit + len(request.body)) + waits):
                return await self._ask_each(peer, addresses, request, read)
        except TimeoutError:
            raise Unreachable("timeout", f"{short(peer)} did not answer in time") from None

    async def _ask_each(
        self,
        peer: NodeId,
        addresses: Sequence[Address],
        request: _Request,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        try:
            context = self._context(peer)
        except OSError as error:  # no descriptor is left to read the key with
            raise Unreachable("connect", f"cannot read {self._pem}: {error.strerror}") from None
        tried: list[str] = []
        cause: Cause = "no_address"
        last, loop = self._answered.get(peer), asyncio.get_running_loop()
        next_at = loop.time()
        for address in sorted(addresses, key=lambda a: a != last):
            await asyncio.sleep(next_at - loop.time())
            next_at = loop.time() + limits.CONNECT_SECONDS + random.uniform(0, limits.DIAL_JITTER)
            if address != last and (refusal := self._refusal(peer, address)):
                cause = "connect"
                tried.append(f"{address}: {refusal}")
                continue
            try:
                answer = await self._ask_at(address, context, request, read)
            except aiohttp.ClientResponseError:
                raise RemoteFault(Reason.MALFORMED, "not an HTTP answer") from None
            except (aiohttp.ClientError, OSError, EOFError) as error:
                self._answered.pop(peer, None)
                cause, detail = _unreachable(address, error)
                tried.append(detail)
                continue
            self._answered[peer] = address
            return answer
        raise Unreachable(cause, "; ".join(tried) or f"no address of {short(peer)} is known")

    def _refusal(self, peer: NodeId, address: Address) -> str:
        """Why not to dial `address` for `peer` now; counts it otherwise."""
        now = asyncio.get_running_loop().time()
        dials = self._dials.setdefault(peer, Bucket(limits.DIALS_PER_SECOND, limits.DIALS_AT_ONCE, now))
        looked_up = is_ip_address(address.host) or self._resolver.knows(address.host)
        if refusal := self._places.refusal(address):
            return refusal
        return "" if dials.take(now, 1.0 if looked_up else limits.LOOKUP_DIALS) else "dialled too often lately"

    async def _look_up(self, address: Address) -> str:
        """The first IP address of a host name."""
        return (await self._resolver.resolve(address.host, address.port))[0]["host"]

    async def _ask_at(
        self,
        address: Address,
        context: ssl.SSLContext,
        request: _Request,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        try:
            response = await self._session.request(
                request.method,
                _url(address, request),
                ssl=context,
                data=io.BytesIO(request.body) if request.body else None,
                expect100=request.expect,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError):  # some of them are ValueErrors too
            raise
        except ValueError as error:  # a member may advertise a host name that no resolver takes
            raise OSError(f"no host name: {_last_line(error)}") from None
        async with response:
            if response.status not in (200, 204):
                raise await _refused(address, response)
            return await read(response)

    def _context(self, peer: NodeId) -> ssl.SSLContext:
        if peer not in self._contexts:
            certificates = self._pins.by_member.get(peer)
            if certificates is None:
                raise Unreachable("certificate", f"{short(peer)} is blocked or the manifest has no certificate of it")
            self._contexts[peer] = client_context(self._pem, certificates)
        return self._contexts[peer]


def _url(address: Address, request: _Request) -> URL:
    """Where to ask; raises ValueError if the host name is none."""
    path = f"{limits.PREFIX}/{request.path}"
    return URL.build(scheme="https", host=address.host, port=address.port, path=path, query=request.query)


def _read_small(limit: int) -> Callable[[aiohttp.ClientResponse], Awaitable[bytes]]:
    """Reads a whole answer of at most `limit` bytes; nothing for 204."""

    async def read(response: aiohttp.ClientResponse) -> bytes:
        if response.status == 204:
            return b""
        return await read_body(response.content, check_announced(response.headers, limit))

    return read


def _read_manifest(longest: int) -> Callable[[aiohttp.ClientResponse], Awaitable[bytes]]:
    """The same of a manifest; one that is longer than `longest` may be the admins' all the same, and is not read."""

    async def read(response: aiohttp.ClientResponse) -> bytes:
        if response.status != 204 and (length := check_announced(response.headers, MAX_MANIFEST)) > longest:
            raise Unreachable("refused", f"its manifest has {length} bytes, too many to fetch it: use `p2pfed join`")
        return await _read_small(longest)(response)

    return read


async def _refused(address: Address, response: aiohttp.ClientResponse) -> Unreachable:
    text = (await response.content.read(limits.MAX_PROBLEM)).decode(errors="replace")
    said = _printable(text)
    cause: Cause = "busy" if response.status in (429, 503) else "removed" if response.status == 410 else "refused"
    return Unreachable(cause, f"{address} answered {response.status}: {said}")


def _unreachable(address: Address, error: Exception) -> tuple[Cause, str]:
    """In which way `address` could not be reached, and a sentence on it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "certificate", f"{address}: another certificate than the manifest's (rotated, or somebody else there)"
    if isinstance(error, TimeoutError):
        return "timeout", f"{address}: no answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect", f"{address}: {_plain(error.os_error)}"
    if isinstance(error, ConnectionRefusedError):
        return "connect", f"{address}: {_plain(error)}"
    if isinstance(error, aiohttp.ClientPayloadError | asyncio.IncompleteReadError):
        return "closed", f"{address}: closed the connection in the middle of an answer"
    if isinstance(error, ConnectionResetError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | EOFError):
        return "closed", f"{address}: closed the connection; right after the handshake, it does not know us as a member"
    return "connect", f"{address}: {_last_line(error)}"


def _plain(error: OSError) -> str:
    """What the system says, without the address and the Python object of a TLS context that libraries add to it."""
    if error.errno is None or error.errno <= 0 or isinstance(error, ssl.SSLError):  # these numbers are not the system's
        return _last_line(error)
    return os.strerror(error.errno).lower()


def _last_line(error: Exception) -> str:
    return _printable((str(error) or type(error).__name__).splitlines()[-1])


def _printable(text: str) -> str:
    """At most 120 characters that may stand in a log: a peer chose some of them."""
    return "".join(c for c in text if c.isprintable())[:120]
