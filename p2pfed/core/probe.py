"""What models say of this bank's own rows: evidence about a peer that needs no word of the peer's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p2pfed.core import forward
from p2pfed.core.model import ModelSpec
from p2pfed.core.rows import BankRows
from p2pfed.core.weights import Vector

HELD_OUT, FRAUDS = 400, 64
"""Rows that models are looked at with, at most: a forward pass of so many takes a fraction of a millisecond."""
FEW_FRAUDS, SUSPICIOUS = 3, 8
"""With fewer frauds than the first, as many held-out rows as the second stand in for them: those scored highest."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """A bank's own scaled rows one after another, float32 [n * inputs]: held-out ones of both kinds, and frauds."""

    held_out: Vector
    frauds: Vector

    @classmethod
    def of(cls, rows: BankRows) -> Probe:
        """Evenly spread rows of `validation`, and frauds of `train`."""
        frauds = rows.train.features[rows.train.labels == 1]
        return cls(_spread(rows.validation.features, HELD_OUT).ravel(), _spread(frauds, FRAUDS).ravel())

    def scores(self, spec: ModelSpec, vector: Vector) -> Scores:
        """What the model says of the held-out rows and, behind them, of the frauds; float64 [n + m].

        Where weights are too large to compute with, it says the opposite of anybody: infinity.
        """
        rows = np.concatenate([self.held_out, self.frauds]).reshape(-1, spec.inputs)
        said = forward.scores(spec, vector, rows).astype(np.float64)
        return np.where(np.isfinite(said), said, np.inf)

    def disagreement(self, spec: ModelSpec, own: Scores, other: Scores) -> float:
        """Mean absolute difference over the held-out rows, at most 1; of autoencoders in units of the usual error."""
        n = len(self.held_out) // spec.inputs
        if n == 0:
            return 0.0
        unit = 1.0 if spec.kind == "mlp" else max(float(np.median(own[:n])), 1e-12)
        return min(float(np.abs(own[:n] - other[:n]).mean()) / unit, 1.0 if spec.kind == "mlp" else 1e6)

    def on_frauds(self, spec: ModelSpec, own: Scores, other: Scores) -> tuple[float, float]:
        """Mean fraud probability that `own` and `other` give this bank's frauds, or what stands in for them."""
        n = len(self.held_out) // spec.inputs
        rows = np.arange(n, len(own))
        if len(rows) < FEW_FRAUDS:
            rows = np.argsort(-own[:n], kind="stable")[:SUSPICIOUS]
        if len(rows) == 0 or spec.kind != "mlp":
            return 0.0, 0.0
        return float(own[rows].mean()), float(np.where(np.isinf(other), 0.0, other)[rows].mean())


def _spread(rows: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
