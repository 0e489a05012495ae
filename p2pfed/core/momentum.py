"""A node's movement from round to round: it shows how far others' models lag, and half of it goes on after a merge.

A pulled model was made up to a round and a half ago. Averaging it in drags this node back by what it has learned since,
so candidates are first moved ahead along this node's own movement; only then does the rule see, and bound, them. The
slow momentum after the merge follows the idea of SlowMo (Wang et al. 2020, arXiv 1910.00643).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from p2pfed.core.aggregation import Candidate
from p2pfed.core.training_scale import REACH, lengths
from p2pfed.core.weights import Vector


class Momentum:
    """Moving average of what a round, with its merge, moves this node by; at rest until the first round is done.

    The movement contains past merges, each bounded by the rule. What others send decides how far candidates are moved
    ahead, but never by more than `MOST` movements, and never in another direction.
    """

    MEMORY = 0.7  # of the movement
    LAG_MEMORY = 0.8
    MOST = 2.0  # rounds that a model is moved ahead at most
    PUSH = 0.5  # share of the movement that goes on after a merge

    def __init__(self) -> None:
        self._movement: Vector | None = None
        self._lag = 0.0

    def state(self) -> bytes:
        """What a restart goes on with: the lag as a float64, then the movement as float32 [d]; empty at rest."""
        if self._movement is None:
            return b""
        return np.array([self._lag], "<f8").tobytes() + self._movement.astype("<f4").tobytes()

    def restore(self, state: bytes) -> None:
        """Go on from `state()` of an earlier process; a movement that is not finite is none."""
        if not state:
            return
        lag, movement = float(np.frombuffer(state[:8], "<f8")[0]), np.frombuffer(state[8:], "<f4").astype(np.float32)
        if np.isfinite(lag) and np.isfinite(movement).all():
            self._lag, self._movement = lag, movement

    def ahead(self, own: Vector, candidates: Sequence[Candidate]) -> list[Candidate]:
        """`candidates` moved ahead by the rounds that they lag behind `own`: a new one as the median of new ones does,
        one that has waited by its waiting more. Vectors are float32 [d]; none is written to.
        """
        step = self._movement
        if step is None:
            return list(candidates)
        wide = step.astype(np.float64)  # what a peer may send overflows float32 once it is multiplied
        square = float(wide.dot(wide))
        if square == 0.0:
            return list(candidates)
        here = float(own.dot(wide))
        new = [here - float(c.vector.dot(wide)) for c in candidates if c.waited == 0]
        if new:
            lag = min(max(median(new) / square, 0.0), self.MOST)
            self._lag = self.LAG_MEMORY * self._lag + (1 - self.LAG_MEMORY) * lag
        leads = {
            waited: np.float32(min(self._lag + waited, self.MOST)) * step for waited in {c.waited for c in candidates}
        }
        return [c._replace(vector=c.vector + leads[c.waited]) for c in candidates]

    def push(self, begun: Vector, model: Vector, merged: bool) -> Vector:
        """`model`, moved on by half the usual movement if it was `merged`; the round that ends began at `begun`.

        A movement as long as `REACH`, which no bounded rule makes, is none: the node is at rest again.
        """
        before = np.zeros_like(begun) if self._movement is None else self._movement
        with np.errstate(over="ignore"):
            pushed: Vector = model + np.float32(self.PUSH) * before if merged else model
            movement = np.float32(self.MEMORY) * before + np.float32(1 - self.MEMORY) * (pushed - begun)
        near = lengths(movement) < REACH
        self._movement = movement if near else None
        return pushed if near else model
