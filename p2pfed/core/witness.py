"""What members signed, held side by side: how one that tells different things to different nodes is found.

A node keeps the newest few statements that it was *given*, by a pull, a relay or a push, of each member, and tells the
newest of some members with every heartbeat exchange; whoever holds another statement with that number has the proof in
its hands. Why whole signed statements and not numbers and digests in the heartbeats: a heartbeat row is the accused's
own word, so a liar would put into it whatever suits it, or nothing; a digest from a third party proves nothing before
the statement behind it was fetched, which would be one more request with its own limits and blame. A statement is
some 600 bytes, eight of them cost an exchange less than the rows of twenty members, and need no answer.

What others tell is compared and not kept: nobody can push another's statements out of this memory, and a member's own
statements only push out its own. A lie is found once two nodes meet that were given one number differently; where each
pulls from few of many, some numbers reach one side only, and it is a later one that convicts.

Proofs spread with the same exchange, one of each member. At most `MOST_PROOFS` of one are kept, since a second says
that the first was no accident: what a liar signs by the thousand must fill nobody's disk. What an operator has cleared
stays known: neither that proof nor any other of a number that this node had seen by then convicts again; what the
member signs later can.
"""

from __future__ import annotations

import contextlib
from itertools import chain, islice
from typing import TypeVar

from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect, Emit, KeptProof, Save
from p2pfed.core.events import EquivocationProven
from p2pfed.core.evidence import contradiction, encode_proof, open_proof
from p2pfed.core.membership import MAX_WATCHED
from p2pfed.core.messages import Equivocation, HeartbeatTable, ModelUpdate, SignedStatement
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.types import NodeId, Reason, short
from p2pfed.core.wire import MAX_TABLE_HEADS, MAX_TABLE_PROOFS
from p2pfed.errors import RemoteFault, StateCorrupt

T = TypeVar("T")

HEADS_KEPT = 4
"""Statements kept of a member: two nodes that pull at different moments must have some number in common."""
FRESH_HEADS = 6
"""Of the statements told so many are those given last, a round's pulls; the others are told in turn.

Among 40 banks, 10 of them liars (3 seeds), that found a contradiction after 2.8 heartbeat periods, 9 at most; telling
all of them in turn after 3.4, 14 at most."""
FRESH_PROOFS = 4
"""Of the liars told so many are those convicted last.

Where 24 of 80 banks stand convicted, that brings the proof against one more to all others in 4.5 heartbeat periods, 5.1
at most (5 seeds); telling all 25 in turn takes 15.4, 20.4 at most."""
MOST_PROOFS = 2
"""Standing proofs kept of one member."""


