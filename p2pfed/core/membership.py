"""Who is alive, where each member can be dialled, and whom to leave alone for a while. Time is an argument.

Liveness is one table of signed heartbeats that members swap whole; the highest (epoch, counter) of a row wins. A live
member's row was never seen older than 12 periods among 200 members losing 30 % of their exchanges, so 15 silent
periods make a suspect and 30 a failure. A node that is itself in trouble (a late event loop, failing with everybody)
says nothing about others meanwhile.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from p2pfed.core.events import PeerChanged
from p2pfed.core.messages import Endpoint, Heartbeat, HeartbeatTable, SignedHeartbeat, Source
from p2pfed.core.types import Address, NodeId, PeerState
from p2pfed.core.wire import MAX_TABLE_ROWS

SUSPECT_PERIODS = 15
FAILED_PERIODS = 30
GAP_PERIODS = 3
"""A tick later than this after the one before means that we slept, not that others were silent longer."""
MAX_ENDPOINTS = 8
"""Endpoints kept of one member and source, and dialled of one member."""
ZEROCONF_ENDPOINTS = 4
"""Anybody on the local network can announce anything, so few of these are kept, the newest."""
BENCH_FIRST, BENCH_LONGEST = 0.1, 30.0
"""Limits of the back-off after a first and a repeated failure, in heartbeat periods (1 s and 5 min at 10 s)."""
LAG_SECONDS = 1.0
MEMBERS_JUDGED, EXCHANGES_JUDGED, HEALTHY_SHARE = 10, 5, 0.2
STALEST_EVERY = 4

_SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass
class _Peer:
    state: PeerState = PeerState.UNKNOWN
    row: SignedHeartbeat | None = None
    heard: float | None = None
    silent: float = 0.0
    """Seconds without a newer heartbeat, counted only while this node was well."""
    addresses: dict[Source, tuple[Address, ...]] = field(default_factory=dict)
    failures: int = 0
    benched_until: float = 0.0


class PeerTable:
    """What one node knows of the other members. `period` is the heartbeat period in seconds.

    An id that is no member, say one that a new manifest removed while an exchange with it was under way, is unknown,
    not dialable, and whatever is reported of it is forgotten.
    """

    def __init__(self, me: NodeId, members: Iterable[NodeId], period: float) -> None:
        self._me = me
        self._period = period
        self._peers: dict[NodeId, _Peer] = {m: _Peer() for m in sorted(members) if m != me}
        self._blocked: frozenset[NodeId] = frozenset()
        self._exchanges = 0
        self._outcomes: dict[NodeId, bool] = {}
        self._lagged_at: float | None = None
        self._ticked_at: float | None = None

    # --- liveness -----------------------------------------------------------------------------------------------------

    def observe(self, table: HeartbeatTable, now: float, direct_from: NodeId | None) -> list[PeerChanged]:
        """Take over every row newer than ours. `direct_from` talked to us just now, so its back-off ends."""
        if direct_from is not None:
            self.succeeded(direct_from, now)
        return [change for row in table.rows for change in self._observe_row(row, now)]

    def tick(self, now: float) -> list[PeerChanged]:
        """Count silence and mark suspects and failures; call it once a period."""
        doubt = self.self_doubt(now)
        ticked, self._ticked_at = self._ticked_at, now
        changes: list[PeerChanged] = []
        for member, peer in self._peers.items():
            if doubt or peer.heard is None:
                continue
            since = peer.heard if ticked is None else max(peer.heard, ticked)
            peer.silent += min(max(now - since, 0.0), GAP_PERIODS * self._period)
            if peer.state in (PeerState.ALIVE, PeerState.SUSPECT):
                changes += self._change(member, self._state_of_silence(peer.silent))
        return changes

    def lagged(self, seconds: float, now: float) -> None:
        """The event loop answered `seconds` late."""
        if seconds > LAG_SECONDS:
            self._lagged_at = now

    def self_doubt(self, now: float) -> bool:
        """Whether silence is more likely this node's fault: a late loop lately, or failing with nearly everybody."""
        if self._lagged_at is not None and now - self._lagged_at <= GAP_PERIODS * self._period:
            return True
        enough = len(self._peers) >= 2 and self._exchanges >= EXCHANGES_JUDGED
        return enough and sum(self._outcomes.values()) < HEALTHY_SHARE * len(self._outcomes)

    def state(self, peer: NodeId) -> PeerState:
        """What the table says of `peer`."""
        return self._find(peer).state

    def heartbeat(self, peer: NodeId) -> Heartbeat | None:
        """Its newest heartbeat."""
        row = self._find(peer).row
        return row.heartbeat if row else None

    def last_heard(self, peer: NodeId) -> float | None:
        """When a newer heartbeat of `peer` arrived last, by whatever way."""
        return self._find(peer).heard

    @property
    def alone(self) -> bool:
        """Whether no peer has ever been heard of."""
        return all(p.heard is None for p in self._peers.values())

    @property
    def members(self) -> tuple[NodeId, ...]:
        """The other members, in order of their ids."""
        return tuple(self._peers)

    # --- the table as it travels --------------------------------------------------------------------------------------

    def rows(self, own: SignedHeartbeat, rng: np.random.Generator) -> HeartbeatTable:
        """Our own row and those of all others; a random choice of them where they exceed `MAX_TABLE_ROWS` together."""
        others = [p.row for p in self._peers.values() if p.row is not None]
        if len(others) >= MAX_TABLE_ROWS:
            others = [others[i] for i in rng.choice(len(others), MAX_TABLE_ROWS - 1, replace=False)]
        return HeartbeatTable((own, *others))

    def known(self) -> dict[NodeId, bytes]:
        """The signed bytes of each row we hold: equal ones need no second verification."""
        return {m: p.row.signed for m, p in self._peers.items() if p.row is not None}

    # --- whom to dial -------------------------------------------------------------------------------------------------

    def succeeded(self, peer: NodeId, now: float) -> None:
        """An exchange with `peer` worked, in either direction: its back-off ends."""
        self._note(peer, True)
        entry = self._find(peer)
        entry.failures, entry.benched_until = 0, now

    def failed(self, peer: NodeId, now: float, rng: np.random.Generator) -> float:
        """An exchange with `peer` failed; answers until when it is benched.

        Full jitter: uniform below a limit that doubles with each failure. What fails while it is benched was under way
        before and says nothing new.
        """
        self._note(peer, False)
        entry = self._find(peer)
        if now >= entry.benched_until:
            limit = min(BENCH_FIRST * 2.0 ** min(entry.failures, 20), BENCH_LONGEST) * self._period
            entry.failures += 1
            entry.benched_until = now + float(rng.uniform(0, limit))
        return entry.benched_until

    def benched(self, peer: NodeId, now: float) -> bool:
        """Whether `peer` is left alone after failures."""
        return now < self._find(peer).benched_until

    def block(self, blocked: Iterable[NodeId]) -> None:
        """Replace the operator's blocklist."""
        self._blocked = frozenset(blocked)

    def dialable(self, peer: NodeId, now: float) -> bool:
        """Whether to dial `peer` now: it has an endpoint and is neither benched nor blocked."""
        return peer not in self._blocked and not self.benched(peer, now) and bool(self.endpoints(peer))

    def blocked(self, peer: NodeId) -> bool:
        """Whether the operator has blocked `peer`."""
        return peer in self._blocked

    def exchange_partner(self, now: float, rng: np.random.Generator, tick_number: int) -> NodeId | None:
        """With whom to swap tables: a uniformly random dialable member; every fourth tick the one heard least lately.

        Failed and departed members are asked too, within their back-off: it may only have been a partition.
        """
        members = list(self._peers)
        if tick_number % STALEST_EVERY == 0:
            order = sorted(members, key=self._heard_or_never)
        else:
            order = [members[i] for i in rng.permutation(len(members))]
        return next((m for m in order if self.dialable(m, now)), None)

    def endpoints(self, peer: NodeId) -> tuple[Address, ...]:
        """Where to dial `peer`, best first: configuration, its own heartbeat, the manifest, zeroconf; each once."""
        addresses = self._find(peer).addresses
        return tuple(dict.fromkeys(a for s in _SOURCES for a in addresses.get(s, ())))[:MAX_ENDPOINTS]

    def add_endpoint(self, peer: NodeId, endpoint: Endpoint) -> None:
        """Remember one more place to try: in the order given, but of zeroconf the newest few, newest first."""
        if not _dialable(endpoint.address):
            return
        addresses = self._find(peer).addresses
        known = addresses.get(endpoint.source, ())
        if endpoint.source == "zeroconf":
            newest_first = dict.fromkeys((endpoint.address, *known))
            addresses["zeroconf"] = tuple(newest_first)[:ZEROCONF_ENDPOINTS]
        else:
            addresses[endpoint.source] = tuple(dict.fromkeys((*known, endpoint.address)))[:MAX_ENDPOINTS]

    def set_members(self, members: Iterable[NodeId]) -> None:
        """Follow a new manifest: forget who is gone, and every endpoint that the old manifest named."""
        self._peers = {m: self._peers.get(m, _Peer()) for m in sorted(members) if m != self._me}
        for peer in self._peers.values():
            peer.addresses.pop("manifest", None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _note(self, peer: NodeId, worked: bool) -> None:
        """Remember how the exchange with each of the last few members ended: nobody counts twice by talking more."""
        self._exchanges += 1
        self._outcomes.pop(peer, None)
        self._outcomes[peer] = worked
        if len(self._outcomes) > MEMBERS_JUDGED:
            del self._outcomes[next(iter(self._outcomes))]

    def _find(self, peer: NodeId) -> _Peer:
        return self._peers.get(peer) or _Peer()

    def _observe_row(self, row: SignedHeartbeat, now: float) -> list[PeerChanged]:
        beat = row.heartbeat
        peer = self._peers.get(beat.member)
        if peer is None:
            return []
        if peer.row is not None and _age(beat) <= _age(peer.row.heartbeat):
            return []
        peer.row, peer.heard, peer.silent = row, now, 0.0
        peer.addresses["heartbeat"] = tuple(_readable(beat.endpoints))[:MAX_ENDPOINTS]
        return self._change(beat.member, PeerState.LEFT if beat.leaving else PeerState.ALIVE)

    def _change(self, member: NodeId, after: PeerState) -> list[PeerChanged]:
        peer = self._peers[member]
        before, peer.state = peer.state, after
        return [PeerChanged(member, before, after)] if before is not after else []

    def _state_of_silence(self, seconds: float) -> PeerState:
        if seconds >= FAILED_PERIODS * self._period:
            return PeerState.FAILED
        return PeerState.SUSPECT if seconds >= SUSPECT_PERIODS * self._period else PeerState.ALIVE

    def _heard_or_never(self, member: NodeId) -> float:
        heard = self._peers[member].heard
        return -np.inf if heard is None else heard


def _age(beat: Heartbeat) -> tuple[int, int]:
    return beat.epoch, beat.counter


def _readable(endpoints: Iterable[str]) -> Iterator[Address]:
    """The endpoints that can be dialled; a member that signed nonsense for an address only makes itself unreachable."""
    for text in endpoints:
        try:
            address = Address.parse(text)
        except ValueError:
            continue
        if _dialable(address):
            yield address


def _dialable(address: Address) -> bool:
    """Whether an address can be one member's: not a wildcard, multicast or port 0. Names are left to the resolver."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return address.port > 0
    return address.port > 0 and not ip.is_unspecified and not ip.is_multicast
