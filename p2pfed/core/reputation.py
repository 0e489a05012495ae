"""What this node thinks of each peer, by first-hand evidence alone: how far its models are, how they judge own rows.

Per peer a CUSUM score (Page 1954), floored at 0 so that no good behaviour can be banked, gathers the evidence of every
new model. At half the threshold a peer is suspect, at the threshold it is quarantined: its models weigh nothing until
enough of them in a row were clean. Nobody's word about anybody counts, and odd is not bad: evidence begins well beyond
what banks with other customers show, and is measured in units of what own training does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import median

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.aggregation import Candidate
from p2pfed.core.events import StandingChanged
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe, Scores
from p2pfed.core.record import RecordError, canonical, parse
from p2pfed.core.types import NodeId, Reason, Standing
from p2pfed.core.weights import Vector
from p2pfed.errors import StateCorrupt

SKETCH = 64
"""Numbers that a model is projected to at random: enough to see whether the next one is new."""

FAULTS = {Reason.NOT_FINITE: 4.0, Reason.WRONG_SCHEMA: 4.0, Reason.OVERSIZE: 2.0}
"""What breaking the protocol adds to a peer's faults; every other rejection adds 1."""


@dataclass
class PeerRecord:
    """What is kept of one peer; it survives restarts and absences."""

    standing: Standing = "trusted"
    score: float = 0.0
    """CUSUM of the evidence."""
    bursts: float = 0.0
    """CUSUM of gross evidence alone, which forgives slowly: it finds who attacks now and then."""
    proven: bool = False
    """It signed two different updates with one number: quarantined, beyond what may be, until the operator's pardon."""
    faults: float = 0.0
    """Broken rules of the protocol; a tenth is forgiven with every model."""
    strikes: int = 0
    """How often it was quarantined; halved after `STRIKE_LOOKS` models."""
    looks: int = 0
    """Models judged so far."""
    struck: int = 0
    """Models judged when it was quarantined, or when its strikes were halved, last."""
    clean: int = 0
    """Clean models in a row since it was quarantined."""
    idle: int = 0
    """Models in a row that brought nothing: the one before again, or this node's own."""
    distance: float = 0.0
    """Of its newest model, in own scales."""
    disagreement: float = 0.0
    """Of its newest model about held-out rows, in units of what own training changes there."""
    recognition: float = 1.0
    """Mean fraud probability that its newest model gives this bank's frauds."""
    agreement: float = 1.0
    """Factor on its weight: the square of its recognition beside what is usual, at most 1."""
    evidence: float = 0.0
    """Of its newest model: above 0 is bad."""
    sketch: str = ""
    """Its newest model as it arrived, projected: float32 [SKETCH], little-endian, hex."""

    @property
    def suspicion(self) -> float:
        """The worst of what speaks against it; 4 quarantines."""
        return max(self.score, self.bursts, self.faults**2 / 4)


@dataclass(frozen=True)
class Judged:
    """What a merge takes of the candidates, and what changed."""

    candidates: list[Candidate]
    changes: list[StandingChanged] = field(default_factory=list)
    odd: bool = False
    """More than half of the peers look bad: then it is this node that is odd, and nothing of that counted."""


@dataclass(frozen=True)
class _Scales:
    """What evidence is measured in: own training's moving averages, and what was seen of peers in recent merges."""

    moved: float | None = None
    changed: float | None = None
    distances: tuple[tuple[float, ...], ...] = ()
    disagreements: tuple[tuple[float, ...], ...] = ()
    recognitions: tuple[tuple[float, ...], ...] = ()


