"""Getting others' models and giving our own: pulls, relays, pushes and what admission makes of an update."""

from __future__ import annotations

import numpy as np

from p2pfed.core.adoption import MOST_SOURCES
from p2pfed.core.aggregation import Candidate
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit, Publish, Pull, Push, Save, Withdraw
from p2pfed.core.events import UpdateAccepted, UpdateRefused
from p2pfed.core.inbox import Inbox, Slot
from p2pfed.core.inputs import UpdateReceived
from p2pfed.core.membership import PeerTable
from p2pfed.core.reputation import Reputation
from p2pfed.core.sampling import GraphSampler, PeerSampler, UniformSampler, draw
from p2pfed.core.settings import Memory
from p2pfed.core.types import NodeId, PeerState, Reason, Verdict

FRESHEST = 2
"""Times the fanout: so many updates a merge takes at most, which in a small consortium is everybody's. A hundred banks
have 35 to 45 slots each: all of them merged gave .415 AUPRC on generated payments (3 seeds), the newest 12 .467."""


NEAR_ROUNDS = 2
"""Rounds of the calendar that a model may be apart from a node's own, to be merged and judged; one more if relayed."""


class Updates:
    """The slots of others' updates and the pulls under way."""

    def __init__(
        self,
        me: NodeId,
        manifest: Manifest,
        memory: Memory,
        peers: PeerTable,
        reputation: Reputation,
        rng: np.random.Generator,
    ) -> None:
        self.me, self._peers, self._reputation, self._rng = me, peers, reputation, rng
        self.inbox = Inbox(me, memory.marks)
        for update in memory.updates:
            self.inbox.offer(update, 0)
        self._pulling: set[tuple[NodeId, NodeId]] = set()
        self._empty: set[NodeId] = set()
        """Whose newest update was asked for last and did not come."""
        self.follow(manifest)

    def follow(self, manifest: Manifest) -> None:
        """Sample by `manifest` from now on."""
        self._fanout, self._ids, graph = manifest.gossip.fanout, manifest.roster.ids, manifest.graph
        self._calendar = manifest.calendar
        self._sampler: PeerSampler = UniformSampler(self._ids) if graph is None else GraphSampler(self.me, graph)

    @property
    def idle(self) -> bool:
        """Whether no pull is under way."""
        return not self._pulling

    def pull(self, now: float) -> list[Effect]:
        """Ask s random members for what they published; a member nobody here can dial is asked for at another's.

        Whoever has not answered the last time is left out: others are asked in its place.
        """

        def dialable(member: NodeId) -> bool:
            return self._peers.dialable(member, now)

        def wanted(member: NodeId) -> bool:
            return not self._reputation.quarantined(member) and askable(member)

        def askable(member: NodeId) -> bool:
            if dialable(member):
                return (member, member) not in self._pulling
            return self._peers.welcome(member) and self._peers.state(member) is PeerState.ALIVE

        effects: list[Effect] = []
        # one of those in quarantine is looked at as well: who has mended is released
        held = self._reputation.releasable
        probed = draw(held, 1, self._rng, askable) if held else []
        for member in [*self._sampler.choose(self._fanout, self._rng, wanted), *probed]:
            relays = [member] if dialable(member) else draw(self._ids, 1, self._rng, dialable)
            effects += [effect for relay in relays for effect in self._ask(relay, member)]
        return effects

    def collect(self, members: list[NodeId], now: float) -> list[Effect]:
        """Ask up to 15 random ones of `members` for their own updates."""
        chosen = draw(members, MOST_SOURCES, self._rng, lambda m: self._peers.dialable(m, now))
        return [effect for m in chosen for effect in self._ask(m, m)]

    def _ask(self, peer: NodeId, member: NodeId) -> list[Effect]:
        if (peer, member) in self._pulling:
            return []
        self._pulling.add((peer, member))
        return [Pull(peer, self._peers.endpoints(peer), member, self.inbox.pull_after(member))]

    def push(self, frame: bytes, now: float) -> list[Effect]:
        """Offer our own update to s random members: what a node does that cannot be dialled itself."""
        chosen = self._sampler.choose(self._fanout, self._rng, lambda m: self._peers.dialable(m, now))
        return [Push(m, self._peers.endpoints(m), frame) for m in chosen]

    def ended(self, peer: NodeId, member: NodeId, *, empty: bool = False) -> None:
        """The pull from `peer` for `member` is over; `empty` if it brought nothing."""
        self._pulling.discard((peer, member))
        if empty:
            self._empty.add(member)

    def had_nothing(self, member: NodeId) -> bool:
        """Whether `member`'s update was asked for and did not come: whatever it says of a newer one may be a lie."""
        return member in self._empty

    def offer(self, got: UpdateReceived, merges: int, now: float) -> list[Effect]:
        """Admit another member's update into its slot, or say why not; a pushed one is made durable first.

        Only who cannot be asked may push: others would be merged more often than the members drawn at random.
        """
        statement = got.update.statement
        sender = statement.sender
        if got.pushed and self._peers.dialable(sender, now):
            return [Emit(UpdateRefused(sender, got.via, Reason.NOT_ASKED, f"sequence {statement.seq}"))]
        verdict, reason = self.inbox.offer(got.update, merges, relayed=got.via != sender)
        effects: list[Effect] = []
        if reason is not None:
            # what a signature covers is blamed on who signed it, everything else on who handed it over
            blamed = sender if reason in (Reason.EQUIVOCATION, Reason.NOT_FINITE) else got.via
            effects.append(Emit(UpdateRefused(sender, blamed, reason, f"sequence {statement.seq}")))
            if reason.verdict is Verdict.REJECT:
                effects += self.blame(blamed, reason)
        if verdict is Verdict.ACCEPT:
            self._empty.discard(sender)
            self._reputation.arrived(sender, got.update.vector)
            if got.pushed:
                mark = (statement.seq, got.update.digest)
                effects.append(Save(marks={sender: mark}, frames={sender: got.update.frame}))
            effects.append(Publish(sender, statement.seq, got.update.frame))
            effects.append(Emit(UpdateAccepted(sender, statement.seq, got.via, len(got.update.frame))))
        return effects

    def blame(self, member: NodeId, reason: Reason) -> list[Effect]:
        """Count a broken rule against `member`; what it loses its standing for is durable before it is told.

        Not against who is no member any more, and not against this node.
        """
        changes = self._reputation.offended(member, reason) if member in self._peers else []
        return [Save(peers=self._reputation.changed_records()), *map(Emit, changes)] if changes else []

    def slots(self, most: int | None = None) -> list[Slot]:
        """The updates that are kept of members who are neither blocked by the operator nor proven liars.

        Those that arrived last come first; `most` of them are answered.
        """

        def allowed(member: NodeId) -> bool:
            return self._peers.welcome(member) and not self._reputation.proven(member)

        return self.inbox.fresh(allowed, most)

    def number(self, slot: Slot) -> int:
        """The round of the calendar in which a slot's model was trained; of free-running nodes the rounds behind it."""
        statement = slot.update.statement
        return self._calendar.number(statement.cycle, statement.round)

    def trusted(self) -> list[Slot]:
        """The slots of members against whom nothing speaks."""
        return [s for s in self.slots() if self.trusts(s.update.statement.sender)]

    def trusts(self, member: NodeId) -> bool:
        """Whether nothing speaks against `member`."""
        return self._reputation.standing(member) == "trusted"

    def merges(self, member: NodeId) -> bool:
        """Whether models of `member` are merged: it is not quarantined."""
        return not self._reputation.quarantined(member)

    def expire(self, merges: int) -> list[Effect]:
        """Stop serving what this node merges no more: others would take over models that are too old.

        By the calendar only what is too many: who has been cut off catches up with what was newest before.
        """
        if not self._calendar.free:
            return [Withdraw(member) for member in self.inbox.keep(max(FRESHEST * self._fanout, 2 * MOST_SOURCES))]
        return [Withdraw(member) for member in self.inbox.expire(merges)]

    @staticmethod
    def _waited(slot: Slot, number: int, free: bool) -> int:
        """Rounds since a merge took it first; of a free-running node, which knows no rounds of others, its arrival."""
        if slot.merged_in is None:
            return max(number - slot.arrived_merge, 0) if free else 0
        return max(number - slot.merged_in, 1)

    def forget(self) -> list[Effect]:
        """Neither merge nor serve what is here: another model is trained from now on."""
        return [Withdraw(member) for member in self.inbox.keep(0)]

    def age(self, member: NodeId) -> int | None:
        """Rounds behind `member`'s newest update here; None if there is none."""
        slot = self.inbox.slot(member)
        return self.number(slot) if slot else None

    def published(self) -> list[Effect]:
        """Answer pulls with every update that is in a slot: after a restart."""
        statements = [(s.update.statement, s.update.frame) for s in self.slots()]
        return [Publish(statement.sender, statement.seq, frame) for statement, frame in statements]

    def candidates(self, number: int, own: int | None = None, any_round: bool = False) -> list[Candidate]:
        """What the merge of round `number` uses: what arrived last, by the calendar of rounds near the `own` model's.

        What is not near stays new until it is. With `any_round` the round is no matter.
        """
        slots = self.slots()
        if own is not None and not any_round:
            slots = [s for s in slots if abs(self.number(s) - own) <= NEAR_ROUNDS + s.relayed]
        newest = slots[: FRESHEST * self._fanout]
        return [
            Candidate(
                s.update.statement.sender,
                s.update.vector,
                s.update.statement.rows,
                self._waited(s, number, own is None),
                0 if own is None else abs(self.number(s) - own),
            )
            for s in newest
        ]
