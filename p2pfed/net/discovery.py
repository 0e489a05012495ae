"""Finding addresses of members: from seeds in the configuration, here; from the local network, in `lan`.

Whatever is found is only a place to try. Who really answers there is proven by the pinned TLS handshake.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Protocol

from p2pfed.core.messages import Endpoint
from p2pfed.core.types import Address, NodeId
from p2pfed.net.transport import Transport, Unreachable

Found = Callable[[NodeId, Endpoint], None]

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
SEEDS_AGAIN_SECONDS = 300.0
"""Seeds that have answered are asked again this often: a member's address may have changed."""
JITTER = 0.2


class Discovery(Protocol):
    """Tells of places where members may answer, until closed."""

    async def start(self, found: Found) -> None:
        """Begin; `found` is called in the event loop, possibly again with what it has been told."""

    def use(self, members: Collection[NodeId]) -> None:
        """Follow a new manifest."""

    async def close(self) -> None:
        """Stop; `found` is not called any more."""


class SeedDiscovery:
    """Asks each seed who it is, soon and often until all have answered, then every five minutes."""

    def __init__(self, me: NodeId, seeds: Collection[Address], transport: Transport) -> None:
        self._me = me
        self._seeds = tuple(seeds)
        self._transport = transport
        self._asking: asyncio.Task[None] | None = None

    async def start(self, found: Found) -> None:
        """See Discovery."""
        self._asking = asyncio.create_task(self._ask_for_ever(found), name="ask seeds")

    def use(self, members: Collection[NodeId]) -> None:
        """See Discovery; the transport knows the members."""

    async def close(self) -> None:
        """See Discovery."""
        if self._asking is None:
            return
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_for_ever(self, found: Found) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            answered = await asyncio.gather(*(self._ask(seed, found) for seed in self._seeds))
            pause = SEEDS_AGAIN_SECONDS if all(answered) else retry
            retry = min(2 * retry, LAST_RETRY_SECONDS)
            await asyncio.sleep(pause * random.uniform(1 - JITTER, 1 + JITTER))

    async def _ask(self, seed: Address, found: Found) -> bool:
        try:
            member = await self._transport.identify(seed)
        except Unreachable:
            return False
        if member != self._me:
            found(member, Endpoint(seed, "config"))
        return True


class MemoryDiscovery:
    """Finds the others that were started on the same `board`; for tests."""

    def __init__(self, me: NodeId, address: Address, board: dict[NodeId, MemoryDiscovery]) -> None:
        self._me = me
        self._board = board
        self.address = address
        self._members: Collection[NodeId] = ()

    async def start(self, found: Found) -> None:
        """See Discovery."""
        self._found = found
        self._board[self._me] = self
        for other in list(self._board.values()):
            self._introduce(other)
            other._introduce(self)

    def use(self, members: Collection[NodeId]) -> None:
        """See Discovery."""
        self._members = members

    async def close(self) -> None:
        """See Discovery."""
        self._board.pop(self._me, None)

    def _introduce(self, other: MemoryDiscovery) -> None:
        if other._me != self._me and other._me in self._members:
            self._found(other._me, Endpoint(other.address, "zeroconf"))
