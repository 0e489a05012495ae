"""No merge moves a model beyond its bound, whatever floats arrive and whatever was before; FUZZ_MERGES says how many.

The bound is the reference's: |x_new - x| <= tau * sum_j w_j <= 6 * own * (1 - w_self) with tau = own * clip(m, 3, 6),
where `own` is the moving average of what local training moves the node, m the median of recent distances to peers in
units of it. It is reckoned here again in float64, with room for nothing but float32's rounding. What is merged passes
through `Merging` as in a node: moved ahead by momentum, judged by a reputation with its own rows, clipped, pushed on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import median
from typing import Self, cast

import numpy as np

from p2pfed.core.aggregation import Candidate, Clip, Merged
from p2pfed.core.consortium import Manifest
from p2pfed.core.effects import Effect
from p2pfed.core.inbox import Slot
from p2pfed.core.merging import Merging
from p2pfed.core.model import ModelSpec
from p2pfed.core.probe import Probe
from p2pfed.core.problems import Problems
from p2pfed.core.reputation import Reputation
from p2pfed.core.types import NodeId, Reason
from p2pfed.core.updates import Updates
from p2pfed.core.weights import Vector
from tests.core.heap import make_manifest
from tests.core.test_inbox import update

MERGES = int(os.environ.get("FUZZ_MERGES", "4000"))
LARGEST = np.finfo(np.float32).max
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
REACH = 2.0**60  # nothing counts as farther
HALF_ULP = float(np.finfo(np.float32).eps) / 2
PEERS = [NodeId(f"P{i:02}") for i in range(40)]
SPECIAL = np.array([-LARGEST, -1.0, -1e-45, 0, 1e-45, 1e-38, 1.0, 2.0**63, 2.0**64, LARGEST], np.float32)
EDGES = np.array([0.02, 0.25, 0.3, 1.6, 2, 3, 4, 6])  # own scales at which something changes
SPECS = [
    ModelSpec("mlp", 1, (1,), 0.0),
    ModelSpec("mlp", 3, (2,), 0.0),
    ModelSpec("mlp", 5, (6, 3), 0.0),
    ModelSpec("autoencoder", 2, (1,), 0.0),
]


def length(vector: Vector) -> float:
    """Euclidean, in float64."""
    wide = vector.astype(np.float64)
    return math.sqrt(wide.dot(wide))


def any_bits(rng: np.random.Generator, shape: int | tuple[int, int]) -> Vector:
    """Any float32 but infinities and NaN: each exponent is as likely, those of subnormals too."""
    bits = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isfinite(bits), bits, np.float32(0))


def finite(vectors: Vector) -> Vector:
    """The nearest numbers to infinities, and any to NaN: whatever is not finite is refused before it is merged."""
    return np.fmax(np.fmin(vectors, LARGEST), -LARGEST)


@dataclass
class Slots:
    """What a merge finds of others' updates, in the place of `Updates`."""

    found: list[Candidate] = field(default_factory=list)

    def candidates(self, merges: int, own: int | None = None, any_round: bool = False) -> list[Candidate]:
        return self.found

    def expire(self, merges: int) -> list[Effect]:
        return []

    @property
    def inbox(self) -> Self:
        return self

    def merged(self, members: list[NodeId], number: int) -> None: ...

    def slot(self, member: NodeId) -> Slot:
        return Slot(update(member, 1), 0)


