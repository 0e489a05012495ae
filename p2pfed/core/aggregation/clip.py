"""The default rule, and the one with a fixed radius that it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from p2pfed.core.aggregation.geometry import Doubles, copies, moves_to, norm, within
from p2pfed.core.aggregation.rule import Candidate, Memoryless, Merged, memory_of, with_memory
from p2pfed.core.record import added
from p2pfed.core.training_scale import TrainingScale, usual
from p2pfed.core.weights import Vector


@dataclass(frozen=True)
class _ClipState:
    ratios: tuple[tuple[float, ...], ...]
    own: float | None = added()
    """How far training moves this node: only in what was written while the rule kept that itself."""


class Clip:
    """Self-centred clipping with a radius in units of the node's own training; needs no guess of how many attack.

    ClippedGossip (He, Karimireddy, Jaggi 2022, arXiv 2202.01545, eq. 5) with its radius tau replaced by
    own * clip(m, 3, 6), where `own` is how far a round of local training moves this node (`TrainingScale`) and m the
    median of recent distances to peers in units of it. The lower bound matters: a pure median lets senders of near
    copies of this node's model shrink the radius until honest banks no longer mix. One merge moves the model at most
    tau * (1 - own weight) <= 6 * own, whatever arrives.
    """

    name = "clip"

    RADIUS = (3.0, 6.0)  # limits of tau / own
    REFERENCE = (2.0, 4.0)  # limits of the scale for duplicates / own
    WINDOW = 8  # merges whose distances are remembered
    IDLE = 0.3  # nearer than this (in own) says nothing of how far honest peers are
    COPY = 0.25  # models within this share of the reference have one vote together
    FAR_SHARE, FAR_WEIGHT = 0.17, 1 / 3  # share of candidates that count as far, and what is left of their weight
    SAMPLE_LIMITS = (0.5, 2.0)  # of the factor by training rows: a liar gains at most 2

    def __init__(self) -> None:
        self._training = TrainingScale()
        self._ratios: list[tuple[float, ...]] = []

    def measure_by(self, training: TrainingScale) -> None:
        """See `KnowsTraining`."""
        self._training = training

    def note_training(self, before: Vector, after: Vector) -> None:
        """Forget distances in a unit that was forgotten; how far it moved this node the scale knows already."""
        if self._training.renewed:
            self._ratios = []

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """own + sum_j w_j * min(1, tau / d_j) * (x_j - own), with the weights of `_weigh`."""
        if not candidates:
            return Merged(own, {}, 0.0)
        candidates = sorted(candidates, key=lambda c: c.member)
        moves, distances = moves_to(own, [c.vector for c in candidates])
        scale = self._training.unit(own)
        spread = self._spread(distances / scale, candidates)
        weights = self._weigh(rows, candidates, moves, distances, scale * within(spread, self.REFERENCE))
        tau = scale * within(spread, self.RADIUS)
        kept = tau / np.maximum(distances, tau)
        move: Vector = (weights * kept).astype(np.float32) @ moves
        members = [c.member for c in candidates]
        shares = dict(zip(members, weights.tolist(), strict=True))
        return Merged(own + move, shares, norm(move), dict(zip(members, kept.tolist(), strict=True)))

    def state(self) -> bytes:
        """Remembered distances, as JSON."""
        return with_memory(self.name, _ClipState(tuple(self._ratios)))

    def restore(self, state: bytes) -> None:
        """Go on from `state()`, unless another rule wrote it; raises StateCorrupt.

        An earlier version wrote its own scale into it, which counts where the node's reputation has remembered none.
        """
        if (memory := memory_of(self.name, _ClipState, state)) is not None:
            self._ratios = list(memory.ratios)
            if self._training.moved is None:
                self._training.moved = memory.own

    def _spread(self, ratios: Doubles, candidates: Sequence[Candidate]) -> float:
        """Median distance of recent merges in own scales; each version counts once, and near copies do not."""
        seen = zip(ratios.tolist(), candidates, strict=True)
        fresh = (ratio for ratio, c in seen if c.waited == 0 and ratio >= self.IDLE)
        self._ratios = [*self._ratios[1 - self.WINDOW :], tuple(fresh)]
        return usual(r for merge in self._ratios for r in merge)

    def _weigh(
        self, rows: int, candidates: Sequence[Candidate], moves: Vector, distances: Doubles, reference: float
    ) -> Doubles:
        """Shares of the candidates: by rows, halved by waiting, less for the farthest, one vote among copies."""
        k = len(candidates)
        counts = [max(c.rows, 1) for c in candidates]
        usual = median([*counts, max(rows, 1)])
        by_rows = [within(math.sqrt(count / usual), self.SAMPLE_LIMITS) for count in counts]
        by_age = [1 / math.sqrt(1 + c.waited) for c in candidates]
        weights = np.array([c.trust * share * part for c, share, part in zip(candidates, by_rows, by_age, strict=True)])
        weights[np.argsort(-distances, kind="stable")[: int(self.FAR_SHARE * k)]] *= self.FAR_WEIGHT
        weights /= copies(moves, distances, self.COPY * reference)
        weights /= 1 + k
        # The node itself keeps at least the share that a plain average would give it.
        most, total = k / (1 + k), weights.sum()
        return weights if total <= most else np.asarray(weights * (most / total))


class Clipped(Memoryless):
    """Self-centred clipping with a fixed radius: what the default rule is without its own scale.

    ClippedGossip (He, Karimireddy, Jaggi 2022, arXiv 2202.01545, eq. 5) with equal weights and a given tau: x_i + sum_j
    clip(x_j - x_i, tau) / (1 + k). It needs no number of attackers, but the radius: one that fits the first rounds
    stops models from mixing or lets anything pass in later ones, and the paper's own choice of it needs the honest set.
    """

    name = "clipped"

    def __init__(self, radius: float = 1.0) -> None:
        """`radius`: as far as one model may be taken to be, Euclidean; raises ValueError unless it is above 0."""
        if not 0 < radius < math.inf:
            raise ValueError(f"the radius must be above 0 and finite, not {radius}")
        self.radius = radius

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """own + sum_j min(1, tau / d_j) * (x_j - own) / (1 + k)."""
        if not candidates:
            return Merged(own, {}, 0.0)
        candidates = sorted(candidates, key=lambda c: c.member)
        moves, distances = moves_to(own, [c.vector for c in candidates])
        share = 1.0 / (1 + len(candidates))
        kept = self.radius / np.maximum(distances, self.radius)
        move: Vector = (share * kept).astype(np.float32) @ moves
        ways = {c.member: float(part) for c, part in zip(candidates, kept, strict=True)}
        return Merged(own + move, {c.member: share for c in candidates}, norm(move), ways)
