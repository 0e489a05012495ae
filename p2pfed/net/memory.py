"""A network inside one process: the Transport that tests use instead of sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pfed.core import wire
from p2pfed.core.messages import HeartbeatTable, Hello, ModelUpdate
from p2pfed.core.types import Address, NodeId, Reason, Verdict, short
from p2pfed.errors import LocalFault, RemoteFault
from p2pfed.net.transport import PeerHandler, Unreachable


@dataclass
class MemoryNetwork:
    """Which handler answers where, and which pairs of nodes a partition keeps apart."""

    _served: dict[Address, tuple[NodeId, PeerHandler]] = field(default_factory=dict)
    _cut: set[frozenset[NodeId]] = field(default_factory=set)

    def serve(self, address: Address, node: NodeId, handler: PeerHandler) -> None:
        """Let `node` answer at `address`."""
        self._served[address] = node, handler

    def stop(self, address: Address) -> None:
        """Nobody answers at `address` any more."""
        self._served.pop(address, None)

    def cut(self, one: NodeId, other: NodeId) -> None:
        """Keep two nodes apart."""
        self._cut.add(frozenset((one, other)))

    def at(self, address: Address, asking: NodeId) -> tuple[NodeId, PeerHandler] | None:
        """Who answers `asking` at `address`."""
        served = self._served.get(address)
        return None if served is None or frozenset((served[0], asking)) in self._cut else served


class MemoryTransport:
    """The Transport of node `me` on `network`; checks what the HTTP one checks."""

    def __init__(
        self, me: NodeId, network: MemoryNetwork, trust: wire.Trust, blocked: frozenset[NodeId] = frozenset()
    ) -> None:
        self._me = me
        self._network = network
        self.use(trust, blocked)

    def use(self, trust: wire.Trust, blocked: frozenset[NodeId] = frozenset()) -> None:
        """See Transport."""
        self._trust, self._blocked = trust, blocked

    async def close(self) -> None:
        """See Transport."""

    async def hello(self, peer: NodeId, addresses: Sequence[Address]) -> Hello:
        """See Transport."""
        hello = self._reach(peer, addresses).hello(self._me)
        if hello.member != peer:
            raise RemoteFault(Reason.UNRELATED_ANSWER, "a hello in somebody else's name")
        return wire.decode_hello(wire.encode_hello(hello))

    async def pull(self, peer: NodeId, addresses: Sequence[Address], member: NodeId, after: int) -> ModelUpdate | None:
        """See Transport."""
        frame = self._reach(peer, addresses).update(self._me, member, after)
        if frame is None:
            return None
        update = wire.open_update(frame, self._trust)
        if update.statement.sender != member or update.statement.seq <= after:
            raise RemoteFault(Reason.UNRELATED_ANSWER, f"sequence {update.statement.seq}")
        return update

    async def push(self, peer: NodeId, addresses: Sequence[Address], frame: bytes) -> None:
        """See Transport."""
        handler = self._reach(peer, addresses)
        try:
            wire.open_statement(frame, handler.trust())
            await handler.pushed(self._me, frame)
        except (RemoteFault, LocalFault) as error:
            self._refused(handler, error)

    async def exchange(self, peer: NodeId, addresses: Sequence[Address], table: HeartbeatTable) -> HeartbeatTable:
        """See Transport."""
        handler = self._reach(peer, addresses)
        answer = b""
        try:
            answer = await handler.heartbeats(self._me, wire.encode_table(table))
        except (RemoteFault, LocalFault) as error:
            self._refused(handler, error)
        return wire.decode_table(answer, self._trust, {row.heartbeat.member: row.signed for row in table.rows})

    async def manifest(self, peer: NodeId, addresses: Sequence[Address], version: int) -> bytes | None:
        """See Transport."""
        return self._reach(peer, addresses).manifest(version)

    async def identify(self, address: Address) -> NodeId:
        """See Transport."""
        served = self._network.at(address, self._me)
        if served is None:
            raise Unreachable("connect", f"{address}: nobody there")
        return served[0]

    def _reach(self, peer: NodeId, addresses: Sequence[Address]) -> PeerHandler:
        if peer not in self._trust.keys or peer in self._blocked:
            raise Unreachable("certificate", f"{short(peer)} is blocked or the manifest has no certificate of it")
        if not addresses:
            raise Unreachable("no_address", f"no address of {short(peer)} is known")
        served = [found for address in addresses if (found := self._network.at(address, self._me)) is not None]
        if not served:
            raise Unreachable("connect", f"nobody at {', '.join(map(str, addresses))}")
        for node, handler in served:
            if node == peer:
                if self._me not in handler.trust().keys:
                    handler.refused("unknown_certificate", "memory")
                    raise Unreachable("closed", f"{short(peer)} does not know us as a member")
                return handler
        raise Unreachable("certificate", f"somebody else than {short(peer)} answers")

    def _refused(self, handler: PeerHandler, error: RemoteFault | LocalFault) -> None:
        if isinstance(error, LocalFault):
            raise Unreachable("busy", "try again later") from None
        if error.reason.verdict is Verdict.REJECT:
            handler.offended(self._me, error)
            raise Unreachable("refused", str(error)) from None
