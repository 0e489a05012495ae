"""Accepting connections, for ever and not too many: of one address, in all, and when no descriptor is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator

Refused = Callable[[str, str], None]
"""Told why somebody was turned away, and from which address."""

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
PAUSE_SECONDS = 0.2
"""After an error of the operating system, before the next attempt."""


async def accept(listening: socket.socket, stumbled: Callable[[str], None]) -> AsyncIterator[tuple[socket.socket, str]]:
    """Every connection and the address it comes from; an error is told by its cause, and ends nothing."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, peer = await loop.sock_accept(listening)
        except OSError as error:  # out of descriptors, or the peer is gone already: neither may end the loop
            stumbled("no_descriptors" if error.errno in OUT_OF_DESCRIPTORS else "accept_failed")
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        yield accepted, peer[0] if isinstance(peer, tuple) else ""
        await asyncio.sleep(0)  # a flood must not keep anything else from running


class Door:
    """Lets `most` connections to one socket be open at once, `per_host` of one address.

    One more pushes out the oldest that no request is answered on; where there is none, it is closed itself.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        refused: Refused,
        most: int,
        per_host: int,
    ) -> None:
        self._listening, self._protocol, self._refused = listening, protocol, refused
        self._most, self._per_host = most, per_host
        self._open: dict[asyncio.BaseTransport, str] = {}
        """The oldest first."""
        self._busy: set[asyncio.BaseTransport] = set()
        listening.setblocking(False)
        listening.listen(most)
        self._accepting = asyncio.create_task(self._accept(), name="accept requests")

    async def close(self) -> None:
        """Accept no more; open connections are whoever's who answers them."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listening.close()

    @contextlib.contextmanager
    def busy(self, transport: asyncio.BaseTransport) -> Iterator[None]:
        """Within, the connection is not pushed out."""
        self._busy.add(transport)
        try:
            yield
        finally:
            self._busy.discard(transport)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        async for accepted, host in accept(self._listening, self._stumbled):
            if not self._make_room(host):
                accepted.close()
                continue
            try:
                transport, _ = await loop.connect_accepted_socket(self._protocol, accepted)
            except OSError:  # it is gone already
                accepted.close()
            else:
                self._open[transport] = host

    def _make_room(self, host: str) -> bool:
        self._open = {one: other for one, other in self._open.items() if not one.is_closing()}
        same = [one for one, other in self._open.items() if other == host]
        if len(same) < self._per_host and len(self._open) < self._most:
            return True
        self._refused("too_many_connections", host)
        return self._push_out(same if len(same) >= self._per_host else list(self._open))

    def _push_out(self, connections: list[asyncio.BaseTransport]) -> bool:
        idle = next((one for one in connections if one not in self._busy), None)
        if idle is None:
            return False
        del self._open[idle]
        idle.close()
        return True

    def _stumbled(self, cause: str) -> None:
        self._refused(cause, "")
        if cause == "no_descriptors":
            self._push_out([one for one in self._open if not one.is_closing()])