class Reputation:
    """Scores of all peers, and the scales that they are measured in."""

    MEMORY = 0.8  # of the moving averages of own training
    SCALE_FLOOR = 1e-3  # the own scale is at least this share of the model's norm
    OPINION_FLOOR = 0.03  # own training is taken to change predictions by at least this
    WINDOW = 8  # merges whose peers are remembered for what is usual
    DISTANCE_PRIOR, OPINION_PRIOR, PRIOR_COUNT = 1.6, 1.5, 6  # pseudo-values that steady the medians
    DISTANCE_LIMITS, OPINION_LIMITS = (2.0, 4.0), (1.0, 6.0)  # of what counts as usual
    # Doublings beyond the usual that are still fine. A bank with a few hundred rows moves three times as far as others.
    DISTANCE_OFFSET, OPINION_OFFSET, RECOGNITION_OFFSET = 2.0, 1.75, 2.0
    RECOGNITION_FLOOR = 0.05  # added to fraud probabilities before they are compared
    EVIDENCE = (-0.5, 1.0)  # limits of one model's evidence
    THRESHOLD = 4.0
    GROSS, GROSS_FORGIVEN = 0.95, 0.1  # what counts for `bursts`, and what a finer model takes off
    FAULTS_KEPT = 0.9
    RELEASE = 10  # clean models in a row; twice as many with every strike
    STRIKE_LOOKS = 1000
    NEAR = 0.3  # own scales within which a model is taken for this node's own
    NOVELTY, IDLE_TIMES = 0.02, 3  # own scales within which it is taken for the sender's last; how often that may be

    def __init__(self, spec: ModelSpec, members: int, seed: int) -> None:
        """`members` of the consortium, this node included; `seed` of the projection."""
        self._spec, self._seed, self.members = spec, seed, members
        self.probe = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))
        self.peers: dict[NodeId, PeerRecord] = {}
        self._changed: set[NodeId] = set()
        self._scales = _Scales()
        self._signs: NDArray[np.float32] | None = None
        self._own_scores: tuple[Vector, Scores] | None = None
        self._trained = np.zeros((0, SKETCH))
        """Sketches of this node's own newest models: who hands one of them back brings nothing."""
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

    def trust(self, member: NodeId) -> float:
        """Factor on the weight of `member`'s models, 0 to 1."""
        record = self.peers.get(member)
        if record is None:
            return 1.0
        if self.quarantined(member) or record.idle >= self.IDLE_TIMES:
            return 0.0
        return max(0.0, 1 - record.suspicion / self.THRESHOLD) * record.agreement

    def fine(self) -> tuple[float, float]:
        """Distance and disagreement up to which a model is no evidence, by what peers were like in recent merges."""
        far = self._usual(self._scales.distances, self.DISTANCE_PRIOR, self.DISTANCE_LIMITS)
        other = self._usual(self._scales.disagreements, self.OPINION_PRIOR, self.OPINION_LIMITS)
        return far * 2**self.DISTANCE_OFFSET, other * 2**self.OPINION_OFFSET

    def release_after(self, member: NodeId) -> int:
        """Clean models in a row that end the quarantine of `member`."""
        record = self.peers.get(member)
        return int(self.RELEASE * 2 ** (record.strikes - 1)) if record and record.strikes else self.RELEASE

    # --- told by the node ---------------------------------------------------------------------------------------------

    def note_training(self, before: Vector, after: Vector) -> None:
        """Learn what a round of own training moves and changes: the units of all evidence about others."""
        moved = _length(after.astype(np.float64) - before)
        was = self.probe.scores(self._spec, [before])
        changed = float(self.probe.disagreements(self._spec, self._scores(after), was)[0])
        scales = self._scales
        moved, changed = self._average(scales.moved, moved), self._average(scales.changed, changed)
        self._trained = np.concatenate([self._trained[1 - self.WINDOW :], self._sketch(after)[None]])
        self._scales = replace(scales, moved=moved, changed=changed)

    def arrived(self, member: NodeId, vector: Vector) -> None:
        """Look whether a new version, as it came, is another than the one before and none that this node trained."""
        record, scale = self._record(member), self._scales.moved or 0.0
        sketch = self._sketch(vector)
        before = bytes.fromhex(record.sketch)
        stale = bool(before) and _length(sketch - np.frombuffer(before, "<f4")) < self.NOVELTY * scale
        echo = bool((np.square(self._trained - sketch).sum(axis=1) < (self.NEAR * scale) ** 2).any())
        record.idle = record.idle + 1 if stale or echo else 0
        record.sketch = sketch.astype("<f4").tobytes().hex()

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
        self.peers[member] = PeerRecord(strikes=before.strikes, looks=before.looks, sketch=before.sketch)
        if before.standing == "trusted":
            return []
        return [StandingChanged(member, before.standing, "trusted", "pardoned by the operator", {})]

    def judge(self, own: Vector, candidates: Sequence[Candidate]) -> Judged:
        """Take the evidence of the new models among `candidates` for a merge into `own`, and give each its trust.

        Each version counts once, when it is new; vectors are float32 [d] and not written to. Who has no trust left is
        not among the answered candidates.
        """
        fresh = {c.member: c for c in candidates if c.waited == 0}
        known = self._look(own, list(fresh.values()))
        for member in fresh:
            self.peers[member].evidence = self._evidence(self.peers[member], known)
        # the newest evidence of every peer, not of this merge's few: by chance most of these are attackers
        voices = [r.evidence > 0 for m, r in self.peers.items() if r.looks and not self.quarantined(m)]
        odd = len(voices) >= 3 and 2 * sum(voices) > len(voices)
        changes = []
        for member in sorted(fresh, key=lambda m: (-self.peers[m].suspicion, m)):
            changes += self._count(member, odd)
        trusted = [c._replace(trust=trust) for c in candidates if (trust := self.trust(c.member)) > 0]
        return Judged(trusted, changes, odd)

    # --- evidence -----------------------------------------------------------------------------------------------------

    def _look(self, own: Vector, fresh: Sequence[Candidate]) -> float:
        """Measure new models beside `own`; returns how well this bank's frauds are usually recognised."""
        scale = max(self._scales.moved or 0.0, self.SCALE_FLOOR * _length(own.astype(np.float64)), 1e-12)
        opinion_scale = max(self._scales.changed or 0.0, self.OPINION_FLOOR)
        mine, theirs = self._scores(own), self.probe.scores(self._spec, [c.vector for c in fresh])
        disagreements = self.probe.disagreements(self._spec, mine, theirs) / opinion_scale
        recognised, recognitions = self.probe.recognitions(self._spec, mine, theirs)
        active = []
        for i, candidate in enumerate(fresh):
            record = self._record(candidate.member)
            record.distance = min(_length(candidate.vector.astype(np.float64) - own) / scale, 1e9)
            record.disagreement, record.recognition = float(disagreements[i]), float(recognitions[i])
            record.looks += 1
            if not self.quarantined(candidate.member):
                active.append(record)
        self._scales = replace(
            self._scales,
            # near copies of this node's model must not make honest peers look far
            distances=self._remember(self._scales.distances, [r.distance for r in active if r.distance >= self.NEAR]),
            disagreements=self._remember(self._scales.disagreements, [r.disagreement for r in active]),
            recognitions=self._remember(self._scales.recognitions, [r.recognition for r in active]),
        )
        # a bank that knows frauds which nobody else has met must not distrust everybody for that
        return min(recognised, median([recognised, *chain.from_iterable(self._scales.recognitions)]))

    def _evidence(self, record: PeerRecord, known: float) -> float:
        """The worst of three, in doublings beyond what is fine; sets `agreement`."""
        scales = self._scales
        far = self._usual(scales.distances, self.DISTANCE_PRIOR, self.DISTANCE_LIMITS)
        other = self._usual(scales.disagreements, self.OPINION_PRIOR, self.OPINION_LIMITS)
        missed = (known + self.RECOGNITION_FLOOR) / (record.recognition + self.RECOGNITION_FLOOR)
        record.agreement = min(1.0, 1 / missed) ** 2
        worst = max(
            math.log2(max(record.distance, 1e-9) / far) - self.DISTANCE_OFFSET,
            math.log2(max(record.disagreement, 1e-9) / other) - self.OPINION_OFFSET,
            math.log2(missed) - self.RECOGNITION_OFFSET,
        )
        return min(max(worst, self.EVIDENCE[0]), self.EVIDENCE[1])

    def _usual(self, seen: Iterable[tuple[float, ...]], prior: float, limits: tuple[float, float]) -> float:
        found = median([*chain.from_iterable(seen), *[prior] * self.PRIOR_COUNT])
        return min(max(found, limits[0]), limits[1])

    def _remember(self, seen: tuple[tuple[float, ...], ...], new: list[float]) -> tuple[tuple[float, ...], ...]:
        return (*seen[1 - self.WINDOW :], tuple(new))

    def _scores(self, own: Vector) -> Scores:
        """Of a model of this node's own, which is asked about twice a round."""
        if self._own_scores is None or self._own_scores[0] is not own:
            self._own_scores = own, self.probe.scores(self._spec, [own])[0]
        return self._own_scores[1]

    def _average(self, before: float | None, new: float) -> float:
        return new if before is None else self.MEMORY * before + (1 - self.MEMORY) * new

    def _sketch(self, vector: Vector) -> NDArray[np.float64]:
        if self._signs is None:
            padded = len(vector) + -len(vector) % SKETCH
            self._signs = np.random.default_rng(self._seed).choice(np.array([-1, 1], np.float32), padded)
            self._signs[len(vector) :] = 0
        signed = self._signs.copy()
        signed[: len(vector)] *= vector
        sketch: NDArray[np.float64] = signed.reshape(-1, SKETCH).sum(axis=0, dtype=np.float64).clip(-1e30, 1e30)
        return sketch

    # --- standing -----------------------------------------------------------------------------------------------------

    def _record(self, member: NodeId) -> PeerRecord:
        """The record of `member`, about to be changed."""
        self._changed.add(member)
        return self.peers.setdefault(member, PeerRecord())

    def _count(self, member: NodeId, odd: bool) -> list[StandingChanged]:
        """Add a model's evidence to its sender's scores."""
        record = self._record(member)
        evidence = record.evidence
        record.faults *= self.FAULTS_KEPT
        if not (odd and evidence > 0):
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
            changes.append(StandingChanged(member, before, record.standing, reason, _numbers(record)))
        return changes

    @property
    def _most(self) -> int:
        """So many may be quarantined: fewer than half, but of three banks one."""
        return max(1, (self.members - 1) // 2)

    def _make_room(self, suspicion: float) -> list[StandingChanged]:
        """Release the least suspected one if the quarantine is full and somebody clearly worse waits."""
        held = self.releasable
        if len(held) < self._most:
            return []
        least = min(held, key=lambda m: (self.peers[m].suspicion, m))
        if self.peers[least].suspicion + 1 > suspicion:
            return []
        return self._release(least, "its place was needed for a worse one")

    def _release(self, member: NodeId, reason: str) -> list[StandingChanged]:
        record = self._record(member)
        self._held.discard(member)
        record.standing, record.score, record.bursts, record.faults = "suspect", self.THRESHOLD / 2, 0.0, 0.0
        return [StandingChanged(member, "quarantined", "suspect", reason, _numbers(record))]

    # --- memory -------------------------------------------------------------------------------------------------------

    def changed_records(self) -> dict[NodeId, bytes]:
        """The records that have changed since they were last asked for, as JSON: what `Save` makes durable."""
        changed, self._changed = self._changed, set()
        return {member: canonical(self.peers[member]) for member in sorted(changed)}

    def state(self) -> bytes:
        """The scales as JSON, for the checkpoint."""
        return canonical(self._scales)

    def restore(self, scales: bytes, records: Mapping[NodeId, bytes]) -> None:
        """Go on from `state()` and all `changed_records()` of earlier processes; raises StateCorrupt."""
        try:
            if scales:
                self._scales = parse(_Scales, scales)
            self.peers = {member: parse(PeerRecord, record) for member, record in records.items()}
            self._held = {m for m, r in self.peers.items() if r.standing == "quarantined"}
        except RecordError as error:
            raise StateCorrupt(f"the remembered reputation is unreadable: {error}") from None


def _length(vector: NDArray[np.float64]) -> float:
    """Euclidean; `np.linalg.norm` spends more on finding out that it is one vector."""
    return math.sqrt(vector.dot(vector))


def _numbers(record: PeerRecord) -> dict[str, float]:
    """What stood behind a decision."""
    names = ("score", "bursts", "faults", "distance", "disagreement", "recognition", "evidence", "strikes", "looks")
    return {name: float(getattr(record, name)) for name in names}
