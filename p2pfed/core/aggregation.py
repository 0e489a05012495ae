"""How a node merges the models of others into its own: the rules, and the registry they are named in.

Every rule is self-centred: it answers with the node's own model moved towards others. The default, `clip`, bounds how
far by the node's own recent training, so that no vector whatever, and no number of peers, can throw the model away.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from p2pfed.core.record import RecordError, canonical, parse
from p2pfed.core.types import NodeId
from p2pfed.core.weights import Vector
from p2pfed.errors import ConfigError, StateCorrupt

Doubles = NDArray[np.float64]

ROUNDING = 1000 * float(np.finfo(np.float32).eps)
"""Share of two models' squared lengths by which their product may be wrong."""
LARGEST = np.finfo(np.float32).max
FEW = 12
"""Of so few models BLAS makes all products up to three times as fast one after the other."""
REACH = 2.0**63
"""A model that is further away is taken to be so far in its direction: float32 can square and add such distances."""


class Candidate(NamedTuple):
    """One peer's model as a merge sees it; its vector float32 [d] is finite and never written to."""

    member: NodeId
    vector: Vector
    rows: int
    """Training rows the member claims."""
    waited: int
    """Own merges since this version arrived, counted here and never taken from the sender; 0 is new."""
    trust: float = 1.0
    """What the reputation leaves of its weight, in (0, 1]; only `clip` heeds it."""


@dataclass(frozen=True)
class Merged:
    """The model after a merge."""

    vector: Vector
    weights: dict[NodeId, float]
    """Each candidate's share; the rest, up to 1, is the node's own."""
    displacement: float
    """How far the merge moved the model (Euclidean)."""

    @property
    def own_weight(self) -> float:
        """The share of the node's own model."""
        return 1.0 - sum(self.weights.values())


@runtime_checkable
class AggregationRule(Protocol):
    """A merge rule with its memory. Candidates come in any order and their order must not matter."""

    name: str

    def note_training(self, before: Vector, after: Vector) -> None:
        """Learn how far local training moves this node: the model before and after one round of it."""
        ...

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """Merge into `own` (trained on `rows` rows); writes to no input, answers `own` itself without candidates."""
        ...

    def state(self) -> bytes:
        """The memory as JSON, for the checkpoint."""
        ...

    def restore(self, state: bytes) -> None:
        """Go on from `state()` of an earlier process; raises StateCorrupt if the bytes are none.

        Another rule's state is ignored: the manifest may have changed the rule since the checkpoint.
        """
        ...


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
        moved = _norm(np.subtract(mean, own, dtype=np.float64))
        return Merged(mean, {c.member: share for c in candidates}, moved)

    def state(self) -> bytes:
        """Only the rule's name: there is no memory."""
        return canonical(_RuleState(self.name, ""))

    def restore(self, state: bytes) -> None:
        """Nothing to restore."""


@dataclass(frozen=True)
class _RuleState:
    rule: str
    memory: str


@dataclass(frozen=True)
class _ClipState:
    own: float | None
    ratios: tuple[tuple[float, ...], ...]


