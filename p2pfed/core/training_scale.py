"""How far is far: lengths that nothing overflows, and what a round of own training does, which others are measured in.

That is the unit of the clip's radius and of all evidence about others.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.weights import Vector

REACH = 2.0**60
"""What is farther counts as so far away, in its direction; no model that learned anything is. float32 can square and
add such distances, and those between two such models. Where all is reckoned in float64, as the rules of the literature
do, nothing that float32 holds overflows."""

MEMORY = 0.8
"""Of the moving averages of own training, a round. Higher follows a learning rate that decays more slowly."""
LEAST = 1e-3
"""A round moves at least this share of the model's norm: who has learned all it can must not find everybody far."""

PRIOR, PRIOR_COUNT = 1.6, 6
"""What others are usually from this node, in these units, until it is known; and the values that stand for that among
those seen. More of them learn it later, and few that lie decide it less."""


def lengths(moves: NDArray[np.float32 | np.float64]) -> NDArray[np.float64]:
    """Euclidean lengths of `moves` [..., d], at most REACH, which infinite ones have."""
    with np.errstate(over="ignore"):
        squares = np.vecdot(moves, moves)
    found: NDArray[np.float64] = np.minimum(np.sqrt(squares, dtype=np.float64), REACH)
    return found


def distances(models: NDArray[np.float32 | np.float64], other: Vector) -> NDArray[np.float64]:
    """Of `models` [..., d] to another one [d], at most REACH."""
    with np.errstate(over="ignore"):
        moves = models - other
    return lengths(moves)


def averaged(before: float | None, new: float) -> float:
    """The moving average `before` with what the newest round came to; None is none yet."""
    return new if before is None else MEMORY * before + (1 - MEMORY) * new


def usual(seen: Iterable[float]) -> float:
    """The median of what was `seen` of others, in these units, steadied while that is little."""
    return median([*seen, *[PRIOR] * PRIOR_COUNT])


class TrainingScale:
    """How far a round of local training moves this node: its one value, which the clip and the reputation read."""

    def __init__(self) -> None:
        self.moved: float | None = None
        """Moving average over the rounds that it trained; None before the first."""
        self.renewed = False
        """Whether the newest training was the first after `forget`: what was measured in the unit before is past."""
        self._forgotten = False

    def note(self, before: Vector, after: Vector) -> None:
        """Learn from a round of local training, and never from what peers look like: the model before and after it."""
        self.renewed, self._forgotten = self._forgotten, False
        moved = float(distances(after.astype(np.float64), before))
        self.moved = averaged(None if self.renewed else self.moved, moved)

    def forget(self) -> None:
        """The next training alone says so: what was learned before an absence is of other times."""
        self._forgotten = True

    def unit(self, own: Vector) -> float:
        """What distances to `own` are measured in."""
        return max(self.moved or 0.0, LEAST * float(lengths(own.astype(np.float64))), 1e-12)
