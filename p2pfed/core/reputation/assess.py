"""How bad one model is: how far it is, how it judges own rows, in units of what own training does.

Odd is not bad: evidence begins well beyond what banks with other customers show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import NamedTuple

import numpy as np

from p2pfed.core import training_scale
from p2pfed.core.aggregation import Candidate
from p2pfed.core.aggregation.geometry import within
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe, Scores
from p2pfed.core.reputation.params import ReputationParams
from p2pfed.core.reputation.peer_record import Assessment, Scales
from p2pfed.core.weights import Vector


class Look(NamedTuple):
    """A new model, and what else is known of its sender."""

    candidate: Candidate
    rows: int
    """Most training rows that the sender ever claimed, or told when it joined."""
    counts: bool
    """Whether it tells what is usual: not in quarantine, and none of those that bring nothing."""
    rate: float | None = None
    """`Member.legitimate_per_fraud` of its sender."""


@dataclass(frozen=True)
class Own:
    """What models are held against."""

    spec: ModelSpec
    vector: Vector
    """float32 [d]."""
    unit: float
    """`TrainingScale.unit` of `vector`."""
    rows: int
    """Training rows of this node."""
    usual_rows: float
    """Median of these and of what the members claim, at least 1."""
    scores: Scores
    """`Probe.scores` of `vector`."""
    epochs: bool = False
    """Rounds are epochs: who has more rows takes more steps, and moves farther."""
    rate: float | None = None
    """`Member.legitimate_per_fraud` of this node."""
    usual_rate: float | None = None
    """Of these and of the members' whose models are at hand; see `usual_rate`."""


class _Seen(NamedTuple):
    distance: float
    disagreement: float
    plainly: float
    """The same, with what another share of frauds explains."""
    recognition: float


def assess(
    own: Own, looks: Sequence[Look], scales: Scales, probe: Probe, params: ReputationParams
) -> tuple[list[Assessment], Scales]:
    """What each of `looks` comes to, and the scales with what was usual among them.

    Evidence is the worst of four, in doublings: distance, disagreement and recognition beyond what is fine for that
    member, and beyond `allowed` the Euclidean length of what all three are beyond what is fine for anybody: who is
    allowed more may use it once.
    """
    recognised, seen = _see(own, looks, scales, probe, params)
    counting = [one for one, look in zip(seen, looks, strict=True) if look.counts]
    scales = _remembering(scales, counting, params)
    # a bank that knows frauds which nobody else has met must not distrust everybody for that
    known = min(recognised, median([recognised, *chain.from_iterable(scales.recognitions)]))
    weigh = _Weigh(own, probe, params, *fine(scales, params), known)
    return [weigh.assessment(one, look) for one, look in zip(seen, looks, strict=True)], scales


def fine(scales: Scales, params: ReputationParams) -> tuple[float, float]:
    """Distance and disagreement up to which a model is no evidence, by what peers were like in recent merges."""
    far = _usual(scales.distances, params.usual_distance)
    other = _usual(scales.disagreements, params.usual_disagreement)
    return far * 2**params.distance_doublings, other * 2**params.disagreement_doublings


def _see(
    own: Own, looks: Sequence[Look], scales: Scales, probe: Probe, params: ReputationParams
) -> tuple[float, list[_Seen]]:
    """How well the own model recognises frauds, and what each of the others is like."""
    candidates = [look.candidate for look in looks]
    models = np.concatenate([own.vector[:0], *(c.vector for c in candidates)]).reshape(len(candidates), len(own.vector))
    scale = own.unit
    if own.epochs:  # a bank that moves less than others would find everybody far
        scale *= 2 ** within(math.log2(own.usual_rows / max(own.rows, 1)), (0.0, params.allowed))
    theirs = probe.scores(own.spec, models)
    # a bank with more frauds is sooner alarmed by every row, and right to be
    most = math.log2(params.rates)
    apart = [within(_doublings(own.rate, look.rate), (-most, most)) for look in looks]
    alike = probe.at_own_rate(own.spec, own.scores, theirs, math.log(2) * np.array(apart))
    changed = max(scales.changed or 0.0, params.least_changed)
    explained, plain = (probe.disagreements(own.spec, own.scores, said) / changed for said in (alike, theirs))
    disagreements = np.minimum(explained, plain)  # what a bank told must not count against it
    recognised, recognitions = probe.recognitions(own.spec, own.scores, theirs)
    # a model of another round differs by as much as training moves it meanwhile
    rounds = np.array([1 + candidate.apart for candidate in candidates], np.float64)
    distances = np.minimum(training_scale.distances(models, own.vector) / (scale * rounds), 1e9)
    return recognised, [
        _Seen(*map(float, one)) for one in zip(distances, disagreements, plain, recognitions, strict=True)
    ]