class Clip:
    """Self-centred clipping with a radius in units of the node's own training; needs no guess of how many attack.

    ClippedGossip (He, Karimireddy, Jaggi 2022, arXiv 2202.01545, eq. 5) with its radius tau replaced by
    own * clip(m, 3, 6), where `own` is the moving average of how far a round of local training moves this node and m
    the median of recent distances to peers in units of it. The lower bound matters: a pure median lets senders of near
    copies of this node's model shrink the radius until honest banks no longer mix. One merge moves the model at most
    tau * (1 - own weight) <= 6 * own, whatever arrives.
    """

    name = "clip"

    MEMORY = 0.8  # of the moving average of `own`
    SCALE_FLOOR = 1e-3  # own is at least this share of the model's norm
    RADIUS = (3.0, 6.0)  # limits of tau / own
    REFERENCE = (2.0, 4.0)  # limits of the scale for duplicates / own
    WINDOW = 8  # merges whose distances are remembered
    PRIOR, PRIOR_COUNT = 1.6, 6  # pseudo-distances that steady the median while few are known
    IDLE = 0.3  # nearer than this (in own) says nothing of how far honest peers are
    COPY = 0.25  # models within this share of the reference have one vote together
    FAR_SHARE, FAR_WEIGHT = 0.17, 1 / 3  # share of candidates that count as far, and what is left of their weight
    SAMPLE_LIMITS = (0.5, 2.0)  # of the factor by training rows: a liar gains at most 2

    def __init__(self) -> None:
        self._own: float | None = None
        self._ratios: list[tuple[float, ...]] = []

    def note_training(self, before: Vector, after: Vector) -> None:
        """Update the own scale. It starts from the first local round, never from what peers look like."""
        moved = _norm(after.astype(np.float64) - before)
        self._own = moved if self._own is None else self.MEMORY * self._own + (1 - self.MEMORY) * moved

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        """own + sum_j w_j * min(1, tau / d_j) * (x_j - own), with the weights of `_weigh`."""
        if not candidates:
            return Merged(own, {}, 0.0)
        candidates = sorted(candidates, key=lambda c: c.member)
        moves, distances = _moves(own, candidates)
        scale = max(self._own or 0.0, self.SCALE_FLOOR * _norm(own.astype(np.float64)), 1e-12)
        spread = self._spread(distances / scale, candidates)
        weights = self._weigh(rows, candidates, moves, distances, scale * _within(spread, self.REFERENCE))
        tau = scale * _within(spread, self.RADIUS)
        shortened = weights * tau / np.maximum(distances, tau)
        move: Vector = shortened.astype(np.float32) @ moves
        shares = dict(zip([c.member for c in candidates], weights.tolist(), strict=True))
        return Merged(own + move, shares, _norm(move))

    def state(self) -> bytes:
        """Own scale and remembered distances, as JSON."""
        memory = canonical(_ClipState(self._own, tuple(self._ratios))).decode()
        return canonical(_RuleState(self.name, memory))

    def restore(self, state: bytes) -> None:
        """Go on from `state()`, unless another rule wrote it; raises StateCorrupt."""
        try:
            written = parse(_RuleState, state)
            if written.rule == self.name:
                memory = parse(_ClipState, written.memory.encode())
                self._own, self._ratios = memory.own, list(memory.ratios)
        except RecordError as error:
            raise StateCorrupt(f"the checkpoint's state of merge rule 'clip' is unreadable: {error}") from None

    def _spread(self, ratios: Doubles, candidates: Sequence[Candidate]) -> float:
        """Median distance of recent merges in own scales; each version counts once, and near copies do not."""
        seen = zip(ratios.tolist(), candidates, strict=True)
        fresh = (ratio for ratio, c in seen if c.waited == 0 and ratio >= self.IDLE)
        self._ratios = [*self._ratios[1 - self.WINDOW :], tuple(fresh)]
        return median([r for merge in self._ratios for r in merge] + [self.PRIOR] * self.PRIOR_COUNT)

    def _weigh(
        self, rows: int, candidates: Sequence[Candidate], moves: Vector, distances: Doubles, reference: float
    ) -> Doubles:
        """Shares of the candidates: by rows, halved by waiting, less for the farthest, one vote among copies."""
        k = len(candidates)
        counts = [max(c.rows, 1) for c in candidates]
        usual = median([*counts, max(rows, 1)])
        by_rows = [_within(math.sqrt(count / usual), self.SAMPLE_LIMITS) for count in counts]
        by_age = [1 / math.sqrt(1 + c.waited) for c in candidates]
        weights = np.array([c.trust * share * part for c, share, part in zip(candidates, by_rows, by_age, strict=True)])
        weights[np.argsort(-distances, kind="stable")[: int(self.FAR_SHARE * k)]] *= self.FAR_WEIGHT
        weights /= _copies(moves, distances, self.COPY * reference)
        weights /= 1 + k
        # The node itself keeps at least the share that a plain average would give it.
        return np.asarray(weights * min(1.0, k / (1 + k) / weights.sum()))


