"""What a round of own training does: the unit of the clip's radius and of all evidence about others."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

MEMORY = 0.8
"""Of the moving averages of own training, a round. Higher follows a learning rate that decays more slowly."""
LEAST = 1e-3
"""A round moves at least this share of the model's norm: who has learned all it can must not find everybody far."""

PRIOR, PRIOR_COUNT = 1.6, 6
"""What others are usually from this node, in these units, until it is known; and the values that stand for that among
those seen. More of them learn it later, and few that lie decide it less."""


def averaged(before: float | None, new: float) -> float:
    """The moving average `before` with what the newest round came to; None is none yet."""
    return new if before is None else MEMORY * before + (1 - MEMORY) * new


def unit(moved: float | None, length: float) -> float:
    """What distances to a model of that Euclidean `length` are measured in, where a round moves it by `moved`."""
    return max(moved or 0.0, LEAST * length, 1e-12)


def usual(seen: Iterable[float]) -> float:
    """The median of what was `seen` of others, in these units, steadied while that is little."""
    return median([*seen, *[PRIOR] * PRIOR_COUNT])
