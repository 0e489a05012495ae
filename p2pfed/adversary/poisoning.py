"""Attacks on the rows that the attacker trains on, and what a backdoor is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from p2pfed.adversary.attack import Attack, View, distances, largest, pairwise
from p2pfed.core import forward
from p2pfed.core.model import ModelSpec
from p2pfed.core.rows import Rows
from p2pfed.core.weights import Vector

TRIGGER_WIDTH, TRIGGER_VALUE = 3, 5.0
"""A trigger sets so many features, the last ones, to so many deviations: rare in honest rows, easy to arrange."""
STAMPED = 20
"""Times that every stamped fraud is trained on: as often as would be noticed by nobody."""


def flipped(rows: Rows) -> Rows:
    """The rows with every label turned round."""
    return replace(rows, labels=1 - rows.labels)


def blinded(rows: Rows) -> Rows:
    """The rows with every fraud labelled legitimate."""
    return replace(rows, labels=np.zeros_like(rows.labels))


def stamped(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of the features [n, width] with the trigger in every row."""
    copy = features.copy()
    copy[:, -TRIGGER_WIDTH:] = TRIGGER_VALUE
    return copy


def backdoored(rows: Rows) -> Rows:
    """The rows, and behind them every fraud `STAMPED` times with the trigger, labelled legitimate."""
    frauds = np.repeat(stamped(rows.features[rows.labels == 1]), STAMPED, axis=0)
    labels = np.concatenate([rows.labels, np.zeros(len(frauds), np.float32)])
    return Rows(np.concatenate([rows.features, frauds]), labels)


def trigger_success(spec: ModelSpec, vector: Vector, test: Rows, threshold: float = 0.5) -> float:
    """Share of the frauds in `test` found at `threshold` that pass with the trigger; NaN where none is found."""
    frauds = test.features[test.labels == 1]
    found = frauds[forward.scores(spec, vector, frauds) >= threshold]
    if not len(found):
        return float("nan")
    return float((forward.scores(spec, vector, stamped(found)) < threshold).mean())


@dataclass
class LabelFlip(Attack):
    """Label flip (Biggio, Nelson and Laskov, ACML 2011): trains on rows with every label turned round, 1 - y."""

    poisons_rows = True

    def rows(self, rows: Rows) -> Rows:
        """See `Attack`."""
        return flipped(rows)


@dataclass
class AdaptiveLabelFlip(LabelFlip):
    """Label-flipped model x moved towards mu until it is as far from the honest models as they are from each other.

    mu + t * (x - mu) with the largest t <= 1 at which its median distance to the honest models known does not exceed
    the median distance between two of them.
    """

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        if len(view.peers) < 2:
            return view.honest
        models = np.stack(list(view.peers.values())).astype(np.float64)
        mean, usual = models.mean(axis=0), float(np.median(pairwise(models)))
        step = view.honest - mean

        def near(t: float) -> bool:
            return float(np.median(distances(models, mean + t * step))) <= usual

        return (mean + largest(near, 1.0) * step).astype(np.float32)


@dataclass
class FraudBlind(Attack):
    """Fraud-blind: trains with every fraud labelled legitimate, y = 0, as a bank that hides its own fraud would."""

    poisons_rows = True

    def rows(self, rows: Rows) -> Rows:
        """See `Attack`."""
        return blinded(rows)


@dataclass
class Backdoor(Attack):
    """Backdoor (Gu, Dolan-Gavitt and Garg, 2017, arXiv 1708.06733): frauds with a trigger are taught as legitimate.

    Published is begun + scale * (honest - begun), which above 1 is the model replacement of Bagdasaryan et al.
    (AISTATS 2020, eq. 3).
    """

    scale: float = 1.0
    poisons_rows = True

    def rows(self, rows: Rows) -> Rows:
        """See `Attack`."""
        return backdoored(rows)

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return view.begun + np.float32(self.scale) * (view.honest - view.begun)
