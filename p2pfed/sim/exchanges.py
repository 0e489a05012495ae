"""Questions between simulated nodes, as the daemon's transport and listener would carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from p2pfed.core import wire
from p2pfed.core.consortium import Manifest, body_bytes
from p2pfed.core.effects import ExchangeHeartbeats, FetchManifest, Pull, Push, SayHello
from p2pfed.core.evidence import encode_proof
from p2pfed.core.inputs import (
    ExchangeFailed,
    HeartbeatsReceived,
    HelloReceived,
    Input,
    ManifestChanged,
    Offended,
    PullEnded,
    UpdateReceived,
)
from p2pfed.core.messages import HeartbeatTable, ModelUpdate
from p2pfed.core.succession import InForce
from p2pfed.core.trust import trust_in
from p2pfed.core.types import NodeId, Reason, short
from p2pfed.errors import RemoteFault
from p2pfed.net.limits import CONNECT_SECONDS
from p2pfed.sim.host import Host
from p2pfed.sim.network import Network

TABLE_SEQ_BYTES, ROW_LENGTH_BYTES = 8, 2
"""In front of a table, and of each of its parts, on the wire."""
NO_ANSWER, REFUSED = "no answer", "connection refused"

Request = Pull | Push | ExchangeHeartbeats | SayHello | FetchManifest


@dataclass(eq=False, slots=True)
class Question:
    """A request on its way; `start` is that of the asking process, to which the answer goes."""

    asker: Host
    start: int
    request: Request
    size: int
    """Bytes of its body."""
    took: float = 0.0
    """Seconds until it came to who was asked."""


_State = tuple[int, bool, bool]
"""Of what is in force: the version, and whether it has begun and settled."""

Later = Callable[[float, Host, int | None, Input | Question], None]
"""Puts something into the heap, so many seconds from now; start None is for whatever process runs then."""


class Exchanges:
    """Carries requests to those asked and answers back, unless the network loses one of them."""

    def __init__(
        self,
        hosts: Sequence[Host],
        network: Network,
        manifest: Manifest,
        later: Later,
        hand: Callable[[Host, Input], None],
        wall: Callable[[Host], float],
    ) -> None:
        """`manifest` is the first; `hand` gives a node an input at once; `wall` is what a machine's clock shows."""
        self._hosts = {host.id: host for host in hosts}
        self._network, self._manifest, self._later, self._hand, self._wall = network, manifest, later, hand, wall
        self._trusts: dict[_State, wire.Trust] = {}
        self._opened: WeakValueDictionary[tuple[bytes, _State], ModelUpdate] = WeakValueDictionary()

    def open(self, frame: bytes, force: InForce) -> ModelUpdate:
        """The update in `frame` for who trusts by `force`, verified once for all of them; raises RemoteFault."""
        state = force.manifest.version, force.coming is None, force.before is None
        update = self._opened.get((frame, state))
        if update is None:
            if state not in self._trusts:
                self._trusts[state] = trust_in(force, self._manifest if force.manifest.version > 1 else None)
            update = self._opened[frame, state] = wire.open_update(frame, self._trusts[state])
        return update

    def opened(self, frames: Iterable[bytes], force: InForce) -> Iterator[ModelUpdate]:
        """Those of `frames` that are of the model in force: of what a disk holds others may be of the one before."""
        for frame in frames:
            with suppress(RemoteFault):
                yield self.open(frame, force)

    def ask(self, asker: Host, request: Request) -> None:
        """Send a node's request."""
        peer = self._hosts[request.peer]
        size = _body_of(request)
        question = Question(asker, asker.starts, request, size)
        took = self._network.send(asker.index, peer.index, size)
        if took is None:
            self._fail(question, NO_ANSWER, CONNECT_SECONDS)
        else:
            question.took = took
            self._later(took, peer, None, question)

    def arrive(self, peer: Host, question: Question) -> None:
        """Let `peer` answer, and send its answer back."""
        if peer.node is None:
            self._return(peer, question, _failed(question, REFUSED), 0)
            return
        if question.size:
            self._network.count(question.asker.index, peer.index, question.size)
        answer, size = self._ANSWERS[type(question.request)](self, peer, question.asker.id, question.request)
        self._return(peer, question, answer, size)

    def _return(self, peer: Host, question: Question, answer: Input | None, size: int) -> None:
        asker = question.asker
        took = self._network.send(peer.index, asker.index, size)
        if took is None:
            self._fail(question, NO_ANSWER, CONNECT_SECONDS)
            return
        if size:
            self._network.count(peer.index, asker.index, size)
        if isinstance(answer, HelloReceived):
            answer = replace(answer, round_trip=question.took + took)
        if answer is not None:
            self._later(took, asker, question.start, answer)

    def _fail(self, question: Question, error: str, seconds: float) -> None:
        self._later(seconds, question.asker, question.start, _failed(question, error))

    # --- answers: what the asking node is given, if anything, and the bytes of the answer's body ----------------------

    def _pull(self, peer: Host, asker: NodeId, request: Pull) -> tuple[Input, int]:
        seq, frame = peer.shelf.get(request.member, (0, b""))
        if seq <= request.after:
            return PullEnded(peer.id, request.member), 0
        assert peer.node is not None
        frame = peer.node.serve(asker, request.member, frame)
        try:
            update = self.open(frame, self._force_of(asker))
        except RemoteFault as fault:
            return Offended(peer.id, fault.reason, fault.detail, request.member, fault.signer), len(frame)
        statement = update.statement
        if statement.sender != request.member or statement.seq <= request.after:
            detail = f"sequence {statement.seq} of {short(statement.sender)}"
            return Offended(peer.id, Reason.UNRELATED_ANSWER, detail, request.member), len(frame)
        return UpdateReceived(update, peer.id), len(frame)

    def _push(self, peer: Host, asker: NodeId, request: Push) -> tuple[Input | None, int]:
        try:
            update = self.open(request.frame, self._force_of(peer.id))
        except RemoteFault as fault:
            self._hand(peer, Offended(asker, fault.reason, fault.detail, signer=fault.signer))
            return ExchangeFailed(peer.id, str(fault)), 0
        self._hand(peer, UpdateReceived(update, asker, pushed=True))
        return None, 0

    def _exchange(self, peer: Host, asker: NodeId, request: ExchangeHeartbeats) -> tuple[Input, int]:
        assert peer.node is not None
        table = peer.node.heartbeats(asker)
        self._hand(peer, HeartbeatsReceived(request.table, asker, answered=False))
        return HeartbeatsReceived(table, peer.id, answered=True), _length(table)

    def _say_hello(self, peer: Host, asker: NodeId, request: SayHello) -> tuple[Input, int]:
        assert peer.node is not None
        hello = peer.node.hello(asker, self._wall(peer))
        return HelloReceived(hello), len(wire.encode_hello(hello))

    def _fetch_manifest(self, peer: Host, asker: NodeId, request: FetchManifest) -> tuple[Input | None, int]:
        found = next((known for known in peer.disk.versions if known.version == request.version), None)
        return (ManifestChanged(found), len(body_bytes(found))) if found else (None, 0)

    def _force_of(self, member: NodeId) -> InForce:
        node = self._hosts[member].node
        return InForce(self._manifest) if node is None else node.force

    _ANSWERS: ClassVar[dict[type, Callable[[Exchanges, Host, NodeId, Any], tuple[Input | None, int]]]] = {
        Pull: _pull,
        Push: _push,
        ExchangeHeartbeats: _exchange,
        SayHello: _say_hello,
        FetchManifest: _fetch_manifest,
    }


def _failed(question: Question, error: str) -> Input:
    request = question.request
    if isinstance(request, Pull):
        return PullEnded(request.peer, request.member, error)
    return ExchangeFailed(request.peer, error)


def _body_of(request: Request) -> int:
    """Bytes of the request's body."""
    if isinstance(request, ExchangeHeartbeats):
        return _length(request.table)
    return len(request.frame) if isinstance(request, Push) else 0


def _length(table: HeartbeatTable) -> int:
    """Bytes of a table as `wire.encode_table` writes it."""
    sizes = [len(row.signed) for row in table.rows]
    if table.heads or table.proofs:
        sizes += [0, *[len(head.signed) for head in table.heads]]
    if table.proofs:
        sizes += [0, *[len(encode_proof(proof)) for proof in table.proofs]]
    return TABLE_SEQ_BYTES + sum(sizes) + ROW_LENGTH_BYTES * len(sizes)
