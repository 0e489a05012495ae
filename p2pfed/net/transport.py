"""How a node talks to other members: what the runtime asks of a transport, and what a listener asks of the runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from p2pfed.core.messages import HeartbeatTable, Hello, ModelUpdate
from p2pfed.core.types import Address, NodeId
from p2pfed.core.wire import Trust
from p2pfed.errors import RemoteFault, Unavailable

Cause = Literal["no_address", "connect", "timeout", "certificate", "closed", "busy", "refused", "removed"]
"""Why nobody answered, in the words of logs and metrics; `refused`, `busy` and `removed`, which says that this node is
no member any more, are answers of the peer itself.
"""


class Unreachable(Unavailable):
    """A peer could not be reached, or would not do what was asked: no proof that it broke a rule."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


@dataclass
class Traffic:
    """What went over the wire, for metrics and tables; shared by a node's listener and its transport."""

    sent: Counter[NodeId] = field(default_factory=Counter)
    """Bytes of bodies sent to each member."""
    received: Counter[NodeId] = field(default_factory=Counter)
    round_trips: dict[NodeId, float] = field(default_factory=dict)
    """Seconds the last heartbeat exchange or hello with each member took."""


class Transport(Protocol):
    """Asks one peer one thing.

    `addresses` are tried in order; only the member `peer`, proven by its certificate, can answer there. Every method
    raises Unreachable if nobody answered in time, and RemoteFault if the answer broke a rule.
    """

    async def hello(self, peer: NodeId, addresses: Sequence[Address]) -> Hello:
        """The peer's first words: consortium, protocol versions, manifest version."""

    async def pull(self, peer: NodeId, addresses: Sequence[Address], member: NodeId, after: int) -> ModelUpdate | None:
        """The newest update of `member` that `peer` holds, verified, if its sequence number is above `after`."""

    async def push(self, peer: NodeId, addresses: Sequence[Address], frame: bytes) -> None:
        """Hand over our own newest frame; returns once the peer has made it durable."""

    async def exchange(self, peer: NodeId, addresses: Sequence[Address], table: HeartbeatTable) -> HeartbeatTable:
        """Send our heartbeat table and take the peer's, each row verified."""

    async def manifest(self, peer: NodeId, addresses: Sequence[Address], version: int) -> bytes | None:
        """The signed manifest of that version as the peer holds it, unverified; None if it has none."""

    async def identify(self, address: Address) -> NodeId:
        """Which member answers at `address`."""

    def use(self, trust: Trust, blocked: frozenset[NodeId] = frozenset()) -> None:
        """Follow a new manifest or blocklist: members no longer in it cannot be asked from now on."""

    async def close(self) -> None:
        """Drop every connection; nothing may be asked afterwards."""


class PeerHandler(Protocol):
    """What the serving side asks of the node. `asking` is proven by its TLS certificate and is a member.

    Of members that were removed only `manifest` hears, of no version after the one that removed them.

    A method that raises RemoteFault refuses the request, and the server reports it to `offended`; one that raises
    LocalFault tells the peer to come back later.
    """

    def hello(self, asking: NodeId) -> Hello:
        """Our first words to `asking`."""

    def update(self, asking: NodeId, member: NodeId, after: int) -> bytes | None:
        """The newest frame of `member` held here if its sequence number is above `after`."""

    async def pushed(self, asking: NodeId, frame: bytes) -> None:
        """Take a frame whose head has been checked; returns once it is durable."""

    async def heartbeats(self, asking: NodeId, table: bytes) -> bytes:
        """Take the peer's encoded heartbeat table and answer with ours."""

    def manifest(self, version: int) -> bytes | None:
        """The signed manifest of that version."""

    def offended(self, peer: NodeId, fault: RemoteFault) -> None:
        """A member broke a rule in what it sent us."""

    def refused(self, cause: str, host: str) -> None:
        """Somebody at `host` was turned away before it was known to be a member, or for asking too much; count it."""

    def trust(self) -> Trust:
        """What statements are checked against now."""
