"""The plain average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from p2pfed.core.aggregation.geometry import norm
from p2pfed.core.aggregation.rule import Candidate, Merged, RuleState
from p2pfed.core.record import canonical
from p2pfed.core.weights import Vector


class Mean:
    """The plain average of all models as the node hands them over, each counted once: no defence, the yardstick."""

    name = "mean"

    def note_training(self, before: Vector, after: Vector) -> None:
        """Nothing to remember."""

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

    def state(self) -> bytes:
        """Only the rule's name: there is no memory."""
        return canonical(RuleState(self.name, ""))

    def restore(self, state: bytes) -> None:
        """Nothing to restore."""
