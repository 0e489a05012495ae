"""What this node thinks of each peer, by first-hand evidence alone: how far its models are, how they judge own rows.

Per peer a CUSUM score (Page 1954), floored at 0 so that no good behaviour can be banked, gathers the evidence of every
new model. At half the threshold a peer is suspect, at the threshold it is quarantined: its models weigh nothing until
enough of them in a row were clean. Nobody's word about anybody counts, and odd is not bad: evidence begins well beyond
what banks with other customers show, and is measured in units of what own training does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from p2pfed.core.aggregation import Candidate
from p2pfed.core.events import StandingChanged
from p2pfed.core.model import ModelSpec
from p2pfed.core.peer_record import PeerRecord, Scales
from p2pfed.core.types import NodeId, Reason, Standing
from p2pfed.core.weights import Vector
from p2pfed.core.yardstick import Yardstick

FAULTS = {Reason.NOT_FINITE: 4.0, Reason.WRONG_SCHEMA: 4.0, Reason.OVERSIZE: 2.0}
"""What breaking the protocol adds to a peer's faults; every other rejection adds 1."""


@dataclass(frozen=True)
class Judged:
    """What a merge takes of the candidates, and what changed."""

    candidates: list[Candidate]
    changes: list[StandingChanged] = field(default_factory=list)
    odd: bool = False
    """More than half of the peers look bad: then it is this node that is odd, and nothing of that counted."""


