"""Who is alive, where each member can be dialled, and whom to leave alone for a while. Time is an argument.

Liveness is one table of signed heartbeats that members swap whole; the highest (epoch, counter) of a row wins. A live
member's row was never seen older than 12 periods among 200 members losing 30 % of their exchanges, so 15 silent
periods make a suspect and 30 a failure. The table of n > 200 members travels in parts of 200, so both times grow by
n / 200. A node that is itself in trouble (a late event loop, failing with everybody) says nothing about others
meanwhile.

Something is kept only of members about whom something is known: thousands of nodes with thousands of members each fit
into one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from p2pfed.core.events import PeerChanged
from p2pfed.core.messages import Endpoint, Heartbeat, HeartbeatTable, SignedHeartbeat
from p2pfed.core.sampling import draw
from p2pfed.core.types import Address, NodeId, PeerState, Roster
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
MEMBERS_JUDGED, HEALTHY_SHARE = 10, 0.2
ENOUGH_FAILURES = 5
"""A node doubts itself when it fails with so many members, or, where there are fewer, so many times in a row."""
STALEST_EVERY = 4
MAX_WATCHED = 5 * MAX_TABLE_ROWS
"""Members whose heartbeats are kept: in a larger consortium those who were heard of first and are there."""


@dataclass(slots=True)
class _Heard:
    """A member whose heartbeat is here."""

    row: SignedHeartbeat
    at: float
    well: float
    """Reading of `PeerTable._well` when the row came."""
    state: PeerState = PeerState.UNKNOWN


@dataclass(slots=True)
class _BackOff:
    failures: int = 0
    until: float = 0.0


class PeerTable:
    """What one node knows of the other members in `roster`. `period` is the heartbeat period in seconds.

    An id that is no member, say one that a new manifest removed while an exchange with it was under way, is unknown,
    not dialable, and whatever is reported of it is forgotten.
    """

    def __init__(self, me: NodeId, roster: Roster, period: float) -> None:
        self._me = me
        self._period = period
        self._heard: dict[NodeId, _Heard] = {}
        """Least lately heard first."""
        self._departed: dict[NodeId, Heartbeat] = {}
        """The newest of each departed member whose place another took: an old row of theirs is no sign of life."""
        self._told: dict[NodeId, dict[Literal["config", "zeroconf"], tuple[Address, ...]]] = {}
        self._back_off: dict[NodeId, _BackOff] = {}
        self._blocked: frozenset[NodeId] = frozenset()
        self._failures_in_a_row = 0
        self._outcomes: dict[NodeId, bool] = {}
        self._lagged_at: float | None = None
        self._well = 0.0
        """Seconds during which this node was awake and did not doubt itself: only these count as others' silence."""
        self._well_until: float | None = None
        self.follow(roster)

    def follow(self, roster: Roster) -> None:
        """Take the members and the endpoints of a new manifest, and forget who is gone."""
        self._roster = roster
        self._others = len(roster.ids) - (self._me in roster.endpoints)
        self._patience = self._period * max(1.0, len(roster.ids) / MAX_TABLE_ROWS)
        self._heard = {m: heard for m, heard in self._heard.items() if m in self}
        self._departed = {m: beat for m, beat in self._departed.items() if m in self}
        self._told = {m: told for m, told in self._told.items() if m in self}
        self._back_off = {m: back_off for m, back_off in self._back_off.items() if m in self}

    def __contains__(self, peer: NodeId) -> bool:
        """Whether `peer` is another member."""
        return peer in self._roster.endpoints and peer != self._me

    def __len__(self) -> int:
        """How many other members there are."""
        return self._others

    @property
    def members(self) -> tuple[NodeId, ...]:
        """The other members, in order of their ids; made anew each time."""
        return tuple(m for m in self._roster.ids if m != self._me)

    # --- liveness -----------------------------------------------------------------------------------------------------

    def observe(self, table: HeartbeatTable, now: float, direct_from: NodeId | None) -> list[PeerChanged]:
        """Take over every row newer than ours. `direct_from` talked to us just now, so its back-off ends."""
        if direct_from is not None:
            self.succeeded(direct_from, now)
        self._count_well_time(now)
        changes: list[PeerChanged] = []
        for row in table.rows:
            beat = row.heartbeat
            member = beat.member
            heard = self._heard.get(member)
            if heard is None:
                if member not in self or not self._take_place(beat):
                    continue
                heard = self._heard[member] = _Heard(row, now, self._well)
            elif row is heard.row or not _newer(beat, heard.row.heartbeat):
                continue
            else:
                self._heard[member] = self._heard.pop(member)
                heard.row, heard.at, heard.well = row, now, self._well
            after = PeerState.LEFT if beat.leaving else PeerState.ALIVE
            if heard.state is not after:
                changes.append(PeerChanged(member, heard.state, after))
                heard.state = after
        return changes

    def tick(self, now: float) -> list[PeerChanged]:
        """Mark suspects and failures; call it once a period."""
        self._count_well_time(now)
        changes: list[PeerChanged] = []
        for member, heard in self._heard.items():
            silent = self._well - heard.well
            if silent < SUSPECT_PERIODS * self._patience:
                break  # the others were heard later
            after = PeerState.SUSPECT if silent < FAILED_PERIODS * self._patience else PeerState.FAILED
            if heard.state in (PeerState.ALIVE, PeerState.SUSPECT) and heard.state is not after:
                changes.append(PeerChanged(member, heard.state, after))
                heard.state = after
        return changes

    def lagged(self, seconds: float, now: float) -> None:
        """The event loop answered `seconds` late."""
        if seconds > LAG_SECONDS:
            self._lagged_at = now

    def self_doubt(self, now: float) -> bool:
        """Whether silence is more likely this node's fault: a late loop lately, or failing with nearly everybody."""
        if self._lagged_at is not None and now - self._lagged_at <= GAP_PERIODS * self._period:
            return True
        return self.cut_off

    @property
    def cut_off(self) -> bool:
        """Whether exchanges fail with nearly everybody."""
        enough = len(self._outcomes) >= ENOUGH_FAILURES or self._failures_in_a_row >= ENOUGH_FAILURES
        return enough and self._others >= 2 and sum(self._outcomes.values()) < HEALTHY_SHARE * len(self._outcomes)

    def state(self, peer: NodeId) -> PeerState:
        """What the table says of `peer`."""
        heard = self._heard.get(peer)
        return heard.state if heard else PeerState.UNKNOWN

    def heartbeat(self, peer: NodeId) -> Heartbeat | None:
        """Its newest heartbeat."""
        heard = self._heard.get(peer)
        return heard.row.heartbeat if heard else None

    def heartbeats(self) -> Iterator[Heartbeat]:
        """The newest of each member that was heard of."""
        return (heard.row.heartbeat for heard in self._heard.values())

    def last_heard(self, peer: NodeId) -> float | None:
        """When a newer heartbeat of `peer` arrived last, by whatever way."""
        heard = self._heard.get(peer)
        return heard.at if heard else None

    @property
    def alone(self) -> bool:
        """Whether no peer has ever been heard of."""
        return not self._heard

    # --- the table as it travels --------------------------------------------------------------------------------------

    def rows(self, own: SignedHeartbeat, rng: np.random.Generator) -> HeartbeatTable:
        """Our own row and those of all others; a random choice of them where they exceed `MAX_TABLE_ROWS` together."""
        others = list(self._heard.values())
        if len(others) >= MAX_TABLE_ROWS:
            others = [others[i] for i in rng.choice(len(others), MAX_TABLE_ROWS - 1, replace=False).tolist()]
        return HeartbeatTable((own, *[heard.row for heard in others]))

    def known(self) -> dict[NodeId, bytes]:
        """The signed bytes of each row we hold: equal ones need no second verification."""
        return {m: heard.row.signed for m, heard in self._heard.items()}

    # --- whom to dial -------------------------------------------------------------------------------------------------

    def succeeded(self, peer: NodeId, now: float) -> None:
        """An exchange with `peer` worked, in either direction: its back-off ends."""
        self._note(peer, True)
        self._back_off.pop(peer, None)

    def failed(self, peer: NodeId, now: float, rng: np.random.Generator) -> float | None:
        """An exchange with `peer` failed; answers until when it is benched for that.

        Full jitter: uniform below a limit that doubles with each failure. What fails while it is benched was under way
        before and says nothing new, and who is no member is not benched: None.
        """
        self._note(peer, False)
        if peer not in self or self.benched(peer, now):
            return None
        back_off = self._back_off.setdefault(peer, _BackOff())
        limit = min(BENCH_FIRST * 2.0 ** min(back_off.failures, 20), BENCH_LONGEST) * self._period
        back_off.failures += 1
        back_off.until = now + float(rng.uniform(0, limit))
        return back_off.until

    def benched(self, peer: NodeId, now: float) -> bool:
        """Whether `peer` is left alone after failures."""
        back_off = self._back_off.get(peer)
        return back_off is not None and now < back_off.until

    def block(self, blocked: Iterable[NodeId]) -> None:
        """Replace the operator's blocklist."""
        self._blocked = frozenset(blocked)

    def dialable(self, peer: NodeId, now: float) -> bool:
        """Whether to dial `peer` now: it has an endpoint and is neither benched nor blocked."""
        agreed = self._roster.endpoints.get(peer, ())
        return self.welcome(peer) and not self.benched(peer, now) and bool(agreed or self.endpoints(peer))

    def welcome(self, peer: NodeId) -> bool:
        """Whether `peer` is another member that the operator has not blocked."""
        return peer in self and peer not in self._blocked

    def blocked(self, peer: NodeId) -> bool:
        """Whether the operator has blocked `peer`."""
        return peer in self._blocked

    def exchange_partner(self, now: float, rng: np.random.Generator, tick_number: int) -> NodeId | None:
        """With whom to swap tables: a uniformly random dialable member; every fourth tick the one heard least lately.

        Failed and departed members are asked too, within their back-off: it may only have been a partition.
        """

        def never_heard(member: NodeId) -> bool:
            return member not in self._heard and self.dialable(member, now)

        def dialable(member: NodeId) -> bool:
            return self.dialable(member, now)

        if tick_number % STALEST_EVERY:
            return next(iter(draw(self._roster.ids, 1, rng, dialable)), None)
        if len(self._heard) < self._others:
            few = 2 * len(self._heard) > self._others  # and not to be met by chance
            strangers = [m for m in self._roster.ids if m not in self._heard] if few else self._roster.ids
            if drawn := draw(strangers, 1, rng, never_heard):
                return drawn[0]
        return next(filter(dialable, self._heard), None)

    def endpoints(self, peer: NodeId) -> tuple[Address, ...]:
        """Where to dial `peer`, best first: configuration, its own heartbeat, the manifest, zeroconf; each once."""
        agreed = self._roster.endpoints.get(peer, ())
        heard, told = self._heard.get(peer), self._told.get(peer)
        signed = _readable(heard.row.heartbeat.endpoints) if heard else ()
        if told is None and (signed == agreed or not signed):
            return agreed[:MAX_ENDPOINTS]
        config, zeroconf = (told.get("config", ()), told.get("zeroconf", ())) if told else ((), ())
        return tuple(dict.fromkeys((*config, *signed, *agreed, *zeroconf)))[:MAX_ENDPOINTS]

    def add_endpoint(self, peer: NodeId, endpoint: Endpoint) -> None:
        """Remember one more place to try: in the order given, but of zeroconf the newest few, newest first."""
        if peer not in self or not endpoint.address.dialable:
            return
        told = self._told.setdefault(peer, {})
        known = told.get(endpoint.source, ())
        if endpoint.source == "zeroconf":
            newest_first = dict.fromkeys((endpoint.address, *known))
            told["zeroconf"] = tuple(newest_first)[:ZEROCONF_ENDPOINTS]
        else:
            told["config"] = tuple(dict.fromkeys((*known, endpoint.address)))[:MAX_ENDPOINTS]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _take_place(self, beat: Heartbeat) -> bool:
        """Whether a member not watched may be: a place is free, or that of one who is heard no more."""
        known = self._departed.get(beat.member)
        if known is not None and not _newer(beat, known):
            return False
        if len(self._heard) >= MAX_WATCHED:
            longest_silent, heard = next(iter(self._heard.items()))
            if beat.leaving or heard.state not in (PeerState.LEFT, PeerState.FAILED):
                return False
            self._departed[longest_silent] = self._heard.pop(longest_silent).row.heartbeat
        self._departed.pop(beat.member, None)
        return True

    def _note(self, peer: NodeId, worked: bool) -> None:
        """Remember how the exchange with each of the last few members ended: nobody counts twice by talking more."""
        self._failures_in_a_row = 0 if worked else self._failures_in_a_row + 1
        self._outcomes.pop(peer, None)
        self._outcomes[peer] = worked
        if len(self._outcomes) > MEMBERS_JUDGED:
            del self._outcomes[next(iter(self._outcomes))]

    def _count_well_time(self, now: float) -> None:
        """Count what passed since the last call, unless this node slept or doubts itself."""
        before, self._well_until = self._well_until, now
        if before is not None and not self.self_doubt(now):
            self._well += min(max(now - before, 0.0), GAP_PERIODS * self._period)


def _newer(beat: Heartbeat, than: Heartbeat) -> bool:
    return beat.counter > than.counter if beat.epoch == than.epoch else beat.epoch > than.epoch


@lru_cache(maxsize=2**15)  # every node of a simulation asks for those of all others
def _readable(endpoints: tuple[str, ...]) -> tuple[Address, ...]:
    """The endpoints that can be dialled; a member that signed nonsense for an address only makes itself unreachable."""
    found = []
    for text in endpoints:
        try:
            address = Address.parse(text)
        except ValueError:
            continue
        if address.dialable:
            found.append(address)
    return tuple(found[:MAX_ENDPOINTS])