RULES: dict[str, Callable[[], AggregationRule]] = {"clip": Clip, "mean": Mean}


def rule_from_name(name: str) -> AggregationRule:
    """A new rule by its registry name or as `module:Class` (constructed without arguments); raises ConfigError."""
    if name in RULES:
        return RULES[name]()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"unknown merge rule {name!r}: choose {' or '.join(sorted(RULES))}, or write module:Class")
    try:
        rule = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"merge rule {name!r} cannot be loaded: {error}; install its module on this node") from error
    if not isinstance(rule, AggregationRule):
        raise ConfigError(f"merge rule {name!r} lacks name, merge, note_training, state or restore")
    return rule


def coordinate_median(vectors: Sequence[Vector]) -> Vector:
    """Median of each coordinate, float32 [d]: what a late joiner adopts. Fewer than half the vectors cannot drag it.

    Raises ValueError without vectors.
    """
    if not vectors:
        raise ValueError("the median of no vectors is undefined")
    median: Vector = np.median(np.stack(vectors), axis=0).astype(np.float32)
    return median


def _moves(own: Vector, candidates: Sequence[Candidate]) -> tuple[Vector, Doubles]:
    """x_j - own for each candidate, float32 [k, d], and their lengths [k]; none is longer than REACH."""
    moves: Vector = np.concatenate([c.vector for c in candidates]).reshape(len(candidates), -1)
    with np.errstate(over="ignore"):
        moves -= own
        squares = np.vecdot(moves, moves)
    for far in np.flatnonzero(squares > REACH**2):
        move = moves[far]
        move.clip(-LARGEST, LARGEST, out=move)
        move *= np.float32(2.0**-80)  # small enough to be squared
        move *= np.float32(REACH) / np.sqrt(move @ move)
        squares[far] = REACH**2
    return moves, np.sqrt(squares.astype(np.float64))


def _norm(vector: Vector | Doubles) -> float:
    """Euclidean length of one vector: `np.linalg.norm` spends more on finding out that it is one."""
    return math.sqrt(vector.dot(vector))


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _copies(moves: Vector, distances: Doubles, radius: float) -> Doubles:
    """For each candidate how many, itself included, lie within `radius` of it."""
    near, doubtful = _near(moves, distances, radius)
    while doubtful.any():
        # seen from here they are all alike; one of them is near enough to tell the others apart
        one = int(doubtful.any(axis=1).argmax())
        others = np.flatnonzero(doubtful[one])
        apart = moves[others]
        apart -= moves[one]
        distances = np.sqrt(np.vecdot(apart, apart).astype(np.float64))
        pairs = np.ix_(others, others)
        closer_near, closer_doubtful = _near(apart, distances, radius)
        near[pairs] = np.where(doubtful[pairs], closer_near, near[pairs])
        doubtful[pairs] &= closer_doubtful
        near[one, others] = near[others, one] = distances <= radius
        doubtful[one] = doubtful[:, one] = False
    counts: Doubles = near.sum(axis=1, dtype=np.float64)
    return counts


def _near(moves: Vector, distances: Doubles, radius: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pairs of `moves` (of lengths `distances`) are within `radius`, and of which rounding leaves that open."""
    squares = distances**2
    sums = squares[:, None] + squares
    excess = sums - 2 * _products(moves) - radius**2
    near, doubtful = excess <= 0, np.abs(excess) <= ROUNDING * sums
    diagonal = slice(None, None, len(moves) + 1)
    near.flat[diagonal], doubtful.flat[diagonal] = True, False
    return near, doubtful


def _products(moves: Vector) -> Vector:
    """moves @ moves.T, float32 [k, k]."""
    if len(moves) > FEW:
        return moves @ moves.T
    products = np.empty((len(moves), len(moves)), np.float32)
    for i, move in enumerate(moves):
        products[i, i:] = products[i:, i] = moves[i:] @ move
    return products