class Reputation:
    """Scores and standing of all peers."""

    THRESHOLD = 4.0
    GROSS, GROSS_FORGIVEN = 0.95, 0.1  # what counts for `bursts`, and what a finer model takes off
    FAULTS_KEPT = 0.9
    RELEASE = 10  # clean models in a row; twice as many with every strike
    STRIKE_LOOKS = 1000
    LATELY = 8  # rounds whose peers tell whether it is they who are odd
    RETURNED = 8  # models `apart` spares; 4 and 16 do as well in seven scenarios of tests/sim/swarm.py that need it

    def __init__(self, spec: ModelSpec, members: int, seed: int, *, epochs: bool = False) -> None:
        """`members` of the consortium, this node included; `seed` of what nobody else shall know.

        `epochs` says that a round is one epoch of each bank's rows, not the same number of steps for all.
        """
        self.members = members
        self.yardstick = Yardstick(spec, seed, epochs=epochs)
        self.peers: dict[NodeId, PeerRecord] = {}
        self._changed: set[NodeId] = set()
        self._number = 0
        """The round that was judged last."""
        self._voices: dict[NodeId, tuple[int, bool]] = {}
        """The round in which a peer was judged last, and whether its model was bad."""
        self._held: set[NodeId] = set()
        """Who is quarantined."""
        self._apart: dict[NodeId, int] = {}
        """How many more models of who was apart with many count nothing against it, unless a clean one comes."""

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

    def trust(self, member: NodeId) -> float:
        """Factor on the weight of `member`'s models, 0 to 1."""
        record = self.peers.get(member)
        if record is None:
            return 1.0
        if self.quarantined(member) or record.idles:
            return 0.0
        nearness = 1.0 if self._apart.get(member) else record.nearness  # else those who were apart would hardly meet
        return max(0.0, 1 - record.suspicion / self.THRESHOLD) * record.agreement * nearness

    def release_after(self, member: NodeId) -> int:
        """Clean models in a row that end the quarantine of `member`."""
        record = self.peers.get(member)
        return int(self.RELEASE * 2 ** (record.strikes - 1)) if record and record.strikes else self.RELEASE

    # --- told by the node ---------------------------------------------------------------------------------------------

    def follow(self, members: Sequence[NodeId]) -> list[StandingChanged]:
        """Forget whoever is not among `members` of the consortium, this node included: its place in quarantine too.

        Of fewer members fewer may be quarantined, of two none.
        """
        self.members = len(members)
        for member in set(self.peers).difference(members):
            del self.peers[member]
            self._held.discard(member)
            self._voices.pop(member, None)
            self._changed.add(member)
        self._apart = {member: left for member, left in self._apart.items() if member in members}
        changes: list[StandingChanged] = []
        while len(self.releasable) > self._most:
            changes += self._release(self._least(), "so many may not be quarantined of so few members")
        return changes

    def apart(self, members: Iterable[NodeId]) -> None:
        """`members` and this node did not hear each other: many of them were lost at once, or it was away itself.

        Who trains apart is led elsewhere, and is far for some rounds without having done anything bad. Their next
        models count nothing against them, and weigh as if they were near, until one is clean: then those who were apart
        have met. And so again only once they were clean for long, for others could go silent again and again, to lie in
        between.
        """
        for member in members:
            if member not in self._apart or (self._apart[member] == 0 and self._record(member).clean >= self.RELEASE):
                self._apart[member] = self.RETURNED

    def begin_anew(self, spec: ModelSpec) -> list[StandingChanged]:
        """Another model is trained from now on: what members' models were like before says nothing of it.

        Whoever is proven to have lied stays quarantined.
        """
        self.yardstick = self.yardstick.renewed(spec)
        self._voices.clear()
        self._apart.clear()
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

    def arrived(self, member: NodeId, vector: Vector) -> None:
        """Count in a row the versions of `member` that bring nothing, as they come."""
        record = self._record(member)
        record.idle = record.idle + 1 if self.yardstick.brings_nothing(record, vector) else 0

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
        self._voices.pop(member, None)
        self._apart.pop(member, None)
        self.peers[member] = PeerRecord(strikes=before.strikes, looks=before.looks, drawn=before.drawn)
        if before.standing == "trusted":
            return []
        return [StandingChanged(member, before.standing, "trusted", "pardoned by the operator", {})]

    def judge(self, own: Vector, rows: int, candidates: Sequence[Candidate], number: int | None = None) -> Judged:
        """Take the evidence of the new models among `candidates` for a merge into `own`, and give each its trust.

        `own` was trained on `rows`; the merge is that of round `number`, by default of the one after that of the call
        before. Each version counts once, when it is new; vectors are float32 [d] and not written to. Who has no trust
        left is not among the answered candidates.
        """
        fresh = {c.member: c for c in candidates if c.waited == 0}
        records = [self._record(member) for member in fresh]
        usual_rows = median([max(rows, 1), *(max(c.rows, 1) for c in candidates)])
        self._number = self._number + 1 if number is None else number
        self.yardstick.measure(own, rows, list(fresh.values()), records, usual_rows)
        for record in records:
            record.looks += 1
        odd = self._odd(fresh)
        changes = []
        for member in sorted(fresh, key=lambda m: (-self.peers[m].suspicion, m)):
            changes += self._count(member, odd)
        return Judged(self.trusted(candidates), changes, odd)

    def trusted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of `candidates` whose members have any trust left, with it."""
        return [c._replace(trust=trust) for c in candidates if (trust := self.trust(c.member)) > 0]

    def _odd(self, fresh: Iterable[NodeId]) -> bool:
        """Whether most peers look bad: by the newest evidence of all judged lately, not of one merge's few alone.

        Of two nobody can say which of them is odd, and who was heard long ago says nothing of now.
        """
        self._voices.update((member, (self._number, self.peers[member].evidence > 0)) for member in fresh)
        self._voices = {m: v for m, v in self._voices.items() if abs(self._number - v[0]) < self.LATELY}
        voices = [bad for member, (_, bad) in self._voices.items() if not self.quarantined(member)]
        return 2 * sum(voices) > len(voices)

    # --- standing -----------------------------------------------------------------------------------------------------

    def _record(self, member: NodeId) -> PeerRecord:
        """The record of `member`, about to be changed."""
        self._changed.add(member)
        if (record := self.peers.get(member)) is None:
            record = self.peers[member] = PeerRecord()
        return record

    def _count(self, member: NodeId, odd: bool) -> list[StandingChanged]:
        """Add a model's evidence to its sender's scores."""
        record = self._record(member)
        evidence = record.evidence
        record.faults *= self.FAULTS_KEPT
        if apart := self._apart.get(member, 0):
            self._apart[member] = apart - 1 if evidence > 0 else 0
        if not ((odd or apart) and evidence > 0):
            gross = 1.0 if evidence >= self.GROSS else -self.GROSS_FORGIVEN
            # beyond the threshold a score says who is worse when not everybody can be quarantined
            record.score = min(max(0.0, record.score + evidence), 2 * self.THRESHOLD)
            record.bursts = min(max(0.0, record.bursts + gross), 2 * self.THRESHOLD)
        record.clean = record.clean + 1 if evidence < 0 else 0
        if record.strikes and record.looks - record.struck >= self.STRIKE_LOOKS:
            record.strikes, record.struck = record.strikes // 2, record.looks
        return self._settle(member, "its models")

    def _settle(self, member: NodeId, reason: str) -> list[StandingChanged]:
        """Give `member` the standing that its scores ask for."""
        record = self.peers[member]
        before, changes = record.standing, []
        if before == "quarantined":
            if record.clean >= self.release_after(member) and not record.proven:
                reason = f"{record.clean} clean models in a row"
                changes = self._release(member, reason)
            return changes
        if record.suspicion >= self.THRESHOLD:
            changes = self._make_room(record.suspicion)
            if len(self.releasable) < self._most:
                self._held.add(member)
                record.standing, record.clean, record.struck = "quarantined", 0, record.looks
                record.strikes += 1
        if record.standing != "quarantined":
            suspect = record.suspicion >= self.THRESHOLD / 2
            record.standing = "suspect" if suspect else "trusted"
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
        record.standing, record.score, record.bursts, record.faults = "suspect", self.THRESHOLD / 2, 0.0, 0.0
        return [StandingChanged(member, "quarantined", "suspect", reason, record.numbers)]

    # --- memory -------------------------------------------------------------------------------------------------------

    def changed_records(self) -> dict[NodeId, PeerRecord]:
        """Copies of the records that have changed since they were last asked for: what `Save` makes durable.

        A blank one takes the place of a record that was forgotten.
        """
        changed, self._changed = self._changed, set()
        return {member: self.peers.get(member, PeerRecord()).copied() for member in sorted(changed)}

    def restore(self, scales: Scales | None, records: Mapping[NodeId, PeerRecord], number: int = 0) -> None:
        """Go on from the yardstick's scales and all `changed_records()` of earlier processes, which came to `number`.

        When a peer was judged is not kept: as if all of `records` were of that round.
        """
        self._number = number
        self.yardstick.scales = scales or Scales()
        self.peers = {member: record.copied() for member, record in records.items()}
        self._held = {m for m, r in self.peers.items() if r.standing == "quarantined"}
        self._voices = {m: (number, r.evidence > 0) for m, r in self.peers.items() if r.looks}
