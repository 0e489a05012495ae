"""The scores and the standing of all peers.

Per peer a CUSUM score (Page 1954), floored at 0 so that no good behaviour can be banked, gathers the evidence of every
new model. What follows of it:

| standing    | becomes     | when                                                                        |
|-------------|-------------|-----------------------------------------------------------------------------|
| trusted     | suspect     | suspicion is half the threshold                                             |
| suspect     | trusted     | suspicion is less than that                                                 |
| either      | quarantined | suspicion is the threshold, and there is room, or somebody clearly better   |
| either      | quarantined | a lie is proven                                                             |
| quarantined | suspect     | so many clean models in a row; its place is needed; too few members are left |
| any         | trusted     | the operator pardons it; another model is trained                           |

In quarantine a peer's models weigh nothing and are looked at still. Of n members (n - 1) // 2 may be there, proven
liars beside them; of three one, and of two none, for two cannot say which of them differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from p2pfed.core.events import StandingChanged
from p2pfed.core.reputation.explanation import Explanation, explain
from p2pfed.core.reputation.params import ReputationParams
from p2pfed.core.reputation.peer_record import PeerRecord
from p2pfed.core.types import NodeId, Reason, Standing

FAULTS = {Reason.NOT_FINITE: 4.0, Reason.WRONG_SCHEMA: 4.0, Reason.OVERSIZE: 2.0}
"""What breaking the protocol adds to a peer's faults; every other rejection adds 1."""


