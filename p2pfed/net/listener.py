"""The door: accepts connections, lets only members' certificates through, and never stops doing so.

A stranger's bytes end in the TLS handshake; the HTTP parser sees members only. Each refusal is counted by cause.
The set of members can be exchanged at any time: it holds for the next handshake, and open connections of a removed
member are cut. For some time it may come back, only to ask for the version that removed it.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
import time
from pathlib import Path

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from p2pfed.core.types import Address, NodeId, Reason
from p2pfed.core.wire import Trust
from p2pfed.errors import RemoteFault, Unavailable
from p2pfed.net import limits
from p2pfed.net.binding import bound
from p2pfed.net.door import OUT_OF_DESCRIPTORS, PAUSE_SECONDS, accept
from p2pfed.net.server import PeerServer
from p2pfed.net.tls import Pins, pins_of, readable, receive_into, server_context
from p2pfed.net.transport import PeerHandler, Traffic


class Listener:
    """Serves `handler` to the members of its trust, with the key and certificate in `pem`."""

    def __init__(
        self, handler: PeerHandler, pem: Path, traffic: Traffic, blocked: frozenset[NodeId] = frozenset()
    ) -> None:
        self._handler = handler
        self._pem = pem
        self._answers = PeerServer(handler, traffic)
        self._handshakes: dict[asyncio.Task[None], str] = {}
        self._open: dict[NodeId, list[_Connection]] = {}
        self.received = memoryview(bytearray(limits.TLS_BUFFER))
        self._accepting: asyncio.Task[None] | None = None
        self.use(handler.trust(), blocked)

    def use(self, trust: Trust, blocked: frozenset[NodeId] = frozenset()) -> None:
        """Follow a new manifest or blocklist; connections of members no longer allowed are cut at once."""
        handler, pins = self._handler, pins_of(trust.manifest, blocked)
        left = [one for one in trust.departed if one.member not in blocked]
        certificates = {der: one for one in left for der in readable(one.certificates)}
        self._departed = {der: one for der, one in certificates.items() if der not in pins.by_certificate}
        self._answers.departed = {one.member: one.version for one in self._departed.values()}
        self._pins: Pins = pins
        self._blocked = blocked
        try:
            self._context = server_context(self._pem, [*pins.certificates, *self._departed])
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS or self._accepting is None:
                raise
            # who is new waits a moment; who is none any more completes a handshake, and is cut by `admit`
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, lambda: self.use(handler.trust(), self._blocked))
        for connections in list(self._open.values()):
            for connection in list(connections):
                if self._pins.by_certificate.get(connection.certificate) != connection.member:
                    connection.abort()

    @property
    def connections(self) -> int:
        """How many connections of members are open."""
        return sum(map(len, self._open.values()))

    async def start(self, address: Address) -> Address:
        """Listen; the answer has the real port where `address` has 0. Raises Unavailable if the port is taken."""
        try:
            self._socket = bound(address)
            self._socket.listen(limits.BACKLOG)
        except OSError as error:
            hint = "is another daemon running there?" if error.errno == errno.EADDRINUSE else "see peers.listen"
            raise Unavailable(f"cannot listen on {address}: {error.strerror}; {hint}") from None
        self._socket.setblocking(False)
        self._server = web.Server(self._answer)
        self._accept_again()
        return Address(address.host, self._socket.getsockname()[1])

    async def close(self) -> None:
        """Stop accepting, let requests in progress finish for some seconds, and cut the rest."""
        if self._accepting is None:
            return
        self._accepting.cancel()
        handshakes = list(self._handshakes)
        for task in handshakes:
            task.cancel()
        await asyncio.gather(self._accepting, *handshakes, return_exceptions=True)
        self._socket.close()
        self._server.pre_shutdown()
        await self._server.shutdown(limits.SHUTDOWN_SECONDS)

    def _accept_again(self, ended: asyncio.Task[None] | None = None) -> None:
        """Begin to accept, or go on after an error that nobody thought of, which is logged."""
        if ended is not None:
            if ended.cancelled():
                return
            context = {"message": "the listener stumbled and goes on", "exception": ended.exception()}
            asyncio.get_running_loop().call_exception_handler(context)
        self._accepting = asyncio.create_task(self._accept(), name="accept peers")
        self._accepting.add_done_callback(self._accept_again)

    async def _accept(self) -> None:
        async for accepted, host in accept(self._socket, self._stumbled):
            self._make_room(host)
            task = asyncio.create_task(self._handshake(accepted, host))
            self._handshakes[task] = host
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    def _stumbled(self, cause: str) -> None:
        self._handler.refused(cause, "")
        if cause == "no_descriptors":
            self._push_out(next(iter(self._handshakes), None), cause)
            self._cut_oldest()

    def _make_room(self, host: str) -> None:
        """Push out the oldest unfinished handshake where there are too many: a member's takes milliseconds."""
        same_host = [task for task, other in self._handshakes.items() if other == host]
        oldest = None
        if len(same_host) >= limits.MAX_HANDSHAKES_PER_HOST:
            oldest = same_host[0]
        elif len(self._handshakes) >= limits.MAX_HANDSHAKES:
            oldest = next(iter(self._handshakes))
        self._push_out(oldest, "too_many_handshakes")

    def _push_out(self, handshake: asyncio.Task[None] | None, cause: str) -> None:
        if handshake is not None:
            self._handler.refused(cause, self._handshakes.pop(handshake))
            handshake.cancel()

    def _cut_oldest(self) -> None:
        """Cut the connection of a member that is open longest."""
        every = itertools.chain.from_iterable(self._open.values())
        oldest = min(every, key=lambda connection: connection.since, default=None)
        if oldest is not None:
            oldest.abort()

    async def _handshake(self, accepted: socket.socket, host: str) -> None:
        loop = asyncio.get_running_loop()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.connect_accepted_socket(
                lambda: _Connection(self, loop, self._server, host),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=limits.HANDSHAKE_SECONDS,
            )
        except (OSError, EOFError) as error:  # ssl's errors are OSErrors; the transport has closed the socket
            self._handler.refused(_cause(error), host)

    def admit(self, connection: _Connection) -> NodeId | None:
        """Whose connection this is; None if the certificate is not literally one of the manifest's.

        A removed member's is let through for some time.
        """
        member = self._pins.by_certificate.get(connection.certificate)
        left = self._departed.get(connection.certificate)
        if member is None and left is not None and time.time() < left.until:
            member = left.member
        if member is None:
            self._handler.refused("unknown_certificate", connection.host)
            return None
        connections = self._open.setdefault(member, [])
        connections.append(connection)
        if len(connections) > limits.MAX_CONNECTIONS_PER_MEMBER:
            self._handler.refused("too_many_connections", connection.host)
            connections[0].abort()
        elif self.connections > limits.MAX_CONNECTIONS:
            self._handler.refused("too_many_connections", connection.host)
            self._cut_oldest()
        return member

    def forget(self, connection: _Connection) -> None:
        """The connection is gone."""
        connections = self._open.get(connection.member, [])
        if connection in connections:
            connections.remove(connection)

    def overdue(self, connection: _Connection) -> None:
        """No whole request came in time."""
        self._handler.refused("header_deadline", connection.host)
        connection.abort()

    def garbled(self, connection: _Connection) -> None:
        """What a member sent is not HTTP within the limits."""
        if connection.member not in self._answers.departed:
            self._handler.offended(connection.member, RemoteFault(Reason.MALFORMED, "not an HTTP request"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.heard()
        return await self._answers.answer(connection.member, request)


class _Connection(RequestHandler):
    """aiohttp's connection, which begins only if the certificate is a member's, and ends if no request follows."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop, server: web.Server, host: str) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.KEEPALIVE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # aiohttp means "no access log" by it
            max_line_size=limits.MAX_LINE,
            max_field_size=limits.MAX_FIELD,
            max_headers=limits.MAX_FIELDS,
            lingering_time=limits.LINGER_SECONDS,
            read_bufsize=limits.CHUNK,
            auto_decompress=False,
        )
        self.host, self.since = host, loop.time()
        self._listener = listener
        self._deadline: asyncio.TimerHandle | None = None
        self._tls: asyncio.Transport | None = None
        self.certificate = b""
        self.member = NodeId("")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over; nothing has been parsed yet."""
        assert isinstance(transport, asyncio.Transport)
        self._tls = transport
        self.certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        member = self._listener.admit(self)
        if member is None:
            transport.abort()
            return
        self.member = member
        receive_into(transport, self._listener.received)
        self._deadline = self._loop.call_later(limits.HEADER_SECONDS, self._listener.overdue, self)
        super().connection_made(transport)

    def heard(self) -> None:
        """A whole request has come; between later ones aiohttp's keep-alive limit holds."""
        if self._deadline is not None:
            self._deadline.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Blame the peer for a request that cannot be parsed, without a traceback in the log; ours are logged."""
        if status == 500:
            return super().handle_error(request, status, exc, message)
        self._listener.garbled(self)
        response = web.Response(status=status, text="not an HTTP request")
        response.force_close()
        return response

    def abort(self) -> None:
        """Cut the connection without a good-bye."""
        if self._tls is not None:
            self._tls.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, whoever ended it."""
        self.heard()
        self._listener.forget(self)
        super().connection_lost(exc)


def _cause(error: OSError | EOFError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "unknown_certificate"
    if isinstance(error, ssl.SSLError):
        return "no_certificate" if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE" else "not_tls"
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "handshake_deadline"
    return "handshake_dropped"