@dataclass
class Watched(Clip):
    """The rule, and beside it the bound of each of its merges, reckoned in float64."""

    rng: np.random.Generator
    usual: float | None = None
    """The moving average of own training."""
    pool: list[list[float]] = field(default_factory=list)
    """Distances of the last 8 merges in own scales."""
    last: tuple[Vector, float] | None = None
    """The newest merged model, and how far it may have come."""
    merges: int = 0
    near: int = 0
    """Merges that moved the model by 99 % of their bound or more."""

    def __post_init__(self) -> None:
        super().__init__()

    def note_training(self, before: Vector, after: Vector) -> None:
        super().note_training(before, after)
        moved = min(float(np.linalg.norm(after.astype(np.float64) - before)), REACH)
        self.usual = moved if self.usual is None else 0.8 * self.usual + 0.2 * moved

    def merge(self, own: Vector, rows: int, candidates: Sequence[Candidate]) -> Merged:
        if self.rng.random() < 0.1:  # a reputation may leave next to nothing
            candidates = [c._replace(trust=c.trust * 10.0 ** -self.rng.uniform(0, 300)) for c in candidates]
        merged = super().merge(own, rows, candidates)
        moves = np.stack([c.vector for c in candidates]).astype(np.float64) - own
        distances = np.minimum(np.linalg.norm(moves, axis=1), REACH)
        scale = max(self.usual or 0.0, 1e-3 * min(length(own), REACH), 1e-12)
        # at the edge float32 may count one that float64 does not; without it the median is no smaller
        near = 0.3 * (1 + 1e-5)
        new = [r for r, c in zip((distances / scale).tolist(), candidates, strict=True) if c.waited == 0 and r >= near]
        self.pool = [*self.pool[-7:], new]
        m = median([*(ratio for merge in self.pool for ratio in merge), *[1.6] * 6])
        weight = sum(merged.weights.values())
        assert min(merged.weights.values()) >= 0 and weight <= len(candidates) / (1 + len(candidates)) + 1e-12
        moved, bound = float(np.linalg.norm(merged.vector.astype(np.float64) - own)), weight * scale * min(max(m, 3), 6)
        # lengths and products are float32's, good to some ulps; then each coordinate of the sum is rounded
        room = bound * 1e-5 + HALF_ULP * length(merged.vector) + SMALLEST * len(own) * len(candidates)
        assert moved <= bound + room, f"{moved} > {bound} + {room}"
        assert bound <= 6 * scale * (1 - merged.own_weight + 1e-15)
        assert abs(merged.displacement - moved) <= room + 1e-5 * moved
        self.last = merged.vector, bound + room
        self.merges, self.near = self.merges + 1, self.near + (moved > 0.99 * (bound + room))
        return merged


@cache
def manifest(number: int) -> Manifest:
    """A consortium for the model of that number."""
    return replace(make_manifest(3), model=SPECS[number])


