"""The plain average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from p2pfed.core.aggregation.geometry import norm
from p2pfed.core.aggregation.rule import Candidate, Memoryless, Merged
from p2pfed.core.weights import Vector


class Mean(Memoryless):
    """The plain average of all models as the node hands them over, each counted once: no defence, the yardstick."""

    name = "mean"

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """(own + sum of the others) / (1 + k)."""
        if not candidates:
            return Merged(own, {}, 0.0)
        share = 1.0 / (1 + len(candidates))
        total = own.astype(np.float64)
        for candidate in sorted(candidates, key=lambda c: c.member):  # sums in one order, so in one result
            total += candidate.vector
        mean: Vector = (share * total).astype(np.float32)
        moved = norm(np.subtract(mean, own, dtype=np.float64))
        return Merged(mean, {c.member: share for c in candidates}, moved)
