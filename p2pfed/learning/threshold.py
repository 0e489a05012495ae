"""Above which score a payment is an alert."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from p2pfed.config import ThresholdSection
from p2pfed.errors import DataError
from p2pfed.learning.metrics import curve

Kind = Literal["max_f1", "percentile", "alerts_per_day"]

DEFAULT_PERCENTILE = 98.0
LEAST_FRAUDS = 5
"""With fewer validation frauds `max_f1` follows the worst of them. Of 60 draws from normal scores 1.5 deviations apart,
1 % frauds, the tenth with most alerts has 46 % of all payments above the threshold with one fraud, 15 % with three, 4 %
with five; from five on its F1 is also the percentile's or better."""


def settle(
    section: ThresholdSection, model: Literal["mlp", "autoencoder"], legitimate_per_day: float
) -> ThresholdSection:
    """The section with the model's defaults filled in: `max_f1` for the MLP, percentile 98 for the autoencoder.

    Raises DataError if an alert budget is asked for but the rows have no time (`legitimate_per_day` is 0).
    """
    kind = section.kind or ("max_f1" if model == "mlp" else "percentile")
    value = DEFAULT_PERCENTILE if kind == "percentile" and section.value is None else section.value
    if kind == "alerts_per_day" and legitimate_per_day <= 0:
        raise DataError(
            "learning.threshold asks for alerts_per_day, but the validation rows do not say how many payments a day "
            "there are: name data.event_time, or choose max_f1 or percentile"
        )
    return ThresholdSection(kind=kind, value=value)


def note(kind: Kind, frauds: int) -> str:
    """That so few validation frauds do not choose the threshold that is asked for; empty if they do."""
    if kind != "max_f1" or frauds >= LEAST_FRAUDS:
        return ""
    return (
        f"{frauds} validation {'row is' if frauds == 1 else 'rows are'} fraud, and max_f1 needs {LEAST_FRAUDS}: the "
        f"threshold is percentile {DEFAULT_PERCENTILE:g} of the legitimate scores"
    )


def choose(kind: Kind, value: float | None, scores: ArrayLike, labels: ArrayLike, legitimate_per_day: float) -> float:
    """The threshold for validation `scores` [n] and `labels` [n]; payments strictly above it are alerts.

    `percentile` is over legitimate scores; `alerts_per_day` the lowest that gives at most `value` false alerts among
    `legitimate_per_day` payments; `max_f1` lies half-way between the best cut and the score below it; with fewer
    than `LEAST_FRAUDS` frauds percentile 98 takes its place. Without legitimate rows every score is an alert. Raises
    ValueError without rows.
    """
    values, fraud = np.asarray(scores, np.float64), np.asarray(labels) > 0.5
    if not len(values):
        raise ValueError("a threshold needs at least one validation row")
    if fraud.all():
        return float(values.min() - 1)
    if kind == "max_f1" and fraud.sum() >= LEAST_FRAUDS:
        return _max_f1(values, fraud)
    legitimate = values[~fraud]
    share = DEFAULT_PERCENTILE / 100
    if kind == "percentile" and value is not None:
        share = value / 100
    elif kind == "alerts_per_day" and value is not None:
        share = 1 - min(1.0, value / legitimate_per_day)
    # "higher" takes a score that occurs, so that no more than the wanted share lies strictly above it
    return float(np.quantile(legitimate, share, method="higher"))


def _max_f1(values: np.ndarray, fraud: np.ndarray) -> float:
    points = curve(values, fraud)
    f1 = 2 * points.caught / (points.caught + points.false + points.caught[-1])
    best = int(np.argmax(f1))
    if best + 1 == len(points.cuts):
        return float(points.cuts[best] - 1)
    return float((points.cuts[best] + points.cuts[best + 1]) / 2)
