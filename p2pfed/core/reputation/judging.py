"""What this node thinks of each peer, by first-hand evidence alone: how far its models are, how they judge own rows.

Nobody's word about anybody counts, and odd is not bad: evidence begins well beyond what banks with other customers
show, and is measured in units of what own training does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from types import MappingProxyType

from p2pfed.core.aggregation import Candidate
from p2pfed.core.consortium import Declared, usual_rate
from p2pfed.core.events import StandingChanged
from p2pfed.core.model import ModelSpec
from p2pfed.core.reputation.assess import Look
from p2pfed.core.reputation.explanation import Explanation
from p2pfed.core.reputation.ledger import Ledger
from p2pfed.core.reputation.params import STANDARD, ReputationParams
from p2pfed.core.reputation.peer_record import PeerRecord, Scales
from p2pfed.core.reputation.yardstick import Yardstick
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector


@dataclass(frozen=True)
class Judged:
    """What a merge takes of the candidates, and what changed."""

    candidates: list[Candidate]
    changes: list[StandingChanged] = field(default_factory=list)
    odd: bool = False
    """More than half of the peers look bad: then it is this node that is odd, and nothing of that counted."""


class Reputation(Ledger):
    """A ledger whose evidence comes of a yardstick."""

    def __init__(
        self,
        spec: ModelSpec,
        members: int,
        seed: int,
        *,
        epochs: bool = False,
        params: ReputationParams = STANDARD,
        me: NodeId | None = None,
    ) -> None:
        """`members` of the consortium, this node included; `seed` of what nobody else shall know.

        `epochs` says that a round is one epoch of each bank's rows, not the same number of steps for all; `me` under
        what id this node's rate is declared (see `follow`).
        """
        super().__init__(members, params)
        self._me = me
        self._declared: Mapping[NodeId, Declared] = {}
        self.yardstick = Yardstick(spec, seed, params, epochs=epochs)
        self._number = 0
        """The round that was judged last."""
        self._voices: dict[NodeId, tuple[int, bool]] = {}
        """The round in which a peer was judged last, and whether its model was bad."""
        self._apart: dict[NodeId, int] = {}
        """How many more models of who was apart with many count nothing against it, unless a clean one comes."""

    def trust(self, member: NodeId) -> float:
        """Factor on the weight of `member`'s models, 0 to 1."""
        record = self.peers.get(member)
        if record is None:
            return 1.0
        if self.quarantined(member) or self.idles(member):
            return 0.0
        return max(0.0, 1 - record.suspicion / self.params.threshold) * record.newest.agreement

    def idles(self, member: NodeId) -> bool:
        """Whether it weighs nothing for bringing nothing, and tells nothing of what is usual."""
        record = self.peers.get(member)
        return record is not None and record.idle >= self.params.idle

    def explain(self, member: NodeId) -> Explanation:
        """See `Ledger`; of who was not judged since such limits are kept, what is fine is what is so now."""
        why = super().explain(member)
        if why.newest.distance_fine and why.newest.disagreement_fine:
            return why
        far, other = self.yardstick.fine
        return replace(why, newest=replace(why.newest, distance_fine=far, disagreement_fine=other))

    def follow(
        self, members: Sequence[NodeId], declared: Mapping[NodeId, Declared] = MappingProxyType({})
    ) -> list[StandingChanged]:
        """See `Ledger`; `declared` is `Manifest.declared`."""
        self._declared = declared
        self._voices = {member: voice for member, voice in self._voices.items() if member in members}
        self._apart = {member: left for member, left in self._apart.items() if member in members}
        return super().follow(members)

    def pardon(self, member: NodeId) -> list[StandingChanged]:
        """See `Ledger`."""
        self._voices.pop(member, None)
        self._apart.pop(member, None)
        return super().pardon(member)

    def apart(self, members: Iterable[NodeId]) -> None:
        """`members` and this node did not hear each other: many of them were lost at once, or it was away itself.

        Who trains apart is led elsewhere, and is far for some rounds without having done anything bad. Their next
        models count nothing against them, until one is clean: then those who were apart have met. And so again only
        once they were clean for long, for others could go silent again and again, to lie in between.
        """
        for member in members:
            again = self._apart.get(member) == 0 and self._record(member).clean >= self.params.release
            if member not in self._apart or again:
                self._apart[member] = self.params.recent

    def begin_anew(self, spec: ModelSpec) -> list[StandingChanged]:
        """Another model is trained from now on: what members' models were like before says nothing of it.

        Whoever is proven to have lied stays quarantined.
        """
        self.yardstick = self.yardstick.renewed(spec)
        self._voices.clear()
        self._apart.clear()
        return self._forget_models()

    def arrived(self, member: NodeId, vector: Vector) -> None:
        """Count in a row the versions of `member` that bring nothing, as they come."""
        record = self._record(member)
        record.idle = record.idle + 1 if self.yardstick.brings_nothing(record, vector) else 0

    def judge(self, own: Vector, rows: int, candidates: Sequence[Candidate], number: int | None = None) -> Judged:
        """Take the evidence of the new models among `candidates` for a merge into `own`, and give each its trust.

        `own` was trained on `rows`; the merge is that of round `number`, by default of the one after that of the call
        before. Each version counts once, when it is new; vectors are float32 [d] and not written to. Who has no trust
        left is not among the answered candidates.
        """
        fresh = {c.member: c for c in candidates if c.waited == 0}
        told = [self._told(candidate.member).training_rows or 1 for candidate in candidates]
        usual_rows = median([max(rows, 1), *(max(c.rows, least) for c, least in zip(candidates, told, strict=True))])
        self._number = self._number + 1 if number is None else number
        looks = [self._look(candidate, usual_rows) for candidate in fresh.values()]
        found = self.yardstick.measure(own, rows, looks, usual_rows, self._rates(candidates))
        for member, assessment in zip(fresh, found, strict=True):
            record = self.peers[member]
            record.newest = assessment
            record.looks += 1
        odd = self._odd(fresh)
        changes = []
        for member in sorted(fresh, key=lambda m: (-self.peers[m].suspicion, m)):
            changes += self._count(member, self._spares(member) or odd)
        return Judged(self.trusted(candidates), changes, odd)

    def trusted(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those of `candidates` whose members have any trust left, with it."""
        return [c._replace(trust=trust) for c in candidates if (trust := self.trust(c.member)) > 0]

    def restore(self, scales: Scales | None, records: Mapping[NodeId, PeerRecord], number: int = 0) -> None:
        """Go on from the yardstick's scales and all `changed_records()` of earlier processes, which came to `number`.

        When a peer was judged is not kept: as if all of `records` were of that round.
        """
        self._remember(records)
        self.yardstick.restore(scales or Scales())
        self._number = number
        self._voices = {m: (number, r.newest.evidence > 0) for m, r in self.peers.items() if r.looks}

    def _rates(self, candidates: Sequence[Candidate]) -> tuple[float | None, float | None]:
        """What this node told of its base rate, and what is usual among that and what `candidates`' members told."""
        own = self._told(self._me).legitimate_per_fraud
        return own, usual_rate([own, *(self._told(candidate.member).legitimate_per_fraud for candidate in candidates)])

    def _look(self, candidate: Candidate, usual_rows: float) -> Look:
        record = self._record(candidate.member)
        record.rows = max(record.rows, candidate.rows)
        # of echoes and stale models, too, honest peers would look far
        counts = record.standing != "quarantined" and not self.idles(candidate.member)
        told = self._told(candidate.member)
        # to claim few rows costs nothing: what an admin has read counts, and who told nothing is hardly let off
        least = told.training_rows or int(usual_rows / 4)
        return Look(candidate, max(record.rows, least), counts, told.legitimate_per_fraud)

    def _told(self, member: NodeId | None) -> Declared:
        return self._declared.get(member, Declared()) if member else Declared()

    def _spares(self, member: NodeId) -> bool:
        """Whether `apart` spares the member's newest model; a clean one ends that."""
        left = self._apart.get(member, 0)
        if left:
            self._apart[member] = left - 1 if self.peers[member].newest.evidence > 0 else 0
        return left > 0

    def _odd(self, fresh: Iterable[NodeId]) -> bool:
        """Whether most peers look bad: by the newest evidence of all judged lately, not of one merge's few alone.

        Of two nobody can say which of them is odd, and who was heard long ago says nothing of now.
        """
        self._voices.update((member, (self._number, self.peers[member].newest.evidence > 0)) for member in fresh)
        recent = self.params.recent
        self._voices = {m: v for m, v in self._voices.items() if abs(self._number - v[0]) < recent}
        voices = [bad for member, (_, bad) in self._voices.items() if not self.quarantined(member)]
        return 2 * sum(voices) > len(voices)
