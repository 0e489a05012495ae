"""Being seen and seeing others: the own heartbeat row, exchanges of the table, hellos, good-byes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit, ExchangeHeartbeats, FetchManifest, SayHello, SetTimer
from p2pfed.core.events import PeerBenched
from p2pfed.core.identity import Signer, node_id
from p2pfed.core.inputs import HeartbeatsReceived
from p2pfed.core.membership import PeerTable
from p2pfed.core.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Endpoint,
    Heartbeat,
    HeartbeatTable,
    Hello,
    SignedHeartbeat,
)
from p2pfed.core.patience import Patience
from p2pfed.core.problems import Problems
from p2pfed.core.sampling import draw
from p2pfed.core.settings import NodeSettings
from p2pfed.core.types import DAY, NodeId
from p2pfed.core.wire import seal_heartbeat
from p2pfed.core.witness import Witness

FIRST_PARTNERS = 3
"""Partners a tick until somebody has answered, and members told of a good-bye."""
HELLO_MEMBERS = 5
"""Members asked at the start what they have of us: a restored backup learns what it forgot."""
MANIFEST_PERIODS = 6
"""A member whose newer manifest did not come, or did not follow from ours, is asked for it again after so many; then
after twice as many each time."""
ABSENT_PERIODS = 15
"""A node whose own heartbeat is late by so many periods was away."""

EXPIRY_WARNING = 30 * DAY
"""Seconds before a manifest expires from which on operators are told."""


class Presence:
    """The node's own heartbeat and its conversations about who is there."""

    def __init__(
        self,
        signer: Signer,
        manifest: Manifest,
        settings: NodeSettings,
        epoch: int,
        peers: PeerTable,
        problems: Problems,
        witness: Witness,
        holds: Callable[[NodeId], int],
        rng: np.random.Generator,
    ) -> None:
        """`holds` says the newest sequence number that this node holds of a member."""
        self.me = node_id(signer.public_key)
        self.epoch = epoch
        self._signer, self._peers, self._problems, self._rng = signer, peers, problems, rng
        self._settings, self._witness, self._holds = settings, witness, holds
        self._counter = 1
        self._ticks = 0
        self._answered = False
        self._last_beat: float | None = None
        self.follow(manifest)

    @cached_property
    def row(self) -> SignedHeartbeat:
        """The own row as it is told to others: before the first beat one that knows of no update."""
        return self._seal(0, (0, 0), leaving=False)

    def follow(self, manifest: Manifest) -> None:
        """Take members and their endpoints from `manifest`."""
        self.manifest = manifest
        self._patience = Patience(MANIFEST_PERIODS * manifest.gossip.heartbeat_seconds)
        self._peers.follow(manifest.roster)

    def _seal(self, seq: int, published: tuple[int, int], leaving: bool) -> SignedHeartbeat:
        return seal_heartbeat(
            self._signer,
            Heartbeat(
                consortium=self.manifest.consortium,
                member=self.me,
                epoch=self.epoch,
                counter=self._counter,
                manifest_version=self.manifest.version,
                seq=seq,
                cycle=published[0],
                round=published[1],
                endpoints=self._settings.endpoints,
                leaving=leaving,
                protocol_min=PROTOCOL_MIN,
                protocol_max=PROTOCOL_MAX,
                software=self._settings.software,
            ),
        )

    def testify(self, to: NodeId, rng: np.random.Generator, turn: int) -> HeartbeatTable:
        """The table of exchange number `turn`: what is held of `to`, all rows, and what we witnessed."""
        rows = self._peers.rows(self.row, rng).rows
        return HeartbeatTable(rows, *self._witness.told(turn), self._holds(to))

    def _swap(self, peer: NodeId) -> ExchangeHeartbeats:
        return ExchangeHeartbeats(peer, self._peers.endpoints(peer), self.testify(peer, self._rng, self._ticks))

    def beat(self, seq: int, published: tuple[int, int], now: float, wall: float) -> list[Effect]:
        """Age the table, renew the own row, exchange with a partner, set the next timer.

        Whether the manifest expires, `wall` says: what the machine's clock shows.
        """
        self._ticks += 1
        self._last_beat = now
        effects: list[Effect] = [Emit(change) for change in self._peers.tick(now)]
        effects += [*self._judge_surroundings(now), *self._watch_expiry(wall)]
        self._counter += 1
        self.row = self._seal(seq, published, leaving=False)
        effects += self._exchange(now)
        period = self.manifest.gossip.heartbeat_seconds
        # until somebody has answered nothing is known, and a second is not too soon to ask again
        wait = period if self._answered else min(period, 1.0)
        return [*effects, SetTimer("heartbeat", now + wait * self._rng.uniform(0.8, 1.2))]

    def absent(self, now: float) -> bool:
        """Whether this node was stopped or asleep since its last beat, so its lateness is nobody else's fault."""
        if self._last_beat is None or now - self._last_beat <= ABSENT_PERIODS * self.manifest.gossip.heartbeat_seconds:
            return False
        self._peers.lagged(now - self._last_beat, now)
        return True

    def _judge_surroundings(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if not self._peers.alone and self._peers.self_doubt(now):
            effects += self._problems.raise_(
                "SELF_DEGRADED",
                "warning",
                "this node answers late or reaches almost nobody, so it marks nobody as failed",
                "look at this machine's load and network first",
            )
        else:
            effects += self._problems.clear("SELF_DEGRADED")
        return effects

    def _watch_expiry(self, wall: float) -> list[Effect]:
        effects: list[Effect] = []
        left = self.manifest.expires - wall
        if 0 <= left < EXPIRY_WARNING:
            effects += self._problems.raise_(
                "MANIFEST_EXPIRING",
                "warning",
                f"manifest {self.manifest.version} expires on {_day(self.manifest.expires)}",
                "ask the consortium's admins to renew it: p2pfed consortium renew",
            )
        else:
            effects += self._problems.clear("MANIFEST_EXPIRING")
        if left < 0:
            effects += self._problems.raise_(
                "MANIFEST_EXPIRED",
                "warning",
                f"manifest {self.manifest.version} has expired; work goes on",
                "ask the consortium's admins to renew it: p2pfed consortium renew",
            )
        else:
            effects += self._problems.clear("MANIFEST_EXPIRED")
        return effects

    def heard(self, got: HeartbeatsReceived, now: float) -> list[Effect]:
        """Take in a peer's table."""
        effects: list[Effect] = [Emit(change) for change in self._peers.observe(got.table, now, got.via)]
        if got.answered:
            self._answered = True
            self._peers.succeeded(got.via, now)
        own = next((r.heartbeat for r in got.table.rows if r.heartbeat.member == self.me), None)
        if own is not None and own.epoch > self.epoch:
            effects += self.forgotten_past(f"its heartbeats of start {own.epoch}, while this is start {self.epoch}")
            self.epoch, self._counter = own.epoch + 1, 0
        return [*effects, *self._problems.clear("ALONE"), *self._newer_manifest(got.via, now)]

    def forgotten_past(self, what: str) -> list[Effect]:
        """Others remember more of this node than its own state does."""
        return self._problems.raise_(
            "STATE_ROLLED_BACK",
            "error",
            f"the other members remember more of this node than its own state does: {what}",
            "if a backup was restored nothing need be done, and the next restart forgets this; if a second daemon runs "
            "with this key, stop one of them",
        )

    def _exchange(self, now: float) -> list[Effect]:
        partners: set[NodeId] = set()
        for i in range(1 if self._answered else FIRST_PARTNERS):
            partner = self._peers.exchange_partner(now, self._rng, self._ticks + i)
            if partner is not None:
                partners.add(partner)
        return [self._swap(partner) for partner in sorted(partners)]

    def failed(self, peer: NodeId, error: str, now: float) -> list[Effect]:
        """An exchange of any kind with `peer` failed: bench it, unless it is benched already."""
        until = self._peers.failed(peer, now, self._rng)
        return [] if until is None else [Emit(PeerBenched(peer, error, until))]

    def found(self, member: NodeId, endpoint: Endpoint, now: float) -> list[Effect]:
        """Discovery names an address; ask there at once if nobody has answered yet."""
        known = self._peers.endpoints(member)
        self._peers.add_endpoint(member, endpoint)
        if self._answered or endpoint.address in known or not self._peers.dialable(member, now):
            return []
        return [self._swap(member)]

    def greet(self, known: Collection[NodeId], now: float) -> list[Effect]:
        """Say hello to a few members, who answer what they hold of us; not to those who did, and are `known`."""
        return [SayHello(m, self._peers.endpoints(m)) for m in self._some(HELLO_MEMBERS, now) if m not in known]

    @property
    def beats(self) -> int:
        """Heartbeats since the start."""
        return self._ticks

    def ask_time(self, now: float) -> list[Effect]:
        """Say hello to one member, whose answer says what its clock shows."""
        return [SayHello(m, self._peers.endpoints(m)) for m in self._some(1, now)]

    def leave(self, seq: int, published: tuple[int, int], now: float) -> list[Effect]:
        """Tell a few members that we stop on purpose."""
        self._counter += 1
        self.row = self._seal(seq, published, leaving=True)
        return [self._swap(member) for member in self._some(FIRST_PARTNERS, now)]

    def _some(self, count: int, now: float) -> list[NodeId]:
        """Random members that can be dialled."""
        ids = self.manifest.roster.ids
        return sorted(draw(ids, count, self._rng, lambda m: self._peers.dialable(m, now)))

    def hello(self, asking: NodeId, wall: float) -> Hello:
        """The answer to a member's hello."""
        return Hello(
            consortium=self.manifest.consortium,
            member=self.me,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            manifest_version=self.manifest.version,
            model=self.manifest.model_digest,
            software=self._settings.software,
            your_newest_seq=self._holds(asking),
            wall=wall,
        )

    def _newer_manifest(self, via: NodeId, now: float) -> list[Effect]:
        """Fetch the next manifest version from `via` if its heartbeat says it has one; not too often: it may lie."""
        heartbeat = self._peers.heartbeat(via)
        if heartbeat is None or heartbeat.manifest_version <= self.manifest.version:
            return []
        if not self._peers.dialable(via, now) or not self._patience.allows(via, now):
            return []
        return [FetchManifest(via, self._peers.endpoints(via), self.manifest.version + 1)]


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
