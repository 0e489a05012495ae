"""What models say of this bank's own rows: evidence about a peer that needs no word of the peer's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from p2pfed.core import forward
from p2pfed.core.model import ModelSpec
from p2pfed.core.rows import BankRows
from p2pfed.core.weights import Vector

HELD_OUT, FRAUDS = 100, 32
"""Rows that models are looked at with, at most: a forward pass of so many takes a fraction of a millisecond."""
FEW_FRAUDS, SUSPICIOUS = 3, 8
"""With fewer frauds than the first, as many held-out rows as the second stand in for them: those scored highest."""
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

    @classmethod
    def of(cls, rows: BankRows) -> Probe:
        """Evenly spread rows of `validation`, and frauds of `train`."""
        frauds = rows.train.features[rows.train.labels == 1]
        held_out, labels = (_spread(of, HELD_OUT) for of in (rows.validation.features, rows.validation.labels))
        return cls(held_out.ravel(), _spread(frauds, FRAUDS).ravel(), labels)

    @cached_property
    def _rows(self) -> Vector:
        return np.concatenate([self.held_out, self.frauds])

    def scores(self, spec: ModelSpec, vectors: Sequence[Vector]) -> Scores:
        """What k models say of the held-out rows and, behind them, of the frauds; float64 [k, n + m].

        Where weights are too large to compute with, a model says the opposite of anybody: infinity.
        """
        rows = self._rows.reshape(-1, spec.inputs)
        models = np.concatenate([rows[:0].ravel(), *vectors]).reshape(len(vectors), spec.schema().size)
        said = forward.scores_of_each(spec, models, rows).astype(np.float64)
        said[~np.isfinite(said)] = np.inf
        return said

    def loss(self, spec: ModelSpec, vector: Vector) -> float:
        """Mean log loss of the model, frauds and legitimate rows counting alike; of autoencoders the legitimate error.

        Infinity where weights are too large to compute with, 0 for every model where labels are not known.
        """
        if len(self.labels) == 0:
            return 0.0
        said = self.scores(spec, [vector])[0]
        if np.isinf(said).any():
            return math.inf
        fraud = np.concatenate([self.labels == 1, np.ones(len(said) - len(self.labels), bool)])
        if spec.kind != "mlp":
            return float(said[~fraud].mean()) if not fraud.all() else 0.0
        losses = -np.log(np.maximum(np.where(fraud, said, 1 - said), LEAST))
        return float(np.mean([losses[kind].mean() for kind in (fraud, ~fraud) if kind.any()]))

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
        """Mean fraud probability that `own` and each of `others` give this bank's frauds, or what stands in for them.

        All 1 of autoencoders, which give no probability, and without any rows.
        """
        n = len(self.held_out) // spec.inputs
        rows = np.arange(n, len(own))
        if len(rows) < FEW_FRAUDS:
            rows = np.argsort(-own[:n], kind="stable")[:SUSPICIOUS]
        if len(rows) == 0 or spec.kind != "mlp":
            return 1.0, np.ones(len(others))
        said, mine = others[:, rows], own[rows]
        said[np.isinf(said)] = mine[np.isinf(mine)] = 0.0
        return float(mine.mean()), said.mean(axis=1)


def _spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