class Witness:
    """The statements a node was given, and the proofs it knows: `proofs` under their digests, oldest first."""

    def __init__(
        self,
        me: NodeId,
        manifest: Manifest,
        remembered: dict[str, KeptProof],
        reputation: Reputation,
        problems: Problems,
    ) -> None:
        """`remembered` is what was saved of proofs; raises StateCorrupt if one of them is none."""
        self._me, self._reputation, self._problems = me, reputation, problems
        self._heads: dict[NodeId, tuple[SignedStatement, ...]] = {}
        """Whose newest came last stands last."""
        self.proofs: dict[str, tuple[Equivocation, int]] = {}
        """Each with the sequence number up to which its member was cleared with it; 0 is a proof that stands."""
        self._expelled: dict[str, KeptProof] = {}
        for digest, kept in remembered.items():
            try:
                self.proofs[digest] = open_proof(kept.proof, manifest), kept.cleared
            except RemoteFault as fault:
                if fault.reason is Reason.NOT_A_MEMBER:
                    self._expelled[digest] = kept  # it may come back
                    continue
                raise StateCorrupt(f"the remembered proof {digest[:12]} is none: {fault}") from None
        for proof in self.standing():
            if proof.member != me:
                reputation.convict(proof.member)

    def standing(self, member: NodeId | None = None) -> list[Equivocation]:
        """The proofs that no operator has cleared, of everybody or of `member`."""
        return [p for p, cleared in self.proofs.values() if not cleared and member in (None, p.member)]

    def holds(self, head: SignedStatement) -> bool:
        """Whether exactly this signed statement is here: it need not be verified again."""
        kept = self._heads.get(head.statement.sender, ())
        proven = chain.from_iterable((p.one, p.other) for p, _ in self.proofs.values())
        return any(k.signed == head.signed for k in chain(kept, proven))

    def started(self) -> list[Effect]:
        """Tell the operator again of what stands."""
        return [effect for proof in self.standing() for effect in self._alarm(proof)]

    def follow(self, manifest: Manifest) -> list[Effect]:
        """Who has left troubles nobody any more; who has come back is as guilty as it was."""
        effects: list[Effect] = []
        for digest, kept in list(self._expelled.items()):
            with contextlib.suppress(RemoteFault):  # still no member
                self.proofs[digest] = open_proof(kept.proof, manifest), kept.cleared
                del self._expelled[digest]
        for proof in self.standing():
            if proof.member not in manifest.by_id:
                effects += self._problems.clear("EQUIVOCATION", proof.member)
            elif proof.member != self._me and not self._reputation.proven(proof.member):
                changes = self._reputation.convict(proof.member)
                effects += [Save(peers=self._reputation.changed_records()), *map(Emit, changes), *self._alarm(proof)]
        return effects

    def given(self, update: ModelUpdate) -> list[Effect]:
        """Compare another member's update, however it came, with what was given before, and keep its statement."""
        head, sender, seq = update.head, update.statement.sender, update.statement.seq
        kept = self._heads.get(sender, ())
        effects: list[Effect] = []
        for known in kept:
            if known.statement.seq == seq:
                if known.digest == head.digest:
                    return []
                effects += self._contradicted(known, head)
        if not kept and len(self._heads) >= MAX_WATCHED:
            del self._heads[next(iter(self._heads))]
        self._heads.pop(sender, None)
        self._heads[sender] = (*kept[1 - HEADS_KEPT :], head)
        return effects

    def heard(self, table: HeartbeatTable) -> list[Effect]:
        """Compare what another node was given with what was given here, and learn the proofs it knows."""
        effects: list[Effect] = []
        for head in table.heads:
            seq = head.statement.seq
            for known in self._heads.get(head.statement.sender, ()):
                if known.statement.seq == seq and known is not head:
                    effects += self._contradicted(known, head)
        for proof in table.proofs:
            effects += self._learn(proof)
        return effects

    def told(self, turn: int) -> tuple[tuple[SignedStatement, ...], tuple[Equivocation, ...]]:
        """What the exchange of number `turn` tells: some members' newest statements, some liars' first proofs."""
        given = _newest(list(self._heads.values()), FRESH_HEADS, MAX_TABLE_HEADS, turn)
        heads = tuple(kept[-1] for kept in given)
        if not self.proofs:
            return heads, ()
        first: dict[NodeId, Equivocation] = {}
        for proof in self.standing():
            first.setdefault(proof.member, proof)  # one is enough to convict
        return heads, tuple(_newest(list(first.values()), FRESH_PROOFS, MAX_TABLE_PROOFS, turn))

    def pardoned(self, member: NodeId, newest_seq: int) -> list[Effect]:
        """The operator clears what stands against `member`, whose newest update here has that number."""
        standing = self.standing(member)
        if not standing:
            return []
        seen = max(newest_seq, 1)
        self.proofs |= {proof.digest: (proof, seen) for proof in standing}
        saved = {proof.digest: KeptProof(encode_proof(proof), seen) for proof in standing}
        return [Save(proofs=saved), *self._problems.clear("EQUIVOCATION", member)]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _contradicted(self, known: SignedStatement, head: SignedStatement) -> list[Effect]:
        proof = contradiction(known, head)
        return self._learn(proof) if proof else []

    def _learn(self, proof: Equivocation) -> list[Effect]:
        """Take over a verified proof: durable first, then told and acted upon."""
        member = proof.member
        if proof.digest in self.proofs or len(self.standing(member)) >= MOST_PROOFS or self._cleared(proof):
            return []
        self.proofs[proof.digest] = proof, 0
        changes = self._reputation.convict(member) if member != self._me else []
        saved = {proof.digest: KeptProof(encode_proof(proof))}
        return [
            Save(proofs=saved, peers=self._reputation.changed_records()),
            Emit(EquivocationProven(member, proof.seq, proof.digest)),
            *map(Emit, changes),
            *self._alarm(proof),
        ]

    def _cleared(self, proof: Equivocation) -> bool:
        """Whether it is about a number that the operator has looked at: proven then, or seen by then."""
        cleared = [(p.seq, seen) for p, seen in self.proofs.values() if seen and p.member == proof.member]
        return any(proof.seq == seq or proof.seq <= seen for seq, seen in cleared)

    def _alarm(self, proof: Equivocation) -> list[Effect]:
        what = f"signed two different updates with sequence number {proof.seq}"
        if proof.member == self._me:
            return self._problems.raise_(
                "EQUIVOCATION",
                "error",
                f"this node's own key has {what}: the others do not merge its models any more",
                "look for a second daemon with a copy of this state directory, or for a restored backup; then ask the "
                "other banks' operators to clear it",
                proof.member,
            )
        return self._problems.raise_(
            "EQUIVOCATION",
            "error",
            f"{short(proof.member)} has {what}; its models are not merged",
            f"see `p2pfed evidence show {proof.digest[:12]}` and ask that bank; only the admins expel",
            proof.member,
        )


def _newest(values: list[T], fresh: int, most: int, turn: int) -> list[T]:
    """At most so many of `values`: the `fresh` last ones, and of the others some, others with every turn."""
    if len(values) <= most:
        return values
    older, rest = values[:-fresh], most - fresh
    start = rest * turn % len(older)
    return [*values[-fresh:], *islice(chain(older, older), start, start + rest)]
