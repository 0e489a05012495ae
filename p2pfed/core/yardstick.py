"""How far a peer's model is and how it judges own rows, in units of what own training does: evidence for reputation.

Odd is not bad: evidence begins well beyond what banks with other customers show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from statistics import median

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.aggregation import Candidate
from p2pfed.core.aggregation.geometry import within
from p2pfed.core.model import ModelSpec
from p2pfed.core.peer_record import PeerRecord, Scales
from p2pfed.core.probe import Probe, Scores
from p2pfed.core.weights import Vector

DRAWN = 32
"""Weights, drawn at random and known to nobody else, by which a model is told from another one."""


class Yardstick:
    """Measures models of others by own training and own rows."""

    MEMORY = 0.8  # of the moving averages of own training
    SCALE_FLOOR = 1e-3  # the own scale is at least this share of the model's norm
    OPINION_FLOOR = 0.03  # own training is taken to change predictions by at least this
    WINDOW = 8  # merges whose peers are remembered for what is usual
    DISTANCE_PRIOR, OPINION_PRIOR, PRIOR_COUNT = 1.6, 1.5, 6  # pseudo-values that steady the medians
    DISTANCE_LIMITS, OPINION_LIMITS = (2.0, 4.0), (1.0, 6.0)  # of what counts as usual
    # Doublings beyond the usual that are still fine. A bank with a few hundred rows moves three times as far as others:
    # as many more as it has fewer rows, up to a limit. Who is farther than everybody may be weighs less by that.
    DISTANCE_OFFSET, OPINION_OFFSET, RECOGNITION_OFFSET = 1.0, 1.75, 1.5
    FEW_ROWS_OFFSET = 2.0
    # Least and most share of a distance that counts: a model with its hidden units in another order predicts the same
    # from far away, as no honest one does. All of it counts where predictions differ by two rounds of own training.
    # Were it one, banks with shifted columns would quarantine each other after some months (bench_year.py, seed 1), and
    # gross attacks on weights would be caught a little more often
    FELT, FELT_AT = (0.25, 1.0), 2.0
    RECOGNITION_FLOOR = 0.05  # added to fraud probabilities before they are compared
    EVIDENCE = (-0.5, 1.0)  # limits of one model's evidence
    NEAR = 0.3  # own scales within which a model is taken for this node's own
    NOVELTY = 0.02  # own scales within which it is taken for the sender's last
    IMAGINE_EVERY = 8  # rounds

    def __init__(self, spec: ModelSpec, seed: int, *, epochs: bool = False) -> None:
        """`seed` of what nobody else shall know: weights to tell models by, and imagined frauds.

        Where rounds are `epochs`, who has more rows takes more steps, and moves farther.
        """
        self._spec, self._epochs = spec, epochs
        self._rng = np.random.default_rng(seed)
        self._drawn = np.sort(self._rng.integers(spec.schema().size, size=DRAWN))
        self._rounds = 0
        self._anew = False
        self.probe = Probe(np.zeros(0, np.float32), np.zeros(0, np.float32))
        self.scales = Scales()
        self._imagined_for: Probe | None = None
        """The probe that frauds were imagined for last."""
        self._own_scores: tuple[Vector, Probe, Scores] | None = None
        self._trained: tuple[list[float], ...] = ()
        """The same weights of this node's own newest models: who hands one of them back brings nothing."""

    def renewed(self, spec: ModelSpec) -> Yardstick:
        """One for another model, which knows nothing yet."""
        return Yardstick(spec, int(self._rng.integers(2**63)), epochs=self._epochs)

    @property
    def fine(self) -> tuple[float, float]:
        """Distance and disagreement up to which a model is no evidence, by what peers were like in recent merges."""
        far = self._usual(self.scales.distances, self.DISTANCE_PRIOR, self.DISTANCE_LIMITS)
        other = self._usual(self.scales.disagreements, self.OPINION_PRIOR, self.OPINION_LIMITS)
        return far * 2**self.DISTANCE_OFFSET, other * 2**self.OPINION_OFFSET

    def unit(self, own: Vector) -> float:
        """What distances to `own` are measured in: as far as a round of own training moves this node."""
        return max(self.scales.moved or 0.0, self.SCALE_FLOOR * float(_distances(own, np.float32(0))), 1e-12)

    def distances(self, own: Vector, models: Sequence[Vector]) -> list[float]:
        """How far `models` are from `own`, in units of own training."""
        return [float(_distances(model, own)) / self.unit(own) for model in models]

    def forget_training(self) -> None:
        """The next training alone says how far one moves: what was learned before is of other times."""
        self._anew = True

    def note_training(self, before: Vector, after: Vector) -> None:
        """Learn what a round of own training moves and changes: the units of all evidence about others."""
        moved = float(_distances(after, before))
        if self._rounds % self.IMAGINE_EVERY == 0 or self.probe is not self._imagined_for:
            self.probe = self._imagined_for = self.probe.imagining(self._spec, after, self._rng)
        self._rounds += 1
        was, now = self.probe.scores(self._spec, np.stack([before, after]))
        self._own_scores = after, self.probe, now
        changed = float(self.probe.disagreements(self._spec, now, was[None])[0])
        if self._anew:
            self._anew, self.scales = False, replace(self.scales, moved=None, changed=None)
        scales = self.scales
        moved, changed = self._average(scales.moved, moved), self._average(scales.changed, changed)
        self._trained = (*self._trained[1 - self.WINDOW :], after[self._drawn].tolist())
        self.scales = replace(scales, moved=moved, changed=changed)

    def brings_nothing(self, record: PeerRecord, vector: Vector) -> bool:
        """Whether a new version is, as it came, the one before again or one that this node trained."""
        drawn = vector[self._drawn].astype("<f4")
        before, record.drawn = np.frombuffer(bytes.fromhex(record.drawn), "<f4").tolist(), drawn.tobytes().hex()
        told: list[float] = drawn.tolist()  # for so few numbers numpy takes several times as long
        scale = (self.scales.moved or 0.0) * math.sqrt(DRAWN / len(vector))  # of so many weights
        if len(before) == DRAWN and math.dist(told, before) < self.NOVELTY * scale:
            return True
        return any(math.dist(told, own) < self.NEAR * scale for own in self._trained)

    def measure(
        self, own: Vector, rows: int, fresh: Sequence[Candidate], records: Sequence[PeerRecord], usual_rows: float
    ) -> None:
        """Note in `records`, one for each of the `fresh` candidates, how they compare with `own`, and what follows.

        `own` was trained on `rows`; `usual_rows` is the median of these and of what the candidates claim, at least 1.
        """
        models = np.concatenate([own[:0], *(c.vector for c in fresh)]).reshape(len(fresh), len(own))
        scale = self.unit(own)
        if self._epochs:  # a bank that moves less than others would find everybody far
            scale *= 2 ** within(math.log2(usual_rows / max(rows, 1)), (0.0, self.FEW_ROWS_OFFSET))
        opinion_scale = max(self.scales.changed or 0.0, self.OPINION_FLOOR)
        mine, theirs = self._scores(own), self.probe.scores(self._spec, models)
        # a bank with more frauds is sooner alarmed by every row, and right to be
        alike = self.probe.at_own_rate(self._spec, mine, theirs)
        disagreements = self.probe.disagreements(self._spec, mine, alike) / opinion_scale
        recognised, recognitions = self.probe.recognitions(self._spec, mine, theirs)
        # a model of another round differs by as much as training moves it meanwhile
        apart = np.array([1 + candidate.apart for candidate in fresh], np.float64)
        distances = np.minimum(_distances(models, own) / (scale * apart), 1e9)
        for i, record in enumerate(records):
            record.distance = float(distances[i])
            record.disagreement, record.recognition = float(disagreements[i]), float(recognitions[i])
        # of echoes and stale models, too, honest peers would look far
        active = [record for record in records if record.standing != "quarantined" and not record.idles]
        self.scales = replace(
            self.scales,
            # near copies of this node's model must not make honest peers look far
            distances=self._remember(self.scales.distances, [r.distance for r in active if r.distance >= self.NEAR]),
            disagreements=self._remember(self.scales.disagreements, [r.disagreement for r in active]),
            recognitions=self._remember(self.scales.recognitions, [r.recognition for r in active]),
        )
        # a bank that knows frauds which nobody else has met must not distrust everybody for that
        known = min(recognised, median([recognised, *chain.from_iterable(self.scales.recognitions)]))
        far, other = self.fine
        for record, candidate in zip(records, fresh, strict=True):
            record.rows = max(record.rows, candidate.rows)
            few = math.log2(usual_rows / max(record.rows, 1))
            unlike = abs(few) if self._epochs else max(few, 0.0)
            record.distance_fine = far * 2 ** min(unlike, self.FEW_ROWS_OFFSET)
            record.nearness = min(1.0, far / max(record.distance, 1e-9))
            self._weigh(record, other, known)

    def _weigh(self, record: PeerRecord, other: float, known: float) -> None:
        """Its evidence is the worst of three, in doublings beyond what is fine.

        How far it is counts less if it changes predictions by less than `FELT_AT` rounds of own training do: honest
        models that have learned apart for some rounds are far apart in weights long before their predictions are.
        """
        missed = (known + self.RECOGNITION_FLOOR) / (record.recognition + self.RECOGNITION_FLOOR)
        # imagined frauds tell who knows none; how much others know of real ones they tell too roughly for weights
        record.agreement = min(1.0, 1 / missed) ** 2 if not len(self.probe.imagined) else 1.0
        disagreement = max(record.disagreement, 1e-9)
        # without rows to look at nothing is known of predictions
        share = within(disagreement / self.FELT_AT, self.FELT) if len(self.probe.held_out) else 1.0
        far = math.log2(max(record.distance * share, 1e-9) / record.distance_fine)
        worst = max(
            far,
            math.log2(disagreement / other),
            math.log2(missed) - self.RECOGNITION_OFFSET,
        )
        record.evidence = min(max(worst, self.EVIDENCE[0]), self.EVIDENCE[1])

    def _remember(self, seen: tuple[tuple[float, ...], ...], new: list[float]) -> tuple[tuple[float, ...], ...]:
        return (*seen[1 - self.WINDOW :], tuple(new))

    def _scores(self, own: Vector) -> Scores:
        """Of this node's own model, which is mostly the one that training ended with."""
        if self._own_scores is None or self._own_scores[0] is not own or self._own_scores[1] is not self.probe:
            self._own_scores = own, self.probe, self.probe.scores(self._spec, own[None])[0]
        return self._own_scores[2]

    def _average(self, before: float | None, new: float) -> float:
        return new if before is None else self.MEMORY * before + (1 - self.MEMORY) * new

    def _usual(self, seen: Iterable[tuple[float, ...]], prior: float, limits: tuple[float, float]) -> float:
        found = median([*chain.from_iterable(seen), *[prior] * self.PRIOR_COUNT])
        return min(max(found, limits[0]), limits[1])


def _distances(models: NDArray[np.float32], other: Vector | np.float32) -> NDArray[np.float64]:
    """Euclidean, of models [..., d] to another one, at most 1e18."""
    with np.errstate(over="ignore"):
        apart = models - other
        lengths: NDArray[np.float64] = np.sqrt(np.vecdot(apart, apart), dtype=np.float64)
    return np.minimum(lengths, 1e18)
