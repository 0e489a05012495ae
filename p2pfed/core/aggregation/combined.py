"""What the rules of the literature share: all models beside each other in double precision, the node's own first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.aggregation.geometry import Doubles, norm
from p2pfed.core.aggregation.rule import Candidate, Memoryless, Merged
from p2pfed.core.weights import Vector

Indices = NDArray[np.intp]


class Combined(Memoryless):
    """A rule that averages the models with weights. Double precision holds the squares of whatever float32 does."""

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """The average of own and others' models with the rule's weights."""
        if not candidates:
            return Merged(own, {}, 0.0)
        candidates = sorted(candidates, key=lambda c: c.member)  # sums in one order, so in one result
        models = np.stack([own, *(c.vector for c in candidates)], dtype=np.float64)
        result, weights = self._combine(models, candidates)
        vector: Vector = result.astype(np.float32)
        shares = dict(zip([c.member for c in candidates], weights[1:].tolist(), strict=True))
        return Merged(vector, shares, norm(np.subtract(vector, own, dtype=np.float64)))

    def _combine(self, models: Doubles, candidates: Sequence[Candidate]) -> tuple[Doubles, Doubles]:
        """The result [d] and the models' weights [1 + k] in it."""
        weights = self._weigh(models, candidates)
        return np.asarray(weights @ models), weights

    @abstractmethod
    def _weigh(self, models: Doubles, candidates: Sequence[Candidate]) -> Doubles:
        """Weights [1 + k] of `models` [1 + k, d], the node's own first; they sum to 1."""


class Counting(Combined):
    """A rule that must know how many of the candidates attack: floor(k / 3) of k, unless it is told."""

    def __init__(self, attackers: int | None = None) -> None:
        """`attackers`: so many of the models in a merge, however many there are; raises ValueError below 0."""
        if attackers is not None and attackers < 0:
            raise ValueError(f"there cannot be {attackers} attackers")
        self.told = attackers

    def attackers(self, candidates: Sequence[Candidate]) -> int:
        """So many of `candidates` are taken for attackers. Who knows better, as an experiment does, overrides this."""
        return len(candidates) // 3 if self.told is None else min(self.told, len(candidates))


def equal_shares(count: int, chosen: Indices) -> Doubles:
    """Weights [count] that give each of the `chosen` indices the same."""
    weights = np.zeros(count)
    weights[chosen] = 1 / len(chosen)
    return weights