class Bank:
    """One node's merges, from a start that may be anything."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        agreed = manifest(int(rng.integers(len(SPECS))))
        self.spec, self.slots = agreed.model, Slots()
        self.reputation = Reputation(agreed.model, int(rng.integers(2, 42)), int(rng.integers(2**32)))
        if rng.random() < 0.5:
            rows = rng.standard_normal((8, self.spec.inputs), np.float32)
            self.reputation.yardstick.probe = Probe(rows[: rng.integers(6)].ravel(), rows[rng.integers(3, 8) :].ravel())
        self.merging = Merging(agreed, cast("Updates", self.slots), self.reputation, Problems())
        self.watch(Watched(rng))
        size = agreed.model.schema().size
        self.own = any_bits(rng, size) if rng.random() < 0.1 else rng.standard_normal(size, np.float32)
        self.step, self.movement, self.harm = rng.uniform(-6, 2), 0.0, rng.choice([0.1, 0.3, 0.6, 1.0])
        self.before = self.own[None]
        """What was sent last."""

    def watch(self, rule: Watched) -> None:
        """Merge by this rule."""
        rule.measure_by(self.reputation.yardstick.training)
        self.rule = self.merging.rule = rule

    def train(self) -> Vector:
        """A round's movement: of usual length, or none, or of any magnitude that a float has."""
        fate = self.rng.random()
        if fate < 0.03:  # up or down for good: the scale falls to its floor and rises again
            self.step = self.rng.choice([-np.inf, self.rng.uniform(-44, 17), self.rng.uniform(-6, 2)])
        elif fate < 0.05:
            return any_bits(self.rng, len(self.own)) * np.float32(2.0**-70)
        direction = self.rng.standard_normal(len(self.own), np.float32)
        return direction * np.float32(10.0 ** (self.step + self.rng.uniform(-0.3, 0.3)))

    def models(self, k: int) -> Vector:
        """What k peers send, float32 [k, d]: near as honest ones are, or meant to harm."""
        rng, own, size = self.rng, self.own, len(self.own)
        scale = min(max(self.rule.usual or 0.0, 1e-3 * length(own), 1e-12), 1e30)
        away = rng.standard_normal((k, size), np.float32)
        away /= np.maximum(np.sqrt(np.vecdot(away, away)), 1e-3)[:, None]
        sent = own + np.float32(scale) * rng.uniform(0.5, 2.5, (k, 1)).astype(np.float32) * away
        for i in np.flatnonzero(rng.random(k) < self.harm):
            match rng.integers(12):
                case 0:
                    sent[i] = any_bits(rng, size)
                case 1:
                    sent[i] = rng.choice(SPECIAL, size)
                case 2:
                    sent[i] = -own
                case 3:
                    sent[i] = own
                case 4:
                    sent[i] = np.nextafter(own, np.float32(rng.choice([-np.inf, np.inf])))
                case 5:
                    sent[i] = sent[rng.integers(k)]
                case 6:  # as far as something changes, just within or just beyond
                    at = scale * rng.choice(EDGES) * (1 + 1e-6 * rng.integers(-2, 3))
                    sent[i] = own + np.float32(at) * away[i]
                case 7:
                    sent[i] = np.float32(10.0 ** rng.uniform(-45, 38)) * away[i]
                case 8:  # in one line with another's, at any length
                    sent[i] = own + np.float32(10.0 ** rng.uniform(-12, 12)) * (sent[rng.integers(k)] - own)
                case 9:  # all pull one way
                    sent[i] = own + np.float32(scale * 10.0 ** rng.uniform(-1, 9)) * away[0]
                case 10:
                    sent[i] = self.before[rng.integers(len(self.before))]
                case _:
                    sent[i] = own + any_bits(rng, size)
        self.before = finite(sent)
        return self.before

    def candidates(self) -> list[Candidate]:
        """One to forty members' models, few more often, with whatever rows are claimed."""
        rng = self.rng
        k = int(rng.integers(9, 41) if rng.random() < 0.06 else rng.integers(1, 7))
        senders = rng.permutation(len(PEERS))[:k] if rng.random() < 0.2 else range(k)
        rows = (2.0 ** rng.uniform(0, 50, k)).astype(int) if rng.random() < 0.5 else rng.integers(0, 1000, k)
        waited = rng.integers(-12, 9, k).clip(0)
        sent = self.models(k)
        return [Candidate(PEERS[j], sent[i], int(rows[i]), int(waited[i])) for i, j in enumerate(senders)]

    def round(self) -> None:
        """Train, receive, merge and move on, as `Rounds` does; nothing goes beyond its bound."""
        rng, begun = self.rng, self.own
        with np.errstate(over="ignore"):
            trained = finite(begun + self.train())
        self.merging.note_training(begun, trained)
        self.own, self.rule.last = trained, None
        with np.errstate(over="ignore", invalid="ignore"):
            self.slots.found = self.candidates()
        for c in self.slots.found:
            if c.waited == 0:
                self.reputation.arrived(c.member, c.vector)
        if rng.random() < 0.02:
            self.reputation.offended(PEERS[rng.integers(40)], rng.choice(np.array([*Reason], object)))
        if rng.random() < 0.02:
            self.reputation.pardon(PEERS[rng.integers(40)])
        if rng.random() < 0.01:
            self.restart()
        ended = self.merging.end_round(begun, trained, int(rng.integers(0, 10**6)))
        merged, most = self.rule.last or (trained, 0.0)
        self.pushed(begun, trained, merged, most, ended.vector)
        self.own = ended.vector
        for _ in range(rng.integers(3)):  # as before a node's end, and after an absence
            self.own = self.merging.outside_rounds(self.own, 100).vector

    def pushed(self, begun: Vector, trained: Vector, merged: Vector, most: float, ended: Vector) -> None:
        """Momentum adds half of a moving average of what training and bounded merges did, and no more."""
        assert np.isfinite(ended).all()
        apart = float(np.linalg.norm(ended.astype(np.float64) - merged))
        room = 4 * HALF_ULP * (length(begun) + length(trained) + length(ended)) + 4 * SMALLEST * len(ended)
        assert apart <= 0.5 * self.movement * (1 + 1e-5) + room
        step = float(np.linalg.norm(trained.astype(np.float64) - begun))
        self.movement = 0.7 * self.movement + 0.3 * (step + most + 0.5 * self.movement) + room

    def restart(self) -> None:
        """As a daemon does: rule and reputation go on from what is saved, momentum begins at rest."""
        rule, reputation = self.rule, Reputation(self.spec, self.reputation.members, int(self.rng.integers(2**32)))
        again = Watched(self.rng, rule.usual, rule.pool, merges=rule.merges, near=rule.near)
        reputation.restore(self.reputation.yardstick.scales, self.reputation.peers)
        reputation.yardstick.probe = self.reputation.yardstick.probe
        self.merging = Merging(manifest(SPECS.index(self.spec)), cast("Updates", self.slots), reputation, Problems())
        self.reputation, self.movement = reputation, 0.0
        self.watch(again)
        again.restore(rule.state())


def test_no_merge_moves_a_model_beyond_its_bound() -> None:
    rng, merges, near, quarantined = np.random.default_rng(0), 0, 0, 0
    while merges < MERGES:
        bank = Bank(rng)
        for _ in range(int(rng.integers(1, 80))):
            bank.round()
        merges, near = merges + bank.rule.merges, near + bank.rule.near
        quarantined += len(bank.reputation.quarantine)
    assert near > MERGES / 50 and quarantined > MERGES / 500, "hostile vectors come near, or the test sees nothing"