def _remembering(scales: Scales, seen: Sequence[_Seen], params: ReputationParams) -> Scales:
    def after(before: tuple[tuple[float, ...], ...], new: Iterable[float]) -> tuple[tuple[float, ...], ...]:
        return (*before, tuple(new))[-params.recent :]

    return replace(
        scales,
        distances=after(scales.distances, (s.distance for s in seen)),
        disagreements=after(scales.disagreements, (s.disagreement for s in seen)),
        recognitions=after(scales.recognitions, (s.recognition for s in seen)),
    )


def _usual(seen: Iterable[tuple[float, ...]], limits: tuple[float, float]) -> float:
    return within(training_scale.usual(chain.from_iterable(seen)), limits)


def _doublings(rate: float | None, other: float | None) -> float:
    """How much more seldom frauds are by the first rate; 0 where one of them is not known."""
    return 0.0 if rate is None or other is None else math.log2(rate / other)


class _Weigh(NamedTuple):
    own: Own
    probe: Probe
    params: ReputationParams
    far: float
    """Distance up to which a model is fine."""
    other: float
    """The same for disagreement."""
    known: float
    """How well own frauds are usually recognised."""

    def assessment(self, seen: _Seen, look: Look) -> Assessment:
        """What one model comes to."""
        params = self.params
        few = math.log2(self.own.usual_rows / max(look.rows, 1))
        # a few hundred rows beside thousands are learned by heart, and unusual customers decide more of them
        hardly = within(few - params.few_rows_from, (0.0, params.allowed))
        far, other, spared = self._allowed(few, hardly, look)
        missed = (self.known + params.unknown) / (seen.recognition + params.unknown)
        beyond = (
            math.log2(max(seen.distance * self._felt(seen, hardly), 1e-9) / self.far),
            math.log2(max(seen.disagreement, 1e-9) / self.other),
            math.log2(missed) - params.recognition_halvings,
        )
        excess = math.hypot(*(max(doublings, 0.0) for doublings in beyond))
        worst = max(beyond[0] - far, beyond[1] - other, beyond[2] - spared, excess - params.allowed)
        least_known = (self.known + params.unknown) / 2 ** (params.recognition_halvings + spared) - params.unknown
        return Assessment(
            distance=seen.distance,
            distance_fine=self.far * 2**far,
            disagreement=seen.disagreement,
            disagreement_fine=self.other * 2**other,
            recognition=seen.recognition,
            recognition_fine=max(least_known, 0.0),
            excess=excess,
            excess_fine=params.allowed,
            # imagined frauds tell who knows none; how much others know of real ones they tell too roughly for weights,
            # but for those who are let off for few rows or rare frauds
            agreement=min(1.0, 1 / missed) ** 2 if spared or not len(self.probe.imagined) else 1.0,
            evidence=min(max(worst, -params.forgiven), 1.0),
        )

    def _allowed(self, few: float, hardly: float, look: Look) -> tuple[float, float, float]:
        """Doublings of distance, disagreement and missed frauds that a bank may be beyond what is fine.

        It has half of the usual rows `few` times, of which `hardly` count for predictions.
        """
        params = self.params
        unlike = abs(few) if self.own.epochs else max(few, 0.0)
        apart = abs(_doublings(look.rate, self.own.rate))
        rarer = _doublings(look.rate, self.own.usual_rate)
        return (
            min(unlike + self._beyond(abs(rarer)), params.allowed),
            min(hardly + self._beyond(apart), params.allowed),
            # who sees hardly any fraud forgets what the others know of them
            min(hardly + self._beyond(rarer, params.rarer), params.allowed),
        )

    def _felt(self, seen: _Seen, hardly: float) -> float:
        """Share of a distance that counts: less if it changes predictions by less than `felt_at` rounds of own training
        do. Honest models that have learned apart for some rounds are far apart in weights long before they predict
        otherwise. So are those of a few hundred rows, whose predictions may differ by more.
        """
        if not len(self.probe.held_out):  # without rows to look at nothing is known of predictions
            return 1.0
        # of what another base rate explains half is felt: with all of it, banks with 13 times the others' frauds are
        # quarantined in a simulated month (5 of 396 pairs), with none, nine of 144 stale pairs are not (ulb)
        shows = math.sqrt(seen.plainly * seen.disagreement) / (self.params.felt_at * 2**hardly)
        return within(shows, (self.params.felt, 1.0))

    def _beyond(self, doublings: float, times: float | None = None) -> float:
        """What is allowed for base rates that differ by so many doublings: nothing up to `times`, or `rates`."""
        return within(doublings - math.log2(times or self.params.rates), (0.0, self.params.allowed))
