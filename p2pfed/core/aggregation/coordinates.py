"""Rules that look at each coordinate by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from p2pfed.core.aggregation.combined import Counting
from p2pfed.core.aggregation.geometry import Doubles
from p2pfed.core.aggregation.rule import Candidate


class TrimmedMean(Counting):
    """In each coordinate the mean of what is left without the f largest and the f smallest values.

    Yin, Chen, Ramchandran, Bartlett 2018 (arXiv 1803.01498, definition 2), with the node's own model among the others;
    BRIDGE-T in gossip (Fang, Yang, Bajwa 2022, arXiv 1908.08649). Needs the number f of attackers; with f of them the
    result is, in every coordinate, between the smallest and the largest honest value. Its weak point: what only one
    bank has learned is an extreme value and is trimmed away, while a small shift of all coordinates (ALIE) passes.

    A model's weight is the mean of its weights in all coordinates.
    """

    name = "trimmed_mean"

    def _combine(self, models: Doubles, candidates: Sequence[Candidate]) -> tuple[Doubles, Doubles]:
        """Mean of the middle n - 2f values; of at least one, or of the two in the middle."""
        n = len(models)
        trim = min(self._trimmed(candidates), (n - 1) // 2)
        kept = models.argsort(axis=0, kind="stable")[trim : n - trim]
        weights = np.bincount(kept.ravel(), minlength=n) / kept.size
        return np.take_along_axis(models, kept, axis=0).mean(axis=0), weights

    def _trimmed(self, candidates: Sequence[Candidate]) -> int:
        """So many values are left out at either end."""
        return self.attackers(candidates)


class Median(TrimmedMean):
    """In each coordinate the median, or the mean of the two in the middle.

    Yin, Chen, Ramchandran, Bartlett 2018 (arXiv 1803.01498, definition 1), with the node's own model among the others.
    Needs no number of attackers: fewer than half of the models cannot move a coordinate beyond the honest ones. Its
    weak point is the trimmed mean's, more so: with unlike banks the median is nobody's model.
    """

    name = "median"

    def __init__(self) -> None:
        super().__init__()

    def _trimmed(self, candidates: Sequence[Candidate]) -> int:
        """All but the middle."""
        return len(candidates) // 2
