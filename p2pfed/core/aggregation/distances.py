"""Rules that choose and weigh whole models by how far they are from each other, or from this node's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from p2pfed.core.aggregation.combined import Combined, Counting, equal_shares
from p2pfed.core.aggregation.geometry import Doubles, squared_distances
from p2pfed.core.aggregation.rule import Candidate


class GeometricMedian(Combined):
    """The point whose distances to all models, the node's own among them, have the least sum.

    RFA (Pillutla, Kakade, Harchaoui 2022, arXiv 1912.13445): the smoothed Weiszfeld algorithm, which repeats z <- sum_j
    b_j x_j / sum_j b_j with b_j = 1 / max(nu, ||z - x_j||). Begun at the coordinate median instead of the mean, it is
    among the honest models from the start however far others are. Needs no number of attackers: fewer than half move it
    by a bounded multiple of the honest models' spread. Its weak point: with unlike banks that spread is wide, and
    attackers within it (ALIE, copies of one model) drag the point towards them.
    """

    name = "geometric_median"

    NU = 1e-6  # distance below which a model attracts no more strongly
    STEPS = 100  # of the algorithm, at most
    CLOSE = 1e-9  # a step that changes no weight by more ends it

    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Inverse distances to the point that was found."""
        weights = _attraction(models, np.median(models, axis=0), self.NU)
        for _ in range(self.STEPS - 1):
            before, weights = weights, _attraction(models, weights @ models, self.NU)
            if np.abs(weights - before).max() <= self.CLOSE:
                break
        return weights


class MultiKrum(Counting):
    """The mean of the n - f models that have the smallest scores of Krum.

    Blanchard, El Mhamdi, Guerraoui, Stainer 2017 (arXiv 1703.02757, section 4, and its m-Krum): a model's score is the
    sum of the squared distances to its n - f - 2 nearest others, the node's own model being one of the n. Needs the
    number f of attackers, and n > 2f + 2 of them to promise anything. Its weak point: a bank unlike the others never
    scores well, so what only it knows is lost, and f attackers who agree with each other score best of all.
    """

    name = "multi_krum"

    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Equal weights for the chosen."""
        n, attackers = len(models), self.attackers(candidates)
        squares = np.sort(squared_distances(models), axis=1)[:, 1:]  # without the distance to itself
        scores = squares[:, : max(n - attackers - 2, 1)].sum(axis=1)
        return equal_shares(n, scores.argsort(kind="stable")[: self._chosen(n, attackers)])

    def _chosen(self, models: int, attackers: int) -> int:
        """So many of `models` are averaged."""
        return max(models - attackers, 1)


class Krum(MultiKrum):
    """The one model that has the smallest sum of squared distances to its n - f - 2 nearest others.

    Blanchard, El Mhamdi, Guerraoui, Stainer 2017 (arXiv 1703.02757, section 4). Needs the number f of attackers. Its
    weak point: it answers with one bank's model and forgets the others', the node's own too, which costs most where
    banks differ, without any attacker.
    """

    name = "krum"

    def _chosen(self, models: int, attackers: int) -> int:
        """Only the best."""
        return 1


class NearestNeighbours(Counting):
    """The mean of the node's own model and the k - f models that are nearest to it.

    Nearest-neighbour averaging, MoNNA (Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan 2023, arXiv 2209.10931).
    Needs the number f of attackers; told the truth in every merge it is the best rule without memory. With at most f of
    them no model is taken that is farther than the farthest honest one. Its weak point: it always drops f, so honest
    banks unlike this one are never heard, and attackers who stay near are.
    """

    name = "nna"

    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Equal weights for the nearest."""
        apart = models - models[0]
        nearest = np.vecdot(apart, apart).argsort(kind="stable")
        return equal_shares(len(models), nearest[: len(models) - self.attackers(candidates)])


def _attraction(models: Doubles, point: Doubles, least: float) -> Doubles:
    """Shares [n] in inverse proportion to the distance from `point` [d], which counts as `least` at least."""
    apart = models - point
    attraction = 1 / np.maximum(np.sqrt(np.vecdot(apart, apart)), least)
    shares: Doubles = attraction / attraction.sum()
    return shares