class Ledger:
    """What adds up of each peer."""

    def __init__(self, members: int, params: ReputationParams) -> None:
        """`members` of the consortium, this node included."""
        self.params = params
        self.members = members
        self.peers: dict[NodeId, PeerRecord] = {}
        self._changed: set[NodeId] = set()
        self._held: set[NodeId] = set()
        """Who is quarantined."""

    # --- asked by others ----------------------------------------------------------------------------------------------

    def quarantined(self, member: NodeId) -> bool:
        """Whether nothing of `member` is merged."""
        return member in self._held

    @property
    def quarantine(self) -> list[NodeId]:
        """Who is quarantined, in order of ids."""
        return sorted(self._held)

    @property
    def releasable(self) -> list[NodeId]:
        """Who is quarantined for its models and may mend, in order of ids."""
        return [m for m in self.quarantine if not self.peers[m].proven]

    def proven(self, member: NodeId) -> bool:
        """Whether `member` was convicted of a lie, and not pardoned."""
        return member in self._held and self.peers[member].proven

    def standing(self, member: NodeId) -> Standing:
        """What the scores of `member` come to; a stranger is trusted."""
        record = self.peers.get(member)
        return record.standing if record else "trusted"

    def release_after(self, member: NodeId) -> int:
        """Clean models in a row that end the quarantine of `member`."""
        record = self.peers.get(member)
        return (
            int(self.params.release * 2 ** (record.strikes - 1)) if record and record.strikes else self.params.release
        )

    def explain(self, member: NodeId) -> Explanation:
        """Why `member` has its standing, and what would change it."""
        return explain(self.peers.get(member, PeerRecord()), self.params, self.release_after(member))

    # --- what speaks for and against a peer ---------------------------------------------------------------------------

    def offended(self, member: NodeId, reason: Reason) -> list[StandingChanged]:
        """Count a broken rule of the protocol against who broke it."""
        record = self._record(member)
        record.faults += FAULTS.get(reason, 1.0)
        return self._settle(member, f"protocol: {reason.sentence}")

    def convict(self, member: NodeId) -> list[StandingChanged]:
        """`member` signed two different updates with one number: a proof, no evidence to be weighed."""
        record = self._record(member)
        before, record.proven, record.standing = record.standing, True, "quarantined"
        self._held.add(member)
        said = StandingChanged(member, before, "quarantined", f"proven: {Reason.EQUIVOCATION.sentence}", {})
        return [said] if before != "quarantined" else []

    def pardon(self, member: NodeId) -> list[StandingChanged]:
        """The operator's word: everything against `member` is forgotten but its strikes."""
        before = self._record(member)
        self._held.discard(member)
        self.peers[member] = PeerRecord(strikes=before.strikes, looks=before.looks, drawn=before.drawn)
        if before.standing == "trusted":
            return []
        return [StandingChanged(member, before.standing, "trusted", "pardoned by the operator", {})]

    def follow(self, members: Sequence[NodeId]) -> list[StandingChanged]:
        """Forget whoever is not among `members` of the consortium, this node included: its place in quarantine too.

        Of fewer members fewer may be quarantined.
        """
        self.members = len(members)
        for member in set(self.peers).difference(members):
            del self.peers[member]
            self._held.discard(member)
            self._changed.add(member)
        changes: list[StandingChanged] = []
        while len(self.releasable) > self._most:
            changes += self._release(self._least(), "so many may not be quarantined of so few members")
        return changes

    def _forget_models(self) -> list[StandingChanged]:
        """What members' models were like says nothing any more; whoever is proven to have lied stays quarantined."""
        changes = []
        for member, before in sorted(self.peers.items()):
            if before.proven:
                continue
            self._held.discard(member)
            self.peers[member] = PeerRecord()
            self._changed.add(member)
            if before.standing != "trusted":
                changes.append(StandingChanged(member, before.standing, "trusted", "another model is trained now", {}))
        return changes

    # --- standing -----------------------------------------------------------------------------------------------------

    def _record(self, member: NodeId) -> PeerRecord:
        """The record of `member`, about to be changed."""
        self._changed.add(member)
        if (record := self.peers.get(member)) is None:
            record = self.peers[member] = PeerRecord()
        return record

    def _count(self, member: NodeId, spared: bool = False) -> list[StandingChanged]:
        """Add the evidence of a member's newest model to its scores, unless what is bad of it is `spared`."""
        record = self._record(member)
        record.add(record.newest.evidence, self.params, spared)
        if record.strikes and record.looks - record.struck >= self.params.strike_models:
            record.strikes, record.struck = record.strikes // 2, record.looks
        return self._settle(member, "its models")

    def _settle(self, member: NodeId, reason: str) -> list[StandingChanged]:
        """Give `member` the standing that its scores ask for."""
        record, threshold = self.peers[member], self.params.threshold
        before, changes = record.standing, []
        if before == "quarantined":
            if record.clean >= self.release_after(member) and not record.proven:
                changes = self._release(member, f"{record.clean} clean models in a row")
            return changes
        if record.suspicion >= threshold:
            changes = self._make_room(record.suspicion)
            if len(self.releasable) < self._most:
                self._held.add(member)
                record.standing, record.clean, record.struck = "quarantined", 0, record.looks
                record.strikes += 1
        if record.standing != "quarantined":
            record.standing = "suspect" if record.suspicion >= threshold / 2 else "trusted"
        if record.standing != before:
            changes.append(StandingChanged(member, before, record.standing, reason, record.numbers))
        return changes

    @property
    def _most(self) -> int:
        """So many may be quarantined: fewer than half, but of three banks one. Two cannot say which of them differs."""
        return 0 if self.members <= 2 else max(1, (self.members - 1) // 2)

    def _make_room(self, suspicion: float) -> list[StandingChanged]:
        """Release the least suspected one if the quarantine is full and somebody clearly worse waits."""
        if not self.releasable or len(self.releasable) < self._most:
            return []
        least = self._least()
        if self.peers[least].suspicion + 1 > suspicion:
            return []
        return self._release(least, "its place was needed for a worse one")

    def _least(self) -> NodeId:
        """The least suspected one in quarantine that may mend."""
        return min(self.releasable, key=lambda m: (self.peers[m].suspicion, m))

    def _release(self, member: NodeId, reason: str) -> list[StandingChanged]:
        record = self._record(member)
        self._held.discard(member)
        record.standing, record.score, record.bursts, record.faults = "suspect", self.params.threshold / 2, 0.0, 0.0
        return [StandingChanged(member, "quarantined", "suspect", reason, record.numbers)]

    # --- memory -------------------------------------------------------------------------------------------------------

    def changed_records(self) -> dict[NodeId, PeerRecord]:
        """Copies of the records that have changed since they were last asked for: what `Save` makes durable.

        A blank one takes the place of a record that was forgotten.
        """
        changed, self._changed = self._changed, set()
        return {member: self.peers.get(member, PeerRecord()).copied() for member in sorted(changed)}

    def _remember(self, records: Mapping[NodeId, PeerRecord]) -> None:
        """Go on from all `changed_records()` of earlier processes."""
        self.peers = {member: record.copied() for member, record in records.items()}
        self._held = {m for m, r in self.peers.items() if r.standing == "quarantined"}
