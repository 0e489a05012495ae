"""What models say of this bank's own rows: evidence about a peer that needs no word of the peer's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from p2pfed.core import forward
from p2pfed.core.model import ModelSpec
from p2pfed.core.rows import BankRows
from p2pfed.core.weights import Vector

HELD_OUT, FRAUDS = 100, 32
"""Rows that models are looked at with, at most: a forward pass of so many takes a fraction of a millisecond."""
FEW_FRAUDS, ENOUGH_FRAUDS = 3, 16
"""So many say nothing yet; a bank with fewer than the second imagines the others."""
IMAGINED, HALVINGS = 640, 6
"""Rows made up to find some that could be frauds, and steps to where the doubt begins."""
LEAST = 1e-7
"""What a model is taken to say at least for what happened: nobody's loss is infinite for one sure mistake."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """A bank's own scaled rows one after another, float32 [n * inputs]: held-out ones of both kinds, and frauds."""

    held_out: Vector
    frauds: Vector
    labels: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    """Of the held-out rows, 1 is fraud, float32 [n]; empty where they are not known."""
    imagined: Vector = field(default_factory=lambda: np.zeros(0, np.float32))
    """Rows that could be frauds, for a bank that has few: see `imagining`."""

    @classmethod
    def of(cls, rows: BankRows) -> Probe:
        """Evenly spread rows of `validation`, and frauds of `train`."""
        frauds = rows.train.features[rows.train.labels == 1]
        held_out, labels = (_spread(of, HELD_OUT) for of in (rows.validation.features, rows.validation.labels))
        return cls(held_out.ravel(), _spread(frauds, FRAUDS).ravel(), labels)

    @cached_property
    def _rows(self) -> Vector:
        return np.concatenate([self.held_out, self.frauds, self.imagined])

    def imagining(self, spec: ModelSpec, own: Vector, rng: np.random.Generator) -> Probe:
        """With imagined frauds where real ones are few: what others say of these shows as well what they know.

        They are held-out rows with some columns changed so far that `own` (float32 [d]) begins to take them for fraud:
        of rows beyond doubt a model without any notion of fraud, which merges all the same, is nearly as sure. There
        are none while `own` hardly tells rows apart, nor if half of those wanted are not found.
        """
        missing = ENOUGH_FRAUDS - len(self.frauds) // spec.inputs
        if missing <= 0 or len(self.held_out) == 0 or spec.kind != "mlp":
            return self
        held_out = self.held_out.reshape(-1, spec.inputs)
        said = forward.scores(spec, own, held_out)
        if np.median(said) > 0.125:
            return replace(self, imagined=held_out[:0].ravel())
        drawn = rng.integers(len(held_out), size=IMAGINED)
        near = held_out[drawn]
        far = near + 4 * rng.standard_normal(near.shape, np.float32) * (rng.random(near.shape, np.float32) < 0.5)
        crossed = np.flatnonzero((said[drawn] < 0.5) & (forward.scores(spec, own, far) >= 0.5))[:missing]
        if len(crossed) < missing / 2:  # a few rows may happen to be some that honest banks disagree about
            return replace(self, imagined=held_out[:0].ravel())
        near, far = near[crossed], far[crossed]
        for _ in range(HALVINGS):
            middle = np.float32(0.5) * (near + far)
            fraud = forward.scores(spec, own, middle)[:, None] >= 0.5
            near, far = np.where(fraud, near, middle), np.where(fraud, middle, far)
        return replace(self, imagined=far.ravel())

    def scores(self, spec: ModelSpec, vectors: NDArray[np.float32]) -> Scores:
        """What k models [k, d] say of held-out rows and, behind them, of real and imagined frauds; float64 [k, n + m].

        Where weights are too large to compute with, a model says the opposite of anybody: infinity.
        """
        rows = self._rows.reshape(-1, spec.inputs)
        said = forward.scores_of_each(spec, vectors, rows).astype(np.float64)
        said[~np.isfinite(said)] = np.inf
        return said

    def loss(self, spec: ModelSpec, vector: Vector) -> float:
        """Mean log loss of the model, frauds and legitimate rows counting alike; of autoencoders the legitimate error.

        Infinity where weights are too large to compute with, 0 for every model where labels are not known.
        """
        if len(self.labels) == 0:
            return 0.0
        real = (len(self.held_out) + len(self.frauds)) // spec.inputs
        said = self.scores(spec, vector[None])[0][:real]
        if np.isinf(said).any():
            return math.inf
        fraud = np.concatenate([self.labels == 1, np.ones(len(said) - len(self.labels), bool)])
        if spec.kind != "mlp":
            return float(said[~fraud].mean()) if not fraud.all() else 0.0
        losses = -np.log(np.maximum(np.where(fraud, said, 1 - said), LEAST))
        return float(np.mean([losses[kind].mean() for kind in (fraud, ~fraud) if kind.any()]))

    def at_own_rate(self, spec: ModelSpec, own: Scores, others: Scores, told: Scores) -> Scores:
        """`others` [k, n + m] as their models would judge if their banks had as many frauds as this one.

        Another base rate changes the log odds of every row by the same number (Saerens, Latinne and Decaestecker 2002,
        eq. 2.4): the median difference to `own` [n + m] on the held-out rows is taken off, as far as it lies between 0
        and what the banks told, `told` [k] in log odds. Autoencoders know no rate.
        """
        n = len(self.held_out) // spec.inputs
        if n == 0 or spec.kind != "mlp" or not told.any():
            return others
        odds = _log_odds(others)
        shift = np.median(odds[:, :n] - _log_odds(own[:n]), axis=1).clip(np.minimum(told, 0), np.maximum(told, 0))
        alike: Scores = np.where(np.isfinite(others), 1 / (1 + np.exp(shift[:, None] - odds)), others)
        return alike

    def disagreements(self, spec: ModelSpec, own: Scores, others: Scores) -> Scores:
        """Mean absolute difference of each of `others` [k, n + m] to `own` [n + m] over the held-out rows; float64 [k].

        At most 1; of autoencoders in units of the usual error, and at most a million. What cannot be computed with
        disagrees with everything, itself included.
        """
        n = len(self.held_out) // spec.inputs
        if n == 0:
            return np.zeros(len(others))
        unit, most = (1.0, 1.0) if spec.kind == "mlp" else (max(float(np.median(own[:n])), 1e-12), 1e6)
        with np.errstate(invalid="ignore"):
            apart: Scores = np.abs(others[:, :n] - own[:n]).mean(axis=1) / unit
        return np.fmin(apart, most)

    def recognitions(self, spec: ModelSpec, own: Scores, others: Scores) -> tuple[float, Scores]:
        """Mean fraud probability that `own` and each of `others` give this bank's frauds, real and imagined ones.

        All 1 of autoencoders, which give no probability, and with too few rows.
        """
        n = len(self.held_out) // spec.inputs
        if len(own) - n < FEW_FRAUDS or spec.kind != "mlp":
            return 1.0, np.ones(len(others))
        said, mine = others[:, n:].copy(), own[n:].copy()
        said[np.isinf(said)] = mine[np.isinf(mine)] = 0.0
        return float(mine.mean()), said.mean(axis=1)


def _log_odds(said: Scores) -> Scores:
    likely: Scores = said.clip(LEAST, 1 - LEAST)
    odds: Scores = np.log(likely / (1 - likely))
    return odds


def _spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
