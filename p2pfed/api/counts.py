"""What a node's events since its start add up to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

ROUND_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, math.inf)


@dataclass
class Counts:
    """What the events since the start add up to."""

    updates: Counter[str] = field(default_factory=Counter)
    """Of peers, by `accepted` or the reason why not."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed exchanges that benched a member, by its name."""
    merged: int = 0
    rounds: Counter[int] = field(default_factory=Counter)
    """Completed ones by index of their ROUND_BUCKETS."""
    round_seconds: float = 0.0
    loss: float = 0.0
    displacement: float = 0.0
    decisions: Counter[str] = field(default_factory=Counter)
    """About which model serves, by `promoted` or `held`."""
    auprc: dict[str, float] = field(default_factory=dict)
    """Of the newest evaluated model, by rows."""
    gain: float | None = None
    """AUPRC by which what serves is better than a model that trains alone."""
    served: dict[str, float] = field(default_factory=dict)
    """AUPRC, recall and precision of what served, on the payments whose labels matured last."""

    def rounds_within(self) -> Iterator[tuple[float, int]]:
        """Each of ROUND_BUCKETS with the rounds that took no longer."""
        return zip(ROUND_BUCKETS, accumulate(self.rounds[i] for i in range(len(ROUND_BUCKETS))), strict=True)
